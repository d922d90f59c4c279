"""Exporters: one folder per target."""
