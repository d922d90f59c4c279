"""Simulators: reference (torch, float), fixed-point (integer, fast), interpreter, Lava.

Every simulator takes a graph and gives a :class:`~pspike_deploy.recording.Recording`.
"""
