"""How long a chip takes for a step, and for an inference.

    t_step = max over cores of (n t_comp + syn t_synop + msg t_msg) + t_barrier + t_x86
    T = sum of t_step over the steps of an inference

with the compartments n, synaptic operations syn and outgoing messages msg of a core in that step.
The maximum is taken in every step: neither the maximum of means nor sums over cores predict
deployed networks (Yik et al., arXiv 2511.21549).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from pspike_deploy.energy.activity import Activity

Numbers = npt.NDArray[np.float64]

#: Terms of a core's time, in the order of the loads.
CORE_TERMS: Final = ("t_comp", "t_synop", "t_msg")
#: A step of a system that is throttled, in s: Loihi 1 at its slowest setting.
THROTTLED_STEP: Final = 1e-3


def sample_seconds(
    activity: Activity, theta: Mapping[str, Numbers], *, throttled: bool = False
) -> Numbers:
    """Seconds of every inference under every draw.

    Args:
        activity: counts.
        theta: (draw,) s: ``t_comp``, ``t_synop``, ``t_msg``, ``t_barrier``, ``t_x86``.
        throttled: no step is shorter than :data:`THROTTLED_STEP`.

    Returns:
        (draw, sample) s.
    """
    per_step = theta["t_barrier"] + theta["t_x86"]
    rates = np.stack([theta[name] for name in CORE_TERMS], axis=1)
    busy = _undominated(activity)
    if len(busy) == 1 and not throttled:
        loads = _totals(activity, busy[0])
        return np.asarray(rates @ loads + per_step[:, None] * activity.lengths)
    found = np.zeros((len(per_step), activity.samples))
    least = THROTTLED_STEP if throttled else 0.0
    compartments = activity.compartments[busy].astype(np.float64)
    operations, messages = (
        np.ascontiguousarray(counts[..., busy], np.float64)
        for counts in (activity.synaptic_operations, activity.messages)
    )
    _sum_of_maxima(
        rates, per_step, compartments, operations, messages, activity.lengths, least, found
    )
    return found


def _undominated(activity: Activity) -> npt.NDArray[np.int64]:
    """Cores that may be the slowest of a step: not those that another exceeds in every count."""
    fixed = activity.compartments
    varying = np.stack([activity.synaptic_operations, activity.messages])
    kept: list[int] = []
    for core in np.argsort(-varying.sum(axis=(0, 1, 2)), kind="stable"):
        if not any(
            fixed[core] <= fixed[other] and (varying[..., core] <= varying[..., other]).all()
            for other in kept
        ):
            kept.append(int(core))
    return np.array(sorted(kept), np.int64)


def _totals(activity: Activity, core: int) -> Numbers:
    """Loads of one core over an inference, (term, sample)."""
    return np.stack(
        [
            activity.compartments[core] * activity.lengths,
            activity.synaptic_operations[..., core].sum(axis=1),
            activity.messages[..., core].sum(axis=1),
        ]
    ).astype(np.float64)


@njit(parallel=True, cache=True)
def _sum_of_maxima(
    rates: Any,
    per_step: Any,
    compartments: Any,
    operations: Any,
    messages: Any,
    lengths: Any,
    least: Any,
    found: Any,
) -> None:
    samples, _, cores = operations.shape
    for draw in prange(len(rates)):
        t_comp, t_synop, t_msg = rates[draw, 0], rates[draw, 1], rates[draw, 2]
        for sample in range(samples):
            total = 0.0
            for step in range(lengths[sample]):
                slowest = 0.0
                for core in range(cores):
                    taken = (
                        compartments[core] * t_comp
                        + operations[sample, step, core] * t_synop
                        + messages[sample, step, core] * t_msg
                    )
                    slowest = max(slowest, taken)
                total += max(slowest + per_step[draw], least)
            found[draw, sample] = total


def shares(activity: Activity, theta: Mapping[str, Numbers]) -> dict[str, float]:
    """What time goes to, as shares: each term of the slowest core, the barrier, the host.

    Args:
        activity: counts.
        theta: (draw,) s, of which the medians are taken; all 0 where the time was measured, which
            gives no shares.
    """
    middle = {name: float(np.median(values)) for name, values in theta.items()}
    loads = np.stack(
        [
            np.broadcast_to(activity.compartments, activity.messages.shape),
            activity.synaptic_operations,
            activity.messages,
        ]
    )
    rates = np.array([middle[name] for name in CORE_TERMS])
    taken = loads * rates[:, None, None, None]
    slowest = taken.sum(axis=0).argmax(axis=-1)
    terms = np.take_along_axis(taken, slowest[None, ..., None], axis=-1)[..., 0]
    running = np.arange(activity.steps) < activity.lengths[:, None]
    parts = {name: float((terms[i] * running).sum()) for i, name in enumerate(CORE_TERMS)}
    steps = float(activity.lengths.sum())
    parts |= {name: middle[name] * steps for name in ("t_barrier", "t_x86")}
    whole = sum(parts.values())
    return {name: part / whole for name, part in parts.items()} if whole else {}
