"""Fixed-point formats and counter-based noise."""
