"""Export of graphs as ONNX models that run by themselves, step by step or over sequences."""
