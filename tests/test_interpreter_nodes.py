"""Each node of the interpreter against hand-computed cases and laws of ``docs/semantics.md``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    Bernoulli,
    ChannelAffine,
    DiagonalSSM,
    Input,
    Linear,
    MeanPool,
    Node,
    Output,
    Quantize,
    Sum,
)
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import interpreter
from pspike_deploy.simulators.interpreter_nodes import half_up
from tests.graphs import GraphBuilder, single_node_graph

Array = npt.NDArray[Any]
WIDE = 40
NOISE = Noise.philox(1)
quick = settings(max_examples=40, deadline=None)
small_integers = st.integers(-1000, 1000)


def ints(*values: Any) -> Array:
    return np.array(values, np.int64)


def record(
    node: Node,
    formats: NodeQuantization,
    steps: Any,
    *,
    f_in: int = 0,
    noise: Noise = NOISE,
    noise_bits: int = 16,
    overflow: str = "error",
    input_bits: int = WIDE,
) -> Recording:
    """One sample through one node; ``steps``: integers (step, neuron) that the node receives."""
    graph = single_node_graph(
        node,
        formats,
        input_format=Format(input_bits, f_in),
        noise_bits=noise_bits,
        overflow=overflow,
    )
    x = np.asarray(steps, np.float64)[None] * 2.0**-f_in
    return interpreter.run(graph, x, noise=noise)


def outputs(node: Node, formats: NodeQuantization, steps: Any, **options: Any) -> list[list[int]]:
    """The integers that come out, step by step."""
    return record(node, formats, steps, **options).values["node"][0].tolist()  # type: ignore[no-any-return]


# --- Quantize, Linear, ChannelAffine -------------------------------------------------------


def quantized(x: list[float], bits: int, point: int, overflow: str = "error") -> list[int]:
    build = GraphBuilder()
    build.add("entry", Input((len(x),)))
    build.add("q", Quantize((len(x),)), NodeQuantization(Format(bits, point)))
    build.add("exit", Output((len(x),)))
    run = interpreter.run(build.graph(overflow=overflow), [[x]], noise=NOISE)
    return run.values["q"][0, 0].tolist()  # type: ignore[no-any-return]


def test_quantize_rounds_ties_upwards() -> None:
    assert quantized([0.5, -0.5, 1.5, -1.5, 0.49, -0.51], 8, 0) == [1, 0, 2, -1, 0, -1]
    assert quantized([0.625, -0.625, 0.1], 8, 2) == [3, -2, 0]
    assert quantized([6.0, -6.0, 5.9], 8, -2) == [2, -1, 1]


def test_quantize_saturates_symmetrically_and_wraps_in_twos_complement() -> None:
    assert quantized([200.0, -200.0, 127.0], 8, 0, "saturate") == [127, -127, 127]
    assert quantized([128.0, -128.0, -129.0, 300.0], 8, 0, "wrap") == [-128, -128, 127, 44]


def test_linear_sums_products_exactly() -> None:
    node = Linear(ints([2, -3], [127, 127], [0, 0]))
    formats = NodeQuantization(Format(24, 4), {"weight": Format(8, 0)}, "exact")
    steps = [[5, 7], [-1, 100]]
    assert outputs(node, formats, steps, f_in=4) == [[-11, 1524, 0], [-302, 12573, 0]]


@quick
@given(
    weight=st.lists(
        st.lists(st.integers(-127, 127), min_size=3, max_size=3), min_size=1, max_size=3
    ),
    x=st.lists(small_integers, min_size=3, max_size=3),
    y=st.lists(small_integers, min_size=3, max_size=3),
)
def test_linear_is_linear(weight: list[list[int]], x: list[int], y: list[int]) -> None:
    formats = NodeQuantization(Format(24, 0), {"weight": Format(8, 0)}, "exact")
    both = [x, y, [i + j for i, j in zip(x, y, strict=True)]]
    of_x, of_y, of_sum = outputs(Linear(ints(*weight)), formats, both)
    assert of_sum == [i + j for i, j in zip(of_x, of_y, strict=True)]


def test_channel_affine_rounds_half_up_once() -> None:
    # (3 x + b) / 4 with b = 0 and 1: ties are 2/4
    node = ChannelAffine(ints(3, 3), ints(0, 1))
    formats = NodeQuantization(Format(24, 2), {"a": Format(16, 2), "b": Format(32, 4)})
    steps = [[2, 2], [-2, -2], [-6, -1]]  # 6/4, 7/4; -6/4, -5/4; -18/4, -2/4
    assert outputs(node, formats, steps, f_in=2) == [[2, 2], [-1, -1], [-4, 0]]


def test_channel_affine_has_one_binary_point_per_neuron() -> None:
    node = ChannelAffine(ints(5, 5, 5), ints(0, 0, 0))
    tensors = {"a": Format(16, (0, 1, 3)), "b": Format(32, (1, 2, 4))}
    formats = NodeQuantization(Format(24, 2), tensors)
    # shifts are f_a + 1 - 2 = -1 (exact, to the left), 0 and 2
    assert outputs(node, formats, [[3, 3, 3]], f_in=1) == [[30, 15, 4]]


@pytest.mark.parametrize(("overflow", "expected"), [("saturate", 127), ("wrap", -56)])
def test_channel_affine_overflows_by_policy(overflow: str, expected: int) -> None:
    node = ChannelAffine(ints(1), ints(0))
    formats = NodeQuantization(Format(8, 0), {"a": Format(16, 0), "b": Format(32, 0)})
    run = record(node, formats, [[200], [100]], overflow=overflow)
    assert run.values["node"][0].tolist() == [[expected], [100]]
    assert run.run["overflows"] == 1


def test_the_accumulator_of_48_bits_overflows_before_the_shift() -> None:
    node = ChannelAffine(ints(2**15 - 1), ints(2**46))
    formats = NodeQuantization(Format(24, 0), {"a": Format(16, 30), "b": Format(48, 30)})
    run = record(node, formats, [[2**33]], overflow="saturate")
    assert run.values["node"].item() == half_up(2**47 - 1, 30)
    assert run.run["overflows"] == 1
    assert run.run["overflows_by_node"] == {"node": {"accumulator": 1}}


# --- Bernoulli -----------------------------------------------------------------------------


def sampler(
    a: int, b: int, steps: list[list[int]], u: list[float], k: int = 4, f_a: int = 4
) -> Recording:
    """Samplers with gain a * 2**-f_a on integer inputs, under injected noise u by neuron."""
    neurons = len(steps[0])
    node = Bernoulli(np.full(neurons, a), np.full(neurons, b), 0)
    formats = NodeQuantization(Format(2, 0), {"a": Format(16, f_a), "b": Format(32, f_a)})
    noise = Noise.injected({0: [[u] * len(steps)]})
    return record(node, formats, steps, noise=noise, noise_bits=k)


def test_bernoulli_never_fires_at_0_and_always_at_full_code() -> None:
    run = sampler(16, 0, [[-3, 0, 1, 7]], [0.0, 0.0, 1 - 2**-53, 1 - 2**-53])
    assert run.probabilities["node"].tolist() == [[[0, 0, 16, 16]]]
    assert run.values["node"].tolist() == [[[0, 0, 1, 1]]]
    assert run.values["node"].dtype == np.uint8


def test_bernoulli_compares_strictly() -> None:
    run = sampler(1, 0, [[8, 8, 8]], [7 / 16, 8 / 16, 0.499])
    assert run.probabilities["node"].tolist() == [[[8, 8, 8]]]
    assert run.values["node"].tolist() == [[[1, 0, 1]]]


def test_bernoulli_rounds_its_code_half_up() -> None:
    run = sampler(1, 0, [[1, 2, 3, 5, -1, -2]], [0.0] * 6, k=2)  # Q = x / 4
    assert run.probabilities["node"].tolist() == [[[0, 1, 1, 1, 0, 0]]]


def test_bernoulli_codes_of_more_bits_than_its_input_are_shifted_left() -> None:
    run = sampler(1, 0, [[1, 3]], [0.0] * 2, k=10, f_a=2)
    assert run.probabilities["node"].tolist() == [[[256, 768]]]


@quick
@given(st.integers(0, 16), st.integers(0, 15))
def test_bernoulli_fires_where_the_noise_is_below_the_code(q: int, u: int) -> None:
    assert sampler(1, 0, [[q]], [u / 16]).values["node"].item() == int(u < q)


# --- DiagonalSSM ---------------------------------------------------------------------------


def ssm(a: Any, b: Any, c: Any, d: Any) -> DiagonalSSM:
    return DiagonalSSM(ints(*a), ints(*b), ints(*c), ints(*d))


def ssm_formats(
    f_a: int = 2, f_c: int = 1, f_state: int = 2, f_out: int = 2, state_bits: int = 24
) -> NodeQuantization:
    tensors = {
        "a_bar": Format(16, f_a),
        "b_bar": Format(24, f_state),
        "c": Format(16, f_c),
        "d": Format(24, f_out),
        "state": Format(state_bits, f_state),
    }
    return NodeQuantization(Format(24, f_out), tensors, "toward_zero")


def test_ssm_by_hand() -> None:
    # a = (3 - 2i) / 4, b = 5 - 7i, c = (3 + i) / 2, d = 10
    node = ssm([[[3, -2]]], [[[5, -7]]], [[[3, 1]]], [10])
    # t = 0: z = 5 - 7i;  y = 15/2 + 7/2 cut to 7 + 3, + 10 = 20
    # t = 1: re = 15/4 - 14/4 cut to 3 - 3 = 0; im = -10/4 - 21/4 cut to -2 - 5 = -7
    #        y = 0 + 7/2 cut to 3
    # t = 2: re = 0 - 14/4 cut to -3, + 5 = 2; im = 0 - 21/4 cut to -5, - 7 = -12; y = 3 + 6 + 10
    assert outputs(node, ssm_formats(), [[1], [0], [1]]) == [[20], [3], [19]]


@pytest.mark.parametrize(
    ("a", "c", "f_c"),
    [
        ([3, -3], [1, 0], 0),  # re[1] = 3/4 + 3/4
        ([3, 3], [0, -1], 0),  # im[1] = 3/4 + 3/4
        ([0, 0], [1, -1], 1),  # y[0] = 1/2 + 1/2
    ],
)
def test_ssm_cuts_every_product_off_by_itself(a: list[int], c: list[int], f_c: int) -> None:
    node = ssm([[a]], [[[1, 1]]], [[c]], [0])
    seen = outputs(node, ssm_formats(f_c=f_c), [[1], [0]])
    assert seen == [[1 if f_c == 0 else 0], [0]]


def test_ssm_sums_its_modes() -> None:
    one = ssm([[[3, 1]]], [[[4, 0]]], [[[5, 0]]], [0])
    other = ssm([[[-2, 3]]], [[[9, 2]]], [[[1, -3]]], [0])
    both = ssm([[[3, 1], [-2, 3]]], [[[4, 0], [9, 2]]], [[[5, 0], [1, -3]]], [0])
    steps = [[1], [1], [0], [1]]
    parts = [outputs(node, ssm_formats(), steps) for node in (one, other)]
    sums = [[p[0] + q[0]] for p, q in zip(*parts, strict=True)]
    assert outputs(both, ssm_formats(), steps) == sums


coefficients = st.tuples(*[st.integers(-15, 15)] * 7)


@quick
@given(coefficients, st.lists(st.integers(0, 1), min_size=1, max_size=8))
def test_ssm_rounds_symmetrically(p: tuple[int, ...], spikes: list[int]) -> None:
    a, b, c, d = [[[p[0], p[1]]]], [[[p[2], p[3]]]], [[[p[4], p[5]]]], p[6]
    steps = [[s] for s in spikes]
    formats = ssm_formats(f_a=4)
    plain = outputs(ssm(a, b, c, [d]), formats, steps)
    turned = outputs(ssm(a, [[[-p[2], -p[3]]]], c, [-d]), formats, steps)
    assert turned == [[-y] for (y,) in plain]


@quick
@given(coefficients, st.lists(st.integers(0, 1), min_size=1, max_size=8))
def test_ssm_of_a_conjugate_mode_is_the_same(p: tuple[int, ...], spikes: list[int]) -> None:
    steps = [[s] for s in spikes]
    node = ssm([[[p[0], p[1]]]], [[[p[2], p[3]]]], [[[p[4], p[5]]]], [p[6]])
    conjugate = ssm([[[p[0], -p[1]]]], [[[p[2], -p[3]]]], [[[p[4], -p[5]]]], [p[6]])
    formats = ssm_formats(f_a=4)
    assert outputs(node, formats, steps) == outputs(conjugate, formats, steps)


@pytest.mark.parametrize(("overflow", "expected"), [("saturate", [5, 7, 7]), ("wrap", [5, -6, -1])])
def test_ssm_state_overflows_by_policy(overflow: str, expected: list[int]) -> None:
    node = ssm([[[4, 0]]], [[[5, 0]]], [[[1, 0]]], [0])  # z += 5, read out as it is
    formats = ssm_formats(f_c=0, state_bits=4)
    run = record(node, formats, [[1], [1], [1]], overflow=overflow)
    assert run.values["node"][0, :, 0].tolist() == expected
    assert run.run["overflows"] == {"saturate": 2, "wrap": 1}[overflow]


def test_states_start_at_zero_for_every_sample() -> None:
    node = ssm([[[4, 0]]], [[[5, 1]]], [[[1, 2]]], [3])
    graph = single_node_graph(node, ssm_formats(), input_format=Format(2, 0))
    run = interpreter.run(graph, np.ones((3, 4, 1)), noise=NOISE)
    first, *others = run.values["node"].tolist()
    assert others == [first, first]


# --- Activation, Sum, MeanPool -------------------------------------------------------------


def test_relu() -> None:
    formats = NodeQuantization(Format(24, 3), {}, "toward_zero")
    node = Activation("relu", (3,), np.zeros(0, np.int64))
    assert outputs(node, formats, [[-5, 0, 5]], f_in=3) == [[0, 0, 5]]


def gelu(values: list[int], table: tuple[int, ...] = (0, 7, 4, 0)) -> list[int]:
    """An activation of 3 fraction bits with a table at steps of 1/2, that is of 4 integers."""
    node = Activation("gelu", (len(values),), ints(*table), table_step_bits=1)
    formats = NodeQuantization(Format(24, 3), {"table": Format(16, 3)}, "toward_zero")
    return outputs(node, formats, [values], f_in=3)[0]


def test_gelu_interpolates_its_table_toward_zero() -> None:
    # slopes per integer: 7/4, -3/4, -4/4; at v = 1: 0 + 7/4 cut to 1; at v = 5: 7 - 3/4 cut to 7
    assert gelu([0, 1, 2, 3, 4, 5, 6, 7, 8]) == [0, 0, -1, -2, -3, -2, 0, 2, 4]


def test_gelu_is_the_rectifier_minus_an_even_function() -> None:
    positive, negative = gelu(list(range(20))), gelu([-v for v in range(20)])
    assert [p - v for v, p in enumerate(positive)] == negative


def test_gelu_is_the_rectifier_from_the_end_of_its_table_on() -> None:
    table = (0, 7, 4, 3)  # the last entry, 3 at v = 12, is only approached
    assert gelu([11, 12, 13, -11, -12, -1000], table) == [7, 12, 13, -4, 0, 0]


def test_sum_adds_all_inputs_before_it_fits() -> None:
    build = GraphBuilder()
    build.add("entry", Input((1,)))
    build.add("q", Quantize((1,)), NodeQuantization(Format(8, 0)))
    for name, a in (("plus", 3), ("minus", -2)):
        gain = NodeQuantization(Format(24, 0), {"a": Format(16, 0), "b": Format(32, 0)})
        build.add(name, ChannelAffine(ints(a), ints(0)), gain, ["q"])
    build.add(
        "total", Sum((1,)), NodeQuantization(Format(8, 0), {}, "exact"), ["q", "plus", "minus"]
    )
    build.add("exit", Output((1,)))
    run = interpreter.run(build.graph(), [[[60], [-7]]], noise=NOISE)  # 60 + 180 - 120 = 120 fits
    assert run.values["total"][0].tolist() == [[120], [-14]]


def pooled(values: list[int], f_in: int, f_state: int, bits: int = 24, **options: Any) -> list[int]:
    state = Format(bits, f_state)
    formats = NodeQuantization(state, {"state": state})
    return [
        y for (y,) in outputs(MeanPool((1,)), formats, [[v] for v in values], f_in=f_in, **options)
    ]


def test_mean_pool_rounds_the_mean_half_up() -> None:
    assert pooled([1, 2, 5, -20], 0, 0) == [1, 2, 3, -3]  # 1, 3/2, 8/3, -12/4
    assert pooled([-1, -2], 0, 0) == [-1, -1]  # -1, -3/2
    assert pooled([-1, 0, 0], 0, 0) == [-1, 0, 0]  # -1, -1/2, -1/3


def test_mean_pool_rounds_what_it_adds() -> None:
    assert pooled([3, 3], 1, 0) == [2, 2]  # 3/2 is added as 2
    assert pooled([-3, -3], 1, 0) == [-1, -1]
    assert pooled([3, 4], 0, 2) == [12, 14]


def test_mean_pool_saturates_its_running_sum() -> None:
    assert pooled([100, 100, -100], 0, 0, bits=8, overflow="saturate") == [100, 64, 9]


@quick
@given(small_integers, st.integers(1, 12))
def test_mean_pool_of_a_constant_is_the_constant(value: int, steps: int) -> None:
    assert pooled([value] * steps, 3, 3) == [value] * steps


# --- refusals ------------------------------------------------------------------------------


def test_an_overflow_names_place_value_and_limit() -> None:
    graph = single_node_graph(
        ssm([[[4, 0]], [[4, 0]]], [[[5, 0]], [[1, 0]]], [[[1, 0]], [[1, 0]]], [0, 0]),
        ssm_formats(state_bits=4),
        input_format=Format(2, 0),
    )
    x = np.array([[[0, 0]] * 3, [[0, 1], [1, 0], [1, 1]]], np.float64)
    with pytest.raises(PspikeError) as caught:
        interpreter.run(graph, x, noise=NOISE, samples=[4, 9])
    assert caught.value.code == "E-OVERFLOW"
    assert caught.value.where == "node"
    message = str(caught.value)
    for fact in ("node node", "neuron 0", "state re of mode 0", "sample 9", "step 2", "10", "7"):
        assert fact in message


def test_a_node_without_integer_semantics_is_refused() -> None:
    node = Affine(ints([1]), ints(0))
    with pytest.raises(PspikeError, match="Affine has no integer semantics") as caught:
        outputs(node, NodeQuantization(Format(24, 0)), [[1]])
    assert caught.value.code == "E-TARGET-UNSUPPORTED"
