"""Noise of the kind that chips make: shift registers and linear congruences, flaws included.

Such a generator has a short state, and its numbers are not independent. Where several neurons
share one they draw in turn, in the order of their numbers: neuron ``m`` of the ``n`` that share it
has draw ``step * n + m``. The state advances before each draw. Every stream starts where a hash
puts it, word ``stream mod 4`` of Philox4x64-10 with key ``(seed, site)`` and counter
``(1 + stream div 4, 2**32, sample, draw)``; no run has 2**32 steps, so Philox noise of the same
seed never holds that word. A number belongs to ``(seed, sample, step, site, neuron, draw)`` and
the width of the layer, not to the batch.

Sources: Galois registers, S. W. Golomb, "Shift Register Sequences" (1967); congruences, D. E.
Knuth, "The Art of Computer Programming", volume 2, section 3.2.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.numerics.noise import FloatArray, IntArray, Noise, Samples, word_of

#: Who shares one generator: nobody, blocks of neurons of a layer, or the whole layer.
SHARING: Final = ("neuron", "core", "layer")
#: Ends of the state that a congruence hands out.
BYTES: Final = ("high", "low")
#: Counter word, in the place of a step, of the hash that starts a stream.
START: Final = 2**32
#: Multiplier and increment of the congruence modulo 2**32 ("Numerical Recipes", 1992, ranqd1).
LCG_MULTIPLIER: Final = 1664525
LCG_INCREMENT: Final = 1013904223
LCG_BITS: Final = 32
MOST_WIDTH: Final = 32
MOST_SHIFTS: Final = 2**16


@dataclass(frozen=True, kw_only=True)
class GeneratorNoise(Noise):
    """What shift registers and congruences have in common.

    Attributes:
        sharing: ``neuron``: a generator per neuron; ``core``: one per ``core_neurons`` neighbours
            in a layer; ``layer``: one per layer. Layers never share one.
        seed: 0 … 2**64 - 1.
        core_neurons: neurons of a layer that share a generator under ``core``.
        uniform_bits: bits of a float uniform. It equals U * 2**-bits of an integer network with as
            many noise bits; with others the two take different bits of the state. None: as many as
            the generator has.
    """

    sharing: str = "neuron"
    seed: int = 0
    core_neurons: int = 64
    uniform_bits: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", word_of("seed", self.seed))
        if self.sharing not in SHARING:
            raise _refused("sharing", self.sharing, f"one of {', '.join(SHARING)}")
        _require("core_neurons", self.core_neurons, 1, 2**31)
        if self.uniform_bits is not None:
            _require("uniform_bits", self.uniform_bits, 1, self.state_bits)

    @property
    def state_bits(self) -> int:
        """Bits of the state; a draw has at most as many."""
        raise NotImplementedError

    @property
    def bits_of_uniforms(self) -> int:
        """Bits of a float uniform."""
        return self.state_bits if self.uniform_bits is None else self.uniform_bits

    def neurons_per_stream(self, neurons: int) -> int:
        """Neurons that share one generator in a layer of so many."""
        return {"neuron": 1, "core": self.core_neurons, "layer": max(neurons, 1)}[self.sharing]

    def uniform(
        self, site: int, samples: Samples, steps: int, neurons: int, draw: int = 0
    ) -> FloatArray:
        """Uniform numbers in [0, 1) on the grid of ``2**-uniform_bits``."""
        bits = self.bits_of_uniforms
        numbers = self.integers(site, samples, steps, neurons, bits, draw).astype(np.float64)
        numbers *= 2.0**-bits
        return numbers

    def integers(
        self, site: int, samples: Samples, steps: int, neurons: int, bits: int, draw: int = 0
    ) -> IntArray:
        """``bits`` bits of the state after each advance.

        Raises:
            PspikeError: E-NOISE where the state has fewer bits.
        """
        from pspike_deploy.numerics.philox import philox_words

        self.require(bits)
        group = self.neurons_per_stream(neurons)
        indices, streams = np.asarray(samples, np.int64), -(-neurons // group)
        starts = philox_words(
            self.seed, site, indices, 1, streams, word_of("draw", draw), first_step=START
        )
        numbers = np.empty((len(indices), steps, neurons), np.int64)
        self._fill(numbers, starts[:, 0], group, bits)
        return numbers

    def require(self, bits: int) -> None:
        """Refuse draws of more bits than the state has.

        Raises:
            PspikeError: E-NOISE.
        """
        if bits > self.state_bits:
            raise PspikeError(
                "E-NOISE",
                f"a generator of {self.state_bits} bits cannot make {bits} random bits per draw",
                why="the network's noise bits, or stochastic rounding (53 bits), ask for them",
                fix="quantise with fewer --noise-bits and --probability-rounding half_up, "
                "widen the register, or use philox",
            )

    def _fill(
        self, numbers: IntArray, hashes: npt.NDArray[np.uint64], group: int, bits: int
    ) -> None:
        raise NotImplementedError

    def _shared_facts(self) -> dict[str, str | int]:
        facts: dict[str, str | int] = {"sharing": self.sharing, "seed": self.seed}
        if self.sharing == "core":
            facts["core_neurons"] = self.core_neurons
        return {**facts, "uniform_bits": self.bits_of_uniforms}


@dataclass(frozen=True, kw_only=True)
class LfsrNoise(GeneratorNoise):
    """Galois shift register that moves right; a draw is its low bits.

    Attributes:
        width: bits of the register, 2 … 32.
        taps: mask that is added (exclusive or) where a one leaves; one of the longest period.
        shifts: shifts before each draw, 1 … 65,536.

    Raises:
        PspikeError: E-USAGE for other values.
    """

    width: int = 16
    taps: int = 0xB400
    shifts: int = 1

    def __post_init__(self) -> None:
        _require("width", self.width, 2, MOST_WIDTH)
        _require("shifts", self.shifts, 1, MOST_SHIFTS)
        if type(self.taps) is not int or not has_longest_period(self.width, self.taps):
            shown = hex(self.taps) if type(self.taps) is int else repr(self.taps)
            raise _refused(
                "taps",
                shown,
                "a mask of the longest period, for instance 0xB8 for a width of 8, 0xB400 for 16, "
                "0xE10000 for 24, 0x80200003 for 32",
                why=f"a register of {self.width} bits does not pass {2**self.width - 1} states "
                "with it",
            )
        super().__post_init__()

    @property
    def state_bits(self) -> int:
        """Bits of the register."""
        return self.width

    @property
    def period(self) -> int:
        """Draws after which a stream repeats: ``(2**width - 1) / gcd(shifts, 2**width - 1)``."""
        whole: int = 2**self.width - 1
        return whole // math.gcd(self.shifts, whole)

    def period_in_steps(self, neurons: int) -> int:
        """Steps after which each neuron of a stream repeats where so many share it."""
        return self.period // math.gcd(neurons, self.period)

    @property
    def echo(self) -> int | None:
        """Draws after which the stream comes back moved by one place; None where it never does."""
        whole: int = 2**self.width - 1
        if self.period < whole:
            return None
        lag: int = pow(self.shifts, -1, whole)
        return min(lag, whole - lag)

    def _fill(
        self, numbers: IntArray, hashes: npt.NDArray[np.uint64], group: int, bits: int
    ) -> None:
        from pspike_deploy.numerics.generator_kernels import lfsr_draws

        states = hashes % np.uint64(2**self.width - 1) + np.uint64(1)
        lfsr_draws(numbers, states, group, self.taps, self.shifts, bits)

    def describe(self) -> dict[str, str | int]:
        """Parameters, period and echo in draws of one stream, and what to be wary of."""
        facts: dict[str, str | int] = {
            "kind": "lfsr",
            "width": self.width,
            "taps": f"0x{self.taps:X}",
            "shifts": self.shifts,
            **self._shared_facts(),
            "period": self.period,
        }
        if self.echo is not None:
            facts["echo"] = self.echo
        warnings = list(self._warnings())
        return {**facts, "warning": "; ".join(warnings)} if warnings else facts

    def _warnings(self) -> list[str]:
        found, whole = [], 2**self.width - 1
        if self.period < whole:
            found.append(
                f"{self.shifts} shifts share a factor with the period {whole}: a stream repeats "
                f"after {self.period} draws"
            )
        if self.shifts < self.width:
            found.append(f"draws of more than {self.shifts} bits overlap the draw before them")
        return found


@dataclass(frozen=True, kw_only=True)
class LcgNoise(GeneratorNoise):
    """Linear congruence modulo 2**32; a draw is the high or the low end of its state.

    Attributes:
        byte: ``high`` or ``low``: the end of the state that draws take their bits from.

    Raises:
        PspikeError: E-USAGE for other values.
    """

    byte: str = "high"

    def __post_init__(self) -> None:
        if self.byte not in BYTES:
            raise _refused("byte", self.byte, "high or low")
        super().__post_init__()

    @property
    def state_bits(self) -> int:
        """Bits of the state."""
        return LCG_BITS

    @property
    def bits_of_uniforms(self) -> int:
        """Bits of a float uniform: the low byte, or the whole state from its high end."""
        if self.uniform_bits is None and self.byte == "low":
            return 8
        return super().bits_of_uniforms

    def period(self, bits: int) -> int:
        """Draws of so many bits after which a stream repeats."""
        return 1 << (bits if self.byte == "low" else LCG_BITS)

    def _fill(
        self, numbers: IntArray, hashes: npt.NDArray[np.uint64], group: int, bits: int
    ) -> None:
        from pspike_deploy.numerics.generator_kernels import lcg_draws

        shift = LCG_BITS - bits if self.byte == "high" else 0
        factors = LCG_MULTIPLIER, LCG_INCREMENT
        lcg_draws(numbers, hashes >> np.uint64(32), group, factors, shift, bits)

    def describe(self) -> dict[str, str | int]:
        """Parameters, period in draws of one stream, and what to be wary of."""
        facts: dict[str, str | int] = {
            "kind": "lcg",
            "multiplier": LCG_MULTIPLIER,
            "increment": LCG_INCREMENT,
            "byte": self.byte,
            **self._shared_facts(),
            "period": self.period(self.bits_of_uniforms),
        }
        if self.byte == "low":
            facts["warning"] = "draws of k low bits repeat after 2**k draws, the lowest after 2"
        return facts


def has_longest_period(width: int, taps: int) -> bool:
    """Whether a Galois register passes all ``2**width - 1`` states that are not zero.

    The state is a polynomial over GF(2), bit i the coefficient of ``x**(width - 1 - i)``; a shift
    to the right multiplies it by x. The period is longest where x has that order: ``x**n = 1`` for
    ``n = 2**width - 1``, and for no ``n / q`` with a prime q.
    """
    if not 2 ** (width - 1) <= taps < 2**width:
        return False
    one, whole = 1 << (width - 1), 2**width - 1
    if _power_of_x(whole, width, taps) != one:
        return False
    return all(_power_of_x(whole // q, width, taps) != one for q in _prime_factors(whole))


def described(facts: Mapping[str, Any]) -> GeneratorNoise | None:
    """The generator that :meth:`Noise.describe` tells of; None where it is of another kind.

    Raises:
        PspikeError: E-USAGE where the facts are not usable.
    """
    shared = {
        k: facts[k] for k in ("sharing", "seed", "core_neurons", "uniform_bits") if k in facts
    }
    if facts.get("kind") == "lfsr":
        taps = int(str(facts.get("taps")), 16)
        more = {k: facts[k] for k in ("width", "shifts") if k in facts}
        return LfsrNoise(taps=taps, **more, **shared)
    if facts.get("kind") == "lcg":
        return LcgNoise(byte=str(facts.get("byte")), **shared)
    return None


def _shifted(state: int, taps: int) -> int:
    return (state >> 1) ^ (taps if state & 1 else 0)


def _power_of_x(exponent: int, width: int, taps: int) -> int:
    result, factor = 1 << (width - 1), 1 << (width - 2)
    while exponent:
        if exponent & 1:
            result = _product(result, factor, width, taps)
        factor, exponent = _product(factor, factor, width, taps), exponent >> 1
    return result


def _product(a: int, b: int, width: int, taps: int) -> int:
    total = 0
    for power in range(width):  # a holds x**power: add b, moved so many places
        if a >> (width - 1 - power) & 1:
            total ^= b
        b = _shifted(b, taps)
    return total


def _prime_factors(number: int) -> list[int]:
    found, candidate = [], 2
    while candidate * candidate <= number:
        if number % candidate == 0:
            found.append(candidate)
            while number % candidate == 0:
                number //= candidate
        candidate += 1
    return [*found, number] if number > 1 else found


def _require(name: str, value: Any, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise _refused(name, value, f"an integer in {least} … {most}")


def _refused(name: str, value: Any, allowed: str, why: str | None = None) -> PspikeError:
    return PspikeError(
        "E-USAGE",
        f"{name} {value} of a noise generator is not allowed",
        why=why or f"{name} is {allowed}",
        fix=f"give {name}: {allowed}" if why else f"give {name} as {allowed}",
    )
