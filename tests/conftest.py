"""What all tests share: no property is judged by the time that an example takes."""

from hypothesis import settings

# The first example may compile kernels, and machines differ.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
