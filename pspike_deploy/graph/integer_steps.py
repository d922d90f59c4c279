"""What every node type computes in one step, written as statements on integers.

The one table behind the equations of ``docs/semantics.md`` and behind the programs that go with an
export toward Loihi. A statement is ``name = expression``; statements run in order, for each neuron
by itself. Names are the node's inputs (``x``), its parameters, its states, which keep their values
from step to step, constants of the node (``shift``, ``bits`` …, whose formulas stand beside the
statements), ``k`` (the noise bits) and ``first`` (1 at the first step of a sample). ``[mode]``
marks what each mode of a neuron has by itself.

Expressions hold ``+ - * << >>`` (``>>`` floors), comparisons, ``a if c else b``, entries of a table
and the functions of :data:`FUNCTIONS`. The value of ``y`` is the node's output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pspike_deploy.graph.loihi_neurons import LOIHI_LIF_DECAYS, RESONATE_DECAYS, RESONATE_GAINS
from pspike_deploy.numerics.fixed_point import ACCUMULATOR_BITS

#: Functions of expressions, with their meaning.
FUNCTIONS: Final[Mapping[str, str]] = {
    "half_up": "half_up(v, s) = (v + (1 << (s - 1))) >> s for s > 0, v << -s for s <= 0",
    "floor_shift": "floor_shift(v, s) = v >> s for s > 0, v << -s for s <= 0",
    "toward_zero": "toward_zero(v, s) = sign(v) * (abs(v) >> s), s >= 0",
    "fit": "fit(v, b): v in a register of b bits, -(2**(b-1) - 1) to 2**(b-1) - 1, under the "
    "overflow policy",
    "clamp": "clamp(v, low, high) = min(max(v, low), high)",
    "abs": "abs(v)",
    "min": "min(a, b)",
    "max": "max(a, b)",
    "sum": "sum(v): over the modes of a neuron",
}

#: Bits of a random word; the noise integers are its upper ``k``.
WORD_BITS: Final = 53

#: Bits of a register that holds 0 or 1.
SPIKE_BITS: Final = 2


@dataclass(frozen=True)
class Draw:
    """A noise integer of a step.

    Attributes:
        name: its name in the statements.
        bits: how many, as a formula in ``k``.
        word: which word of the site; None: that of the step.
        below: whether these are the bits behind the upper ``k``.
    """

    name: str
    bits: str = "k"
    word: int | None = None
    below: bool = False


@dataclass(frozen=True)
class IntegerStep:
    """One step of a node.

    Attributes:
        statements: in order.
        states: name of each state and the constant that holds the bits of its register, or the
            bits; ``""`` where it is a spike that starts as a fraction. A name that ends in
            ``[mode]`` stands for one per mode.
        start: statements before the first step of a sample; all states are 0 before them.
        draws: noise integers.
        constants: formula of each constant that follows from binary points: ``f_in``, ``f_out``,
            ``f_<tensor>``, ``k`` and ``g`` (``table_step_bits``).
        inputs: names of the inputs; more than there are where an input has several values for each
            neuron, all first ones in front.
    """

    statements: tuple[str, ...]
    states: Mapping[str, str | int] = field(default_factory=dict)
    start: tuple[str, ...] = ()
    draws: tuple[Draw, ...] = ()
    constants: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ("x",)


#: Gives the step of an operation from its settings.
StepOf = Callable[[Mapping[str, Any]], IntegerStep]


def lines(text: str) -> tuple[str, ...]:
    """Statements from a text, one per line."""
    return tuple(line.strip() for line in text.strip().splitlines())


def step_of(operation: str, settings: Mapping[str, Any]) -> IntegerStep | None:
    """What an operation computes in one step; None where nobody wrote it down.

    Args:
        operation: name of the operation in a neuron program.
        settings: of the operation; some choose between statements (``order``, ``reset``, ``tie``).
    """
    step = STEPS.get(operation)
    return step(settings) if callable(step) else step


_ACCUMULATE: Final = f"r = fit(a * x + b, {ACCUMULATOR_BITS})"

_TABLE: Final = """
v = {argument}
i = v >> interval_shift
rest = v - (i << interval_shift)
j = min(i, entries - 2)
rise = toward_zero((table[j + 1] - table[j]) * rest, interval_shift)
c = 0 if i >= entries - 1 else table[j] + rise
"""
_INTERVAL: Final = {"interval_shift": "f_in - g"}


def interpolation(argument: str) -> tuple[str, ...]:
    """Statements that read a table at ``argument`` >= 0, in units of the input, into ``c``."""
    return lines(_TABLE.format(argument=argument))


def _two_state(settings: Mapping[str, Any]) -> IntegerStep:
    random = settings["site"] >= 0
    recurrent = "recurrent_shift" in settings
    second = "w = fit({drive} + kept + {spike}, state_bits)"
    one_later = "toward_zero(f_w * S, k)"
    order = settings["order"]
    current = " + x + returned" if recurrent else " + x"
    statements = [
        "m = u - toward_zero(reset_by * S, k)",
        "returned = 0 if first else half_up(recurrent_gain * r_in, recurrent_shift)"
        if recurrent
        else "",
        "kept = toward_zero(a_ww * w, a_ww_shift) "
        "- toward_zero(toward_zero(k_w * r, k_w_shift) * w, point_shift)",
        "drive = toward_zero(a_uu * m, a_uu_shift) + toward_zero(f_u * S, k) "
        "- toward_zero(toward_zero(k_u * r, k_u_shift) * m, point_shift)"
        + ("" if order == "current_first" else current),
    ]
    membrane = "u = fit(drive + toward_zero(a_uw * w, a_uw_shift), state_bits)"
    if order in ("second_first", "current_first"):
        entering = one_later + (current if order == "current_first" else "")
        statements += [second.format(drive="toward_zero(a_wu * u, a_wu_shift)", spike=entering)]
    statements.append(membrane)
    if order == "together":
        statements += [second.format(drive="toward_zero(a_wu * m, a_wu_shift)", spike=one_later)]
    sign = ">=" if settings["tie"] == "ge" else ">"
    statements.append(f"y = 1 if u - r {sign} threshold else 0")
    if settings["reset"] == "hard":
        statements.append("u = 0 if y else u")
    if order == "membrane_first":
        statements += [second.format(drive="toward_zero(a_wu * u, a_wu_shift)", spike="f_w * y")]
    statements += [
        "r = fit(toward_zero(r_decay * r, r_decay_shift) + r_jump * y, state_bits)",
        "S = y << k",
    ]
    fields = ("a_uu", "a_uw", "a_wu", "a_ww", "r_decay", "k_u", "k_w")
    return IntegerStep(
        statements=tuple(filter(None, statements)),
        states={"u": "state_bits", "w": "state_bits", "r": "state_bits", "S": ""},
        start=lines(
            """
            u = half_up(U0, start_shift)
            w = half_up(U1, start_shift)
            S = U2
            """
        )
        if random
        else (),
        draws=tuple(Draw(f"U{word}", word=word) for word in range(3)) if random else (),
        constants={
            **{f"{name}_shift": f"f_{name}" for name in fields},
            "point_shift": "f_state",
            **({"start_shift": "k - f_state"} if random else {}),
            **({"recurrent_shift": "f_recurrent_gain - f_state"} if recurrent else {}),
        },
        inputs=("x", "r_in") if recurrent else ("x",),
    )


def _loihi_lif(settings: Mapping[str, Any]) -> IntegerStep:
    recurrent = "recurrent_shift" in settings
    sign = ">=" if settings["tie"] == "ge" else ">"
    back = "returned = 0 if first else half_up(recurrent_gain * r_in, recurrent_shift)"
    return IntegerStep(
        (
            *((back,) if recurrent else ()),
            "drive = half_up(input_gain * x, input_gain_shift)" + " + returned" * recurrent,
            "u = fit(toward_zero(current_decay * u, current_decay_shift) + drive, state_bits)",
            "a = fit(toward_zero(adaptation_decay * a, adaptation_decay_shift) "
            "- adaptation_jump * s, state_bits)",
            "v = fit(toward_zero(membrane_decay * v, membrane_decay_shift) + u + a + bias, "
            "state_bits)",
            f"y = 1 if v {sign} threshold else 0",
            "v = 0 if y else v",
            "s = y",
        ),
        states={**dict.fromkeys("uav", "state_bits"), "s": SPIKE_BITS},
        constants={
            **{f"{name}_shift": f"f_{name}" for name in LOIHI_LIF_DECAYS},
            "input_gain_shift": "f_input_gain + f_in - f_state",
            **({"recurrent_shift": "f_recurrent_gain - f_state"} if recurrent else {}),
        },
        inputs=("x", "r_in") if recurrent else ("x",),
    )


def _delta_encoder(settings: Mapping[str, Any]) -> IntegerStep:
    gathers = settings["error"] == "accumulated"
    compared = "gathered" if gathers else "d"
    statements = (
        "now = fit(x << in_shift, state_bits)",
        "d = fit(now - last + rest, state_bits)",
        *(("gathered = fit(gathered + d, state_bits)",) if gathers else ()),
        f"sent = d if abs({compared}) >= threshold else 0",
        "last = now",
        "rest = d - sent",
        *(("gathered = 0 if sent else gathered",) if gathers else ()),
        "y = fit(sent >> out_shift, bits)",
    )
    states = ("last", "rest", *(("gathered",) if gathers else ()))
    shifts = {"in_shift": "f_state - f_in", "out_shift": "f_state - f_out"}
    return IntegerStep(statements, dict.fromkeys(states, "state_bits"), constants=shifts)


def _leaky_integrator(settings: Mapping[str, Any]) -> IntegerStep:
    random = settings["site"] >= 0
    return IntegerStep(
        lines(
            """
            u = fit(toward_zero(decay * u, decay_shift) + x, state_bits)
            y = u
            """
        ),
        states={"u": "state_bits"},
        start=("u = half_up(U0, start_shift)",) if random else (),
        draws=(Draw("U0", word=0),) if random else (),
        constants={
            "decay_shift": "f_decay",
            **({"start_shift": "k - f_state"} if random else {}),
        },
    )


def _sum(settings: Mapping[str, Any]) -> IntegerStep:
    names = tuple(f"x{i + 1}" for i in range(int(settings.get("inputs", 2))))
    return IntegerStep((f"y = fit({' + '.join(names)}, bits)",), inputs=names)


#: Steps by operation. A neuron of your own adds its entry here.
STEPS: Final[dict[str, IntegerStep | StepOf]] = {
    "Synapses": IntegerStep(("y = fit(x, bits)",)),
    "ChannelAffine": IntegerStep(
        (_ACCUMULATE, "y = fit(half_up(r, shift), bits)"),
        constants={"shift": "f_a + f_in - f_out"},
    ),
    "Bernoulli": IntegerStep(
        (_ACCUMULATE, "Q = clamp(half_up(r, shift), 0, 1 << k)", "y = 1 if U < Q else 0"),
        draws=(Draw("U"),),
        constants={"shift": "f_a + f_in - k"},
    ),
    "StochasticBernoulli": IntegerStep(
        (
            _ACCUMULATE,
            f"n = min(max(shift, 0), {WORD_BITS} - k)",
            f"W = V >> ({WORD_BITS} - k - n)",
            "R = ((1 << n) - 1 - W) << (max(shift, 0) - n)",
            "Q = clamp(floor_shift(r + R, shift), 0, 1 << k)",
            "y = 1 if U < Q else 0",
        ),
        draws=(Draw("U"), Draw("V", f"{WORD_BITS} - k", below=True)),
        constants={"shift": "f_a + f_in - k"},
    ),
    "DiagonalSSM": IntegerStep(
        lines(
            """
            new_re[mode] = fit(toward_zero(a_re[mode] * re[mode], decay_shift) - toward_zero(a_im[mode] * im[mode], decay_shift) + toward_zero(b_re[mode] * x, input_shift), state_bits)
            new_im[mode] = fit(toward_zero(a_im[mode] * re[mode], decay_shift) + toward_zero(a_re[mode] * im[mode], decay_shift) + toward_zero(b_im[mode] * x, input_shift), state_bits)
            re[mode] = new_re[mode]
            im[mode] = new_im[mode]
            read[mode] = toward_zero(c_re[mode] * re[mode], read_shift) - toward_zero(c_im[mode] * im[mode], read_shift)
            y = fit(sum(read[mode]) + toward_zero(d * x, direct_shift), bits)
            """  # noqa: E501
        ),
        states={"re[mode]": "state_bits", "im[mode]": "state_bits"},
        constants={
            "decay_shift": "f_a_bar",
            "input_shift": "f_b_bar + f_in - f_state",
            "read_shift": "f_c + f_state - f_out",
            "direct_shift": "f_d + f_in - f_out",
        },
    ),
    "SecondOrderSSM": IntegerStep(
        lines(
            """
            v = toward_zero(a_zz * z, a_zz_shift) + toward_zero(a_zx * position, a_zx_shift)
            z = fit(v + x, state_bits)
            position = fit(position + toward_zero(a_xz * z, a_xz_shift), state_bits)
            y = position
            """
        ),
        states={"z": "state_bits", "position": "state_bits"},
        constants={"a_zz_shift": "f_a_zz", "a_zx_shift": "f_a_zx", "a_xz_shift": "f_a_xz"},
    ),
    "Relu": IntegerStep(("y = max(x, 0)",)),
    "Gelu": IntegerStep((*interpolation("abs(x)"), "y = max(x, 0) - c"), constants=_INTERVAL),
    "Sigmoid": IntegerStep(
        (
            *interpolation("abs(x)"),
            "y = fit(c if x < 0 else (1 << one_shift) - c, bits)",
        ),
        constants={**_INTERVAL, "one_shift": "f_in"},
    ),
    "Sum": _sum,
    "Multiply": IntegerStep(
        ("y = fit(half_up(x1 * x2, shift), bits)",),
        constants={"shift": "f_1 + f_2 - f_out"},
        inputs=("x1", "x2"),
    ),
    "TwoStateNeuron": _two_state,
    "LoihiLIF": _loihi_lif,
    "ResonateAndFire": IntegerStep(
        lines(
            """
            before = im
            turned = toward_zero(cos_decay * re, cos_decay_shift) - toward_zero(sin_decay * im, sin_decay_shift)
            im = toward_zero(sin_decay * re, sin_decay_shift) + toward_zero(cos_decay * im, cos_decay_shift)
            re = fit(turned + half_up(real_gain * x_re, real_gain_shift), state_bits)
            im = fit(im + half_up(imaginary_gain * x_im, imaginary_gain_shift), state_bits)
            y = (re >= threshold) * (im >= 0) * (before < 0)
            """  # noqa: E501
        ),
        states={"re": "state_bits", "im": "state_bits"},
        constants={
            **{f"{name}_shift": f"f_{name}" for name in RESONATE_DECAYS},
            **{f"{name}_shift": f"f_{name} + f_in - f_state" for name in RESONATE_GAINS},
        },
        inputs=("x_re", "x_im"),
    ),
    "DeltaEncoder": _delta_encoder,
    "LeakyIntegrator": _leaky_integrator,
}
