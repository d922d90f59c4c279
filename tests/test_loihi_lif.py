"""Loihi's integrate-and-fire neuron: Lava's arithmetic, and the same spikes on every backend."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import export_lava
from pspike_deploy.graph.file import read_graph, write_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.loihi_neurons import LoihiLIF, lava_lif
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.bounds import overflowing_nodes
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.neuron_states import lif_bounds
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.quantize.ranges import Interval
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point, interpreter, reference
from pspike_deploy.simulators.lava import backend as lava
from pspike_deploy.simulators.lava.environment import find_lava_python
from pspike_deploy.simulators.loihi_kernels import loihi_lif
from pspike_deploy.verify.compare import compare
from pspike_deploy.verify.expressions import expression
from pspike_deploy.verify.replay import replay_case, run_replay, write_replay
from tests.loihi_neurons import (
    LAYER,
    Array,
    Layer,
    float_graph,
    float_layer,
    integer_graph,
    lava_lif_run,
    stock_process,
)

NOISE = Noise.philox(0)
TRACES = Path(os.environ.get("PSPIKE_SHARED", "")) / "oracles" / "nir" / "lif"


def both(graph: Graph, x: Array) -> tuple[Recording, Recording]:
    fast, slow = (run(graph, x, noise=NOISE) for run in (fixed_point.run, interpreter.run))
    assert compare(fast, slow).equal
    return fast, slow


# --- Lava's arithmetic ----------------------------------------------------------------------------

parameters = st.fixed_dictionaries(
    {
        "du": st.one_of(st.sampled_from([-1, 0, 4095]), st.integers(0, 4095)),
        "dv": st.one_of(st.sampled_from([0, 4096]), st.integers(0, 4096)),
        "vth": st.integers(0, 200),
        "bias_mant": st.integers(-40, 40),
        "bias_exp": st.integers(0, 6),
    }
)


@settings(max_examples=60)
@given(parameters, st.lists(st.integers(-127, 127), min_size=1, max_size=30))
def test_integers_are_those_of_lavas_lif(p: dict[str, int], drive: list[int]) -> None:
    graph = integer_graph(lava_lif(1, **p), np.ones((1, 1), int))
    x = np.array(drive, float)[None, :, None]
    expected = lava_lif_run(np.array(drive), p)[1]
    fast, slow = both(graph, x)
    assert fast.values[LAYER][0, :, 0].tolist() == expected
    assert slow.values[LAYER][0, :, 0].tolist() == expected


def test_a_membrane_at_the_threshold_fires_only_under_the_tie_ge() -> None:
    node, formats = lava_lif(1, du=4095, dv=4096, vth=10)
    x = np.array([10.0, 11.0, 9.0])[None, :, None]
    for tie, spikes in (("gt", [0, 1, 0]), ("ge", [1, 1, 0])):
        graph = integer_graph((replace(node, tie=tie), formats), np.ones((1, 1), int))
        assert both(graph, x)[0].values[LAYER][0, :, 0].tolist() == spikes


@pytest.mark.skipif(not TRACES.is_dir(), reason="PSPIKE_SHARED does not name the oracles")
@pytest.mark.parametrize(
    ("file", "equal_voltages"),
    [("lif_lava_cpu_fixed.csv", 1000), ("lif_lava_loihi_fixed.csv", 996)],
)
def test_recorded_traces_are_reproduced(file: str, equal_voltages: int) -> None:
    """One neuron, recorded in Lava and on a Loihi 2 chip, one step of synapses behind its input."""
    recorded = np.loadtxt(TRACES / file, delimiter=",")
    inputs, voltages, spikes = recorded.T
    assert len(recorded) == 1000
    node, formats = lava_lif(1, du=4095, dv=163, vth=25)
    graph = integer_graph((node, formats), np.array([[10]]))
    fast, _ = both(graph, inputs[None, :, None])
    delayed = np.concatenate([[0], fast.values[LAYER][0, :-1, 0]])
    assert np.array_equal(delayed, spikes)
    assert np.flatnonzero(delayed).tolist() == [461, 511, 711, 761]
    sums = fast.values["a_synapses"]
    _, membranes, overflows = loihi_lif(node, formats, sums, 0, keep_membranes=True)
    assert overflows.total == 0
    delayed = np.concatenate([[0], membranes[0, :-1, 0]])
    assert int((delayed == voltages).sum()) == equal_voltages
    # Where the two differ, the chip shows a marker in the step of a spike.
    assert voltages[delayed != voltages].tolist() == [128.0] * (1000 - equal_voltages)
    assert spikes[delayed != voltages].all()


def test_the_example_of_the_guide_runs(capsys: pytest.CaptureFixture[str]) -> None:
    guide = Path(__file__).parent.parent / "docs" / "guides" / "loihi-neurons.md"
    (example,) = re.findall(r"```python\n(.*?)```", guide.read_text("utf-8"), re.S)
    exec(compile(example, guide.name, "exec"), {})
    assert re.fullmatch(r"spikes of each neuron: \[[1-9]\d* 0\]\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "wrong",
    [{"du": 4096}, {"du": -2}, {"dv": -1}, {"vth": 2**17}, {"vth": 1.5}, {"vth": [1, 2]}],
    ids=str,
)
def test_parameters_that_lava_does_not_have_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PspikeError, match="E-USAGE"):
        lava_lif(3, **{"du": 0, "dv": 0, "vth": 1, **wrong})


# --- every option, every policy -------------------------------------------------------------------


@st.composite
def layers(draw: st.DrawFn) -> tuple[LoihiLIF, NodeQuantization, int]:
    """Integer layers with any formats, and the binary point of their input."""
    n = draw(st.integers(1, 4))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    recurrent = draw(st.booleans())
    f_state, f_in = draw(st.integers(0, 12)), draw(st.integers(0, 3))
    f_gain = draw(st.integers(0, 9))
    bits = draw(st.sampled_from([10, 16, 24]))
    limit = 2 ** (bits - 1) - 1
    state, decay = Format(bits, f_state), Format(14, 12)
    points = tuple(int(p) for p in rng.integers(max(0, f_gain - 2), f_gain + 3, n))
    tensors = {
        **dict.fromkeys(("current_decay", "membrane_decay", "adaptation_decay"), decay),
        **dict.fromkeys(("bias", "threshold", "adaptation_jump", "state"), state),
        "input_gain": Format(16, points),
    }
    arrays: dict[str, Any] = {
        name: rng.integers(0, 4097, n)
        for name in ("current_decay", "membrane_decay", "adaptation_decay")
    }
    arrays |= {
        "input_gain": rng.integers(-200, 200, n),
        "bias": rng.integers(-limit // 50, limit // 50, n),
        "threshold": rng.integers(0, max(2, limit // 8), n),
        "adaptation_jump": rng.integers(-limit // 20, limit // 20, n),
        "recurrent_weight": np.zeros((0, 0), int),
        "recurrent_gain": np.zeros(0, int),
    }
    if recurrent:
        tensors |= {"recurrent_weight": Format(9, 0), "recurrent_gain": Format(16, f_gain)}
        arrays["recurrent_weight"] = rng.integers(-255, 256, (n, n))
        arrays["recurrent_gain"] = rng.integers(-200, 200, n)
    node = LoihiLIF(**arrays, tie=draw(st.sampled_from(["gt", "ge"])))
    return node, NodeQuantization(Format(2, 0), tensors, "toward_zero"), f_in


@settings(max_examples=80)
@given(layers(), st.sampled_from(["saturate", "wrap"]), st.integers(0, 2**32 - 1))
def test_the_simulators_follow_the_equations_under_every_policy(
    layer: tuple[LoihiLIF, NodeQuantization, int], policy: str, seed: int
) -> None:
    node, formats, f_in = layer
    n = len(node.threshold)
    rng = np.random.default_rng(seed)
    graph = integer_graph((node, formats), np.eye(n, dtype=int), overflow=policy)
    quantization = dict(graph.semantics.quantization)
    quantization["a_quantize"] = NodeQuantization(Format(16, f_in))
    quantization["a_synapses"] = replace(quantization["a_synapses"], output=Format(32, f_in))
    graph = replace(graph, semantics=replace(graph.semantics, quantization=quantization))
    x = rng.integers(-1000, 1000, (2, 20, n))
    expected = [Layer(node, formats, f_in, policy) for _ in range(2)]
    spikes = [one.spikes(rows) for one, rows in zip(expected, x, strict=True)]
    fast, slow = both(graph, x / 2.0**f_in)
    assert np.array_equal(fast.values[LAYER], spikes)
    assert fast.run["overflows"] == slow.run["overflows"] == sum(e.overflows for e in expected)


def test_an_overflow_under_the_policy_error_is_named() -> None:
    graph = integer_graph(lava_lif(1, du=-1, dv=0, vth=2**17 - 1), np.array([[255]]))
    x = np.full((1, 700, 1), 127.0)
    for run in (fixed_point.run, interpreter.run):
        with pytest.raises(PspikeError, match="E-OVERFLOW"):
            run(graph, x, noise=NOISE)


@pytest.mark.parametrize(
    ("name", "form", "why"),
    [
        ("input_gain", Format(48, 6), "products of 78 bits"),
        ("membrane_decay", Format(14, 63), "shifts from 0 to 63 bits"),
        ("input_gain", Format(16, -10), "shifts from -16 to 12 bits"),
    ],
)
def test_arithmetic_beyond_64_bits_is_refused(name: str, form: Format, why: str) -> None:
    node, formats = lava_lif(2, du=0, dv=0, vth=1)
    formats = replace(formats, tensors={**formats.tensors, name: form})
    graph = integer_graph((node, formats), np.ones((2, 1), int))
    with pytest.raises(PspikeError, match="E-TARGET-UNSUPPORTED") as caught:
        fixed_point.run(graph, np.ones((1, 3, 1)), noise=NOISE)
    assert why in caught.value.why


# --- float graphs and their quantisation ----------------------------------------------------------


def counts(seed: int, samples: int = 3, steps: int = 40) -> Array:
    return np.random.default_rng(seed).poisson(0.6, (samples, steps, 5)).astype(float)


def none_recurrent() -> dict[str, Array]:
    return {"recurrent_weight": np.zeros((0, 0)), "recurrent_gain": np.zeros(0)}


VARIANTS = [
    {},
    {"tie": "ge"},
    none_recurrent(),
    none_recurrent() | {"adaptation_jump": np.zeros(12), "current_decay": np.zeros(12)},
]
NAMES = ["recurrent", "at-equal", "feed-forward", "plain"]


def network(change: dict[str, Any]) -> Graph:
    rng = np.random.default_rng(4)
    return float_graph(rng, float_layer(rng, 12, **change))


@pytest.mark.parametrize("change", VARIANTS, ids=NAMES)
def test_the_reference_follows_the_equations(change: dict[str, Any]) -> None:
    graph, x = network(change), counts(5)
    found = reference.run(graph, x, noise=NOISE)
    node = graph.nodes[LAYER]
    assert isinstance(node, LoihiLIF)
    for sample in range(len(x)):
        layer = Layer(node)
        expected = layer.spikes(found.values["a_synapses"][sample])
        assert np.array_equal(found.values[LAYER][sample], expected)
    assert 0.02 < found.values[LAYER].mean() < 0.9


@pytest.mark.parametrize("change", VARIANTS, ids=NAMES)
def test_a_quantised_network_spikes_like_the_float_one(change: dict[str, Any]) -> None:
    graph, x = network(change), counts(5)
    integer = quantize(graph, x)
    fast, _ = both(integer, x)
    expected = reference.run(graph, x, noise=NOISE)
    assert abs(fast.values[LAYER].mean() - expected.values[LAYER].mean()) < 0.02
    flips = (fast.values[LAYER] != expected.values[LAYER]).mean()
    assert flips < (0.02 if not integer.nodes[LAYER].is_recurrent else 0.15)  # type: ignore[attr-defined]


def test_decays_have_twelve_fraction_bits_whatever_the_widths() -> None:
    integer = quantize(network({}), counts(5), QuantConfig(coefficient_bits=16))
    formats = integer.semantics.quantization[LAYER].tensors
    for name in ("current_decay", "membrane_decay", "adaptation_decay"):
        assert formats[name] == Format(14, 12)


def test_states_stay_within_their_bound() -> None:
    rng = np.random.default_rng(6)
    for change in VARIANTS:
        node = float_layer(rng, 12, **change)
        bound = lif_bounds(node, np.full(12, 2.0))
        peaks = np.zeros(12)
        for u, v, _ in Layer(node).states(rng.choice([-2.0, 2.0], (400, 12))):
            peaks = np.maximum(peaks, np.maximum(np.abs(u), np.abs(v)))
        assert (peaks <= bound).all()
        assert np.isfinite(bound).all()


def test_registers_that_nothing_can_overflow_are_known_as_such() -> None:
    weight = np.array([[127]])
    ones = Interval(np.zeros(1), np.ones(1))
    leaks = integer_graph(lava_lif(1, du=4095, dv=1000, vth=100), weight, input_bits=2)
    adds_up = integer_graph(lava_lif(1, du=4095, dv=0, vth=100), weight, input_bits=2)
    assert LAYER not in overflowing_nodes(leaks, ones, 100)
    assert LAYER in overflowing_nodes(adds_up, ones, 100)


# --- files, audit, replay -------------------------------------------------------------------------


def test_a_graph_file_keeps_the_neurons(tmp_path: Path) -> None:
    for change in VARIANTS:
        for graph in (network(change), quantize(network(change), counts(5))):
            write_graph(graph, tmp_path / "g.nir")
            assert read_graph(tmp_path / "g.nir").digest == graph.digest


def written(graph: Graph, path: Path) -> Path:
    write_graph(graph, path)
    return path


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"membrane_decay": np.full(12, 1.1)}, "membrane_decay is not within 0 … 1"),
        ({"current_decay": np.full(12, -0.1)}, "current_decay is not within 0 … 1"),
        ({"tie": "both"}, "tie both; known: gt, ge"),
        ({"recurrent_weight": np.zeros((3, 3)), "recurrent_gain": np.zeros(3)}, "for 12 neurons"),
    ],
)
def test_the_audit_names_what_is_wrong(change: dict[str, Any], rule: str, tmp_path: Path) -> None:
    with pytest.raises(PspikeError, match="E-GRAPH-AUDIT") as caught:
        read_graph(written(network(change), tmp_path / "g.nir"))
    assert rule in caught.value.why


@pytest.mark.parametrize("change", [VARIANTS[0], VARIANTS[2]], ids=["recurrent", "feed-forward"])
def test_a_divergence_in_a_neuron_is_replayed(change: dict[str, Any], tmp_path: Path) -> None:
    x = counts(5)
    integer = quantize(network(change), x)
    a = fixed_point.run(integer, x, noise=NOISE)
    values = {name: array.copy() for name, array in a.values.items()}
    values[LAYER][1, 17, 3] ^= 1
    b = replace(a, values=values)
    found = compare(a, b).first_divergence
    assert found is not None
    assert (found.node, found.step, found.neuron) == (LAYER, 17, 3)
    write_replay(replay_case(integer, a, found), tmp_path / "r.npz")
    assert run_replay(tmp_path / "r.npz").agrees_with == "a"
    text = expression(integer, a, found)
    assert text is not None
    assert "v > threshold with v = " in text
    assert f"spike {a.values[LAYER][1, 17, 3]}" in text


# --- Lava -----------------------------------------------------------------------------------------


def adaptive_network(rng: np.random.Generator, n: int = 9) -> tuple[Graph, Array]:
    """Half of the neurons adapt; weights are odd and even, of both signs, up to 255."""
    half = np.arange(n) < n // 2
    layer = lava_lif(
        n,
        du=np.where(half, 4095, 3000),
        dv=rng.integers(150, 400, n),
        vth=np.where(half, 127, 4 * 127),
        bias_mant=rng.integers(-3, 4, n),
        bias_exp=3,
        adaptation_decay=np.where(half, 0, 4091),
        adaptation_jump=np.where(half, 0, 384),
        gain=np.where(half, 1, 4),
        recurrent_weight=rng.integers(-255, 256, (n, n)) * (rng.random((n, n)) < 0.5),
    )
    weight, readout = rng.integers(-200, 256, (n, 6)), rng.integers(-255, 256, (3, n))
    graph = integer_graph(layer, weight, input_bits=2, readout=readout)
    return graph, (rng.random((2, 30, 6)) < 0.3).astype(float)


@pytest.mark.lava
def test_lava_agrees_in_every_value(tmp_path: Path) -> None:
    environment = find_lava_python()
    graph, x = adaptive_network(np.random.default_rng(8))
    expected, _ = both(graph, x)
    assert 0.05 < expected.values[LAYER].mean() < 0.6
    bundle = export_lava(graph, tmp_path / "bundle", x=x, noise=NOISE, expected=expected)
    modes = [(dense["port"], dense["sign_mode"]) for dense in bundle.manifest["dense"]]
    ports = ("a_in", "a_in", "r_in")
    assert modes == [(port, sign) for port in ports for sign in ("EXCITATORY", "INHIBITORY")]
    actual = lava.run(bundle, environment=environment)
    assert compare(expected, actual).equal


@pytest.mark.lava
def test_lavas_own_lif_fires_at_the_same_steps(tmp_path: Path) -> None:
    """Stock Dense and LIF, in a process of their own, against the integer graph."""
    find_lava_python()
    rng = np.random.default_rng(9)
    n, steps = 24, 200
    du = rng.choice([0, 500, 2000, 4095], n)
    p = {
        "du": du,
        # Two integrators in a row would leave their registers, where Lava's current wraps.
        "dv": np.where(du == 0, 4096, rng.choice([0, 163, 1000, 4096], n)),
        "vth": rng.integers(0, 300, n),
        "bias_mant": rng.integers(-20, 20, n),
        "bias_exp": np.full(n, 4),
    }
    weight = 2 * rng.integers(-40, 50, (n, 5))
    x = (rng.random((1, steps, 5)) < 0.3).astype(float)
    stock = stock_process(tmp_path / "stock", "LIF", x[0], weight, **p)
    graph = integer_graph(lava_lif(n, **p), weight)
    found = both(graph, x)[0].values[LAYER][0]
    # Stock synapses deliver one step later.
    assert np.array_equal(stock["y"][1:], found[:-1])
    assert 0.02 < found.mean() < 0.9
