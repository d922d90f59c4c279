"""Two-state neurons of the reference simulator, step by step."""

from __future__ import annotations

import torch

from pspike_deploy.graph.neurons import ORDERS, TWO_STATE_VECTORS
from pspike_deploy.graph.nodes import TwoStateNeuron
from pspike_deploy.simulators.reference_run import Run


def two_state(node: TwoStateNeuron, x: torch.Tensor, name: str, run: Run) -> torch.Tensor:
    """Spikes (sample, step, neuron) from input of the same shape; notes the largest state."""
    if run.device.type == "cpu" and not node.is_recurrent:
        return _compiled(node, x, name, run)
    neuron = TwoState(node, run)
    spikes = torch.empty_like(x)
    peak = torch.zeros((), dtype=run.dtype, device=run.device)
    for step in range(x.shape[1]):
        spikes[:, step] = neuron.step(x[:, step])
        peak = torch.maximum(peak, neuron.magnitude)
    run.state_peaks[name] = float(peak)
    return spikes


def _compiled(node: TwoStateNeuron, x: torch.Tensor, name: str, run: Run) -> torch.Tensor:
    """The same numbers without a call of PyTorch per operation and step."""
    from pspike_deploy.simulators.reference_kernels import two_state as compiled

    start = torch.stack(run.initial(node, 3)).numpy()
    vectors = torch.stack([run.tensor(getattr(node, n)) for n in TWO_STATE_VECTORS]).numpy()
    options = (ORDERS.index(node.order), node.reset == "hard", node.tie == "ge")
    spikes, run.state_peaks[name] = compiled(x.contiguous().numpy(), start, vectors, options)
    return torch.from_numpy(spikes)


class TwoState:
    """A layer of two-state neurons at work; the equations stand in :class:`TwoStateNeuron`."""

    def __init__(self, node: TwoStateNeuron, run: Run) -> None:
        self.node = node
        self.p = {name: run.tensor(getattr(node, name)) for name in TWO_STATE_VECTORS}
        self.synapses = run.tensor(node.recurrent_weight * node.recurrent_gain[:, None])
        self.u, self.w, self.s = run.initial(node, 3)
        self.r = torch.zeros_like(self.u)
        self.magnitude = torch.zeros(())

    def step(self, x: torch.Tensor) -> torch.Tensor:
        """Spikes (sample, neuron) of one step from its input."""
        p, u, w, s, r = self.p, self.u, self.w, self.s, self.r
        if self.node.is_recurrent:
            x = x + s @ self.synapses.T
        m = u - p["reset_by"] * s

        def second(membrane: torch.Tensor, spike: torch.Tensor) -> torch.Tensor:
            return p["a_wu"] * membrane + p["a_ww"] * w + p["f_w"] * spike - p["k_w"] * r * w

        def membrane(second_state: torch.Tensor) -> torch.Tensor:
            drive = p["a_uu"] * m + p["a_uw"] * second_state + p["f_u"] * s
            return drive - p["k_u"] * r * m

        if self.node.order == "current_first":
            self.w = second(u, s) + x
            self.u = membrane(self.w)
        elif self.node.order == "second_first":
            self.w = second(u, s)
            self.u = membrane(self.w) + x
        else:
            self.u = membrane(w) + x
            if self.node.order == "together":
                self.w = second(m, s)
        self.magnitude = self.u.abs().max()
        above = self.u - r - p["threshold"]
        self.s = ((above >= 0) if self.node.tie == "ge" else (above > 0)).to(x.dtype)
        if self.node.reset == "hard":
            self.u = self.u * (1 - self.s)
        if self.node.order == "membrane_first":
            self.w = second(self.u, self.s)
        self.r = p["r_decay"] * r + p["r_jump"] * self.s
        for state in (self.w, self.r):
            self.magnitude = torch.maximum(self.magnitude, state.abs().max())
        return self.s
