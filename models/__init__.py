"""Networks in PyTorch, their checkpoints, data sets and training recipes."""
