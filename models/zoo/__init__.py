"""Trained networks, each with a card."""
