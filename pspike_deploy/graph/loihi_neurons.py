"""The neurons that Loihi has without microcode, in the arithmetic of Lava's CPU models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.node import Array, Node, Shape
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import Format

#: Fields of :class:`LoihiLIF` with one number per neuron: decays; what is added to a state or
#: compared with one; and the gain of the input.
LOIHI_LIF_DECAYS: Final = ("current_decay", "membrane_decay", "adaptation_decay")
LOIHI_LIF_AMOUNTS: Final = ("bias", "threshold", "adaptation_jump")
LOIHI_LIF_VECTORS: Final = (*LOIHI_LIF_DECAYS, *LOIHI_LIF_AMOUNTS, "input_gain")

#: Decays of Loihi: 12 fraction bits, and 4096 is a perfect integrator.
LOIHI_DECAY_FORMAT: Final = Format(14, 12)
#: Registers of current and membrane: 24 bits. What arrives is shifted left by 6, so the binary
#: point of the states lies 6 bits behind that of the weights.
LOIHI_INPUT_SHIFT: Final = 6
LOIHI_STATE_FORMAT: Final = Format(24, LOIHI_INPUT_SHIFT)


@dataclass(frozen=True, eq=False)
class LoihiLIF(Node):
    """Leaky integrate-and-fire neuron of Loihi, with current u, membrane v and adaptation a.

        u[t] = current_decay u[t-1] + input_gain x[t] + recurrent_gain V s[t-1]
        a[t] = adaptation_decay a[t-1] - adaptation_jump s[t-1]
        v[t] = membrane_decay v[t-1] + u[t] + a[t] + bias
        s[t] = 1 if v[t] > threshold else 0              (``tie`` ge: also where equal)
        v[t] = 0 where s[t] = 1

    All arrays (neurons,), decays within 0 … 1, but for ``recurrent_weight`` V (neurons, neurons),
    synapses from the layer to itself, row = receiver; (0, 0) where there are none, and
    ``recurrent_gain`` (0,). The adaptation is the second compartment of an adaptive neuron;
    ``adaptation_jump`` is 0 where there is none.

    In integers this is ``lava.proc.lif.LIF`` of Lava 0.10 with du = 4095 - 4096 current_decay and
    dv = 4096 - 4096 membrane_decay, as long as no state leaves its register
    (``docs/semantics.md``). Adaptive neurons: Rao et al., Nat. Mach. Intell. 4 (2022),
    arXiv 2107.03992.
    """

    spikes: ClassVar[bool] = True
    scales_input: ClassVar[bool] = True

    current_decay: Array
    membrane_decay: Array
    adaptation_decay: Array
    input_gain: Array
    bias: Array
    threshold: Array
    adaptation_jump: Array
    recurrent_weight: Array
    recurrent_gain: Array
    tie: str = "gt"

    @property
    def input_shape(self) -> Shape:
        return tuple(self.threshold.shape)

    @property
    def state_words(self) -> int:
        return (2 + bool(self.adaptation_jump.any())) * int(self.threshold.size)

    @property
    def is_recurrent(self) -> bool:
        """Whether spikes return through synapses."""
        return self.recurrent_weight.size > 0


#: Fields of :class:`ResonateAndFire` with one number per neuron: those that turn the states, the
#: gains of the two inputs, and all.
RESONATE_DECAYS: Final = ("cos_decay", "sin_decay")
RESONATE_GAINS: Final = ("real_gain", "imaginary_gain")
RESONATE_VECTORS: Final = (*RESONATE_DECAYS, *RESONATE_GAINS, "threshold")


@dataclass(frozen=True, eq=False)
class ResonateAndFire(Node):
    """Resonate-and-fire neuron of Loihi: a damped rotation that fires once per turn; no reset.

        re[t] = cos_decay re[t-1] - sin_decay im[t-1] + real_gain x_re[t]
        im[t] = sin_decay re[t-1] + cos_decay im[t-1] + imaginary_gain x_im[t]
        s[t]  = 1 if re[t] >= threshold and im[t] >= 0 > im[t-1] else 0

    All arrays (neurons,). The input has (2 neurons,) values: all x_re, then all x_im. With period P
    and damping d: cos_decay = (1 - d) cos(2 pi / P), sin_decay likewise. In integers this is the
    fixed-point ``lava.proc.rf.RF`` of Lava 0.10. Izhikevich, Neural Networks 14 (2001).
    """

    spikes: ClassVar[bool] = True
    scales_input: ClassVar[bool] = True
    inputs_per_neuron: ClassVar[int] = 2

    cos_decay: Array
    sin_decay: Array
    real_gain: Array
    imaginary_gain: Array
    threshold: Array

    @property
    def input_shape(self) -> Shape:
        return (2 * int(self.threshold.size),)

    @property
    def output_shape(self) -> Shape:
        return tuple(self.threshold.shape)

    @property
    def state_words(self) -> int:
        return 2 * int(self.threshold.size)


#: What a delta encoder compares with its threshold; see :class:`DeltaEncoder`.
DELTA_ERRORS: Final = ("last", "accumulated")


@dataclass(frozen=True, eq=False)
class DeltaEncoder(Node):
    """Sends changes of its input once they are large: the delta half of sigma-delta neurons.

        d[t] = x[t] - x[t-1] + q[t-1]
        e[t] = d[t], or e[t-1] + d[t] where ``error`` is accumulated
        y[t] = d[t] if |e[t]| >= threshold else 0
        q[t] = d[t] - y[t]; an accumulated e[t] is 0 where y[t] is not

    ``threshold`` (neurons,), at least 0; ``error``: ``last`` or ``accumulated``. The input is what
    a sigma neuron has added up (a LeakyIntegrator of decay 1), or anything else. In integers this
    is the fixed-point ``lava.proc.sdn.Delta`` of Lava 0.10, and behind a sigma neuron, an offset
    and a rectifier its ``SigmaDelta``.
    """

    integrates: ClassVar[bool] = True

    threshold: Array
    error: str = "last"

    @property
    def input_shape(self) -> Shape:
        return tuple(self.threshold.shape)

    @property
    def state_words(self) -> int:
        return (2 + (self.error == "accumulated")) * int(self.threshold.size)


def lava_rf(
    neurons: int,
    *,
    sin_decay: npt.ArrayLike,
    cos_decay: npt.ArrayLike,
    vth: npt.ArrayLike,
    state_exp: int = LOIHI_INPUT_SHIFT,
) -> tuple[ResonateAndFire, NodeQuantization]:
    """Integer node and formats of a fixed-point ``lava.proc.rf.RF`` with 12 decay bits.

    Args:
        neurons: number of neurons; the next three arguments are one number for all, or (neurons,).
        sin_decay, cos_decay: integers within ±4096, as Lava holds them.
        vth: threshold in units of the input; integers.
        state_exp: shift of the input, 0 … 7.

    Raises:
        PspikeError: E-USAGE where a parameter is no integer or outside of its range.
    """
    shift = int(_vector("state_exp", state_exp, 0, 7, 1)[0])
    most = LOIHI_STATE_FORMAT.limit >> shift
    arrays = {
        "cos_decay": _vector("cos_decay", cos_decay, -4096, 4096, neurons),
        "sin_decay": _vector("sin_decay", sin_decay, -4096, 4096, neurons),
        **dict.fromkeys(RESONATE_GAINS, np.full(neurons, 1 << shift)),
        "threshold": _vector("vth", vth, -most, most, neurons) << shift,
    }
    state = Format(LOIHI_STATE_FORMAT.bits, shift)
    tensors = dict.fromkeys(RESONATE_DECAYS, LOIHI_DECAY_FORMAT)
    tensors |= dict.fromkeys(RESONATE_GAINS, Format(16, shift))
    tensors |= {"threshold": state, "state": state}
    stored: dict[str, Any] = {name: array.astype(np.int32) for name, array in arrays.items()}
    return ResonateAndFire(**stored), NodeQuantization(Format(2, 0), tensors, "toward_zero")


def lava_lif(
    neurons: int,
    *,
    du: npt.ArrayLike,
    dv: npt.ArrayLike,
    vth: npt.ArrayLike,
    bias_mant: npt.ArrayLike = 0,
    bias_exp: npt.ArrayLike = 0,
    adaptation_decay: npt.ArrayLike = 0,
    adaptation_jump: npt.ArrayLike = 0,
    gain: npt.ArrayLike = 1,
    recurrent_weight: npt.ArrayLike | None = None,
    recurrent_weight_bits: int = 9,
) -> tuple[LoihiLIF, NodeQuantization]:
    """Integer node and formats of a fixed-point ``lava.proc.lif.LIF`` behind synapses.

    Args:
        neurons: number of neurons; all other arguments are one number for all, or (neurons,).
        du, dv, vth, bias_mant, bias_exp: as in Lava. Integers; du from -1 to 4095, dv from 0 to
            4096, vth from 0 to 131 071.
        adaptation_decay: what remains of the adaptation after a step, of 4096.
        adaptation_jump: what a spike takes from the membrane, in units of the membrane's register,
            64 of which are one unit of vth.
        gain: units of vth that one unit of synaptic weight is worth, for instance for neurons
            whose weights have an exponent of their own; integers.
        recurrent_weight: integers (neurons, neurons), row = receiver.
        recurrent_weight_bits: width of their register.

    Raises:
        PspikeError: E-USAGE where a parameter is no integer or outside of its range.
    """

    def vector(name: str, value: npt.ArrayLike, low: int, high: int) -> npt.NDArray[np.int64]:
        return _vector(name, value, low, high, neurons)

    limit = LOIHI_STATE_FORMAT.limit
    exponent = vector("bias_exp", bias_exp, -24, 24)
    mantissa = vector("bias_mant", bias_mant, -limit, limit)
    bias = (mantissa << np.maximum(exponent, 0)) >> np.maximum(-exponent, 0)
    gains = vector("gain", gain, 0, 2**8) << LOIHI_INPUT_SHIFT
    recurrent = np.asarray(np.zeros((0, 0)) if recurrent_weight is None else recurrent_weight)
    arrays: dict[str, Any] = {
        "current_decay": 4095 - vector("du", du, -1, 4095),
        "membrane_decay": 4096 - vector("dv", dv, 0, 4096),
        "adaptation_decay": vector("adaptation_decay", adaptation_decay, 0, 4096),
        "input_gain": gains,
        "bias": vector("bias_mant << bias_exp", bias, -limit, limit),
        "threshold": vector("vth", vth, 0, 2**17 - 1) << LOIHI_INPUT_SHIFT,
        "adaptation_jump": vector("adaptation_jump", adaptation_jump, -limit, limit),
        "recurrent_weight": recurrent.astype(np.int64),
        "recurrent_gain": gains if recurrent.size else np.zeros(0, np.int64),
    }
    tensors = dict.fromkeys(LOIHI_LIF_DECAYS, LOIHI_DECAY_FORMAT)
    tensors |= dict.fromkeys((*LOIHI_LIF_AMOUNTS, "state"), LOIHI_STATE_FORMAT)
    tensors["input_gain"] = Format(16, LOIHI_INPUT_SHIFT)
    if recurrent.size:
        tensors["recurrent_weight"] = Format(recurrent_weight_bits, 0)
        tensors["recurrent_gain"] = tensors["input_gain"]
    stored = {name: array.astype(np.int32) for name, array in arrays.items()}
    return LoihiLIF(**stored), NodeQuantization(Format(2, 0), tensors, "toward_zero")


def _vector(
    name: str, value: npt.ArrayLike, low: int, high: int, neurons: int
) -> npt.NDArray[np.int64]:
    """One integer per neuron, checked."""
    found = np.asarray(value)
    if found.dtype.kind not in "iu" or found.shape not in ((), (1,), (neurons,)):
        why = f"found {found.dtype} {found.shape}"
    elif found.size and (found.min() < low or found.max() > high):
        why = f"found {found.min()} … {found.max()}"
    else:
        return np.broadcast_to(found, (neurons,)).astype(np.int64)
    raise PspikeError(
        "E-USAGE",
        f"{name} does not fit a neuron of Loihi",
        why=why,
        fix=f"give one integer, or one for each of {neurons} neurons, within {low} … {high}",
    )
