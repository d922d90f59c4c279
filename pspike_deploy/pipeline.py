"""The main job: from a checkpoint or a float graph to a verified artefact folder.

The stages run in the order of :func:`export_network`. Each is timed; after each pass a few samples
are replayed, and what changed is written down.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from pspike_deploy import artefacts
from pspike_deploy.core_stage import write_core_files
from pspike_deploy.data import ExportData
from pspike_deploy.energy_stage import write_energy
from pspike_deploy.errors import (
    EXIT_INCONCLUSIVE,
    EXIT_NEGATIVE,
    EXIT_TARGET_CANNOT,
    EXIT_VERIFIED,
    PspikeError,
)
from pspike_deploy.exporters.loihi.export import LoihiExport
from pspike_deploy.folder_report import record_excerpt, write_folder_report
from pspike_deploy.golden import GOLDEN_SAMPLES, Golden, change_between, require_unchanged
from pspike_deploy.graph.file import write_graph
from pspike_deploy.graph.graph import Graph
from pspike_deploy.integer_export import (
    integer_accuracy,
    require_no_choices,
    verify_integer,
    widths,
)
from pspike_deploy.lava_stage import run_bundle, write_bundle
from pspike_deploy.loihi_stage import write_handover, write_loihi
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.options import ExportOptions, NoWatcher, Watcher
from pspike_deploy.quantize.analysis import analyse
from pspike_deploy.quantize.order_choice import REDUCING, OrderReduction, reduce_ssm_order
from pspike_deploy.quantize.passes import FOLDING, PASSES
from pspike_deploy.quantize.quantize import CALIBRATION_SEED, QuantizationReport, quantize_folded
from pspike_deploy.recording import OverflowCounts, added_overflows
from pspike_deploy.simulators import fixed_point, reference
from pspike_deploy.simulators.lava.environment import LavaEnvironment, find_lava_python
from pspike_deploy.sources import load_data, load_model
from pspike_deploy.verify.compare import Comparison
from pspike_deploy.verify.verdict import Verification, verify

#: Samples on which probabilities are compared (T0, T1).
VERIFIED_SAMPLES: Final = 64

#: Exit status by verdict.
EXIT_OF_VERDICT: Final[dict[str, int]] = {
    "equivalent": EXIT_VERIFIED,
    "different": EXIT_NEGATIVE,
    "inconclusive": EXIT_INCONCLUSIVE,
}


@dataclass(frozen=True)
class ExportResult:
    """A finished export: its summary and the exit status that belongs to its verdict."""

    out: Path
    summary: dict[str, Any]

    @property
    def exit_status(self) -> int:
        """0 where the verdict is ``equivalent``, 1 ``different``, 5 ``inconclusive``; 3 where the
        network fits no system of the target."""
        loihi = self.summary.get("loihi")  # of other targets there is none
        if loihi is not None and not loihi["fits"]:
            return EXIT_TARGET_CANNOT
        return EXIT_OF_VERDICT[self.summary["verification"]["verdict"]]


def export_network(options: ExportOptions, watcher: Watcher | None = None) -> ExportResult:
    """Run the whole flow and write the artefact folder.

    Raises:
        PspikeError: with the code of whatever is wrong; nothing is left behind then.
    """
    artefacts.check_out(options.out, force=options.force)
    work = _Export(options, watcher or NoWatcher())
    with artefacts.artefact_folder(options.out, force=options.force) as folder:
        summary = work.run(folder)
    return ExportResult(options.out, summary)


@dataclass
class _Target:
    """What was made for the target: comparisons with its runs, and facts for the summary."""

    replays: dict[str, Comparison] = field(default_factory=dict)
    lava: dict[str, Any] | None = None
    loihi: dict[str, Any] | None = None
    onnx: dict[str, Any] | None = None
    made: LoihiExport | None = None


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
                self.options.model,
                self.options.settings,
                offline=self.options.offline,
                reading=self.options.reading,
            )
            if graph.is_integer:
                require_no_choices(self.options)
            data = load_data(
                self.options.data, self.options.labels, graph, facts, self.options.calibration
            )
        if graph.is_integer:
            return self._run_integer(graph, facts, data, environment, folder)
        with self._stage("order", "Reducing the order of state-space models"):
            reduction = self._reduce(graph, data)
        with self._stage("fold", "Folding norms and gains"):
            folded = self._fold(reduction.graph, data)
        core = self._core(folded, facts, data, folder)
        with self._stage("quantize", "Calibrating and quantising"):
            integer, report = self._quantize(folded, data)
        with self._stage("write", "Writing graphs"):
            provenance = self._provenance(facts)
            write_graph(graph, folder / "float.nir", provenance)
            write_graph(integer, folder / "quantized.nir", provenance)
        with self._stage("analysis", "Measuring ranges and errors of every node"):
            analysis = analyse(folded, integer, report, data.calibration, self.options.device)
        with self._stage("accuracy", "Measuring accuracy, float and integer"):
            accuracy, overflows = self._accuracy(graph, integer, data)
            analysis = analysis.with_overflows("evaluation", overflows)
            ranges = {**analysis.to_dict(), "ssm_order": reduction.to_dict()}
            artefacts.write_json(folder / "quantization.json", ranges)
        target = self._for_the_target(integer, data, environment, folder, graph)
        with self._stage("verify", "Comparing probabilities and samples"):
            verification = self._verify(graph, integer, data, target.replays, overflows)
            artefacts.write_json(folder / "verification.json", verification.to_dict())
        with self._stage("energy", "Counting activity, estimating energy"):
            energy = self._energy(integer, graph, data, accuracy, folder, target.made)
        summary = {
            "network": self._network(facts, graph, integer),
            "warnings": facts.get("warnings", []),
            "quantization": self._quantization(report, overflows),
            "ssm_order": reduction.to_dict()["layers"],
            "accuracy": accuracy,
            "calibration": data.calibration_source,
            "lava": target.lava,
            "loihi": target.loihi,
            "energy": energy,
            "core": core,
            "onnx": target.onnx,
            "verification": _verification_summary(verification),
        }
        self._write_documents(folder, facts, data, summary, target)
        with self._stage("report", "Drawing the report"):
            self._report(graph, integer, data, folder)
        # Again, now with the seconds that the report took, which do not stand in it.
        artefacts.write_json(folder / artefacts.MANIFEST, self._manifest(facts, data, summary))
        return summary

    def _run_integer(
        self,
        integer: Graph,
        facts: dict[str, Any],
        data: ExportData,
        environment: LavaEnvironment | None,
        folder: Path,
    ) -> dict[str, Any]:
        """The stages that remain for a network of integers."""
        with self._stage("write", "Writing graphs"):
            write_graph(integer, folder / "quantized.nir", self._provenance(facts))
        core = self._core(integer, facts, data, folder)
        with self._stage("accuracy", "Measuring accuracy"):
            accuracy, overflows = integer_accuracy(integer, data, self.options, self.watcher)
        target = self._for_the_target(integer, data, environment, folder)
        with self._stage("verify", "Comparing the integer backends"):
            verification = verify_integer(integer, data, self.options, target.replays, overflows)
            artefacts.write_json(folder / "verification.json", verification.to_dict())
        with self._stage("energy", "Counting activity, estimating energy"):
            energy = self._energy(integer, integer, data, accuracy, folder, target.made)
        summary = {
            "network": {**self._network(facts, integer, integer), "integer_only": True},
            "warnings": facts.get("warnings", []),
            "quantization": widths(integer, overflows),
            "ssm_order": {},
            "accuracy": accuracy,
            "calibration": "none: the network was integers already",
            "lava": target.lava,
            "loihi": target.loihi,
            "energy": energy,
            "core": core,
            "onnx": target.onnx,
            "verification": _verification_summary(verification),
        }
        self._write_documents(folder, facts, data, summary, target)
        write_folder_report(folder)
        return summary

    # --- stages ----------------------------------------------------------------------------

    @contextmanager
    def _stage(self, name: str, sentence: str) -> Iterator[None]:
        self.watcher.stage(sentence)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)

    def _environment(self) -> LavaEnvironment | None:
        """The Lava environment, looked for before any work is done; a hand-over toward Loihi is
        made without one, too, and says so."""
        if self.options.target in ("nir", "onnx"):
            return None
        try:
            return find_lava_python()
        except PspikeError:
            if self.options.target == "lava":
                raise
            return None

    def _reduce(self, graph: Graph, data: ExportData) -> OrderReduction:
        """Fewer modes where they are asked for; what that changes is reported, not forbidden."""
        options = self.options
        reduction = reduce_ssm_order(
            graph, data.calibration, options.config, seed=CALIBRATION_SEED, device=options.device
        )
        if reduction.layers:
            golden = self._golden(data)
            change = change_between(golden.float_run(graph), golden.float_run(reduction.graph))
            nodes = len(reduction.graph.nodes)
            self.passes.append({"pass": REDUCING, **change, "nodes": nodes})
        return reduction

    def _fold(self, graph: Graph, data: ExportData) -> Graph:
        golden = self._golden(data)
        before = golden.float_run(graph)
        for name in FOLDING:
            graph = PASSES[name](graph)
            after = golden.float_run(graph)
            change = change_between(before, after)
            require_unchanged(name, change, before, graph)
            self.passes.append({"pass": name, **change, "nodes": len(graph.nodes)})
            before = after
        return graph

    def _golden(self, data: ExportData) -> Golden:
        return Golden(data.calibration[:GOLDEN_SAMPLES], self.options.seed, self.options.device)

    def _core(
        self, folded: Graph, facts: dict[str, Any], data: ExportData, folder: Path
    ) -> dict[str, Any] | None:
        """Core NIR for other frameworks, beside the dialect files of the target ``nir``."""
        if self.options.target != "nir":
            return None
        with self._stage("core", "Lowering to core NIR"):
            return write_core_files(
                folded,
                data.x,
                folder,
                seed=self.options.seed,
                device=self.options.device,
                provenance=self._provenance(facts),
                require=self.options.require_core,
                variant=self.options.core_variant,
            )

    def _quantize(self, folded: Graph, data: ExportData) -> tuple[Graph, QuantizationReport]:
        integer, report = quantize_folded(
            folded, data.calibration, self.options.config, self.options.device
        )
        golden = self._golden(data)
        change = change_between(golden.float_run(folded), golden.integer_run(integer))
        self.passes.append({"pass": "quantize", **change, "nodes": len(integer.nodes)})
        return integer, report

    def _accuracy(
        self, graph: Graph, integer: Graph, data: ExportData
    ) -> tuple[dict[str, Any], OverflowCounts]:
        """Accuracy of both networks over the same draws, and the integer runs' overflows."""
        noise = Noise.philox(self.options.seed)
        hits: dict[str, list[float]] = {"float": [], "integer": []}
        agreement: list[float] = []
        overflows: OverflowCounts = {}
        # Without noise every draw is the same.
        draws = self.options.draws if graph.noise_sites else 1
        for draw in range(draws):
            self.watcher.advance(draw, draws)
            expected = reference.run(
                graph,
                data.x,
                noise=noise,
                draw=draw,
                record=(),
                device=self.options.device,
                lengths=data.lengths,
            )
            actual = fixed_point.run(
                integer, data.x, noise=noise, draw=draw, record=(), lengths=data.lengths
            )
            overflows = added_overflows(overflows, actual.run["overflows_by_node"])
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

    def _for_the_target(
        self,
        integer: Graph,
        data: ExportData,
        environment: LavaEnvironment | None,
        folder: Path,
        graph: Graph | None = None,
    ) -> _Target:
        """What the target asks for beside the graphs, run where it can be run."""
        options, found = self.options, _Target()
        if options.target == "nir":
            return found
        if options.target == "onnx":
            from pspike_deploy.onnx_stage import run_onnx, write_onnx  # loads onnx

            with self._stage("export", "Writing ONNX models"):
                export = write_onnx(graph, integer, data, options, folder)
            with self._stage("onnx", "Running the models in ONNX Runtime"):
                found.replays, found.onnx = run_onnx(export, folder)
            return found
        with self._stage("export", "Writing the Lava bundle"):
            bundle, expected = write_bundle(integer, data, options, folder)
        if environment is not None:
            with self._stage("lava", "Running the bundle in Lava's CPU simulator"):
                found.replays["lava"], found.lava = run_bundle(
                    bundle, expected, environment, options, self.watcher, folder
                )
        if options.target == "loihi":
            with self._stage("loihi", "Mapping to cores, writing neuron programs"):
                found.made, found.loihi = write_loihi(
                    integer, expected, folder, options.profile, options.objective
                )
        return found

    def _verify(
        self,
        graph: Graph,
        integer: Graph,
        data: ExportData,
        replays: dict[str, Comparison],
        overflows: OverflowCounts,
    ) -> Verification:
        return verify(
            graph,
            integer,
            data.x[:VERIFIED_SAMPLES],
            seed=self.options.seed,
            replays=replays,
            overflows=overflows,
            device=self.options.device,
        )

    def _energy(
        self,
        integer: Graph,
        dense: Graph,
        data: ExportData,
        accuracy: dict[str, Any],
        folder: Path,
        made: LoihiExport | None,
    ) -> dict[str, Any]:
        mappings = {} if made is None else {made.mapping.profile: made.mapping}
        advance = self.watcher.advance
        return write_energy(
            integer, dense, data, accuracy, self.options.seed, folder, mappings, advance
        )

    def _report(self, graph: Graph, integer: Graph, data: ExportData, folder: Path) -> None:
        record_excerpt(
            graph,
            integer,
            data.x[:VERIFIED_SAMPLES],
            noise=Noise.philox(self.options.seed),
            folder=folder / "recordings",
            device=self.options.device,
        )
        write_folder_report(folder)

    # --- documents -------------------------------------------------------------------------

    def _write_documents(
        self,
        folder: Path,
        facts: dict[str, Any],
        data: ExportData,
        summary: dict[str, Any],
        target: _Target,
    ) -> None:
        """The hand-over, where there is one, summary and manifest."""
        if target.made is not None:
            write_handover(target.made, folder, summary, self.options.model.name)
        artefacts.write_json(folder / "summary.json", summary)
        artefacts.write_json(folder / artefacts.MANIFEST, self._manifest(facts, data, summary))

    def _provenance(self, facts: dict[str, Any]) -> dict[str, Any]:
        provenance: dict[str, Any] = {"model": self.options.model.name, "sha256": facts["sha256"]}
        if "reading" in facts:
            provenance["reading"] = facts["reading"]
        return provenance | ({"data": facts["data"]} if facts.get("data") else {})

    def _network(self, facts: dict[str, Any], graph: Graph, integer: Graph) -> dict[str, Any]:
        return {
            "digest": graph.digest,
            "integer_digest": integer.digest,
            "parameters": facts["parameters"],
            "nodes": len(graph.nodes),
            "offline": not graph.streams,
        }

    def _quantization(
        self, report: QuantizationReport, overflows: OverflowCounts
    ) -> dict[str, Any]:
        config = report.config.to_dict()
        return {**config, "overflows": sum(sum(found.values()) for found in overflows.values())}

    def _target_versions(self, summary: dict[str, Any]) -> dict[str, str]:
        lava_facts = summary["lava"]
        found = lava_facts["environment"]["versions"] if lava_facts else {}
        onnx_facts = summary["onnx"] or {}
        runtime = {k: onnx_facts[k] for k in ("onnxruntime",) if k in onnx_facts}
        return runtime | {f"lava environment: {name}": v for name, v in found.items()}

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
                "float": None
                if summary["network"].get("integer_only")
                else summary["network"]["digest"],
                "integer": summary["network"]["integer_digest"],
            },
            "passes": self.passes,
            "seconds": self.seconds,
            "versions": versions() | self._target_versions(summary),
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
        "warnings": list(verification.warnings),
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
