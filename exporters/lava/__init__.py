"""Export to Lava: a self-contained bundle that runs by itself."""
