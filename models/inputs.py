"""The check of what goes into a network."""

from __future__ import annotations

from torch import Tensor

from pspike_deploy.errors import PspikeError


def require_sequences(x: Tensor, features: int) -> None:
    """Refuse an input that is not (batch, step, feature) with the features that a network takes.

    Raises:
        PspikeError: ``E-DATA-SHAPE``.
    """
    if x.ndim != 3 or 0 in x.shape or x.shape[-1] != features:
        raise PspikeError(
            "E-DATA-SHAPE",
            "the input must have the shape (batch, step, feature)",
            why=f"found {tuple(x.shape)} of {x.dtype}; the network takes {features} feature(s)",
            fix="reshape the data to what the network takes",
        )
