"""Makes ``lava.lib.dl.netx.hdf5`` of lava-dl 0.6.0 import without torch; import it before netx.

The loader of ``.net`` files takes one function of eight lines from a module whose package imports
torch. Stand-ins for the packages on the way there keep their real paths and do not run their own
``__init__``; the function is written anew. Nothing on disk changes.

Raises:
    ImportError: lava-dl is not installed.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from typing import Any

import numpy


def neuron_params(device_params: Any, scale: int = 1 << 6, p_scale: int = 1 << 12) -> dict:
    """Threshold, period and decay of a resonate-and-fire neuron from its device parameters.

    A step multiplies the complex state by (c + i s) / p_scale, of length 1 - decay and of the angle
    2 pi / period.
    """
    sine = device_params["sinDecay"] / p_scale
    cosine = device_params["cosDecay"] / p_scale
    return {
        "threshold": device_params["vThMant"] / scale,
        "period": 2 * numpy.pi / numpy.arctan2(sine, cosine),
        "decay": 1 - numpy.sqrt(sine**2 + cosine**2),
    }


def _package(name: str, folder: str) -> None:
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package


def _stand_in() -> None:
    root = list(importlib.import_module("lava.lib.dl").__path__)
    folder = next((f for f in root if os.path.isdir(os.path.join(f, "netx"))), None)
    if folder is None:
        raise ImportError("lava-dl is not installed")
    _package("lava.lib.dl.slayer", os.path.join(folder, "slayer"))
    _package("lava.lib.dl.slayer.neuron", os.path.join(folder, "slayer", "neuron"))
    _package("lava.lib.dl.netx", os.path.join(folder, "netx"))
    resonators = types.ModuleType("lava.lib.dl.slayer.neuron.rf")
    resonators.neuron_params = neuron_params
    sys.modules[resonators.__name__] = resonators
    # Lava's compiler imports every module beside a process and asks for its file; this one would
    # import torch.
    sequential = types.ModuleType("lava.lib.dl.netx.sequential_modules")
    sequential.__file__ = os.path.join(folder, "netx", "sequential_modules.py")
    sys.modules[sequential.__name__] = sequential


_stand_in()
