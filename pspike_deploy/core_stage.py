"""The stage of an export that writes core NIR for other frameworks, with test vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy import artefacts
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.nir.noise import away_from, midpoints, pack, smallest_margin
from pspike_deploy.exporters.nir.variants import (
    VARIANT_FOLDER,
    VARIANT_LIST,
    Variant,
    write_variant,
)
from pspike_deploy.exporters.nir.vectors import (
    CORE_FILE,
    REFUSED_FILE,
    VECTORS_FILE,
    CoreVectors,
)
from pspike_deploy.graph.core import CoreGraph
from pspike_deploy.graph.core_file import write_core
from pspike_deploy.graph.core_layers import core_layers
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.lower import lower
from pspike_deploy.graph.lower_refusals import refusals
from pspike_deploy.graph.nodes import SoftmaxSum
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import reference

FloatArray = npt.NDArray[np.float64]

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
    variant: Variant | None = None,
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
        variant: a form for one reader, written in addition.

    Returns:
        Facts for the summary.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED with ``require``, or where the variant is impossible.
    """
    refused = refusals(graph)
    if refused and not (require or variant):
        reasons = [{"node": one.node, "reason": one.why} for one in refused]
        document = {"code": "E-TARGET-UNSUPPORTED", "refused": reasons}
        artefacts.write_json(folder / REFUSED_FILE, document)
        return {"written": False, "refused": reasons}
    core = lower(graph)
    write_core(core, graph, folder / CORE_FILE, provenance)
    run = core_run(graph, core, x, seed=seed, device=device)
    vectors = vectors_of(run, core)
    vectors.save(folder / VECTORS_FILE)
    if variant:
        write_variants(run, core, variant, folder / VARIANT_FOLDER)
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


@dataclass(frozen=True, eq=False)
class CoreRun:
    """A run of the reference that a reader can repeat without an excuse.

    Attributes:
        graph: the float network.
        uniforms: noise (sample, step, neuron) of every site.
        values: of every node (sample, step, neuron), float64; the input's among them.
        margin: smallest distance between a uniform and the probability that it was compared with;
            1 where no noise decides.
    """

    graph: Graph
    uniforms: Mapping[int, FloatArray]
    values: Mapping[str, npt.NDArray[Any]]
    margin: float

    @property
    def features(self) -> npt.NDArray[Any]:
        """What enters the network."""
        return self.values[self.graph.input_name]

    def inputs(self, core: CoreGraph, features: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The packed input of a core graph under the noise of this run."""
        return pack(core, features, self.uniforms)

    def output(self, readout: str) -> FloatArray:
        """What a file gives: the network's output without what the host does."""
        (last,) = self.graph.sources(self.graph.output_name)
        if isinstance(self.graph.nodes[last], SoftmaxSum):
            (last,) = self.graph.sources(last)
        if last == self.graph.input_name:
            raise PspikeError("E-TARGET-UNSUPPORTED", "the network is empty", where=last)
        value: FloatArray = self.values[last].astype(np.float64)
        if readout == "mean":
            value = value * np.arange(1, value.shape[1] + 1)[:, None]
        return value


def core_run(
    graph: Graph, core: CoreGraph, x: npt.ArrayLike, *, seed: int = 0, device: str = "auto"
) -> CoreRun:
    """The run of a network that test vectors show.

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
    margins = (smallest_margin(u[s][rows, :steps], probability[s][rows, :steps]) for s in u)
    return CoreRun(
        graph,
        {site: uniforms[rows, :steps] for site, uniforms in u.items()},
        {graph.input_name: data[rows, :steps]}
        | {name: value[rows, :steps] for name, value in expected.values.items()},
        min(margins, default=1.0),
    )


def vectors_of(run: CoreRun, core: CoreGraph) -> CoreVectors:
    """A run as test vectors of the network's core graph."""
    return CoreVectors(
        inputs=run.inputs(core, run.features),
        spikes={core.carriers[name]: run.values[name] for name in run.graph.spiking},
        output=run.output(core.readout).astype(np.float32),
        margin=run.margin,
    )


@dataclass(frozen=True, eq=False)
class VariantFile:
    """One file of a variant.

    Attributes:
        name: what it is called, without suffix.
        core: what it holds.
        computes: node of the network whose values it gives.
        sources: nodes whose values are its features, in the order of the lanes.
    """

    name: str
    core: CoreGraph
    computes: str
    sources: tuple[str, ...]


def variant_files(graph: Graph, core: CoreGraph, variant: Variant) -> list[VariantFile]:
    """The files of a network in a variant, in the order in which they run.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED, E-USAGE.
    """
    if not variant.single_layer:
        (last,) = graph.sources(graph.output_name)
        return [VariantFile("network", variant.of(core), last, (graph.input_name,))]
    return [
        VariantFile(
            f"{i:02d}_{layer.name}", variant.of(lower(layer.graph)), layer.name, layer.sources
        )
        for i, layer in enumerate(core_layers(graph))
    ]


def write_variants(run: CoreRun, core: CoreGraph, variant: Variant, folder: Path) -> None:
    """Write the files of a variant, each with its own test vectors, and a list of them.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED, E-USAGE, E-OUT-UNWRITABLE, E-OUT-DISK-FULL.
    """
    files = variant_files(run.graph, core, variant)
    folder.mkdir()
    for file in files:
        features = np.concatenate([run.values[name] for name in file.sources], axis=-1)
        spiking = file.computes in run.graph.spiking
        expected = run.values[file.computes] if spiking else run.output(file.core.readout)
        write_variant(file.core, folder / f"{file.name}.nir")
        inputs = run.inputs(file.core, features)
        vectors = CoreVectors(inputs, {}, expected.astype(np.float32), run.margin)
        vectors.save(folder / f"{file.name}.npz")
    listed = [
        {
            "file": f"{file.name}.nir",
            "computes": file.computes,
            "features": list(file.sources),
            "noise": [
                {"site": group.site, "link": group.link, "lanes": [group.first, group.columns.stop]}
                for group in file.core.noise
            ],
            "ones": file.core.ones,
            "readout": file.core.readout,
        }
        for file in files
    ]
    artefacts.write_json(folder / VARIANT_LIST, {"options": variant.words, "files": listed})


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
