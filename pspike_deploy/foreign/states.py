"""Solved loops as nodes of a graph: recurrent neurons, state-space models, two-state neurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.foreign.loops import Loop, LoopError, blocks, modes_of
from pspike_deploy.graph.neurons import TWO_STATE_VECTORS, TwoStateNeuron
from pspike_deploy.graph.nodes import DiagonalSSM

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Modes:
    """A linear loop: ``entering`` (neurons, arriving), the SSM, ``leaving`` (arriving, neurons)."""

    entering: FloatArray
    ssm: DiagonalSSM
    leaving: FloatArray


def state_space(loop: Loop) -> Modes:
    """v[t] = L v[t-1] + x[t] as modes, each a neuron with one real input and one real output.

    A complex mode takes four: a real and an imaginary part on either side. A lane without memory
    passes through.

    Raises:
        LoopError: where the loop has no diagonal form.
    """
    values, vectors, inverses = modes_of(loop.returning)
    rows: list[FloatArray] = []
    columns: list[FloatArray] = []
    found: list[tuple[complex, complex, float]] = []  # a, c, d
    for k, value in enumerate(values):
        vector, inverse = vectors[:, k], inverses[k]
        if value == 0:  # y = x
            rows.append(inverse.real)
            columns.append(vector.real)
            found.append((0, 0, 1.0))
            continue
        # v += Re(vector z): z is driven by Re and by i Im of what arrives.
        drives = ((inverse.real, 1), (inverse.imag, 1j)) if value.imag else ((inverse.real, 1),)
        for drive, phase in drives:
            for part, reads in ((vector.real, 1), (vector.imag, 1j)):
                if not drive.any() or not part.any():
                    continue
                rows.append(drive)
                columns.append(part)
                found.append((value, phase * reads, 0.0))
    a, c, d = (np.array(part) for part in zip(*found, strict=True))
    one = np.where(a == 0, 0, np.ones_like(a))
    pairs = [np.stack([p.real, p.imag], axis=-1)[:, None] for p in (a + 0j, one + 0j, c + 0j)]
    ssm = DiagonalSSM(pairs[0], pairs[1], pairs[2], d.real.astype(np.float64))
    return Modes(np.array(rows), ssm, np.array(columns).T)


def two_state_of(loop: Loop, threshold: FloatArray) -> tuple[TwoStateNeuron, FloatArray, list[int]]:
    """A linear loop around a Threshold as neurons of two states.

    Returns:
        the neurons; the gain of what arrives, (neurons,); which lane of what arrives is each one's
        membrane.

    Raises:
        LoopError: where the states of a neuron are not its own, or more than two.
    """
    assert loop.firing is not None
    read = loop.values[loop.firing].v_now
    n = len(threshold)
    if np.any((read != 0).sum(axis=1) != 1):
        raise LoopError("a threshold looks at several states")
    lanes = [int(np.flatnonzero(row)[0]) for row in read]
    vectors: dict[str, Any] = {name: np.zeros(n) for name in TWO_STATE_VECTORS}
    weight = np.zeros((n, n))
    owned: set[int] = set()
    for group in blocks(loop.returning):
        owners = [i for i, lane in enumerate(lanes) if lane in group]
        if not owners:
            if len(group) == 1 and not read[:, group].any():
                continue  # nobody sees this lane
            raise LoopError("a state belongs to no neuron")
        if len(owners) > 1 or len(group) > 2:
            raise LoopError(f"{len(owners)} neurons share {len(group)} states")
        (i,) = owners
        _fill(vectors, weight, loop, group, lanes[i], i, float(read[i, lanes[i]]))
        owned |= set(group)
    vectors["threshold"] = threshold - loop.values[loop.firing].constant
    recurrent = weight.any()
    node = TwoStateNeuron(
        **vectors,
        recurrent_weight=weight if recurrent else np.zeros((0, 0)),
        recurrent_gain=np.ones(n) if recurrent else np.zeros(0),
        order="together",
        reset="soft",
    )
    return node, np.array([read[i, lane] for i, lane in enumerate(lanes)]), lanes


def _fill(
    vectors: dict[str, Any],
    weight: FloatArray,
    loop: Loop,
    group: list[int],
    lane: int,
    i: int,
    scale: float,
) -> None:
    """Constants of one neuron; its membrane is ``scale`` times a lane."""
    back, spikes = loop.returning, loop.spikes
    vectors["a_uu"][i] = back[lane, lane]
    vectors["f_u"][i] = scale * spikes[lane, i]
    weight[i] = scale * spikes[lane]
    weight[i, i] = 0
    for second in group:
        if second == lane:
            continue
        if np.delete(spikes[second], i).any():
            raise LoopError("spikes of other neurons enter a second state")
        vectors["a_uw"][i] = scale * back[lane, second]
        vectors["a_wu"][i] = back[second, lane] / scale
        vectors["a_ww"][i] = back[second, second]
        vectors["f_w"][i] = spikes[second, i]
