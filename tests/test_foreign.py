"""Foreign NIR files, written with ``nir`` itself, against plain loops over NIR's own equations."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import numpy.typing as npt
import pytest
import torch
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.errors import EXIT_BAD_INPUT, EXIT_TARGET_CANNOT, PspikeError
from pspike_deploy.foreign.decisions import DECISIONS
from pspike_deploy.foreign.files import read_nir
from pspike_deploy.foreign.presets import PRESETS
from pspike_deploy.foreign.reading import reading_of
from pspike_deploy.graph.file import read_graph, write_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.report.reading_tables import TABLES
from pspike_deploy.simulators import fixed_point, interpreter, reference
from pspike_deploy.verify.compare import compare
from tests.foreign_network import N, ends, neuron, recurrent_file, values, written

FloatArray = npt.NDArray[np.float64]
DT = 1e-3
ROOT = Path(__file__).parent.parent
NOISE = Noise.philox(0)
runner = CliRunner()


class Plain:
    """One population, step by step, from the docstrings of ``nir``, in the scheme chosen."""

    def __init__(self, node: Any, choices: dict[str, Any]) -> None:
        self.node, self.choices = node, choices
        leak = getattr(node, "v_leak", np.zeros_like(node.r))
        self.v = leak.copy() if choices["initial_state"] == "leak" else np.zeros_like(node.r)
        self.i = np.zeros_like(node.r)

    def state(self, x: FloatArray, tau: FloatArray, rest: Any, drive: FloatArray) -> FloatArray:
        """One step of tau dx/dt = (rest - x) + drive."""
        k, scheme = DT / tau, self.choices["integrator"]
        if scheme == "euler":
            return np.asarray(x + k * (rest - x + drive))
        decay = np.exp(-k)
        gain = k if scheme == "exp_euler_input" else 1 - decay
        return np.asarray(decay * x + (1 - decay) * rest + gain * drive)

    def step(self, x: FloatArray) -> FloatArray:
        node, kind = self.node, type(self.node).__name__
        if kind.startswith("Cuba"):
            self.i = self.state(self.i, node.tau_syn, 0.0, node.w_in * x)
            self.v = self.state(self.v, node.tau_mem, node.v_leak, node.r * self.i)
        elif kind in ("LI", "LIF"):
            self.v = self.state(self.v, node.tau, node.v_leak, node.r * x)
        else:
            self.v = self.v + DT * node.r * x
        if not kind.endswith("F"):
            return self.v
        above = self.v - node.v_threshold
        z = (above >= 0 if self.choices["tie"] == "ge" else above > 0).astype(np.float64)
        if self.choices["reset"] == "subtract":
            self.v = self.v - node.v_threshold * z
        else:
            self.v = np.where(
                z > 0, node.v_reset if self.choices["reset"] == "value" else 0.0, self.v
            )
        return z


BASE = (
    "time_unit=s,resistance=stored,tie=gt,spikes_per_step=one,spike_value=one,arrival=same_step,"
    "loop_delay=1"
)


def choices_of(**chosen: str) -> tuple[str, dict[str, Any]]:
    full = {"integrator": "euler", "initial_state": "zero", "reset": "value", **chosen}
    text = ",".join([BASE, *(f"{k}={v}" for k, v in full.items())])
    return text, dict(reading_of(text).choices)


def recorded(graph: Graph, name: str, x: FloatArray) -> FloatArray:
    return np.asarray(reference.run(graph, x[None], noise=NOISE).values[name][0], np.float64)


@pytest.mark.parametrize("kind", ["I", "IF", "LI", "LIF", "CubaLI", "CubaLIF"])
@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"integrator": "exp"},
        {"integrator": "exp_euler_input", "reset": "subtract"},
        {"initial_state": "leak", "reset": "zero"},
    ],
    ids=["euler", "exp", "sinabs", "leak"],
)
def test_every_population_follows_its_equation(
    kind: str, chosen: dict[str, str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(N, 3)), values(rng, -0.1, 0.3)
    fields = {"r": values(rng, 50, 100)} if kind in ("I", "IF") else {}
    node = neuron(kind, rng, **fields)
    nodes = {**ends(3, N), "fc": nir.Affine(weight, bias), "pop": node}
    path = written(tmp_path / "n.nir", nodes, "input->fc", "fc->pop", "pop->output")
    text, choices = choices_of(**chosen)
    graph, facts = read_nir(path, reading_of(text, DT))
    x = rng.poisson(0.7, (60, 3)).astype(np.float64)
    plain = Plain(node, choices)
    expected = np.array([plain.step(weight @ now + bias) for now in x])
    np.testing.assert_allclose(recorded(graph, "pop", x), expected, rtol=0, atol=1e-12)
    assert expected.any()
    assert facts["reading"]["decisions"]["dt"] == DT
    assert graph.semantics.dt == DT
    assert graph.semantics.initial_state == choices["initial_state"] or kind in ("I", "IF")


@pytest.mark.parametrize("kind", ["IF", "LIF", "CubaLIF"])
@pytest.mark.parametrize("first", ["zero_after_weight", "zero_before_weight"])
@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("junction", [False, True], ids=["lif", "junction"])
def test_a_layer_that_returns_to_itself_is_a_recurrent_neuron(
    kind: str, first: str, nested: bool, junction: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    w_in, b_in = rng.normal(size=(N, 3)), values(rng, 0.0, 0.3)
    w_rec, b_rec = 0.5 * rng.normal(size=(N, N)), values(rng, 0.2, 0.6)
    # A membrane whose reset is not its start would need a pulse that passes the current by.
    fields = {"IF": {"r": values(rng, 50, 100)}, "CubaLIF": {"v_reset": np.zeros(N)}}
    node = neuron(kind, rng, **fields.get(kind, {}))
    mix = rng.normal(size=(N, N)) if junction else np.eye(N)
    inner = {"lif": node, "rec": nir.Affine(w_rec, b_rec)}
    loop = ["lif->rec", "rec->lif"]
    entry = "lif"
    if junction:
        inner["mix"], entry = nir.Linear(mix), "mix"
        loop = ["mix->lif", "lif->rec", "rec->mix"]
    nodes = {**ends(3, N), "fc": nir.Affine(w_in, b_in)}
    if nested:
        pairs = [("input", entry), ("lif", "output")]
        pairs += [(a, b) for a, b in (edge.split("->") for edge in loop)]
        nodes["layer"] = nir.NIRGraph({**ends(N, N), **inner}, pairs)
        path = written(tmp_path / "r.nir", nodes, "input->fc", "fc->layer", "layer->output")
    else:
        nodes |= inner
        path = written(tmp_path / "r.nir", nodes, "input->fc", f"fc->{entry}", "lif->output", *loop)
    text, choices = choices_of(back_edge_init=first)
    graph, _ = read_nir(path, reading_of(text, DT))
    x = rng.poisson(0.7, (60, 3)).astype(np.float64)
    plain, returned = Plain(node, choices), np.zeros(N)
    if first == "zero_before_weight":
        returned = b_rec
    expected = []
    for now in x:
        expected.append(plain.step(mix @ (w_in @ now + b_in + returned)))
        returned = w_rec @ expected[-1] + b_rec
    found = recorded(graph, "layer.lif" if nested else "lif", x)
    np.testing.assert_array_equal(found, expected)
    assert np.any(found)
    assert not np.all(found)


def test_convolutions_and_pooling_are_those_of_torch(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    w1, b1 = rng.normal(size=(4, 1, 3, 3)), rng.normal(size=4)
    nodes = {
        "input": nir.Input(np.array([2, 8, 8])),
        "conv": nir.Conv2d((8, 8), w1, (1, 2), (1, 0), (1, 1), 2, b1),
        "sum": nir.SumPool2d(np.array([2, 1]), np.array([2, 1]), np.array([0, 0])),
        "mean": nir.AvgPool2d(np.array([2, 3]), np.array([2, 3]), np.array([0, 0])),
        "flat": nir.Flatten({"input": np.array([4, 2, 1])}, 0, -1),
        "scale": nir.Scale(rng.normal(size=8)),
        "output": nir.Output(np.array([8])),
    }
    names = list(nodes)
    edges = list(itertools.pairwise(names))
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    nir.write(tmp_path / "c.nir", graph)
    found, _ = read_nir(tmp_path / "c.nir")
    x = rng.normal(size=(5, 2, 8, 8))
    f = torch.nn.functional
    y = f.conv2d(torch.tensor(x), torch.tensor(w1), torch.tensor(b1), (1, 2), (1, 0), groups=2)
    y = f.avg_pool2d(2 * f.avg_pool2d(y, (2, 1)), (2, 3))
    expected = y.reshape(5, -1).numpy() * nodes["scale"].scale
    got = recorded(found, "scale", x.reshape(5, -1))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_a_convolution_over_one_axis_with_the_same_length(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    weight, bias = rng.normal(size=(3, 2, 3)), rng.normal(size=3)
    nodes = {
        "input": nir.Input(np.array([2, 9])),
        "conv": nir.Conv1d(9, weight, 1, "same", 1, 1, bias),
        "output": nir.Output(np.array([3, 9])),
    }
    path = written(tmp_path / "c.nir", nodes, "input->conv", "conv->output")
    found, _ = read_nir(path)
    x = rng.normal(size=(5, 2, 9))
    y = torch.nn.functional.conv1d(
        torch.tensor(x), torch.tensor(weight), torch.tensor(bias), padding="same"
    )
    got = recorded(found, "conv", x.reshape(5, -1))
    np.testing.assert_allclose(got, y.reshape(5, -1).numpy(), rtol=0, atol=1e-12)


def test_spikes_are_delayed_by_neurons_in_a_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    steps = np.array([0, 1, 3, 2])
    spiking = nir.Threshold(np.full(N, 0.5))
    nodes = {**ends(N, N), "spike": spiking, "late": nir.Delay(steps * DT)}
    path = written(tmp_path / "d.nir", nodes, "input->spike", "spike->late", "late->output")
    graph, _ = read_nir(path, reading_of("time_unit=s", DT))
    x = rng.integers(0, 2, (50, N)).astype(np.float64)
    expected = np.zeros_like(x)
    for i, k in enumerate(steps):
        expected[k:, i] = x[: len(x) - k, i]
    np.testing.assert_array_equal(recorded(graph, "late", x), expected)
    integer = quantize(graph, x[None])
    np.testing.assert_array_equal(
        fixed_point.run(integer, x[None], noise=NOISE).values["late"][0], expected
    )


def test_a_foreign_network_is_quantised_stored_and_simulated_in_integers(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    path = recurrent_file(tmp_path / "f.nir", rng)
    graph, facts = read_nir(path, reading_of("as-norse", DT))
    write_graph(graph, tmp_path / "float.nir", {"reading": facts["reading"]})
    assert read_graph(tmp_path / "float.nir").digest == graph.digest
    x = rng.poisson(0.7, (3, 60, 3)).astype(np.float64)
    integer = quantize(graph, x)
    fast = fixed_point.run(integer, x, noise=NOISE)
    assert compare(fast, interpreter.run(integer, x, noise=NOISE)).equal
    real = reference.run(graph, x, noise=NOISE)
    for name in ("lif1", "lif2"):
        assert real.values[name].any()
        assert np.mean(fast.values[name] != real.values[name]) < 0.05


# --- refusals ------------------------------------------------------------------------------------


def test_all_missing_decisions_are_named_at_once_with_the_presets(tmp_path: Path) -> None:
    path = recurrent_file(tmp_path / "f.nir", np.random.default_rng(0))
    with pytest.raises(PspikeError) as caught:
        read_nir(path)
    assert caught.value.code == "E-USAGE"
    for name in DECISIONS:
        assert f"{name}=" in caught.value.why
    assert "as-norse" in caught.value.fix
    assert "--dt" in caught.value.fix
    with pytest.raises(PspikeError, match=r"leaves 1 decision\(s\) open") as caught:
        read_nir(path, reading_of("as-norse"))
    assert "dt=" in caught.value.why


def test_presets_decide_by_known_names() -> None:
    for preset in PRESETS.values():
        assert set(preset.choices) <= set(DECISIONS)
        for name, value in preset.choices.items():
            assert not DECISIONS[name].values or value in DECISIONS[name].values
        assert preset.evidence
        assert preset.citation


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("as-nobody", "there is no preset as-nobody"),
        ("as-norse,as-lava", "2 presets"),
        ("tie=maybe", "tie=maybe is none of"),
        ("color=red", "there is no decision color"),
        ("dt=-1", "no number above 0"),
        ("loop_delay=1.5", "no whole number"),
        ("tie=gt,tie=ge", "given twice"),
    ],
)
def test_a_reading_that_does_not_exist_is_refused(text: str, why: str) -> None:
    with pytest.raises(PspikeError, match=why) as caught:
        reading_of(text)
    assert caught.value.code == "E-USAGE"


def test_a_preset_with_a_step_of_its_own_takes_no_other() -> None:
    assert reading_of("as-snntorch").seconds == 1e-4
    with pytest.raises(PspikeError, match=r"has dt = 0\.0001"):
        reading_of("as-snntorch", 1e-3)


def two_layers_in_a_loop(path: Path) -> Path:
    rng = np.random.default_rng(0)
    nodes = {
        **ends(N, N),
        "a": neuron("LIF", rng),
        "ab": nir.Linear(np.eye(N)),
        "b": neuron("LIF", rng),
        "ba": nir.Linear(np.eye(N)),
    }
    return written(path, nodes, "input->a", "a->ab", "ab->b", "b->ba", "ba->a", "b->output")


def shift_register(path: Path) -> Path:
    nodes = {**ends(2, 2), "h": nir.Linear(np.eye(2)), "a": nir.Linear(np.eye(2, k=1))}
    return written(path, nodes, "input->h", "h->a", "a->h", "h->output")


def start_elsewhere(path: Path) -> Path:
    rng = np.random.default_rng(0)
    lif = neuron("CubaLIF", rng, v_leak=np.zeros(N))
    nodes = {**ends(N, N), "lif": lif, "rec": nir.Linear(np.eye(N))}
    return written(path, nodes, "input->lif", "lif->rec", "rec->lif", "lif->output")


def graded_delay(path: Path) -> Path:
    nodes = {**ends(2, 2), "h": nir.Delay(np.full(2, 2 * DT))}
    return written(path, nodes, "input->h", "h->output")


def two_inputs(path: Path) -> Path:
    nodes = {**ends(2, 2), "more": nir.Input(np.array([2])), "f": nir.Linear(np.eye(2))}
    return written(path, nodes, "input->f", "more->f", "f->output")


@pytest.mark.parametrize(
    ("make", "reading", "why"),
    [
        (two_layers_in_a_loop, "as-norse", "/a, /ab, /b, /ba: 2 populations fire in one loop"),
        (shift_register, "as-nirtorch", "no diagonal form"),
        (graded_delay, "time_unit=s", "/h: it delays values that are no spikes"),
        (two_inputs, "as-norse", "2 Input nodes"),
        (recurrent_file, "as-norse,spikes_per_step=multi", "spikes_per_step=multi"),
        (recurrent_file, "as-norse,spike_value=inverse_dt", "spike_value=inverse_dt"),
        (recurrent_file, "as-spikingjelly", "/lif1: r is not tau / dt"),
        (start_elsewhere, "as-norse,reset=value", "starts at zero here"),
        (recurrent_file, "as-norse,loop_delay=2", "carries 2 steps"),
        (recurrent_file, "as-rockpool", "several spikes"),
    ],
)
def test_what_no_graph_holds_is_refused_by_name(
    make: Callable[..., Path], reading: str, why: str, tmp_path: Path
) -> None:
    more = [np.random.default_rng(0)] if make is recurrent_file else []
    path = make(tmp_path / "x.nir", *more)
    with pytest.raises(PspikeError) as caught:
        read_nir(path, reading_of(reading, DT))
    assert caught.value.code == "E-TARGET-UNSUPPORTED"
    assert why in caught.value.why
    assert caught.value.fix


def test_decisions_are_refused_where_the_file_states_them(tmp_path: Path) -> None:
    path = recurrent_file(tmp_path / "f.nir", np.random.default_rng(0))
    graph, _ = read_nir(path, reading_of("as-norse", DT))
    write_graph(graph, tmp_path / "ours.nir")
    with pytest.raises(PspikeError, match="states its own"):
        read_nir(tmp_path / "ours.nir", reading_of("as-norse", DT))


# --- commands ------------------------------------------------------------------------------------


def test_check_and_inspect_say_which_decisions_are_open(tmp_path: Path) -> None:
    path = str(recurrent_file(tmp_path / "f.nir", np.random.default_rng(0)))
    done = runner.invoke(cli.app, ["check", path])
    assert done.exit_code == EXIT_TARGET_CANNOT
    seen = runner.invoke(cli.app, ["inspect", path])
    assert seen.exit_code == 0
    for name in DECISIONS:
        assert f"leaves {name} open" in done.output
        assert f"open: {name}=" in seen.output
    decided = ["--reading", "as-norse", "--dt", str(DT)]
    assert runner.invoke(cli.app, ["check", path, *decided]).exit_code == 0
    assert "TwoStateNeuron" in runner.invoke(cli.app, ["inspect", path, *decided]).output


def test_simulate_reads_a_foreign_file(tmp_path: Path) -> None:
    path = recurrent_file(tmp_path / "f.nir", np.random.default_rng(0))
    np.save(tmp_path / "x.npy", np.random.default_rng(1).poisson(0.7, (2, 30, 3)))
    common = ["simulate", str(path), "--data", str(tmp_path / "x.npy"), "--backend", "reference"]
    out = ["--out", str(tmp_path / "r.npz")]
    assert runner.invoke(cli.app, [*common, *out]).exit_code == EXIT_BAD_INPUT
    done = runner.invoke(cli.app, [*common, *out, "--reading", "as-norse", "--dt", str(DT)])
    assert done.exit_code == 0, done.output


def test_the_tables_of_the_guide_are_generated() -> None:
    page = (ROOT / "docs" / "guides" / "foreign-nir.md").read_text("utf-8")
    for block, table in TABLES.items():
        assert block.inside(page) == table()
