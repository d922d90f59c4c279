"""Exports toward Loihi: every artefact, on a trained network, and what does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.check import check
from pspike_deploy.energy_files import EnergyRequest, energy_of_file
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import partition_for
from pspike_deploy.exporters.lava.files import file_digests, sha256_of
from pspike_deploy.exporters.loihi.check_mapping import check_mapping
from pspike_deploy.exporters.loihi.export import export_loihi
from pspike_deploy.exporters.loihi.graph_demand import demand_of
from pspike_deploy.exporters.loihi.mapping.mapper import map_network
from pspike_deploy.exporters.loihi.mapping.result import OBJECTIVES
from pspike_deploy.exporters.loihi.mapping.result import Mapping as CoreMapping
from pspike_deploy.exporters.loihi.rules import design_findings
from pspike_deploy.graph.file import write_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.options import ExportOptions, NoWatcher
from pspike_deploy.pipeline import export_network
from pspike_deploy.report.chip_rows import feasibility_rows
from pspike_deploy.simulators import fixed_point
from pspike_deploy.targets.profile import load_profile
from tests.graphs import small_input, small_integer_graph

ZOO = Path(__file__).parent.parent / "models" / "zoo"
DIGITS = ZOO / "p_spikessm_digits.pt"
LOIHI2, LOIHI1 = load_profile("loihi2"), load_profile("loihi1")
runner = CliRunner()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network of the zoo."""
    out = tmp_path_factory.mktemp("loihi") / "digits"
    export_network(ExportOptions(DIGITS, "loihi", out, draws=1, lava_samples=1))
    return out


@pytest.mark.lava
def test_an_export_holds_every_artefact_and_says_what_was_not_verified(exported: Path) -> None:
    summary = json.loads((exported / "summary.json").read_text("utf-8"))
    facts = summary["loihi"]
    assert facts["fits"]
    assert facts["cores"] == facts["lower_bound"]
    assert facts["without_program"] == []
    assert facts["netx"]["why_not_run"] == "no layer of the network is one that NetX has"
    assert facts["netx"]["not_expressed"] > 10
    mapping = json.loads((exported / "loihi/mapping.json").read_text("utf-8"))
    assert mapping["activity"] == "measured"
    assert mapping["core_count"] == facts["cores"]
    text = (exported / "loihi/HANDOVER.md").read_text("utf-8")
    assert "No chip was used" in text
    assert "not verified by Intel's partitioner" in text
    assert f"**{summary['verification']['verdict']}**" in text
    if summary["lava"] is None:
        assert "was **not run**" in text
    for name in ("lava/expected.npz", "loihi/neuron_programs.json", "loihi/neuron_parameters.npz"):
        assert f"| `{name}` | `{sha256_of(exported / name)}` |" in text


@pytest.mark.lava
def test_the_report_shows_the_chip(exported: Path) -> None:
    page = (exported / "report.html").read_text("utf-8")
    for words in ("On the chip", "Cores by load", "Does it fit?", "steps per second", "holds"):
        assert words in page
    document = json.loads((exported / "loihi/mapping.json").read_text("utf-8"))
    assert CoreMapping.from_dict(document).to_dict() == document
    rows = dict(feasibility_rows(json.loads((exported / "summary.json").read_text("utf-8"))))
    assert rows["verdict"] == "fits; an estimate"
    assert "by the time model (mapped, PRIOR, not Loihi 2 data)" in rows["steps per second"]


def test_energy_stands_on_the_cores_that_the_export_chose(tmp_path: Path) -> None:
    out = tmp_path / "spread"
    options = ExportOptions(
        ZOO / "linoss_digits.pt", "loihi", out, draws=1, lava_samples=1, objective="lowest-load"
    )
    summary = export_network(options).summary
    cores = summary["loihi"]["cores"]
    assert cores > 10
    assert summary["energy"]["chips"]["loihi2"]["cores"] == cores
    again = energy_of_file(EnergyRequest(out, samples=4, draws=20), NoWatcher())
    assert again["chips"]["loihi2"]["cores"] == cores
    (out / "loihi/mapping.json").write_text('{"format": "something else"}', "utf-8")
    with pytest.raises(PspikeError, match="the mapping of the export cannot be read"):
        energy_of_file(EnergyRequest(out, samples=4, draws=20), NoWatcher())


@pytest.mark.parametrize("damage", [{"version": 2}, {"cores": [{}]}, {"traffic": None}])
def test_what_is_no_mapping_is_refused(damage: dict[str, object]) -> None:
    graph = small_integer_graph(np.random.default_rng(0))
    whole = map_network(demand_of(graph, partition_for(graph), LOIHI2), LOIHI2).to_dict()
    with pytest.raises(ValueError, match=r"mapping|Error"):
        CoreMapping.from_dict({**whole, **damage})


def test_what_the_mapping_minimises_can_be_chosen(tmp_path: Path) -> None:
    arguments = ["check", str(DIGITS), "--target", "loihi", "--cores", "--json"]
    cores = {}
    for objective in OBJECTIVES:
        done = runner.invoke(cli.app, [*arguments, "--objective", objective])
        mapping = json.loads(done.stdout)["mapping"]
        assert mapping["objective"] == objective
        cores[objective] = mapping["core_count"]
    assert cores["fewest-cores"] < cores["lowest-load"]
    for target, objective in (("lava", "lowest-load"), ("loihi", "prettiest")):
        with pytest.raises(PspikeError, match="objective"):
            ExportOptions(DIGITS, target, tmp_path / "out", objective=objective)  # type: ignore[arg-type]


def test_the_same_arguments_give_the_same_bytes_and_a_mapping_that_holds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    graph = small_integer_graph(rng, blocks=2)
    run = fixed_point.run(graph, small_input(rng, 3, 8), noise=Noise.philox(0))
    for name in ("a", "b"):
        made = export_loihi(graph, tmp_path / name, LOIHI2, recording=run)
    assert file_digests(tmp_path / "a") == file_digests(tmp_path / "b")
    demand = demand_of(graph, partition_for(graph), LOIHI2)
    assert check_mapping(demand, LOIHI2, made.mapping) == []
    assert made.mapping.activity == "measured"


def test_loihi_1_has_no_such_neurons_and_says_so_for_each(tmp_path: Path) -> None:
    graph = small_integer_graph(np.random.default_rng(0))
    with pytest.raises(PspikeError, match="E-TARGET-UNSUPPORTED") as caught:
        export_loihi(graph, tmp_path / "out", LOIHI1)
    refused = {f.node for f in design_findings(graph, LOIHI1) if f.level == "unsupported"}
    assert len(refused) > 5
    assert set(caught.value.where.split(", ")) == refused
    assert "draws no spike from a probability" in caught.value.why
    assert "spikes of the chip are binary" in caught.value.why
    assert not (tmp_path / "out").exists()


def test_check_tells_what_a_chip_lacks() -> None:
    arguments = ["check", str(DIGITS), "--target", "loihi", "--profile", "loihi1", "--json"]
    done = runner.invoke(cli.app, arguments)
    findings = json.loads(done.stdout)["findings"]
    assert done.exit_code == 3
    wrong = {finding["where"] for finding in findings if finding["severity"] == "error"}
    assert len(wrong) > 3


@pytest.mark.parametrize("name", sorted(path.stem for path in ZOO.glob("*.pt")))
def test_networks_of_the_zoo_fit_one_chip(name: str) -> None:
    path = str(ZOO / f"{name}.pt")
    done = runner.invoke(cli.app, ["check", path, "--target", "loihi", "--json"])
    assert done.exit_code == 0, done.output
    findings = json.loads(done.stdout)["findings"]
    assert not [finding for finding in findings if finding["severity"] == "error"]


def test_what_lava_cannot_run_is_found_for_loihi_too(tmp_path: Path) -> None:
    graph = small_integer_graph(np.random.default_rng(0))
    stated = graph.semantics.quantization
    wide = next(n for n in graph.order if n.endswith("encoder_gain"))
    formats = {**stated, wide: replace(stated[wide], output=replace(stated[wide].output, bits=30))}
    semantics = replace(graph.semantics, quantization=formats)
    write_graph(replace(graph, semantics=semantics), tmp_path / "wide.nir")
    found = check(tmp_path / "wide.nir", "loihi").findings
    assert wide in {one["where"] for one in found if one["severity"] == "error"}


def test_an_unknown_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PspikeError, match="unknown profile 'loihi3'"):
        ExportOptions(DIGITS, "loihi", tmp_path / "out", profile="loihi3")
