"""The main job on the trained networks: nothing that matters gets lost."""

from dataclasses import replace
from pathlib import Path

import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Bernoulli
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.options import ExportOptions
from pspike_deploy.pipeline import export_network
from pspike_deploy.quantize import passes
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.simulators import fixed_point
from pspike_deploy.sources import load_data, load_model

ZOO = Path(__file__).parent.parent / "models" / "zoo"
NETWORKS = {"p_spikessm_digits": 0.96, "p_spikessm_digits_linear": 0.95}


@pytest.mark.lava
@pytest.mark.parametrize("name", NETWORKS)
def test_a_zoo_network_keeps_its_accuracy_and_runs_bit_exactly_in_lava(
    name: str, tmp_path: Path
) -> None:
    options = ExportOptions(ZOO / f"{name}.pt", "lava", tmp_path / "out")
    summary = export_network(options).summary
    accuracy = summary["accuracy"]
    assert accuracy["samples"] == 360
    assert accuracy["draws"] == 10
    assert accuracy["float"] >= NETWORKS[name]
    assert abs(accuracy["integer"] - accuracy["float"]) <= 0.01
    assert summary["lava"]["samples"] >= 20
    assert summary["lava"]["steps"] == 64
    assert summary["lava"]["mismatches"] == 0
    assert summary["lava"]["bit_exact"]
    assert summary["quantization"]["overflows"] == 0
    assert summary["verification"]["verdict"] == "equivalent"


def test_a_pass_that_changes_the_network_stops_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = passes.PASSES["merge_gains"]

    def halving(graph: Graph) -> Graph:
        graph = honest(graph)
        return graph.with_nodes(
            {n: replace(v, a=v.a / 2) for n, v in graph.nodes.items() if isinstance(v, Bernoulli)}
        )

    monkeypatch.setitem(passes.PASSES, "merge_gains", halving)
    options = ExportOptions(ZOO / "p_spikessm_digits.pt", "nir", tmp_path / "out")
    with pytest.raises(PspikeError, match="E-INTERNAL") as caught:
        export_network(options)
    assert "merge_gains" in caught.value.what
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    ["p_spikessm_digits", "p_spikessm_digits_linear", "linoss_digits", "spiking_ssm_digits"],
)
def test_no_register_overflows_on_the_test_samples(name: str) -> None:
    """The policy ``error`` ends a run at the first value that leaves its register."""
    graph, facts = load_model(ZOO / f"{name}.pt")
    samples = load_data(None, None, graph, facts)
    integer = quantize(graph, samples.calibration, QuantConfig(overflow="error"))
    found = fixed_point.run(integer, samples.x, noise=Noise.philox(0), record=())
    assert found.run["overflows"] == 0
    assert len(found.outputs) == 360
