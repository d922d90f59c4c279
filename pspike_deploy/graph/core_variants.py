"""Core NIR in other words, for readers that lack a node type; never the canonical file.

The variants compute what the core graph computes, but only for readers that follow the stated rule.
They cannot be raised back, and no digest of theirs is ever the digest of a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from pspike_deploy.graph.core import CoreGraph
from pspike_deploy.graph.tree import Tree

#: Threshold that differing ones are scaled to: a power of two, and less than the lane of ones.
COMMON: Final = 0.5


def threshold_as_lif(core: CoreGraph, dt: float) -> CoreGraph:
    """Every Threshold as a LIF neuron that forgets within one step of forward Euler.

        v[t] = v[t-1] + dt/tau (r x[t] - v[t-1]) = x[t]   for tau = dt, r = 1, v_leak = 0
        z[t] = 1 if v[t] > v_threshold else 0; v is reset to 0

    snnTorch and norse know no Threshold, but this; an exact integrator would keep e⁻¹ of the state,
    and spikingjelly refuses it. snnTorch takes one threshold per layer, so where they differ each
    row of the matrix in front is scaled until they do not.

    Args:
        core: the core graph.
        dt: step of the reader, seconds, > 0: 1e-4 in snnTorch, an argument in norse.
    """

    def neuron(node: Tree) -> Tree:
        threshold = np.asarray(node["threshold"], np.float32)
        zero = np.zeros_like(threshold)
        return {
            "type": "LIF",
            "tau": np.full_like(threshold, dt),
            "r": np.ones_like(threshold),
            "v_leak": zero,
            "v_reset": zero,
            "v_threshold": threshold,
        }

    return _with(_one_threshold_each(core), "Threshold", neuron)


def _one_threshold_each(core: CoreGraph) -> CoreGraph:
    """Thresholds that are the same for all neurons of a layer, where a change of scale can do it.

    x > threshold where x / threshold · COMMON > COMMON. The lane of ones, whose threshold is 0, is
    above COMMON as well.
    """
    changed: dict[str, Tree] = {}
    for name, node in core.nodes.items():
        if node["type"] != "Threshold":
            continue
        threshold = np.asarray(node["threshold"], np.float64)
        positive = threshold > 0
        ones = core.ones and not positive[-1] and positive[:-1].all()
        before = [source for source, target in core.edges if target == name]
        if np.ptp(threshold) == 0 or not (positive.all() or ones) or not _serve(core, before, name):
            continue
        scale = np.where(positive, COMMON / np.where(positive, threshold, 1.0), 1.0)
        for source in before:
            weight = np.asarray(core.nodes[source]["weight"]) * scale[:, None]
            changed[source] = {**core.nodes[source], "weight": weight.astype(np.float32)}
        changed[name] = {**node, "threshold": np.full_like(node["threshold"], COMMON)}
    return replace(core, nodes={**core.nodes, **changed})


def _serve(core: CoreGraph, sources: list[str], name: str) -> bool:
    """Whether nodes are matrices that nothing else reads."""
    others = any(source in sources and target != name for source, target in core.edges)
    return not others and all(core.nodes[source]["type"] == "Linear" for source in sources)


def linear_as_affine(core: CoreGraph) -> CoreGraph:
    """Every Linear as an Affine whose bias is zero, for sinabs, which knows no Linear.

    nirtorch 2.6 leaves random numbers in the bias of an Affine unless a map of one's own is given.
    """

    def affine(node: Tree) -> Tree:
        bias = np.zeros(len(node["weight"]), np.float32)
        return {"type": "Affine", "weight": node["weight"], "bias": bias}

    return _with(core, "Linear", affine)


def _with(core: CoreGraph, kind: str, change: Callable[[Tree], Tree]) -> CoreGraph:
    nodes = {n: change(node) if node["type"] == kind else node for n, node in core.nodes.items()}
    return replace(core, nodes=nodes)
