"""Computations whose last bits do not depend on how many threads there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside the block, in torch and in compiled kernels.

    Threads split sums, so their number changes the last bits, and spikes amplify them.
    """
    import numba
    import torch

    # The first of these calls starts numba's threads, which sets OpenMP's number, torch's too.
    compiled = numba.get_num_threads()
    numba.set_num_threads(1)
    torchs = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(compiled)
        torch.set_num_threads(torchs)
