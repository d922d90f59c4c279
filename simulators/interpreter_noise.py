"""The interpreter's own noise generators, in plain Python integers.

Philox4x64-10: Salmon et al., SC 2011. Shift registers and congruences: ``docs/semantics.md``,
section 4. They are stepped as a chip would, one draw after another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import singledispatch

from pspike_deploy.errors import PspikeError
from pspike_deploy.numerics.generators import GeneratorNoise, LcgNoise, LfsrNoise
from pspike_deploy.numerics.noise import UNIFORM_BITS, InjectedNoise, Noise, PhiloxNoise
from pspike_deploy.simulators.interpreter_nodes import Uniforms, Vector

_WORD = 2**64 - 1
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)  # golden ratio, sqrt(3) - 1


def philox4x64(counter: Sequence[int], key: Sequence[int]) -> Vector:
    """Ten rounds of Philox on four counter words and two key words: four random 64-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product_0, product_1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product_1 >> 64) ^ c1 ^ k0,
            product_1 & _WORD,
            (product_0 >> 64) ^ c3 ^ k1,
            product_0 & _WORD,
        )
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return [c0, c1, c2, c3]


@singledispatch
def uniforms_of(noise: Noise, draw: int, bits: int) -> Uniforms:
    """Noise integers 0 … 2**bits - 1 by (site, sample, step, neurons)."""
    raise PspikeError(
        "E-NOISE",
        f"the interpreter does not know {type(noise).__name__}",
        fix="use a noise that pspike_deploy.Noise makes",
    )


@uniforms_of.register
def _(noise: PhiloxNoise, draw: int, bits: int) -> Uniforms:
    def draw_integers(site: int, sample: int, step: int, neurons: int) -> Vector:
        words: Vector = []
        for block in range((neurons + 3) // 4):
            words += philox4x64((1 + block, step, sample, draw), (noise.seed, site))
        return [word >> (64 - bits) for word in words[:neurons]]

    return draw_integers


@uniforms_of.register
def _(noise: InjectedNoise, draw: int, bits: int) -> Uniforms:
    def draw_integers(site: int, sample: int, step: int, neurons: int) -> Vector:
        stored = noise.uniforms.get(site)
        shape = (0, 0, 0) if stored is None else stored.shape
        if stored is None or draw or sample >= shape[0] or step >= shape[1] or neurons > shape[2]:
            raise PspikeError(
                "E-NOISE",
                f"the injected noise does not cover site {site}",
                why=f"sample {sample}, step {step}, {neurons} neurons, draw {draw} asked of an "
                f"array of shape {shape}, one draw",
                fix="inject an array for every site, as large as the run",
            )
        return [math.floor(u * 2**bits) for u in stored[sample, step, :neurons].tolist()]

    return draw_integers


# --- generators of the hardware kind --------------------------------------------------------


@uniforms_of.register
def _(noise: LfsrNoise, draw: int, bits: int) -> Uniforms:
    def advanced(state: int) -> int:
        for _ in range(noise.shifts):
            last = state % 2
            state //= 2
            if last:
                state ^= noise.taps
        return state

    return _streams(
        noise,
        draw,
        bits,
        first=lambda word: 1 + word % (2**noise.width - 1),
        advanced=advanced,
        output=lambda state: state % 2**bits,
    )


@uniforms_of.register
def _(noise: LcgNoise, draw: int, bits: int) -> Uniforms:
    high = noise.byte == "high"
    return _streams(
        noise,
        draw,
        bits,
        first=lambda word: word >> 32,
        advanced=lambda state: (1664525 * state + 1013904223) % 2**32,
        output=lambda state: state >> (32 - bits) if high else state % 2**bits,
    )


def _streams(
    noise: GeneratorNoise,
    draw: int,
    bits: int,
    *,
    first: Callable[[int], int],
    advanced: Callable[[int], int],
    output: Callable[[int], int],
) -> Uniforms:
    """Draws of all streams, stepped in order; going back in time starts a stream again.

    ``first``: state before the first draw from a hash; ``output``: a draw from a state.
    """
    states: dict[tuple[int, int, int], tuple[int, int]] = {}  # next step and state

    def of_stream(site: int, sample: int, stream: int, step: int, members: int) -> Vector:
        at, state = states.get((site, sample, stream), (step + 1, 0))
        if at > step:
            counter = (1 + stream // 4, 2**32, sample, draw)
            at, state = 0, first(philox4x64(counter, (noise.seed, site))[stream % 4])
        drawn: Vector = []
        while at <= step:
            drawn = []
            for _ in range(members):
                state = advanced(state)
                drawn.append(output(state))
            at += 1
        states[site, sample, stream] = at, state
        return drawn

    def draw_integers(site: int, sample: int, step: int, neurons: int) -> Vector:
        noise.require(bits)
        group = {"neuron": 1, "core": noise.core_neurons, "layer": neurons}[noise.sharing]
        drawn: Vector = []
        for stream, begin in enumerate(range(0, neurons, group)):
            members = min(group, neurons - begin)
            drawn += of_stream(site, sample, stream, step, members)
        return drawn

    return draw_integers


def words_of(noise: Noise, draw: int, noise_bits: int, *, stochastic: bool) -> Uniforms:
    """Noise integers of 53 bits whose first ``noise_bits`` bits a compare takes.

    Args:
        noise: source.
        draw: number of the repetition.
        noise_bits: bits k of a compare.
        stochastic: whether probabilities are rounded by the bits behind; otherwise those are zero.

    Raises:
        PspikeError: E-NOISE where the source does not have as many bits, or the interpreter does
            not know it.
    """
    taken = UNIFORM_BITS if stochastic else noise_bits
    drawn = uniforms_of(noise, draw, taken)

    def words(site: int, sample: int, step: int, neurons: int) -> Vector:
        return [u << (UNIFORM_BITS - taken) for u in drawn(site, sample, step, neurons)]

    return words
