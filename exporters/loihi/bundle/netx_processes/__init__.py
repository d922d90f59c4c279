"""Lava processes of a NetX run. This package holds nothing else: Lava executes every file of it."""
