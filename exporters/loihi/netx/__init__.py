"""``.net`` files: the HDF5 networks that SLAYER writes and NetX runs (lava-dl 0.6.0)."""
