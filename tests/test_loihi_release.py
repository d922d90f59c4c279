"""Every network of the zoo, and the authors' SiLIF network, exported toward Loihi end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pspike_deploy.exporters.loihi.export import LAYERS, MAPPING
from pspike_deploy.exporters.loihi.neuron_programs import ARRAYS, DOCUMENT
from pspike_deploy.loihi_stage import FOLDER, HANDOVER
from pspike_deploy.options import ExportOptions
from pspike_deploy.pipeline import export_network
from tests.zoo_data import SHARED, ZOO, data_of

pytestmark = [pytest.mark.release, pytest.mark.lava]
needs_data = pytest.mark.skipif(
    not SHARED.is_dir(), reason="PSPIKE_SHARED names no folder with data sets and originals"
)


def check_export(model: Path, data: Path | None, out: Path) -> dict[str, object]:
    """Export; every artefact stands there, Lava is bit-exact, the verdict equivalent."""
    options = ExportOptions(model, "loihi", out, data, draws=1, lava_samples=1)
    summary = export_network(options).summary
    for name in (HANDOVER, MAPPING, DOCUMENT, ARRAYS, LAYERS):
        assert (out / FOLDER / name).is_file(), name
    assert summary["lava"]["bit_exact"]
    assert summary["verification"]["verdict"] == "equivalent"
    facts: dict[str, object] = json.loads(json.dumps(summary["loihi"]))
    assert facts["fits"]
    assert facts["without_program"] == []
    return facts


@needs_data
@pytest.mark.parametrize("name", sorted(path.stem for path in ZOO.glob("*.pt")))
def test_every_network_of_the_zoo_is_exported(name: str, tmp_path: Path) -> None:
    facts = check_export(ZOO / f"{name}.pt", data_of(name, tmp_path, few=True), tmp_path / "out")
    assert facts["chips"] == 1


@needs_data
def test_the_network_of_the_silif_authors_is_exported(tmp_path: Path) -> None:
    originals = SHARED / "oracles/silif"
    with np.load(originals / "ssc_silif_512_trace.npz") as trace:
        np.savez(tmp_path / "spikes.npz", x=trace["x"])
    facts = check_export(originals / "ssc_silif_512.pth", tmp_path / "spikes.npz", tmp_path / "out")
    assert (facts["cores"], facts["bottleneck"]) == (8, "synaptic_words")
