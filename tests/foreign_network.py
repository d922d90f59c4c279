"""Small networks of other frameworks as NIR files, written with ``nir`` itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
N = 4


def values(rng: np.random.Generator, low: float, high: float, n: int = N) -> FloatArray:
    return rng.uniform(low, high, n)


def ends(n_in: int, n_out: int) -> dict[str, Any]:
    return {"input": nir.Input(np.array([n_in])), "output": nir.Output(np.array([n_out]))}


def written(path: Path, nodes: dict[str, Any], *edges: str) -> Path:
    pairs = [(a, b) for a, b in (edge.split("->") for edge in edges)]
    nir.write(path, nir.NIRGraph(nodes, pairs))
    return path


def neuron(kind: str, rng: np.random.Generator, n: int = N, **fields: Any) -> Any:
    """A population with different parameters everywhere."""
    every = {
        "tau": values(rng, 5e-3, 2e-2, n),
        "tau_mem": values(rng, 5e-3, 2e-2, n),
        "tau_syn": values(rng, 2e-3, 8e-3, n),
        "r": values(rng, 0.5, 2.0, n),
        "v_leak": values(rng, -0.1, 0.1, n),
        "v_threshold": values(rng, 0.2, 0.5, n),
        "v_reset": values(rng, -0.1, 0.1, n),
        "w_in": values(rng, 0.5, 2.0, n),
    } | fields
    cls = getattr(nir, kind)
    return cls(**{k: v for k, v in every.items() if k in cls.__dataclass_fields__})


def recurrent_file(path: Path, rng: np.random.Generator) -> Path:
    nodes = {
        **ends(3, 2),
        "fc1": nir.Affine(3 * rng.normal(size=(N, 3)), values(rng, 0, 0.2)),
        "lif1": neuron("CubaLIF", rng, v_leak=np.zeros(N), v_reset=np.zeros(N)),
        "rec": nir.Affine(0.4 * rng.normal(size=(N, N)), values(rng, 0.1, 0.3)),
        "fc2": nir.Linear(rng.uniform(0, 9, (2, N))),
        "lif2": neuron("LIF", rng, 2, v_leak=np.zeros(2), v_reset=np.zeros(2)),
    }
    edges = ["input->fc1", "fc1->lif1", "lif1->rec", "rec->lif1", "lif1->fc2", "fc2->lif2"]
    return written(path, nodes, *edges, "lif2->output")
