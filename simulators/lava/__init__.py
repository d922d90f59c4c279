"""Lava's CPU simulator, run in a child process in an environment of its own."""
