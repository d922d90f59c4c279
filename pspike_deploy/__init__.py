"""Take probabilistic spiking state-space networks from PyTorch to Loihi, with evidence.

The functions below are loaded when they are first used, so that ``import pspike_deploy`` needs
neither torch nor numba.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pspike_deploy.errors import PspikeError

if TYPE_CHECKING:
    from pspike_deploy.api import export, load, simulate
    from pspike_deploy.energy_result import energy
    from pspike_deploy.graph.file import read_graph, write_graph
    from pspike_deploy.graph.graph import Graph
    from pspike_deploy.models.to_graph import to_graph
    from pspike_deploy.numerics.noise import Noise
    from pspike_deploy.quantize.config import QuantConfig
    from pspike_deploy.quantize.quantize import quantize
    from pspike_deploy.recording import Recording
    from pspike_deploy.torch_import import from_torch
    from pspike_deploy.verify.compare import compare
    from pspike_deploy.verify.verdict import verify

__version__ = "0.1.0"

_HOMES = {
    "Graph": "graph.graph",
    "Noise": "numerics.noise",
    "QuantConfig": "quantize.config",
    "Recording": "recording",
    "compare": "verify.compare",
    "export": "api",
    "from_torch": "torch_import",
    "load": "api",
    "read_graph": "graph.file",
    "simulate": "api",
    "to_graph": "models.to_graph",
    "write_graph": "graph.file",
}

__all__ = [
    "Graph",
    "Noise",
    "PspikeError",
    "QuantConfig",
    "Recording",
    "__version__",
    "compare",
    "energy",
    "export",
    "from_torch",
    "load",
    "quantize",
    "read_graph",
    "simulate",
    "to_graph",
    "verify",
    "write_graph",
]


#: Functions that are subpackages as well (see ``_callable.py``).
_CALLABLE_PACKAGES = ("energy", "quantize", "verify")


def __getattr__(name: str) -> Any:
    if name in _CALLABLE_PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
