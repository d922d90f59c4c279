"""Noise that reproduces on every backend and machine.

A random spike compares a probability with a uniform number. The number belongs to
``(seed, sample, step, site, neuron, draw)`` and to nothing else, so it does not depend on the batch
size, the order of evaluation, the device or the thread count. One raw word gives both forms:

* float reference: ``u = (raw >> 11) * 2**-53``, float64 in [0, 1);
* integer backends: ``U = raw >> (64 - bits)``, an integer in 0 … 2**bits - 1;

hence ``U == floor(u * 2**bits)`` exactly. ``docs/semantics.md`` states the keying. Noise of the
kind that chips make is in :mod:`pspike_deploy.numerics.generators`.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, SupportsIndex

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError

if TYPE_CHECKING:
    from pspike_deploy.numerics.generators import LcgNoise, LfsrNoise

#: Bits of a float uniform, and of a noise integer before a compare takes its first ones.
UNIFORM_BITS: Final = 53

#: Kind of the counter-based noise, in headers of recordings.
PHILOX: Final = "philox4x64-10"

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Samples = Sequence[int] | npt.NDArray[Any]

#: Most noise bits that a signed 24-bit compare holds, 2**bits itself included.
MAXIMUM_NOISE_BITS = 22


class Noise:
    """Source of uniform numbers; make one with a static method, for instance :meth:`philox`."""

    @staticmethod
    def philox(seed: int = 0) -> PhiloxNoise:
        """Counter-based noise (Philox4x64-10) for a seed in 0 … 2**64 - 1."""
        return PhiloxNoise(seed)

    @staticmethod
    def injected(uniforms: Mapping[int, npt.ArrayLike]) -> InjectedNoise:
        """Noise given as data: for each site uniforms in [0, 1), shape (sample, step, neuron).

        Row ``i`` belongs to sample index ``i`` of the data set; there is one draw only.
        """
        return InjectedNoise({site: np.asarray(u, np.float64) for site, u in uniforms.items()})

    @staticmethod
    def lfsr(
        width: int = 16,
        taps: int = 0xB400,
        shifts: int = 1,
        sharing: str = "neuron",
        seed: int = 0,
        *,
        core_neurons: int = 64,
        uniform_bits: int | None = None,
    ) -> LfsrNoise:
        """Noise of Galois shift registers, see :class:`~.generators.LfsrNoise`.

        Raises:
            PspikeError: E-USAGE for values that are not allowed.
        """
        from pspike_deploy.numerics.generators import LfsrNoise

        return LfsrNoise(
            width=width,
            taps=taps,
            shifts=shifts,
            sharing=sharing,
            seed=seed,
            core_neurons=core_neurons,
            uniform_bits=uniform_bits,
        )

    @staticmethod
    def lcg(
        byte: str = "high",
        sharing: str = "neuron",
        seed: int = 0,
        *,
        core_neurons: int = 64,
        uniform_bits: int | None = None,
    ) -> LcgNoise:
        """Noise of linear congruences modulo 2**32, see :class:`~.generators.LcgNoise`.

        Raises:
            PspikeError: E-USAGE for values that are not allowed.
        """
        from pspike_deploy.numerics.generators import LcgNoise

        return LcgNoise(
            byte=byte,
            sharing=sharing,
            seed=seed,
            core_neurons=core_neurons,
            uniform_bits=uniform_bits,
        )

    def uniform(
        self, site: int, samples: Samples, steps: int, neurons: int, draw: int = 0
    ) -> FloatArray:
        """Uniform numbers in [0, 1), float64, shape (len(samples), steps, neurons)."""
        raise NotImplementedError

    def integers(
        self, site: int, samples: Samples, steps: int, neurons: int, bits: int, draw: int = 0
    ) -> IntArray:
        """Uniform integers 0 … 2**bits - 1, int64, shape (len(samples), steps, neurons)."""
        raise NotImplementedError

    def describe(self) -> dict[str, str | int]:
        """What the noise is, as plain data for recordings and manifests."""
        raise NotImplementedError


def word_of(what: str, value: SupportsIndex) -> int:
    """A seed or draw as one unsigned 64-bit word.

    Raises:
        PspikeError: E-USAGE where it is not an integer, or too small or large.
    """
    number = -1
    with suppress(TypeError):  # not an integer
        number = operator.index(value)
    if not 0 <= number < 2**64:
        raise PspikeError(
            "E-USAGE",
            f"{what} {value!r} is not allowed",
            why=f"a {what} is one unsigned 64-bit word",
            fix=f"give an integer {what} in 0 … 18446744073709551615",
        )
    return number


@dataclass(frozen=True)
class PhiloxNoise(Noise):
    """Counter-based noise, see :mod:`pspike_deploy.numerics.philox`."""

    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", word_of("seed", self.seed))

    def words(
        self, site: int, samples: Samples, steps: int, neurons: int, draw: int = 0, bits: int = 64
    ) -> npt.NDArray[np.uint64]:
        """The first ``bits`` of 64 random bits, uint64, shape (len(samples), steps, neurons)."""
        from pspike_deploy.numerics.philox import philox_words

        draw = word_of("draw", draw)
        indices = np.asarray(samples, np.int64)
        return philox_words(self.seed, site, indices, steps, neurons, draw, bits=bits)

    def uniform(
        self, site: int, samples: Samples, steps: int, neurons: int, draw: int = 0
    ) -> FloatArray:
        """Uniform numbers in [0, 1) on the grid of 2**-53."""
        numbers = self.integers(site, samples, steps, neurons, UNIFORM_BITS, draw).astype(
            np.float64
        )
        numbers *= 2.0**-53
        return numbers

    def integers(
        self, site: int, samples: Samples, steps: int, neurons: int, bits: int, draw: int = 0
    ) -> IntArray:
        """The first ``bits`` bits of each word, at most 63."""
        return self.words(site, samples, steps, neurons, draw, bits).view(np.int64)

    def describe(self) -> dict[str, str | int]:
        """Kind and seed."""
        return {"kind": PHILOX, "seed": self.seed}


@dataclass(frozen=True, eq=False)
class InjectedNoise(Noise):
    """Uniform numbers given as arrays, one per site."""

    uniforms: Mapping[int, FloatArray]

    def __post_init__(self) -> None:
        for site, u in self.uniforms.items():
            if u.ndim != 3 or not np.all((u >= 0) & (u < 1)):
                raise PspikeError(
                    "E-NOISE",
                    f"the injected noise of site {site} is not usable",
                    why=f"it has shape {u.shape} and needs (sample, step, neuron) within [0, 1)",
                    fix="give uniforms u with 0 <= u < 1; from integers U of k bits: U / 2**k",
                )

    def uniform(
        self, site: int, samples: Samples, steps: int, neurons: int, draw: int = 0
    ) -> FloatArray:
        """The stored numbers of these samples.

        Raises:
            PspikeError: E-NOISE where the arrays do not hold what is asked for.
        """
        draw = word_of("draw", draw)
        indices = np.asarray(samples, np.int64)
        stored = self.uniforms.get(site)
        needed = (int(indices.max(initial=-1)) + 1, steps, neurons)
        if stored is None or draw != 0 or not np.all(np.greater_equal(stored.shape, needed)):
            raise PspikeError(
                "E-NOISE",
                f"the injected noise does not cover site {site}",
                why=f"needed (sample, step, neuron) {needed}, draw {draw}; given "
                + ("nothing" if stored is None else f"{stored.shape}, one draw"),
                fix="inject an array for every site, as large as the run",
            )
        return stored[indices, :steps, :neurons]

    def integers(
        self, site: int, samples: Samples, steps: int, neurons: int, bits: int, draw: int = 0
    ) -> IntArray:
        """``floor(u * 2**bits)`` of the stored numbers (exact: a power of two scales exactly)."""
        u = self.uniform(site, samples, steps, neurons, draw)
        return np.floor(u * 2.0**bits).astype(np.int64)

    def describe(self) -> dict[str, str | int]:
        """Kind and a hash of the arrays."""
        import hashlib

        digest = hashlib.sha256()
        for site in sorted(self.uniforms):
            digest.update(f"{site}{self.uniforms[site].shape}".encode())
            digest.update(np.ascontiguousarray(self.uniforms[site], "<f8").tobytes())
        return {"kind": "injected", "sha256": digest.hexdigest()}
