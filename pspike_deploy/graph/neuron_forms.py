"""One form for all two-state neurons whose next state is linear in state, input and last spike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.neurons import TWO_STATE_VECTORS, TwoStateNeuron

FloatArray = npt.NDArray[np.float64]


def together_form(node: TwoStateNeuron) -> TwoStateNeuron:
    """The same neuron with order ``together`` and the soft reset within ``f_u`` and ``f_w``.

    Both give the same spikes, up to rounding, for any neuron that starts at zero, resets softly and
    has no damping by the refractory state (k_u = k_w = 0). With w'[t] = w[t-1], ``membrane_first``
    is ``second_first``, and that is substitution of w[t]:

        u[t] = (a_uu + a_uw a_wu) u + a_uw a_ww w + (f_u - a_uu reset_by + a_uw f_w) s + I

    Recurrent synapses hold their gain. What a spike does to its own neuron stands in their
    diagonal where there are others, else in ``f_u``. All arrays float64.
    """
    p = {name: getattr(node, name).astype(np.float64) for name in TWO_STATE_VECTORS}
    own_u, own_w = p["f_u"] - p["a_uu"] * p["reset_by"], p["f_w"]
    a_uu, a_uw = p["a_uu"], p["a_uw"]
    if node.order == "together":
        own_w = own_w - p["a_wu"] * p["reset_by"]
    else:
        a_uu, a_uw = a_uu + a_uw * p["a_wu"], a_uw * p["a_ww"]
        own_u = own_u + p["a_uw"] * p["f_w"]
    weight = spike_synapses(node) + np.diag(own_u)
    recurrent = bool(np.any(weight - np.diag(np.diag(weight))))
    nothing = np.zeros_like(own_u)
    return TwoStateNeuron(
        a_uu=a_uu,
        a_uw=a_uw,
        a_wu=p["a_wu"],
        a_ww=p["a_ww"],
        f_u=nothing if recurrent else np.diag(weight).copy(),
        f_w=own_w,
        reset_by=nothing,
        threshold=p["threshold"],
        r_decay=p["r_decay"] if np.any(p["r_jump"]) else nothing,
        r_jump=p["r_jump"],
        k_u=nothing,
        k_w=nothing,
        recurrent_weight=weight if recurrent else np.zeros((0, 0)),
        recurrent_gain=np.ones(len(weight) if recurrent else 0),
    )


def spike_synapses(node: TwoStateNeuron) -> FloatArray:
    """Synapses from the layer to itself with their gain, (neurons, neurons); zeros without any."""
    neurons = len(node.a_uu)
    if not node.is_recurrent:
        return np.zeros((neurons, neurons))
    weight: FloatArray = node.recurrent_weight * node.recurrent_gain[:, None].astype(np.float64)
    return weight
