"""``pspike inspect`` on networks that have no graph: their layers, and the reasons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.file import write_graph
from pspike_deploy.inspection import describe
from pspike_deploy.models.checkpoint import load_checkpoint
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.quantize.quantize import fold, quantize
from tests.official import H, N, Variant, state_dict
from tests.test_official_networks import VARIANTS, save_official
from tests.test_quantize import data, network
from tests.test_zoo import ZOO

runner = CliRunner()
TWO_SIDED_B = Variant(case_b=True, two_sided=True, norm="layer")


@pytest.mark.parametrize("name", VARIANTS)
def test_every_official_variant_can_be_inspected(name: str, tmp_path: Path) -> None:
    path = tmp_path / "official.pt"
    save_official(path, VARIANTS[name])
    found = describe(path)
    json.dumps(found)
    network = load_checkpoint(path).network
    if "cannot_stream" not in found:
        assert found["kind"] == "float graph"
        return
    assert found["kind"] == "network that cannot stream"
    assert found["cannot_stream"]
    assert found["parameters"] == sum(row["parameters"] for row in found["nodes"])
    shapes = {
        f"{row['name']}.{name}".lstrip("."): shape
        for row in found["nodes"]
        for name, shape in row["shapes"].items()
    }
    assert shapes == {name: list(p.shape) for name, p in network.named_parameters()}


def test_layers_and_reasons_are_printed(tmp_path: Path) -> None:
    path = tmp_path / "official.pt"
    save_official(path, TWO_SIDED_B)
    done = runner.invoke(cli.app, ["inspect", str(path)])
    assert done.exit_code == 0, done.output
    for expected in (
        "blocks.1.reverse_ssm",
        "DPLR",
        "LayerNorm",
        "architecture: p_spikessm",
        "cannot stream: E-TARGET-NONCAUSAL",
        "cannot stream: E-TARGET-UNSUPPORTED",
        "LayerNorm",
        "layer.bidirectional=false",
    ):
        assert expected in done.output
    document = json.loads(runner.invoke(cli.app, ["inspect", str(path), "--json"]).stdout)
    assert [r["code"] for r in document["cannot_stream"]] == ["E-TARGET-NONCAUSAL"] + [
        "E-TARGET-UNSUPPORTED"
    ] * 2
    rows = {row["name"]: row for row in document["nodes"]}
    assert rows["blocks.0.ssm"]["shapes"]["C"] == [2, H, N // 2, 2]
    assert rows["blocks.0.mixer"]["output_shape"] == [H]
    assert document["unused"]


def test_files_that_are_no_networks_stay_errors(tmp_path: Path) -> None:
    weights = state_dict(TWO_SIDED_B)
    del weights["encoder.0.bias"]
    torch.save(weights, tmp_path / "broken.pt")
    done = runner.invoke(cli.app, ["inspect", str(tmp_path / "broken.pt")])
    assert done.exit_code == 2


def test_a_network_whose_data_are_packaged_shows_ranges_errors_and_guard_bits() -> None:
    found = describe(ZOO / "p_spikessm_digits.pt")
    json.dumps(found)
    rows = found["quantization"]["nodes"]
    ssm = rows["l01_d_ssm"]
    assert ssm["guaranteed"][0] <= ssm["observed"][0] < ssm["observed"][1] <= ssm["guaranteed"][1]
    assert ssm["guard"]["suffices"]
    assert 60 < ssm["sqnr_db"] < 100
    assert rows["l01_c_sample"]["sampling"]["share_clamped_at_0"] > 0.3


def test_a_network_whose_data_are_the_user_s_shows_what_needs_none() -> None:
    found = describe(ZOO / "p_spikessm_smnist.pt")
    assert "quantization" not in found
    assert found["guard"]


def test_without_data_only_what_needs_none_is_shown(tmp_path: Path) -> None:
    graph = fold(to_graph(network(1)))
    integer = quantize(graph, data(1))
    for name, one in (("float", graph), ("integer", integer)):
        path = tmp_path / f"{name}.nir"
        write_graph(one, path)
        found = describe(path)
        assert "quantization" not in found
        bits = found["guard"]["l01_d_ssm"]
        assert bits["cancellation"] >= 1
        assert (bits["kept_bits"] is None) == (name == "float")
    np.save(tmp_path / "x.npy", data(1))
    arguments = ["inspect", str(tmp_path / "float.nir"), "--data", str(tmp_path / "x.npy")]
    done = runner.invoke(cli.app, arguments)
    for expected in ("headroom bits", "became never", "left for the kernel", "parameters: "):
        assert expected in done.output
    assert "{" not in done.output, "tables, no raw data"
    with pytest.raises(PspikeError, match="E-USAGE"):
        describe(tmp_path / "integer.nir", data=tmp_path / "x.npy")
