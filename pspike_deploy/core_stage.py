"""The stage of an export that writes core NIR for other frameworks, with test vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy import artefacts
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.nir.noise import away_from, midpoints, pack, smallest_margin
from pspike_deploy.exporters.nir.vectors import (
    CORE_FILE,
    REFUSED_FILE,
    VECTORS_FILE,
    CoreVectors,
)
from pspike_deploy.graph.core import CoreGraph
from pspike_deploy.graph.core_file import write_core
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.lower import lower
from pspike_deploy.graph.lower_refusals import refusals
from pspike_deploy.graph.nodes import SoftmaxSum
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import reference

#: Samples of the test vectors at most, and values of their inputs.
SAMPLES: Final = 4
MOST_VALUES: Final = 2**22
#: Least distance, where possible, between the noise of the test vectors and a probability: far
#: more than float32 may be off.
MARGIN: Final = 1e-3


def write_core_files(
    graph: Graph,
    x: npt.ArrayLike,
    folder: Path,
    *,
    seed: int = 0,
    device: str = "auto",
    provenance: Mapping[str, Any] | None = None,
    require: bool = False,
) -> dict[str, Any]:
    """Write ``core.nir`` and ``core_inputs.npz``, or ``core.refused.json``.

    Args:
        graph: float graph that has passed the folding passes.
        x: (sample, step, feature), of which the first few become test vectors.
        folder: where the files go.
        seed: of the noise.
        device: where the reference runs.
        provenance: plain data for the header of the file.
        require: whether a network that core NIR cannot express is an error.

    Returns:
        Facts for the summary.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED with ``require``.
    """
    refused = refusals(graph)
    if refused and not require:
        reasons = [{"node": one.node, "reason": one.why} for one in refused]
        document = {"code": "E-TARGET-UNSUPPORTED", "refused": reasons}
        artefacts.write_json(folder / REFUSED_FILE, document)
        return {"written": False, "refused": reasons}
    core = lower(graph)
    write_core(core, graph, folder / CORE_FILE, provenance)
    vectors = make_vectors(graph, core, x, seed=seed, device=device)
    vectors.save(folder / VECTORS_FILE)
    samples, steps, lanes = vectors.inputs.shape
    return {
        "written": True,
        "digest": core.digest,
        "nodes": len(core.nodes),
        "lanes": lanes,
        "readout": core.readout,
        "samples": samples,
        "steps": steps,
        "spikes": int(sum(int(spikes.sum()) for spikes in vectors.spikes.values())),
        "margin": vectors.margin,
    }


def make_vectors(
    graph: Graph, core: CoreGraph, x: npt.ArrayLike, *, seed: int = 0, device: str = "auto"
) -> CoreVectors:
    """Inputs of a core graph, and what the reference answers in float64.

    Noise that lies close to a probability is moved away without changing a spike. Neurons without
    noise may come close to their threshold by themselves, so samples are taken whose spikes are
    the same in float32, and cut where none is.

    Args:
        graph: float graph.
        core: its lowering.
        x: (sample, step, feature); four times as many samples as are kept are looked at.
        seed: of the noise.
        device: where the reference runs.
    """
    data = np.asarray(x)
    steps = int(min(data.shape[1], max(1, MOST_VALUES // core.width)))
    keep = int(np.clip(MOST_VALUES // (steps * core.width), 1, SAMPLES))
    # float32, as the lanes are.
    data = data[: 4 * keep, :steps].astype(np.float32).astype(np.float64)
    noise = Noise.philox(seed)
    u = {group.site: midpoints(noise, group, *data.shape[:2]) for group in core.noise}
    expected = reference.run(graph, data, noise=Noise.injected(u), device=device)
    probability = {site: expected.probabilities[name] for name, site in graph.sites.items()}
    u = {site: away_from(u[site], probability[site], MARGIN) for site in u}
    single = reference.run(graph, data, noise=Noise.injected(u), device=device, dtype="float32")
    rows, steps = _decided(expected, single, graph.spiking, keep)
    part = {name: value[rows, :steps] for name, value in expected.values.items()}
    return CoreVectors(
        inputs=pack(core, data, u)[rows, :steps],
        spikes={core.carriers[name]: part[name] for name in graph.spiking},
        output=_output(graph, part, core.readout).astype(np.float32),
        margin=min(
            (smallest_margin(u[s][rows, :steps], probability[s][rows, :steps]) for s in u),
            default=1.0,
        ),
    )


def _decided(
    one: Recording, other: Recording, names: tuple[str, ...], keep: int
) -> tuple[npt.NDArray[np.int64], int]:
    """Samples whose spikes agree for longest, in order, and for how many steps all of them do."""
    samples, steps = next(iter(one.values.values())).shape[:2]
    differ = np.zeros((samples, steps), bool)
    for name in names:
        differ |= np.any(one.values[name] != other.values[name], axis=2)
    until = np.where(differ.any(axis=1), differ.argmax(axis=1), steps)
    rows = np.sort(np.argsort(-until, kind="stable")[:keep])
    return rows, max(1, int(until[rows].min()))


def _output(graph: Graph, values: Mapping[str, Any], readout: str) -> npt.NDArray[np.float64]:
    """What the file gives: the network's output without what the host does."""
    (last,) = graph.sources(graph.output_name)
    if isinstance(graph.nodes[last], SoftmaxSum):
        (last,) = graph.sources(last)
    if last == graph.input_name:
        raise PspikeError("E-TARGET-UNSUPPORTED", "the network is empty", where=last)
    value: npt.NDArray[np.float64] = values[last].astype(np.float64)
    if readout == "mean":
        value = value * np.arange(1, value.shape[1] + 1)[:, None]
    return value
