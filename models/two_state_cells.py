"""Two-state neurons in PyTorch: membrane u, second state w, spike s.

A cell turns currents into spikes, one step after the other; everything in a step is local to a
neuron but the recurrent synapses. With I the current of the step, u, w, s the states of the step
before and step(x) = 1 if x > 0 else 0:

SiLIF, cAdLIF, adLIF, RadLIF::

    w = beta w + a u + b s;  u = alpha (u - s) + (1 - alpha) (I - w);  s = step(u - 1)

LIF, RLIF: the same without w. C-SiLIF, with u + i w complex and the reset on the real part::

    u + i w = lambda (u + i w - s / 2) + b I;  s = step(2 u - 1)

ResonateFire, with the length dt of a step::

    u + i w = u + i w + dt ((alpha_real + i alpha_im) (u + i w) + I) - s;  s = step(u - 1)

SE- and EF-adLIF (q = 120 and 60; u is 0 in the step of a spike)::

    u = alpha u + (1 - alpha) (I - w);  s = step(u - 1);  u = u (1 - s)
    SE:  w = beta w + (1 - beta) q (a u + b s)      with the new u and s
    EF:  w = beta w + (1 - beta) q (a u + b s)      with those of the step before

BRF and HRF, with c = |b_offset| + q of the step before and p = (sqrt(1 - (dt omega)^2) - 1) / dt::

    BRF: u, w = u + dt ((p - c) u - |omega| w + I), w + dt (|omega| u + (p - c) w)
    HRF: w = w + dt u;  u = u + dt (I - 2 (0.005 omega^2 + c) u - omega^2 w)
    both: s = step(u - 1 - q);  q = 0.9 q + s

In RadLIF, RLIF, SE- and EF-adLIF, BRF and HRF the current contains V s of the step before.

Sources: SiLIF, C-SiLIF, cAdLIF, ResonateFire: Fabre et al., arXiv 2506.06374; adLIF, RadLIF, LIF,
RLIF: Bittar and Garner, Frontiers in Neuroscience 16 (2022); SE- and EF-adLIF: Baronig et al.,
Nature Communications 16 (2025); BRF and HRF: Higuchi et al., ICML 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812  # the field's usual name
from torch import Tensor, nn

from pspike_deploy.models.adaptive_lif_sequence import adaptive_lif_spikes
from pspike_deploy.models.two_state_config import RECURRENT, TwoStateConfig

#: Effective decay ranges: exp(-1 / tau) with tau in steps.
ALPHA_RANGE: Final = (math.exp(-1 / 5), math.exp(-1 / 25))
BETA_RANGE: Final = (math.exp(-1 / 30), math.exp(-1 / 120))
CADLIF_RANGES: Final = {"alpha": (0.36, 0.96), "beta": (0.96, 0.99), "a": (0.0, 1.0)}
ADLIF_RANGES: Final = {"alpha": ALPHA_RANGE, "beta": BETA_RANGE, "a": (-1.0, 1.0)}
B_RANGE: Final = (0.0, 2.0)
#: Time constants of SE- and EF-adLIF, in steps.
TAU_U_RANGE: Final = (5.0, 25.0)
TAU_W_RANGE: Final = (60.0, 300.0)
MOST_DAMPED: Final = -0.1  #: upper end of alpha_real of ResonateFire
REFRACTORY_DECAY: Final = 0.9
#: Where the parameters of BRF and HRF start, as published for the Heidelberg digits.
OMEGA_RANGE: Final = (5.0, 10.0)
OFFSET_RANGE: Final = (2.0, 3.0)

Derivative = Callable[[Tensor], Tensor]


class NeuronState(NamedTuple):
    """States of a layer, each ``(batch, neuron)``; of a complex membrane u is Re and w is Im."""

    u: Tensor
    w: Tensor
    s: Tensor


Advance = Callable[[Tensor, NeuronState], NeuronState]


class _Step(torch.autograd.Function):
    """step(x), with the derivative of a surrogate."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, d: Derivative) -> Tensor:
        ctx.save_for_backward(x)
        ctx.derivative = d  # type: ignore[attr-defined]
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient * ctx.derivative(x), None  # type: ignore[attr-defined]


def fire(x: Tensor, derivative: Derivative) -> Tensor:
    """1 where x > 0, else 0; its derivative is that of the surrogate."""
    return cast(Tensor, _Step.apply(x, derivative))  # type: ignore[no-untyped-call]


def boxcar(x: Tensor) -> Tensor:
    """Surrogate derivative 1 for -0.5 < x <= 0.5, else 0 (SiLIF and its relatives)."""
    return ((x > -0.5) & (x <= 0.5)).to(x.dtype)


def exponential(x: Tensor) -> Tensor:
    """Surrogate derivative 0.4 * 5 / (2 exp(5 |x|)) (SE- and EF-adLIF)."""
    return torch.exp(-5 * x.abs())


def double_gaussian(x: Tensor) -> Tensor:
    """Surrogate derivative (1.15 n(x; 0.5) - 0.3 n(x; 3)) / 2, n(x; std) normal density (BRF)."""

    def density(std: float) -> Tensor:
        return torch.exp(-0.5 * (x / std) ** 2) / (std * math.sqrt(2 * math.pi))

    return 0.5 * (1.15 * density(0.5) - 0.3 * density(3.0))


def at_rest(current: Tensor) -> NeuronState:
    """States of 0 for a current ``(batch, step, neuron)``."""
    zero = torch.zeros_like(current[:, 0])
    return NeuronState(zero, zero, zero)


class TwoStateCell(nn.Module):
    """A layer of two-state neurons; parameters (neuron,), synapses V (neuron, neuron).

    Attributes:
        recurrent: V, row = receiver; None where the layer has no synapses to itself.
    """

    has_second_state = True

    def __init__(self, config: TwoStateConfig, width: int) -> None:
        super().__init__()
        self.width = width
        self.recurrent: nn.Parameter | None = None
        if config.neuron in RECURRENT:
            self.recurrent = nn.Parameter(torch.empty(width, width))
            nn.init.orthogonal_(self.recurrent)

    def begin(self) -> Advance:
        """The update of one step, with the effective parameters of now."""
        raise NotImplementedError

    def recurrent_weight(self) -> Tensor | None:
        """V as it is used; None where there is none."""
        return self.recurrent

    def constrain(self) -> None:
        """Bring trained values back into their range; called after a step of the optimiser."""

    def forward(
        self,
        current: Tensor,
        state: NeuronState | None = None,
        trace: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Spikes of whole sequences.

        Args:
            current: ``(batch, step, neuron)``, what the synapses deliver.
            state: states before the first step, default 0.
            trace: receives ``u``, ``w`` and ``s`` after every step, ``(batch, step, neuron)``.

        Returns:
            0 and 1 in the dtype of the current, ``(batch, step, neuron)``.
        """
        state = at_rest(current) if state is None else state
        advance, weight = self.begin(), self.recurrent_weight()
        spikes: list[Tensor] = []
        u: list[Tensor] = []
        w: list[Tensor] = []
        for now in current.unbind(1):
            total = now if weight is None else now + F.linear(state.s, weight)
            state = advance(total, state)
            spikes.append(state.s)
            if trace is not None:
                u.append(state.u)
                w.append(state.w)
        s = torch.stack(spikes, 1)
        if trace is not None:
            trace.update(u=torch.stack(u, 1), w=torch.stack(w, 1), s=s)
        return s

    def _uniform(self, low: float, high: float) -> nn.Parameter:
        return nn.Parameter(torch.empty(self.width).uniform_(low, high))

    def _full(self, value: float) -> nn.Parameter:
        return nn.Parameter(torch.full((self.width,), value))


class AdaptiveValues(NamedTuple):
    """Effective parameters of an adaptive LIF neuron, each (neuron,)."""

    alpha: Tensor
    beta: Tensor
    a: Tensor
    b: Tensor


class AdaptiveLIF(TwoStateCell):
    """SiLIF, cAdLIF, adLIF and RadLIF: one equation, several parametrisations."""

    def effective(self) -> AdaptiveValues:
        """The parameters as they are used."""
        raise NotImplementedError

    def forward(
        self,
        current: Tensor,
        state: NeuronState | None = None,
        trace: dict[str, Tensor] | None = None,
    ) -> Tensor:
        state = at_rest(current) if state is None else state
        if trace is not None or self.recurrent is not None or state.u.requires_grad:
            return super().forward(current, state, trace)
        return adaptive_lif_spikes(current, self.effective(), state)

    def begin(self) -> Advance:
        alpha, beta, a, b = self.effective()
        gain = 1 - alpha

        def advance(current: Tensor, state: NeuronState) -> NeuronState:
            u, w, s = state
            w = beta * w + a * u + b * s
            u = alpha * (u - s) + gain * (current - w)
            return NeuronState(u, w, fire(u - 1, boxcar))

        return advance


class SiLIF(AdaptiveLIF):
    """Adaptive LIF neuron with logarithmic rates (1/s) and a trained length of a step, log s."""

    def __init__(self, config: TwoStateConfig, width: int) -> None:
        super().__init__(config, width)
        self.dt = self._full(math.log(config.step_length))
        self.alpha = self._uniform(math.log(10), math.log(250))
        self.beta = self._uniform(math.log(2.5), math.log(10))
        self.a = self._uniform(0, 1)
        self.b = self._uniform(*B_RANGE)

    def effective(self) -> AdaptiveValues:
        step = torch.exp(self.dt)
        return AdaptiveValues(
            alpha=torch.exp(-torch.exp(self.alpha) * step),
            beta=torch.exp(-torch.exp(self.beta) * step),
            a=self.a.clamp(0, 1),
            b=self.b.clamp(*B_RANGE),
        )


class _ClampedAdaptiveLIF(AdaptiveLIF):
    """Adaptive LIF neuron whose parameters are clamped where they are used."""

    ranges = CADLIF_RANGES

    def __init__(self, config: TwoStateConfig, width: int) -> None:
        super().__init__(config, width)
        self.alpha = self._uniform(*self.ranges["alpha"])
        self.beta = self._uniform(*self.ranges["beta"])
        self.a = self._uniform(*self.ranges["a"])
        self.b = self._uniform(*B_RANGE)

    def effective(self) -> AdaptiveValues:
        return AdaptiveValues(
            alpha=self.alpha.clamp(*self.ranges["alpha"]),
            beta=self.beta.clamp(*self.ranges["beta"]),
            a=self.a.clamp(*self.ranges["a"]),
            b=self.b.clamp(*B_RANGE),
        )


class CAdLIF(_ClampedAdaptiveLIF):
    """Adaptive LIF neuron whose ranges keep it stable."""


class AdLIF(_ClampedAdaptiveLIF):
    """Adaptive LIF neuron; unstable where a < -(1 - beta)."""

    ranges = ADLIF_RANGES


class RadLIF(AdLIF):
    """adLIF with recurrent synapses, none of a neuron to itself."""

    def recurrent_weight(self) -> Tensor | None:
        return _without_diagonal(self.recurrent)


class LIF(TwoStateCell):
    """Leaky integrate-and-fire neuron."""

    has_second_state = False

    def __init__(self, config: TwoStateConfig, width: int) -> None:
        super().__init__(config, width)
        self.alpha = self._uniform(*ALPHA_RANGE)

    def effective(self) -> Tensor:
        """alpha as it is used, (neuron,)."""
        return self.alpha.clamp(*ALPHA_RANGE)

    def begin(self) -> Advance:
        alpha = self.effective()
        gain = 1 - alpha

        def advance(current: Tensor, state: NeuronState) -> NeuronState:
            u = alpha * (state.u - state.s) + gain * current
            return NeuronState(u, torch.zeros_like(u), fire(u - 1, boxcar))

        return advance


class RLIF(LIF):
    """LIF with recurrent synapses, none of a neuron to itself."""

    def recurrent_weight(self) -> Tensor | None:
        return _without_diagonal(self.recurrent)


class ComplexValues(NamedTuple):
    """Effective parameters of a complex membrane, each (neuron,): eigenvalue and input gain."""

    real: Tensor
    imag: Tensor
    b: Tensor


class ComplexSiLIF(TwoStateCell):
    """C-SiLIF: complex membrane; log_dt is the trained logarithm of a step."""

    def __init__(self, config: TwoStateConfig, width: int) -> None:
        super().__init__(config, width)
        self.log_log_alpha = self._full(math.log(0.5))
        self.log_dt = self._uniform(math.log(config.dt_min), math.log(config.dt_max))
        self.alpha_img = self._full(math.pi)
        self.b = self._uniform(0, 1)

    def effective(self) -> ComplexValues:
        """lambda = exp((-exp(log_log_alpha) + i alpha_img) exp(log_dt)), and b."""
        step = torch.exp(self.log_dt)
        size, angle = torch.exp(-torch.exp(self.log_log_alpha) * step), self.alpha_img * step
        return ComplexValues(size * torch.cos(angle), size * torch.sin(angle), self.b)

    def begin(self) -> Advance:
        real, imag, b = self.effective()

        def advance(current: Tensor, state: NeuronState) -> NeuronState:
            reset = state.u - 0.5 * state.s
            u = real * reset - imag * state.w + b * current
            w = imag * reset + real * state.w
            return NeuronState(u, w, fire(2 * u - 1, boxcar))

        return advance


class ResonateFire(TwoStateCell):
    """Resonate-and-fire neuron, integrated with steps of ``timestep`` seconds."""

    def __init__(self, config: TwoStateConfig, width: int) -> None:
        super().__init__(config, width)
        self.timestep = config.step_length
        self.alpha_real = self._uniform(-10, -1)
        self.alpha_im = self._uniform(5, 10)

    def effective(self) -> tuple[Tensor, Tensor]:
        """Damping and angular frequency as they are used, 1/s, each (neuron,)."""
        return self.alpha_real.clamp(max=MOST_DAMPED), self.alpha_im

    def begin(self) -> Advance:
        damping, frequency = self.effective()
        dt = self.timestep

        def advance(current: Tensor, state: NeuronState) -> NeuronState:
            u, w, s = state
            u_next = u + dt * (damping * u - frequency * w + current) - s
            w_next = w + dt * (frequency * u + damping * w)
            return NeuronState(u_next, w_next, fire(u_next - 1, boxcar))

        return advance


class SEAdLIF(TwoStateCell):
    """Symplectic-Euler adaptive LIF; the time constants are trained as weights of their ends."""

    adaptation = 120.0  #: q
    uses_new_membrane = True

    def __init__(self, config: TwoStateConfig, width: int) -> None:
        super().__init__(config, width)
        self.tau_u_weight = self._uniform(0, 1)
        self.tau_w_weight = self._uniform(0, 1)
        self.a = self._uniform(0, 1)
        self.b = self._uniform(*B_RANGE)

    def effective(self) -> AdaptiveValues:
        """alpha and beta, and (1 - beta) q a and (1 - beta) q b as a and b."""
        alpha = torch.exp(-1 / _between(self.tau_u_weight, TAU_U_RANGE))
        beta = torch.exp(-1 / _between(self.tau_w_weight, TAU_W_RANGE))
        strength = (1 - beta) * self.adaptation
        a, b = self.a.clamp(0, 1), self.b.clamp(*B_RANGE)
        return AdaptiveValues(alpha, beta, strength * a, strength * b)

    def constrain(self) -> None:
        with torch.no_grad():
            for weight in (self.tau_u_weight, self.tau_w_weight, self.a):
                weight.clamp_(0, 1)
            self.b.clamp_(*B_RANGE)

    def begin(self) -> Advance:
        alpha, beta, a, b = self.effective()
        gain, uses_new = 1 - alpha, self.uses_new_membrane

        def advance(current: Tensor, state: NeuronState) -> NeuronState:
            u, w, s = state
            before_reset = alpha * u + gain * (current - w)
            s_next = fire(before_reset - 1, exponential)
            u_next = before_reset * (1 - s_next.detach())
            w_next = beta * w + (a * u_next + b * s_next if uses_new else a * u + b * s)
            return NeuronState(u_next, w_next, s_next)

        return advance


class EFAdLIF(SEAdLIF):
    """Euler-forward adaptive LIF neuron."""

    adaptation = 60.0
    uses_new_membrane = False


class BRF(TwoStateCell):
    """Balanced resonate-and-fire neuron with a refractory state q that starts at 0."""

    def __init__(self, config: TwoStateConfig, width: int) -> None:
        super().__init__(config, width)
        self.timestep = config.step_length
        self.omega = self._uniform(*OMEGA_RANGE)
        self.b_offset = self._uniform(*OFFSET_RANGE)

    def effective(self) -> tuple[Tensor, Tensor]:
        """|omega| in 1/s and the constant part of the damping in 1/s, each (neuron,)."""
        omega, dt = self.omega.abs(), self.timestep
        on_circle = (torch.sqrt((1 - (dt * omega) ** 2).clamp(min=0)) - 1) / dt
        return omega, on_circle - self.b_offset.abs()

    def begin(self) -> Advance:
        omega, constant = self.effective()
        dt, refractory = self.timestep, torch.zeros_like(omega)

        def advance(current: Tensor, state: NeuronState) -> NeuronState:
            nonlocal refractory
            damping = constant - refractory
            u = state.u + dt * (damping * state.u - omega * state.w + current)
            w = state.w + dt * (omega * state.u + damping * state.w)
            s = fire(u - 1 - refractory, double_gaussian)
            refractory = REFRACTORY_DECAY * refractory + s
            return NeuronState(u, w, s)

        return advance


class HRF(BRF):
    """Harmonic resonate-and-fire neuron with a refractory state q that starts at 0."""

    def effective(self) -> tuple[Tensor, Tensor]:
        omega = self.omega.abs()
        return omega, 0.005 * omega**2 + self.b_offset.abs()

    def begin(self) -> Advance:
        omega, constant = self.effective()
        stiffness = omega**2
        dt, refractory = self.timestep, torch.zeros_like(omega)

        def advance(current: Tensor, state: NeuronState) -> NeuronState:
            nonlocal refractory
            damping = constant + refractory
            w = state.w + dt * state.u
            u = state.u + dt * (current - 2 * damping * state.u - stiffness * w)
            s = fire(u - 1 - refractory, double_gaussian)
            refractory = REFRACTORY_DECAY * refractory + s
            return NeuronState(u, w, s)

        return advance


#: Class of a cell by the name of its neuron.
CELLS: Final[dict[str, type[TwoStateCell]]] = {
    "SiLIF": SiLIF,
    "C-SiLIF": ComplexSiLIF,
    "cAdLIF": CAdLIF,
    "adLIF": AdLIF,
    "RadLIF": RadLIF,
    "LIF": LIF,
    "RLIF": RLIF,
    "ResonateFire": ResonateFire,
    "SE-adLIF": SEAdLIF,
    "EF-adLIF": EFAdLIF,
    "BRF": BRF,
    "HRF": HRF,
}


def _without_diagonal(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight - torch.diag(torch.diagonal(weight))


def _between(weight: Tensor, ends: tuple[float, float]) -> Tensor:
    weight = weight.clamp(0, 1)
    return weight * ends[1] + (1 - weight) * ends[0]
