"""Sweeps: what each choice of register widths costs in accuracy."""
