"""The main job: from a checkpoint or a float graph to a verified artefact folder.

The stages run in the order of :func:`export_network`. Each is timed; after each pass a few samples
are replayed, and what changed is written down.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from pspike_deploy import artefacts
from pspike_deploy.data import ExportData, embedded_data, user_data
from pspike_deploy.errors import EXIT_NEGATIVE, EXIT_VERIFIED, PspikeError
from pspike_deploy.exporters.lava.export import LavaBundle, export_lava
from pspike_deploy.graph.file import read_graph, write_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import TwoStateNeuron
from pspike_deploy.models.checkpoint import load_checkpoint
from pspike_deploy.models.offline import offline_graph
from pspike_deploy.models.streaming import modal_forms
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.passes import FOLDING, PASSES
from pspike_deploy.quantize.quantize import QuantizationReport, quantize_folded
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point, reference
from pspike_deploy.simulators.lava import backend as lava
from pspike_deploy.simulators.lava.environment import LavaEnvironment, find_lava_python
from pspike_deploy.verify.compare import Comparison, compare
from pspike_deploy.verify.verdict import Verification, verify

#: Targets that an export can be made for.
TARGETS: Final = ("nir", "lava")

#: Samples that are replayed after every pass.
GOLDEN_SAMPLES: Final = 4

#: Largest relative change of an output by a folding pass: rounding in the last places of float64.
GOLDEN_TOLERANCE: Final = 1e-9

#: Share of golden spikes that a last place may move in networks of neurons with a reset. Neurons
#: that are unstable as published amplify it.
CHAOTIC_FLIPS: Final = 0.005

#: Samples on which probabilities are compared (T0, T1).
VERIFIED_SAMPLES: Final = 64


@dataclass(frozen=True)
class ExportOptions:
    """What the user can choose.

    Attributes:
        model: checkpoint (``.pt``) or float graph (``.nir``).
        target: one of :data:`TARGETS`.
        out: folder to make.
        data: ``.npz`` or ``.npy``; default: the test split of the set that the checkpoint names.
        labels: ``.npz`` or ``.npy`` with one class per sample.
        calibration: ``.npz`` or ``.npy`` with samples that ranges are measured on; default: the
            training split of the embedded data, else the first samples of ``data``.
        config: widths of the integer network.
        seed: seed of the noise.
        draws: repetitions of the accuracy measurement.
        lava_samples: samples replayed in Lava.
        lava_time_limit: seconds that Lava may take; default: from the size of the run.
        device: ``auto``, ``cpu`` or ``cuda``, for the reference.
        force: replace an artefact folder that exists.
        settings: YAML or JSON file with what an official checkpoint does not hold.
        offline: run the network on buffered sequences, in the integer simulator only.
    """

    model: Path
    target: str
    out: Path
    data: Path | None = None
    labels: Path | None = None
    calibration: Path | None = None
    config: QuantConfig = field(default_factory=QuantConfig)
    seed: int = 0
    draws: int = 10
    lava_samples: int = 20
    lava_time_limit: float | None = None
    device: str = "auto"
    force: bool = False
    settings: Path | None = None
    offline: bool = False

    def __post_init__(self) -> None:
        for name, least in (("draws", 1), ("lava_samples", 1)):
            if getattr(self, name) < least:
                raise PspikeError(
                    "E-USAGE",
                    f"{name}={getattr(self, name)} is not possible",
                    fix=f"give at least {least}",
                )
        if self.target not in TARGETS:
            raise PspikeError(
                "E-USAGE",
                f"unknown target {self.target!r}",
                why=f"this version exports to: {', '.join(TARGETS)}",
                fix="choose one of these with --target",
            )
        if self.offline and self.target != "nir":
            raise PspikeError(
                "E-USAGE",
                f"an offline network cannot run on the target {self.target!r}",
                why="offline means that whole sequences are buffered, and every target but the "
                "integer simulator computes step by step",
                fix="use --target nir with --offline",
            )


class Watcher(Protocol):
    """Told what the pipeline does; the command line draws progress from it."""

    def stage(self, name: str) -> None:
        """A stage begins; ``name`` is a short sentence."""

    def advance(self, done: float, total: float) -> None:
        """Part of the current stage is done."""


class _NoWatcher:
    def stage(self, name: str) -> None:
        pass

    def advance(self, done: float, total: float) -> None:
        pass


@dataclass(frozen=True)
class ExportResult:
    """A finished export: its summary and the exit status that belongs to its verdict."""

    out: Path
    summary: dict[str, Any]

    @property
    def exit_status(self) -> int:
        """0 where the verdict is ``equivalent``, 1 where it is ``different``."""
        different = self.summary["verification"]["verdict"] == "different"
        return EXIT_NEGATIVE if different else EXIT_VERIFIED


def export_network(options: ExportOptions, watcher: Watcher | None = None) -> ExportResult:
    """Run the whole flow and write the artefact folder.

    Raises:
        PspikeError: with the code of whatever is wrong; nothing is left behind then.
    """
    artefacts.check_out(options.out, force=options.force)
    work = _Export(options, watcher or _NoWatcher())
    with artefacts.artefact_folder(options.out, force=options.force) as folder:
        summary = work.run(folder)
    return ExportResult(options.out, summary)


def load_model(
    path: Path, settings: Path | None = None, *, offline: bool = False
) -> tuple[Graph, dict[str, Any]]:
    """Float graph of a checkpoint or of a ``.nir`` file, and facts about where it comes from.

    The facts hold ``kind``, ``sha256`` of the file, ``parameters`` (of a checkpoint: the trained
    ones; of a graph: the stored ones) and ``data`` (what a checkpoint was trained on). Those of a
    checkpoint of the reference code also hold ``unused`` and ``skipped`` of the checkpoint, and
    ``modal_forms``: per DPLR layer the figures of its diagonal form; ``settings`` is the SHA-256
    of the settings file.

    Args:
        path: the file.
        settings: YAML or JSON file with what an official checkpoint does not hold.
        offline: give the graph on buffered sequences, see :mod:`pspike_deploy.models.offline`.

    Raises:
        PspikeError: whatever keeps the file from being read; E-USAGE for settings with a graph.
    """
    if path.suffix == ".nir":
        if settings is not None:
            raise PspikeError(
                "E-USAGE",
                "settings were given for a graph",
                why="only checkpoints of reference codes need them",
                fix="leave --config out",
                where=str(path),
            )
        graph = read_graph(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        facts = {"kind": "graph", "sha256": digest, "parameters": graph.parameters, "data": None}
        return graph, facts
    checkpoint = load_checkpoint(path, config=settings)
    forms = {} if offline else modal_forms(checkpoint.network)
    facts = {
        "kind": "checkpoint",
        "sha256": checkpoint.sha256,
        "parameters": sum(p.numel() for p in checkpoint.network.parameters()),
        "data": checkpoint.data,
    }
    if checkpoint.source == "official":
        facts |= {"unused": list(checkpoint.unused), "skipped": list(checkpoint.skipped)}
    if settings is not None:
        facts["settings"] = hashlib.sha256(settings.read_bytes()).hexdigest()
    if forms:
        facts["modal_forms"] = {name: form.figures() for name, form in forms.items()}
    if checkpoint.warnings:
        facts["warnings"] = list(checkpoint.warnings)
    if offline:
        return offline_graph(checkpoint.network), facts
    return to_graph(checkpoint.network, forms), facts


def load_data(
    data: Path | None,
    labels: Path | None,
    graph: Graph,
    facts: dict[str, Any],
    calibration: Path | None = None,
) -> ExportData:
    """The user's data, or the set that the checkpoint names.

    Raises:
        PspikeError: E-USAGE where there is neither.
    """
    features = int(graph.nodes[graph.input_name].output_shape[0])
    classes = int(graph.nodes[graph.output_name].input_shape[0])
    if data is not None:
        return user_data(data, labels, features, classes, calibration)
    known = facts.get("data") or {}
    if "name" not in known or labels is not None or calibration is not None:
        raise PspikeError(
            "E-USAGE",
            "there are no data to run the network on",
            why="labels or calibration samples without data"
            if labels is not None or calibration is not None
            else "the model names no data set that comes with this package",
            fix="give samples of shape (sample, step, feature) with --data x.npy",
        )
    return embedded_data(str(known["name"]), str(known.get("split", "")))


@dataclass
class _Export:
    """One export: options in, artefacts out; every stage is one method."""

    options: ExportOptions
    watcher: Watcher
    seconds: dict[str, float] = field(default_factory=dict)
    passes: list[dict[str, Any]] = field(default_factory=list)

    def run(self, folder: Path) -> dict[str, Any]:
        """All stages in order."""
        environment = self._environment()
        with self._stage("load", "Loading the network and the data"):
            graph, facts = load_model(
                self.options.model, self.options.settings, offline=self.options.offline
            )
            self._refuse_integer(graph)
            data = load_data(
                self.options.data, self.options.labels, graph, facts, self.options.calibration
            )
        with self._stage("fold", "Folding norms and gains"):
            folded = self._fold(graph, data)
        with self._stage("quantize", "Calibrating and quantising"):
            integer, report = self._quantize(folded, data)
        with self._stage("write", "Writing graphs"):
            provenance = {"model": self.options.model.name, "sha256": facts["sha256"]}
            write_graph(graph, folder / "float.nir", provenance)
            write_graph(integer, folder / "quantized.nir", provenance)
            artefacts.write_json(folder / "quantization.json", report.to_dict())
        with self._stage("accuracy", "Measuring accuracy, float and integer"):
            accuracy, overflows = self._accuracy(graph, integer, data)
        replays: dict[str, Comparison] = {}
        lava_facts: dict[str, Any] | None = None
        if environment is not None:
            with self._stage("export", "Writing the Lava bundle"):
                bundle, expected = self._bundle(integer, data, folder)
            with self._stage("lava", "Running the bundle in Lava's CPU simulator"):
                replays["lava"], lava_facts = self._lava(bundle, expected, environment, folder)
        with self._stage("verify", "Comparing probabilities and samples"):
            verification = self._verify(graph, integer, data, replays)
            artefacts.write_json(folder / "verification.json", verification.to_dict())
        summary = {
            "network": self._network(facts, graph, integer),
            "warnings": facts.get("warnings", []),
            "quantization": self._quantization(report, overflows),
            "accuracy": accuracy,
            "calibration": data.calibration_source,
            "lava": lava_facts,
            "verification": _verification_summary(verification),
        }
        artefacts.write_json(folder / "summary.json", summary)
        artefacts.write_json(folder / artefacts.MANIFEST, self._manifest(facts, data, summary))
        return summary

    # --- stages ----------------------------------------------------------------------------

    @contextmanager
    def _stage(self, name: str, sentence: str) -> Iterator[None]:
        self.watcher.stage(sentence)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)

    def _environment(self) -> LavaEnvironment | None:
        """The Lava environment, looked for before any work is done."""
        return find_lava_python() if self.options.target == "lava" else None

    def _refuse_integer(self, graph: Graph) -> None:
        if graph.is_integer:
            raise PspikeError(
                "E-USAGE",
                "the graph is quantised already",
                why="an export measures the integer network against its float original",
                fix="give the checkpoint or float.nir; 'pspike simulate' runs an integer graph",
                where=str(self.options.model),
            )

    def _fold(self, graph: Graph, data: ExportData) -> Graph:
        golden = _Golden(data.calibration[:GOLDEN_SAMPLES], self.options)
        before = golden.float_run(graph)
        for name in FOLDING:
            graph = PASSES[name](graph)
            after = golden.float_run(graph)
            change = _change(before, after)
            _require_unchanged(name, change, before, graph)
            self.passes.append({"pass": name, **change, "nodes": len(graph.nodes)})
            before = after
        return graph

    def _quantize(self, folded: Graph, data: ExportData) -> tuple[Graph, QuantizationReport]:
        integer, report = quantize_folded(
            folded, data.calibration, self.options.config, self.options.device
        )
        golden = _Golden(data.calibration[:GOLDEN_SAMPLES], self.options)
        change = _change(golden.float_run(folded), golden.integer_run(integer))
        self.passes.append({"pass": "quantize", **change, "nodes": len(integer.nodes)})
        return integer, report

    def _accuracy(
        self, graph: Graph, integer: Graph, data: ExportData
    ) -> tuple[dict[str, Any], int]:
        """Accuracy of both networks over the same draws, and the integer run's overflows."""
        noise = Noise.philox(self.options.seed)
        hits: dict[str, list[float]] = {"float": [], "integer": []}
        agreement: list[float] = []
        overflows = 0
        # Without noise every draw is the same.
        draws = self.options.draws if graph.noise_sites else 1
        for draw in range(draws):
            self.watcher.advance(draw, draws)
            expected = reference.run(
                graph, data.x, noise=noise, draw=draw, record=(), device=self.options.device
            )
            actual = fixed_point.run(integer, data.x, noise=noise, draw=draw, record=())
            overflows += int(actual.run["overflows"])
            agreement.append(float(np.mean(expected.predictions == actual.predictions)))
            if data.labels is not None:
                hits["float"].append(float(np.mean(expected.predictions == data.labels)))
                hits["integer"].append(float(np.mean(actual.predictions == data.labels)))
        accuracy: dict[str, Any] = {
            "samples": len(data.x),
            "draws": draws,
            "agreement": float(np.mean(agreement)),
        }
        for kind, values in hits.items():
            accuracy[kind] = float(np.mean(values)) if values else None
            accuracy[f"{kind}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return accuracy, overflows

    def _bundle(
        self, integer: Graph, data: ExportData, folder: Path
    ) -> tuple[LavaBundle, Recording]:
        x = data.x[: self.options.lava_samples]
        samples = np.arange(len(x))
        noise = Noise.philox(self.options.seed)
        expected = fixed_point.run(integer, x, noise=noise, samples=samples)
        bundle = export_lava(
            integer, folder / "lava", x=x, samples=samples, noise=noise, expected=expected
        )
        return bundle, expected

    def _lava(
        self, bundle: LavaBundle, expected: Recording, environment: LavaEnvironment, folder: Path
    ) -> tuple[Comparison, dict[str, Any]]:
        start = time.perf_counter()
        actual = lava.run(
            bundle,
            environment=environment,
            time_limit_s=self.options.lava_time_limit,
            progress=lambda step: self.watcher.advance(step, bundle.run_length),
        )
        seconds = time.perf_counter() - start
        comparison = compare(expected, actual)
        recordings = folder / "recordings"
        recordings.mkdir()
        expected.save(recordings / "fixed-point.npz")
        actual.save(recordings / "lava.npz")
        spikes = sum(int(v.sum()) for v in actual.spikes.values())
        mismatches = sum(node.mismatches for node in comparison.nodes)
        facts = {
            "samples": len(actual.samples),
            "steps": int(next(iter(actual.values.values())).shape[1]),
            "spikes": spikes,
            "mismatches": mismatches,
            "bit_exact": comparison.equal and mismatches == 0,
            "seconds": round(seconds, 3),
            "latency": max(actual.run["latency"].values(), default=0),
            "environment": {"way": environment.way, "versions": dict(environment.versions)},
        }
        return comparison, facts

    def _verify(
        self, graph: Graph, integer: Graph, data: ExportData, replays: dict[str, Comparison]
    ) -> Verification:
        return verify(
            graph,
            integer,
            data.x[:VERIFIED_SAMPLES],
            seed=self.options.seed,
            replays=replays,
            device=self.options.device,
        )

    # --- documents -------------------------------------------------------------------------

    def _network(self, facts: dict[str, Any], graph: Graph, integer: Graph) -> dict[str, Any]:
        return {
            "digest": graph.digest,
            "integer_digest": integer.digest,
            "parameters": facts["parameters"],
            "nodes": len(graph.nodes),
            "offline": not graph.streams,
        }

    def _quantization(self, report: QuantizationReport, overflows: int) -> dict[str, Any]:
        config = report.config.to_dict()
        return {**config, "overflows": overflows}

    def _lava_versions(self, summary: dict[str, Any]) -> dict[str, str]:
        lava_facts = summary["lava"]
        found = lava_facts["environment"]["versions"] if lava_facts else {}
        return {f"lava environment: {name}": version for name, version in found.items()}

    def _manifest(
        self, facts: dict[str, Any], data: ExportData, summary: dict[str, Any]
    ) -> dict[str, Any]:
        import pspike_deploy

        options = self.options
        return {
            "format": artefacts.MANIFEST_FORMAT,
            "version": 1,
            "tool": {"name": "pspike-deploy", "version": pspike_deploy.__version__},
            "target": options.target,
            "model": {"name": options.model.name, **facts},
            "data": {
                "name": data.name,
                "samples": len(data.x),
                "calibration": data.calibration_source,
                "files": {
                    path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                    for path in (options.data, options.labels, options.calibration)
                    if path is not None
                },
            },
            "seed": options.seed,
            "digests": {
                "float": summary["network"]["digest"],
                "integer": summary["network"]["integer_digest"],
            },
            "passes": self.passes,
            "seconds": self.seconds,
            "versions": versions() | self._lava_versions(summary),
        }


def versions() -> dict[str, str]:
    """Versions of everything that a result may depend on."""
    from importlib.metadata import version

    names = ("torch", "numpy", "numba", "scipy", "h5py", "nir")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def _verification_summary(verification: Verification) -> dict[str, Any]:
    probabilities = verification.probabilities
    return {
        "verdict": verification.verdict,
        "tests": list(verification.tests),
        "reasons": list(verification.reasons),
        "max_abs_dp": probabilities.max_abs_dp,
        "mean_abs_dp": probabilities.mean_abs_dp,
        "coupled_mismatches": probabilities.mismatches,
        "expected_mismatches": probabilities.expected_mismatches,
        "kl_per_sample": probabilities.kl_per_sample,
        "layer_rates": [
            {
                key: getattr(layer, key)
                for key in ("node", "rate", "integer_rate", "flips", "spikes")
            }
            for layer in verification.rates
        ],
    }


# --- golden check after each pass ---------------------------------------------------------------


@dataclass(frozen=True)
class _Golden:
    """A few samples that are replayed after every pass."""

    x: npt.NDArray[np.float64]
    options: ExportOptions

    def float_run(self, graph: Graph) -> Recording:
        return self._run(reference.run, graph, device=self.options.device)

    def integer_run(self, graph: Graph) -> Recording:
        return self._run(fixed_point.run, graph)

    def _run(self, run: Callable[..., Recording], graph: Graph, **more: Any) -> Recording:
        noise = Noise.philox(self.options.seed)
        return run(graph, self.x, noise=noise, record=graph.spiking, **more)


def _require_unchanged(name: str, change: dict[str, Any], before: Recording, graph: Graph) -> None:
    """A folding pass may round differently in the last place, and nothing else.

    Where spikes act on the neuron that fired, a last place can move a spike, and that moves more.
    """
    chaotic = any(isinstance(node, TwoStateNeuron) for node in graph.nodes.values())
    if chaotic and 0 < change["spike_flips"] <= CHAOTIC_FLIPS * change["spikes_compared"]:
        return
    allowed = GOLDEN_TOLERANCE * max(1.0, float(np.abs(before.outputs).max()))
    if change["spike_flips"] or change["max_output_difference"] > allowed:
        raise PspikeError(
            "E-INTERNAL",
            f"the pass {name!r} changed what the network computes",
            why=f"{change['spike_flips']} of {change['spikes_compared']} golden spikes flipped, "
            f"outputs moved by {change['max_output_difference']:.3g}",
            fix="please report this with the model",
        )


def _change(before: Recording, after: Recording) -> dict[str, Any]:
    """Spike flips and largest output difference between two runs on the golden samples."""
    flips = sum(
        int(np.sum(before.values[name] != after.values[name]))
        for name in before.values
        if name in after.values
    )
    total = sum(before.values[name].size for name in before.values)
    return {
        "spike_flips": flips,
        "spikes_compared": total,
        "max_output_difference": float(np.abs(before.outputs - after.outputs).max()),
    }
