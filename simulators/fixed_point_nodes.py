"""The fixed-point simulator's node functions: ``docs/semantics.md`` on whole int64 arrays.

Values are (sample, step, neuron). One function per node type, found by
:func:`functools.singledispatch`; loops over neurons are compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.signal

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.neurons import ORDERS, TWO_STATE_COEFFICIENTS, TWO_STATE_VECTORS
from pspike_deploy.graph.nodes import (
    Activation,
    Bernoulli,
    ChannelAffine,
    Convolution,
    DeltaEncoder,
    DiagonalSSM,
    LeakyIntegrator,
    Linear,
    LoihiLIF,
    MeanPool,
    Multiply,
    Node,
    Quantize,
    ResonateAndFire,
    SecondOrderSSM,
    SoftmaxSum,
    Sum,
    TwoStateNeuron,
)
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import ACCUMULATOR_BITS, Format
from pspike_deploy.numerics.noise import UNIFORM_BITS, PhiloxNoise
from pspike_deploy.simulators.fixed_point_run import IntArray, Run

#: Largest sums of products that floating-point arithmetic still adds up exactly.
_EXACT_IN: Final = ((2**24, np.float32), (2**53, np.float64))
#: The same in float64 where an FFT adds them up: its rounding stays far below one half.
_EXACT_IN_FFT: Final = 2**40


def evaluate(state: Run, name: str, inputs: Sequence[Any]) -> Any:
    """Output of the node ``name`` from the outputs of its sources."""
    node = state.graph.nodes[name]
    formats = state.graph.semantics.quantization[name]
    sources = state.graph.sources(name)
    point = 0
    if not isinstance(node, Quantize):
        factors = sources if isinstance(node, Multiply) else sources[:1]
        point = sum(int(state.graph.output_format(source).fractions()) for source in factors)
    return node_output(node, formats, inputs, point, name, state)


@singledispatch
def node_output(
    node: Node, formats: NodeQuantization, inputs: Sequence[Any], point: int, name: str, run: Run
) -> Any:
    """Output of a node from its inputs; ``point``: fraction bits of the input, or of a product."""
    raise PspikeError(
        "E-TARGET-UNSUPPORTED",
        f"the fixed-point simulator does not know {type(node).__name__}",
        fix="fold or quantise the graph first",
        where=name,
    )


def _half_up(values: IntArray, shift: npt.NDArray[np.int64]) -> IntArray:
    """Divide by 2**shift, rounding halves up; a negative shift multiplies."""
    right, left = np.maximum(shift, 0), np.maximum(-shift, 0)
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    return ((values << left) + half) >> right


def _shift(
    node: ChannelAffine | Bernoulli, formats: NodeQuantization, others: int
) -> npt.NDArray[np.int64]:
    """Shift behind the gain of every neuron, (neuron,)."""
    shift = formats.tensors["a"].fractions() + others
    return np.ascontiguousarray(np.broadcast_to(shift, node.a.shape))


@node_output.register
def _(
    node: Quantize, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run
) -> Any:
    scale = 2.0 ** int(formats.output.fractions())
    # Far outside any register, but inside int64: it is an overflow, not an undefined cast.
    scaled = np.clip(np.floor(inputs[0] * scale + 0.5), -(2.0**62), 2.0**62)
    integers = scaled.astype(np.int64)
    return run.fit(name, "output", integers, formats.output.bits)


@node_output.register
def _(node: Linear, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run) -> Any:
    total = _matrix_product(inputs[0], node)
    return run.fit(name, "output", total, formats.output.bits)


def _matrix_product(x: IntArray, node: Linear) -> IntArray:
    """Sums of the synapses in the fastest arithmetic that is exact for these numbers."""
    from pspike_deploy.simulators.synapse_kernels import add_rows, adding_rows_pays, rows_of

    largest = max(int(x.max(initial=0)), -int(x.min(initial=0)))
    pays = adding_rows_pays(x, node.weight.size)
    for limit, dtype in _EXACT_IN:
        if pays:
            rows = rows_of(node, dtype)
            if largest * rows.largest_sum < limit:
                return add_rows(x, rows)
        elif largest * int(np.abs(node.weight, dtype=np.int64).sum(axis=1).max(initial=0)) < limit:
            exact: IntArray = np.matmul(x.astype(dtype), node.weight.T.astype(dtype))
            return exact.astype(np.int64)
    return x @ node.weight.T.astype(np.int64)


@node_output.register
def _(
    node: ChannelAffine, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run
) -> Any:
    from pspike_deploy.simulators.pointwise_kernels import affine

    shift = _shift(node, formats, point - int(formats.output.fractions()))
    gains = node.a.astype(np.int64), node.b.astype(np.int64)
    y, inner, outer = affine(inputs[0], *gains, shift, formats.output.bits, run.wraps)
    run.count(name, inner, ACCUMULATOR_BITS, "accumulator")
    run.count(name, outer, formats.output.bits, "output")
    return y


@node_output.register
def _(
    node: Bernoulli, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run
) -> Any:
    if formats.rounding == "stochastic" or not isinstance(run.noise, PhiloxNoise):
        return _sampled(node, formats, inputs[0], point, name, run)
    from pspike_deploy.simulators.sampling_kernels import sample_with_philox

    bits = run.graph.semantics.noise_bits
    codes = np.empty_like(inputs[0]) if name in run.record else None
    spikes, overflows = sample_with_philox(
        inputs[0],
        (node.a.astype(np.int64), node.b.astype(np.int64), _shift(node, formats, point - bits)),
        noise_bits=bits,
        wrap=run.wraps,
        key=(run.noise.seed, node.site, run.draw),
        samples=run.samples,
        codes=codes,
    )
    run.count(name, overflows, ACCUMULATOR_BITS, "accumulator")
    if codes is not None:
        run.probabilities[name] = codes
    return spikes


def _sampled(
    node: Bernoulli, formats: NodeQuantization, x: IntArray, point: int, name: str, run: Run
) -> IntArray:
    """Spikes from noise of any kind, one operation after the other."""
    from pspike_deploy.simulators.pointwise_kernels import accumulate, sample, sample_stochastic

    bits = run.graph.semantics.noise_bits
    code, overflows = accumulate(x, node.a.astype(np.int64), node.b.astype(np.int64), run.wraps)
    run.count(name, overflows, ACCUMULATOR_BITS, "accumulator")
    stochastic = formats.rounding == "stochastic"
    drawn = UNIFORM_BITS if stochastic else bits
    _, steps, neurons = code.shape
    uniform = run.noise.integers(node.site, run.samples, steps, neurons, drawn, run.draw)
    spikes = (sample_stochastic if stochastic else sample)(
        code, _shift(node, formats, point - bits), uniform, bits
    )
    if name in run.record:
        run.probabilities[name] = code
    return spikes


def _interval_bits(node: Activation | SoftmaxSum, point: int) -> int:
    """Bits of one step of the node's table."""
    return point - node.table_step_bits


@node_output.register
def _(
    node: Activation, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run
) -> Any:
    from pspike_deploy.simulators.pointwise_kernels import gelu, sigmoid

    (x,) = inputs
    if node.kind == "relu":
        return np.maximum(x, 0)
    table, interval = node.table.astype(np.int64), _interval_bits(node, point)
    if node.kind == "sigmoid":
        y = sigmoid(x, table, interval, 1 << point)
        return run.fit(name, "output", y, formats.output.bits)
    return gelu(x, table, interval)


@node_output.register
def _(node: Sum, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run) -> Any:
    return run.fit(name, "output", sum(inputs[1:], inputs[0]), formats.output.bits)


@node_output.register
def _(
    node: Multiply, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run
) -> Any:
    shift = point - formats.output.fractions()
    return run.fit(name, "output", _half_up(inputs[0] * inputs[1], shift), formats.output.bits)


@node_output.register
def _(
    node: MeanPool, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run
) -> Any:
    from pspike_deploy.simulators.pointwise_kernels import running_mean

    state = formats.tensors["state"]
    x = _half_up(inputs[0], np.asarray(point - int(state.fractions())))
    return running_mean(_running_sum(x, state, name, run))


def _running_sum(x: IntArray, state: Format, name: str, run: Run) -> IntArray:
    """Running sum that applies the overflow policy at every step."""
    total: IntArray = np.cumsum(x, axis=1)
    if (np.abs(total) <= state.limit).all():
        return total
    current = np.zeros_like(x[:, 0])
    for step in range(x.shape[1]):
        summed = (current + x[:, step])[:, None]
        current = run.fit(name, "state", summed, state.bits, step)[:, 0]
        total[:, step] = current
    return total


@node_output.register
def _(
    node: DiagonalSSM, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run
) -> Any:
    from pspike_deploy.simulators.ssm_kernels import state_space

    tensors = formats.tensors
    f_state, f_out = int(tensors["state"].fractions()), int(formats.output.fractions())
    y, overflows = state_space(
        np.ascontiguousarray(inputs[0]),
        a_bar=np.ascontiguousarray(node.a_bar, np.int64),
        b_bar=np.ascontiguousarray(node.b_bar, np.int64),
        c=np.ascontiguousarray(node.c, np.int64),
        d=np.ascontiguousarray(node.d, np.int64),
        decay_shift=int(tensors["a_bar"].fractions()),
        read_shift=int(tensors["c"].fractions()) + f_state - f_out,
        input_shift=int(tensors["b_bar"].fractions()) + point - f_state,
        direct_shift=int(tensors["d"].fractions()) + point - f_out,
        state_bits=tensors["state"].bits,
        wrap=run.wraps,
    )
    run.count(name, overflows, tensors["state"].bits)
    return run.fit(name, "output", y, formats.output.bits)


@node_output.register
def _(
    node: Convolution, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run
) -> Any:
    (x,) = inputs
    kernel = node.kernel.astype(np.int64)
    steps, lags = x.shape[1], kernel.shape[1]
    largest = int(np.abs(kernel).sum(axis=1).max(initial=0)) * int(np.abs(x).max(initial=0))
    if largest >= _EXACT_IN_FFT:
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            f"sums of the convolution {name!r} are too large to be computed exactly",
            why=f"they reach {largest}; the limit is {_EXACT_IN_FFT}",
            fix="give the coefficients fewer bits",
            where=name,
        )
    # By FFT in float64: the sums are integers, so rounding makes them exact.
    whole = scipy.signal.fftconvolve(x.astype(np.float64), kernel.T[None], axes=1)
    total = np.rint(whole[:, lags // 2 : lags // 2 + steps]).astype(np.int64)
    total = total + node.d.astype(np.int64) * x
    shift = formats.tensors["kernel"].fractions() - int(formats.output.fractions())
    return run.fit(name, "output", _half_up(total, shift), formats.output.bits)


def _start(node: TwoStateNeuron | LeakyIntegrator, point: int, words: int, run: Run) -> IntArray:
    """States before the first step (sample, word, neuron): drawn, or zeros.

    Words 0 and 1 are in state units; word 2, a fraction of a spike, keeps all its noise bits.
    """
    (width,) = node.input_shape
    if node.noise_site is None:
        return np.zeros((len(run.samples), words, width), np.int64)
    bits = run.graph.semantics.noise_bits
    drawn = run.noise.integers(node.noise_site, run.samples, words, width, bits, run.draw)
    drawn[:, :2] = _half_up(drawn[:, :2], np.asarray(bits - point))
    return drawn


@node_output.register
def _(
    node: TwoStateNeuron, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run
) -> Any:
    from pspike_deploy.simulators.neuron_vectors import fast_two_state

    tensors, semantics = formats.tensors, run.graph.semantics
    gain_shift = np.zeros(0, np.int64)
    if node.is_recurrent:
        gain_shift = tensors["recurrent_gain"].fractions() - point
        gain_shift = np.broadcast_to(gain_shift, node.recurrent_gain.shape)
    spikes, overflows = fast_two_state(
        np.ascontiguousarray(inputs[0]),
        _start(node, point, 3, run),
        synapses=np.ascontiguousarray(node.recurrent_weight.T, np.int64),
        gain=node.recurrent_gain.astype(np.int64),
        gain_shift=np.ascontiguousarray(gain_shift),
        vectors=np.stack([getattr(node, f).astype(np.int64) for f in TWO_STATE_VECTORS]),
        shifts=tuple(int(tensors[f].fractions()) for f in TWO_STATE_COEFFICIENTS),
        options=(
            ORDERS.index(node.order),
            int(node.reset == "hard"),
            int(node.tie == "ge"),
            semantics.noise_bits,
            point,
            tensors["state"].bits,
            int(run.wraps),
        ),
    )
    run.count(name, overflows, tensors["state"].bits)
    return spikes


@node_output.register
def _(
    node: LoihiLIF, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run
) -> Any:
    from pspike_deploy.simulators.loihi_kernels import loihi_lif

    spikes, _, overflows = loihi_lif(node, formats, inputs[0], point, wrap=run.wraps)
    run.count(name, overflows, formats.tensors["state"].bits)
    return spikes


@node_output.register
def _(
    node: ResonateAndFire, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run
) -> Any:
    from pspike_deploy.simulators.loihi_kernels import resonate_and_fire

    spikes, overflows = resonate_and_fire(node, formats, inputs[0], point, wrap=run.wraps)
    run.count(name, overflows, formats.tensors["state"].bits)
    return spikes


@node_output.register
def _(
    node: DeltaEncoder, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run
) -> Any:
    from pspike_deploy.simulators.loihi_kernels import delta_encoder

    y, overflows = delta_encoder(node, formats, inputs[0], point, wrap=run.wraps)
    run.count(name, overflows, formats.tensors["state"].bits)
    return run.fit(name, "output", y, formats.output.bits)


@node_output.register
def _(
    node: SecondOrderSSM, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run
) -> Any:
    from pspike_deploy.simulators.neuron_kernels import oscillators

    names, state = ("a_zz", "a_zx", "a_xz"), formats.tensors["state"]
    y, overflows = oscillators(
        np.ascontiguousarray(inputs[0]),
        factors=np.stack([getattr(node, field).astype(np.int64) for field in names]),
        shifts=tuple(int(formats.tensors[field].fractions()) for field in names),
        bits=state.bits,
        wrap=run.wraps,
    )
    run.count(name, overflows, state.bits)
    return y


@node_output.register
def _(
    node: LeakyIntegrator, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run
) -> Any:
    from pspike_deploy.simulators.neuron_kernels import leaky_integrator

    state = formats.tensors["state"]
    y, overflows = leaky_integrator(
        np.ascontiguousarray(inputs[0]),
        _start(node, point, 1, run)[:, 0],
        decay=node.decay.astype(np.int64),
        shift=int(formats.tensors["decay"].fractions()),
        bits=state.bits,
        wrap=run.wraps,
    )
    run.count(name, overflows, state.bits)
    return y


@node_output.register
def _(
    node: SoftmaxSum, formats: NodeQuantization, inputs: Any, point: int, name: str, run: Run
) -> Any:
    from pspike_deploy.simulators.pointwise_kernels import interpolate

    (x,) = inputs
    state = formats.tensors["state"]
    below = x.max(axis=-1, keepdims=True) - x
    power = interpolate(below, node.table.astype(np.int64), _interval_bits(node, point))
    total = power.sum(axis=-1, keepdims=True)
    share = ((power << int(state.fractions() + 1)) + total) // (2 * total)
    return _running_sum(share, state, name, run)
