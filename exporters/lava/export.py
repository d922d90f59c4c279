"""Write an integer graph as a self-contained Lava bundle: a folder that runs by itself.

The bundle holds the runtime, all numbers, the inputs, the noise and what to expect. The backend
``lava`` runs that very folder, so what is tested is what is shipped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.atomic import whole_folder
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava import files, inputs
from pspike_deploy.exporters.lava.groups import NEURONS, Partition, cut
from pspike_deploy.exporters.lava.manifest import (
    FORMAT,
    VERSION,
    dense_synapses,
    manifest,
    noise_files,
    recurrent_synapses,
    require_portable,
)
from pspike_deploy.exporters.lava.programs import operation_files, parameters
from pspike_deploy.exporters.lava.readme import readme
from pspike_deploy.exporters.lava.refusals import Refusal, raise_refusals
from pspike_deploy.exporters.lava.rules import format_problems, unknown_nodes
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording

Array = npt.NDArray[Any]

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True)
class LavaBundle:
    """An exported bundle.

    Attributes:
        path: its folder.
        manifest: content of ``manifest.json``.
        digest: SHA-256 of ``manifest.json``, which itself holds the digest of every other file.
    """

    path: Path
    manifest: Mapping[str, Any]
    digest: str

    @property
    def samples(self) -> tuple[int, ...]:
        """Index of each sample in the data set."""
        return tuple(self.manifest["samples"])

    @property
    def steps(self) -> int:
        """Steps of each sample."""
        return int(self.manifest["steps"])

    @property
    def latency(self) -> int:
        """Largest latency of a group, in steps."""
        return int(self.manifest["latency"])

    @property
    def run_length(self) -> int:
        """Lava steps of a run of one sample at a time."""
        return self.length_of_run(1)

    def length_of_run(self, batch: int) -> int:
        """Lava steps of a run with so many samples side by side, and the pipeline's latency."""
        return -(-len(self.samples) // batch) * self.steps + self.latency

    @property
    def processes(self) -> int:
        """Lava processes of a run."""
        return len(self.manifest["groups"]) + len(self.manifest["dense"])

    @staticmethod
    def load(path: str | Path) -> LavaBundle:
        """Open a bundle and check that no file is missing or changed.

        Raises:
            PspikeError: E-INPUT-MISSING.
        """
        folder = Path(path)
        try:
            text = (folder / MANIFEST).read_bytes()
            data = json.loads(text)
            if data["format"] != FORMAT or data["version"] > VERSION:
                raise ValueError(f"format {data['format']}, version {data['version']}")
            listed = dict(data["files"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _no_bundle(folder, f"{MANIFEST}: {type(error).__name__}: {error}") from error
        wrong = [
            name
            for name, digest in listed.items()
            if not (folder / name).is_file() or files.sha256_of(folder / name) != digest
        ]
        if wrong:
            raise _no_bundle(folder, f"missing or changed: {', '.join(wrong)}")
        return LavaBundle(folder, data, files.sha256_of(folder / MANIFEST))


def _no_bundle(folder: Path, why: str) -> PspikeError:
    return PspikeError(
        "E-INPUT-MISSING",
        "the folder is not a whole Lava bundle",
        why=why,
        fix="export it again with --target lava",
        where=str(folder),
    )


def export_lava(
    graph: Graph,
    out: Path,
    *,
    x: npt.ArrayLike,
    noise: Noise,
    samples: npt.ArrayLike | None = None,
    expected: Recording | None = None,
    draw: int = 0,
    one_process_per_node: bool = False,
) -> LavaBundle:
    """Write a bundle. The same arguments give the same bytes.

    Args:
        graph: integer graph.
        out: folder to make; it appears whole or not at all.
        x: real input, (sample, step, feature).
        noise: source of the random spikes.
        samples: index of each sample in the data set, default 0, 1, …
        expected: what the integer simulator computed for these samples, to compare with.
        draw: number of the repetition.
        one_process_per_node: do not collect neurons' nodes in one process: slower, for comparison.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED (naming every node that Lava cannot run), E-USAGE,
            E-DATA-*, E-NOISE, E-OVERFLOW (of the input), E-OUT-*.
    """
    require_portable(noise)
    indices, integers, input_overflows = inputs.quantised(graph, x, samples)
    known = {graph.targets(graph.input_name)[0]: integers}
    partition = partition_for(graph, known, one_process_per_node=one_process_per_node)
    plain = manifest(
        graph,
        partition,
        steps=integers.shape[1],
        samples=indices,
        noise=noise,
        draw=draw,
        input_overflows=input_overflows,
    )
    content: dict[str, Mapping[str, Array]] = {
        "parameters.npz": _parameters(graph, partition),
        "inputs.npz": {"integers": integers.astype(np.int32)},
    }
    if expected is not None:
        content["expected.npz"] = inputs.expected_arrays(plain, expected)
    _check_free(Path(out))
    with whole_folder(Path(out)) as folder:
        files.copy_runtime(folder)
        for name, source in operation_files(graph, partition.groups).items():
            (folder / "pspike_processes" / name).write_bytes(source.read_bytes())
        for name, arrays in content.items():
            files.write_npz(folder / name, arrays)
        _write_noise(folder, graph, noise, indices, integers.shape[1])
        (folder / "README.md").write_text(readme(plain, expected is not None), encoding="utf-8")
        plain["files"] = files.file_digests(folder)
        files.write_json(folder / MANIFEST, plain)
    return LavaBundle.load(out)


def partition_for(
    graph: Graph, known: Mapping[str, Array] | None = None, *, one_process_per_node: bool = False
) -> Partition:
    """The groups of a graph that Lava can run.

    Args:
        graph: integer graph.
        known: integers of some nodes where they are known before the run, for sharper bounds.
        one_process_per_node: see :func:`export_lava`.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED, naming every node that Lava cannot run.
    """
    partition, refusals = judge(graph, known, one_process_per_node=one_process_per_node)
    raise_refusals(refusals)
    return partition


def judge(
    graph: Graph, known: Mapping[str, Array] | None = None, *, one_process_per_node: bool = False
) -> tuple[Partition, list[Refusal]]:
    """The groups of a graph and every reason why Lava cannot run it; arguments: see above."""
    unknown = unknown_nodes(graph)
    partition, refusals = cut(graph, one_process_per_node=one_process_per_node)
    refusals = [*unknown, *refusals]
    if not refusals:
        largest = {name: int(np.abs(v).max(initial=0)) for name, v in (known or {}).items()}
        refusals = list(format_problems(graph, partition, largest))
    return partition, refusals


def _parameters(graph: Graph, partition: Partition) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for group in partition.groups:
        arrays |= parameters(graph, group)
        if group.kind == NEURONS and group.synaptic is not None:
            synapses = dense_synapses(graph, group)
            arrays |= {f"{group.nodes[0]}/{dense.array}": dense.weights for dense in synapses}
        if group.recurrent:
            synapses = recurrent_synapses(graph, group)
            arrays |= {f"{group.name}/{dense.array}": dense.weights for dense in synapses}
    return arrays


def _write_noise(
    folder: Path, graph: Graph, noise: Noise, samples: npt.NDArray[np.int64], steps: int
) -> None:
    """Store the uniforms of injected noise, one row per sample of the bundle."""
    by_site = {site: name for name, site in graph.noise_sites.items()}
    for site, path in noise_files(graph, noise).items():
        node = graph.nodes[by_site[int(site)]]
        words = node.draws(steps)
        (folder / path).parent.mkdir(exist_ok=True)
        np.save(folder / path, noise.uniform(int(site), samples, words, node.output_shape[0]))


def _check_free(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise PspikeError(
            "E-OUT-EXISTS",
            "the output folder exists already",
            fix="choose another one, or remove it",
            where=str(out),
        )
