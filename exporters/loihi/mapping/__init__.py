"""From resource demand to cores and chips."""
