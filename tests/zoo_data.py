"""Data for networks of the zoo whose data set is not packaged, from the user's copies."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pspike_deploy.models.spoken_digits import write_spikes

#: Folder with data sets and recordings of originals; absent on most machines.
SHARED = Path(os.environ.get("PSPIKE_SHARED", "absent"))
ZOO = Path(__file__).parent.parent / "models" / "zoo"


def data_of(name: str, folder: Path, *, few: bool = False) -> Path | None:
    """What ``--data`` takes for a network, None where its data set is packaged.

    ``few``: 256 training and 64 test images of MNIST, for quick runs.
    """
    if "mnist" in name:
        whole = SHARED / "data/mnist.npz"
        return _few_images(whole, folder / "mnist.npz") if few else whole
    if "spoken" in name:
        spikes = folder / "spikes.npz"
        if not spikes.exists():
            write_spikes(SHARED / "data/fsdd.npz", spikes, part="test")
        return spikes
    return None


def _few_images(whole: Path, out: Path) -> Path:
    with np.load(whole) as file:
        arrays = {
            f"{part}_{kind}": file[f"{part}_{kind}"][:count]
            for part, count in {"train": 256, "test": 64}.items()
            for kind in ("images", "labels")
        }
    np.savez(out, **arrays)
    return out
