"""Lava processes of a spiking network; nothing else may lie here (Lava runs every file)."""
