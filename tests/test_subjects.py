"""What a user can name as a side of a comparison, and what comparing it says."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.comparing import CompareOptions, compare_subjects
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import export_lava
from pspike_deploy.graph.file import read_graph, write_graph
from pspike_deploy.nir_data import write_nir_data
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.passes import FOLDING
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point
from pspike_deploy.simulators.devices import InterpreterDevice, device_named
from pspike_deploy.sources import load_data, load_model
from pspike_deploy.subjects import PASS_NAMES, Opening, open_subject
from pspike_deploy.verify.latency import best_shift
from pspike_deploy.verify.replay import run_replay

MODEL = Path(__file__).parent.parent / "models" / "zoo" / "p_spikessm_digits.pt"
FEW = CompareOptions(samples=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the digits network: its graphs, its options and a recording."""
    folder = tmp_path_factory.mktemp("export")
    graph, facts = load_model(MODEL)
    provenance = {"data": facts["data"]}
    write_graph(graph, folder / "float.nir", provenance)
    integer = open_subject(f"{MODEL}@quantize").graph
    assert integer is not None
    write_graph(integer, folder / "quantized.nir", provenance)
    (folder / "manifest.json").write_text('{"format": "pspike-artefacts"}')
    (folder / "quantization.json").write_text('{"config": {"weight_bits": 8}}')
    x = load_data(None, None, graph, facts).x[[3, 1]]
    run = fixed_point.run(integer, x, noise=Noise.philox(4), samples=[3, 1], draw=2)
    run.save(folder / "run.npz")
    return folder


def chip(folder: Path, run: Recording, late: int = 0, **more: Any) -> Path:
    """The spikes of a run as a chip would have recorded them."""
    arrays: dict[str, Any] = {}
    for number, (name, spikes) in enumerate(run.spikes.items()):
        shift = late * (number + 1)
        arrays[f"spikes/{name}"] = np.pad(spikes, ((0, 0), (shift, 8 - shift), (0, 0)))
    np.savez(folder / "chip.npz", **arrays, samples=run.samples, **more)
    return folder / "chip.npz"


# --- opening -------------------------------------------------------------------------------


def test_every_kind_of_subject_opens(folder: Path) -> None:
    found = {
        str(MODEL): ("checkpoint", "reference"),
        str(folder / "float.nir"): ("graph", "reference"),
        str(folder / "quantized.nir"): ("graph", "fixed-point"),
        str(folder): ("export", "fixed-point"),
        f"reference:{folder}": ("export", "reference"),
        f"{folder}@load": ("export", "reference"),
        f"interpreter:{folder / 'quantized.nir'}": ("graph", "interpreter"),
        f"lava:{folder}": ("export", "lava"),
        str(folder / "run.npz"): ("recording", "fixed-point"),
    }
    for text, expected in found.items():
        subject = open_subject(text)
        assert (subject.kind, subject.backend) == expected, text
        assert subject.is_recorded == (subject.recording is not None) == ("npz" in text)


def test_a_pass_gives_the_graph_behind_it() -> None:
    assert PASS_NAMES[2:-1] == FOLDING
    graphs = [open_subject(f"{MODEL}@{name}").graph for name in PASS_NAMES[:-1]]
    sizes = [len(graph.nodes) for graph in graphs if graph is not None]
    assert sizes == [26, 26, 26, 19, 19, 19, 23, 23, 23]


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("{model}@polish", "E-USAGE", "merge_gains"),
        ("{folder}/nothing.nir", "E-INPUT-MISSING", "nothing.nir"),
        ("loihi:{folder}/quantized.nir", "E-USAGE", "interpreter"),
        ("lava:{folder}/run.npz", "E-USAGE", "prefix"),
        ("{folder}/run.npz@load", "E-USAGE", "no graph"),
        ("{folder}/quantized.nir@merge_gains", "E-USAGE", "quantised already"),
        ("{folder}/..", "E-USAGE", "neither an export nor a Lava bundle"),
    ],
)
def test_what_cannot_be_opened_is_explained(text: str, code: str, says: str, folder: Path) -> None:
    with pytest.raises(PspikeError) as caught:
        open_subject(text.format(model=MODEL, folder=folder))
    assert caught.value.code == code
    assert says in str(caught.value)


def test_the_options_of_an_export_are_those_of_its_passes(folder: Path) -> None:
    stored = open_subject(f"{folder}@quantize").graph
    assert stored is not None
    assert stored.digest == read_graph(folder / "quantized.nir").digest


def test_graphs_and_data_files_are_told_apart_by_content(folder: Path) -> None:
    write_nir_data(Recording.load(folder / "run.npz"), folder / "traces.nir")
    subject = open_subject(str(folder / "traces.nir"))
    assert subject.kind == "foreign"
    assert subject.recording is not None


def telling(facts: dict[str, Any]) -> Recording:
    return Recording({}, {}, np.zeros((1, 1)), np.arange(1), {"noise": facts})


def test_the_noise_of_a_recording_is_made_again() -> None:
    for noise in (Noise.philox(7), Noise.lfsr(seed=3), Noise.lcg(seed=2)):
        told = telling(noise.describe()).noise
        assert told is not None
        assert told.describe() == noise.describe()
    assert telling({"kind": "unknown"}).noise is None
    wrong: list[dict[str, Any]] = [{}, {"seed": -1}, {"seed": "x"}, {"taps": []}]
    for kind in ("philox4x64-10", "lfsr", "lcg"):
        for facts in wrong:
            with suppress(PspikeError):
                telling({"kind": kind, **facts}).noise  # noqa: B018  # reading it is the test


def test_the_graph_of_an_export_is_found_beside_its_recordings(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "recordings").mkdir()
    path = folder / "recordings" / "fixed-point.npz"
    shutil.copy(folder / "run.npz", path)
    graph = open_subject(str(path)).graph
    assert graph is not None
    assert graph.is_integer
    run = Recording.load(path)
    values = {**run.values, "l01_d_ssm": run.values["l01_d_ssm"] + 1}
    replace(run, values=values).save(tmp_path / "wrong.npz")
    options = CompareOptions(replay=tmp_path / "case.npz")
    compare_subjects(str(path), str(tmp_path / "wrong.npz"), options)
    assert run_replay(tmp_path / "case.npz").agrees_with == "a"


def test_devices_that_cannot_replay_say_so(folder: Path) -> None:
    graph = read_graph(folder / "quantized.nir")
    for name in ("interpreter", "lava"):
        with pytest.raises(PspikeError, match="takes no spikes"):
            device_named(name, graph).run([[[0.0]]], noise=Noise.philox(), replay={"a": np.ones(1)})
    run = InterpreterDevice(graph).run(
        np.ones((1, 2, 1)), noise=Noise.philox(), record=("l01_c_sample",)
    )
    assert list(run.values) == ["l01_c_sample"]
    with pytest.raises(PspikeError, match="unknown backend"):
        device_named("loihi", graph)


# --- comparing -----------------------------------------------------------------------------


def test_passes_before_the_integers_change_nothing(folder: Path) -> None:
    result = compare_subjects(str(MODEL), f"{folder}@narrow_messages", FEW)
    assert result.equal
    assert any("move gains" in note for note in result.notes)


def test_the_interpreter_agrees_with_the_compiled_simulator(folder: Path) -> None:
    result = compare_subjects(str(folder), f"interpreter:{folder}", FEW)
    assert result.sentence == "equal in every value that both recordings hold"
    assert all(node.exact_share == 1 for node in result.nodes)


def test_float_and_integer_state_their_expressions(folder: Path) -> None:
    found = compare_subjects(str(MODEL), str(folder)).first_divergence
    assert found is not None
    real, integer = found.expressions
    assert real is not None
    assert integer is not None
    assert real.startswith("p = clamp(a*x + b, 0, 1) = clamp(")
    assert real.endswith(f"p: spike {found.a}")
    total = integer.split(" = ")[2].split(";")[0]
    product, offset = integer.split(" = ")[1].split(" + ")
    a, x = product.split("*")
    assert int(a) * int(x) + int(offset) == int(total)
    assert integer.endswith(f"spike {found.b}")


def test_a_graph_runs_under_the_conditions_of_a_recording(folder: Path) -> None:
    result = compare_subjects(str(folder / "run.npz"), str(folder))
    assert result.sentence == "equal in every value that both recordings hold"
    assert result.samples == (3, 1)
    assert result.notes == ()


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("node", "bit"), [("l01_d_ssm", 5), ("l02_h_mixer_gain", 0), ("l02_g_sample", 0)]
)
def test_one_flipped_bit_is_named_and_replayed(
    node: str, bit: int, swapped: bool, folder: Path, tmp_path: Path
) -> None:
    run = Recording.load(folder / "run.npz")
    values = {**run.values, node: run.values[node].copy()}
    values[node][1, 30, 2] ^= 1 << bit
    replace(run, values=values).save(tmp_path / "wrong.npz")
    sides = [str(tmp_path / "wrong.npz"), str(folder)]
    options = CompareOptions(replay=tmp_path / "case.npz")
    result = compare_subjects(*(sides[::-1] if swapped else sides), options)
    found = result.first_divergence
    assert found is not None
    assert (found.sample, found.step, found.node, found.neuron, found.bit) == (1, 30, node, 2, bit)
    wrong, right = found.expressions[::-1] if swapped else found.expressions
    assert wrong is not None
    assert "the recording says" in wrong
    assert right is not None
    assert wrong.startswith(right)
    assert run_replay(tmp_path / "case.npz").agrees_with == ("a" if swapped else "b")


def test_a_replay_of_float_against_integer_sides_with_the_integers(
    folder: Path, tmp_path: Path
) -> None:
    options = CompareOptions(replay=tmp_path / "case.npz")
    result = compare_subjects(str(MODEL), str(folder), options)
    assert not result.equal
    assert run_replay(tmp_path / "case.npz").agrees_with == "b"


@pytest.mark.parametrize("late", [0, 1, 2])
def test_an_undeclared_latency_is_found_and_stated(late: int, folder: Path, tmp_path: Path) -> None:
    run = Recording.load(folder / "run.npz")
    path = chip(tmp_path, run, late, seed=4, draw=2)
    result = compare_subjects(str(folder), str(path))
    assert result.equal
    spiking = [node.latency for node in result.nodes]
    assert spiking == [(0, late * (number + 1)) for number in range(4)]
    assert any("declares no latency" in note for note in result.notes)


def test_unrelated_spikes_are_not_shifted() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        spikes = rng.random((2, 2, 30, 16)) < 0.1
        assert best_shift("a", *spikes).steps == 0
    late = np.roll(spikes[0], 3, axis=1)
    assert best_shift("a", spikes[0], late).steps == 3


def test_a_declared_latency_is_taken_as_it_is(folder: Path, tmp_path: Path) -> None:
    run = Recording.load(folder / "run.npz")
    arrays = {f"spikes/{n}": np.pad(v, ((0, 0), (1, 0), (0, 0))) for n, v in run.spikes.items()}
    np.savez(tmp_path / "chip.npz", **arrays, samples=[3, 1], seed=4, draw=2, latency=1)
    assert compare_subjects(str(folder), str(tmp_path / "chip.npz")).equal
    np.savez(tmp_path / "chip.npz", **arrays, samples=[3, 1], seed=4, draw=2, latency=0)
    assert not compare_subjects(str(folder), str(tmp_path / "chip.npz")).equal


def test_a_flipped_spike_on_a_chip_is_found_under_its_latency(folder: Path, tmp_path: Path) -> None:
    run = Recording.load(folder / "run.npz")
    values = {**run.values, "l01_g_sample": run.values["l01_g_sample"].copy()}
    values["l01_g_sample"][0, 7, 5] ^= 1
    path = chip(tmp_path, replace(run, values=values), 1, seed=4, draw=2)
    found = compare_subjects(str(folder), str(path)).first_divergence
    assert found is not None
    assert (found.sample, found.step, found.node, found.neuron) == (3, 7, "l01_g_sample", 5)
    assert found.expressions[0] is not None
    assert found.expressions[1] is None, "nobody knows what a chip computes"


def test_a_recording_that_tells_little_says_what_was_assumed(folder: Path, tmp_path: Path) -> None:
    path = chip(tmp_path, Recording.load(folder / "run.npz"))
    notes = "\n".join(compare_subjects(str(path), str(folder)).notes)
    assert "does not tell its noise" in notes
    assert "nothing is known about the noise of the first recording" in notes


def test_a_recording_of_other_nodes_or_samples_is_refused(folder: Path, tmp_path: Path) -> None:
    run = Recording.load(folder / "run.npz")
    other = replace(run, values={"elsewhere": run.values["l01_c_sample"]})
    with pytest.raises(PspikeError, match="no node 'elsewhere'"):
        compare_subjects(str(folder), str(chip(tmp_path, other)))
    far = replace(run, samples=np.array([5, 100_000]))
    with pytest.raises(PspikeError, match="samples that the data do not have"):
        compare_subjects(str(folder), str(chip(tmp_path, far)))


def test_the_command_runs_graphs_and_prints_expressions(folder: Path) -> None:
    arguments = ["compare", str(folder), f"interpreter:{folder}", "--samples", "1"]
    done = CliRunner().invoke(cli.app, [*arguments, "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["equal"] is True
    done = CliRunner().invoke(cli.app, ["compare", str(MODEL), str(folder), "--quiet"])
    assert done.exit_code == 1
    assert "\n  A: p = clamp(" in done.stdout
    assert "\n  B: a*x + b = " in done.stdout
    done = CliRunner().invoke(cli.app, ["compare", str(MODEL), str(MODEL), "--replay", "case.npz"])
    assert done.exit_code == 2
    assert "a replay case needs the graph" in done.stderr


# --- Lava ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    graph, facts = load_model(folder / "quantized.nir")
    x = load_data(None, None, graph, facts).x[[2]]
    return export_lava(graph, folder / "lava", x=x, noise=Noise.philox(9), samples=[2], draw=1).path


def test_a_bundle_opens_without_running(bundle: Path) -> None:
    subject = open_subject(str(bundle), Opening())
    assert (subject.kind, subject.backend, subject.device) == ("lava-bundle", "lava", None)
    assert subject.graph is not None, "the export's own"
    with pytest.raises(PspikeError, match="is no graph"):
        open_subject(f"interpreter:{bundle}")


@pytest.mark.lava
def test_a_bundle_runs_and_equals_its_graph(bundle: Path, folder: Path) -> None:
    result = compare_subjects(str(folder), str(bundle))
    assert result.backends == ("fixed-point", "lava")
    assert result.samples == (2,)
    assert result.sentence == "equal in every value that both recordings hold"


@pytest.mark.lava
def test_a_graph_runs_in_lava_by_name(folder: Path) -> None:
    assert compare_subjects(str(folder), f"lava:{folder}", CompareOptions(samples=1)).equal
