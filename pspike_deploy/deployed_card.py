"""``pspike card``: what a network of the zoo is worth as integers, measured and put on its card."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import pspike_deploy
from pspike_deploy.atomic import readable_os_errors, refuse_existing, write_file
from pspike_deploy.data import ExportData, evaluation_data
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.file import read_graph, read_provenance
from pspike_deploy.graph.graph import Graph
from pspike_deploy.models.card import CARD_NOISE_SEED, measure
from pspike_deploy.models.card_page import render
from pspike_deploy.models.checkpoint import Checkpoint, load_checkpoint
from pspike_deploy.models.datasets import Dataset, load_dataset
from pspike_deploy.models.evaluation import predict, spiking_populations
from pspike_deploy.models.p_spikessm import Trace
from pspike_deploy.models.streaming import modal_forms
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.numerics.threads import one_thread
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.recording import OverflowCounts, Recording, added_overflows
from pspike_deploy.simulators import fixed_point

#: Weight widths of the integer networks that are made without training.
POST_TRAINING_BITS: Final = (8, 4)
DRAWS: Final = 5

#: Samples whose spikes are held at a time.
_PART: Final = 100

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CardOptions:
    """What the user can choose.

    Attributes:
        checkpoint: a network of the zoo; its card is written beside it.
        data: the user's copy of the data set, where it is not packaged.
        finetuned: graph that ``pspike finetune`` made of the checkpoint.
        draws: repetitions with other noise.
        force: replace a card that belongs to another checkpoint.
    """

    checkpoint: Path
    data: Path | None = None
    finetuned: Path | None = None
    draws: int = DRAWS
    force: bool = False


@dataclass(frozen=True, eq=False)
class _Network:
    """One line of the card: an integer graph and its options."""

    name: str
    graph: Graph
    config: QuantConfig


def write_card(
    options: CardOptions, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Measure a network as float and as integers on its whole test set, and write its card.

    All networks run under the same noise. The overflow policy is ``error``: a network whose
    integers leave a register gets no accuracy. What is finished lies in ``NAME.card`` until the
    card is written, and is not run again.

    Args:
        options: what to measure.
        progress: told the number of finished runs of a sample and of all.

    Returns:
        The facts of the card; those of this function are under ``deployed``.

    Raises:
        PspikeError: E-OUT-EXISTS, E-USAGE for a fine-tuned graph of another checkpoint, and what
            the readers of checkpoint, graph and data raise.
    """
    path = options.checkpoint
    checkpoint = load_checkpoint(path)
    dataset = _dataset(checkpoint, options.data)
    facts = _float_facts(options, checkpoint, dataset)
    graph = to_graph(checkpoint.network, modal_forms(checkpoint.network))
    data = evaluation_data(dataset)
    networks = _integer_networks(graph, data, options, checkpoint.sha256)
    draws = options.draws if graph.noise_sites else 1
    runs = _Runs(path.with_suffix(".card"), dataset, data)
    total, finished = (1 + len(networks)) * draws * len(data.x), 0

    def advance(samples: int) -> None:
        nonlocal finished
        finished += samples
        progress(finished, total)

    float_runs = [runs.of_network(checkpoint, graph, draw, advance) for draw in range(draws)]
    expected = runs.accuracies(float_runs)
    lines = [{"name": "float", "options": None, "error": None, **runs.figures(float_runs)}]
    for network in networks:
        line: dict[str, Any] = {
            "name": network.name,
            "options": network.config.to_dict(),
            "error": None,
        }
        try:
            found = [runs.of_graph(network.graph, draw, advance) for draw in range(draws)]
        except PspikeError as error:
            if error.code != "E-OVERFLOW":
                raise
            lines.append(line | {"error": error.to_dict()})
            continue
        line |= runs.figures(found)
        line["loss"] = round(float((expected - runs.accuracies(found)).mean()), 5)
        line["overflows"] = sum(int(run.run["overflows"]) for run in found)
        lines.append(line)
    facts["deployed"] = {
        "samples": len(data.x),
        "draws": draws,
        "noise": runs.noise.describe(),
        "calibration": data.calibration_source,
        "command": _command(options),
        "networks": lines,
    }
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    write_file(path.with_suffix(".json"), text.encode("utf-8"))
    write_file(path.with_suffix(".md"), render(facts).encode("utf-8"))
    runs.remove()
    return facts


def _dataset(checkpoint: Checkpoint, copy: Path | None) -> Dataset:
    """The data set that a checkpoint names."""
    name = str((checkpoint.data or {}).get("name"))
    return load_dataset(name, copy)


def _float_facts(options: CardOptions, checkpoint: Checkpoint, dataset: Dataset) -> dict[str, Any]:
    """Facts of the card beside the checkpoint, or new ones where there is none."""
    path = options.checkpoint
    card = path.with_suffix(".json")
    if card.is_file():
        try:
            facts = json.loads(card.read_text("utf-8"))
            if facts["file"]["sha256"] == checkpoint.sha256:
                return dict(facts)
        except (KeyError, TypeError, ValueError):
            pass
    if not options.force:
        for suffix in (".json", ".md"):
            refuse_existing(
                path.with_suffix(suffix), "card", "it is not this checkpoint's; give --force"
            )
    return measure(path.stem, checkpoint, dataset=dataset)


def _integer_networks(
    graph: Graph, data: ExportData, options: CardOptions, sha256: str
) -> list[_Network]:
    found = []
    for bits in POST_TRAINING_BITS:
        config = QuantConfig(weight_bits=bits, overflow="error")
        integer = quantize(graph, data.calibration, config)
        found.append(_Network(f"W{bits}, post-training", integer, config))
    if options.finetuned is not None:
        tuned, config = _finetuned(options.finetuned, sha256)
        integer = quantize(tuned, data.calibration, config)
        found.append(_Network(f"W{config.weight_bits}, fine-tuned", integer, config))
    return found


def _finetuned(path: Path, sha256: str) -> tuple[Graph, QuantConfig]:
    """A fine-tuned graph and the options that it was trained for."""
    provenance = read_provenance(path)
    try:
        if provenance["sha256"] != sha256:
            raise ValueError("it was made of another checkpoint")
        config = QuantConfig(**provenance["finetuning"]["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise PspikeError(
            "E-USAGE",
            "the graph is no fine-tuned form of the checkpoint",
            why=f"{type(error).__name__}: {error}",
            fix="give the file that 'pspike finetune' made of this checkpoint",
            where=str(path),
        ) from error
    return read_graph(path), replace(config, overflow="error")


def _command(options: CardOptions) -> str:
    words = ["pspike", "card", options.checkpoint.name]
    if options.data is not None:
        words += ["--data", options.data.name]
    if options.finetuned is not None:
        words += ["--finetuned", options.finetuned.name]
    if options.draws != DRAWS:
        words += ["--draws", str(options.draws)]
    return " ".join(words)


class _Runs:
    """Runs over all test samples; finished ones are kept in a folder."""

    def __init__(self, folder: Path, dataset: Dataset, data: ExportData) -> None:
        self._folder, self._dataset, self._data = folder, dataset, data
        self.noise = Noise.philox(CARD_NOISE_SEED)
        digest = hashlib.sha256()
        for array in (data.x, data.labels, data.lengths):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        self._digest = digest.hexdigest()
        steps = data.x.shape[1]
        self._ends = np.full(len(data.x), steps) if data.lengths is None else data.lengths

    def accuracies(self, runs: Sequence[Recording]) -> FloatArray:
        """Share of the samples that each run gets right, (draw,)."""
        return np.asarray([float(np.mean(r.predictions == self._data.labels)) for r in runs])

    def figures(self, runs: Sequence[Recording]) -> dict[str, Any]:
        """What a line of the card says about a network."""
        accuracies, several = self.accuracies(runs), len(runs) > 1
        averaged = np.mean([run.outputs for run in runs], axis=0).argmax(axis=-1)
        rates = [run.run["firing_rates"] for run in runs]
        return {
            "accuracies": [round(float(a), 5) for a in accuracies],
            "accuracy": round(float(accuracies.mean()), 5),
            "accuracy_std": round(float(accuracies.std(ddof=1)), 5) if several else None,
            "averaged": round(float(np.mean(averaged == self._data.labels)), 5)
            if several
            else None,
            "firing_rates": {
                name: round(float(np.mean([rate[name] for rate in rates])), 5) for name in rates[0]
            },
        }

    def of_network(
        self, checkpoint: Checkpoint, graph: Graph, draw: int, advance: Callable[[int], None]
    ) -> Recording:
        """Run of the trained network itself; rates have the names of the graph's nodes."""

        def run() -> Recording:
            populations = list(spiking_populations(checkpoint.network).values())
            counts = dict.fromkeys(graph.spiking, 0)

            def count(trace: Trace, samples: npt.NDArray[np.int64]) -> None:
                for name, site in zip(counts, populations, strict=True):
                    counts[name] += self._spikes(trace[site].numpy(), samples)
                advance(len(samples))

            x, lengths = self._dataset.test_x, self._dataset.test_lengths
            with one_thread():
                outputs = predict(checkpoint.network, x, self.noise, draw, count, lengths)
            header = {
                "backend": "torch",
                "graph": graph.digest,
                "noise": self.noise.describe(),
                "draw": draw,
                "integer": False,
                "noise_bits": graph.semantics.noise_bits,
                "fraction_bits": {},
                "order": [],
                "latency": {},
            }
            return self._recording(graph, outputs, header, counts)

        return self._kept(graph, draw, run, advance)

    def of_graph(self, graph: Graph, draw: int, advance: Callable[[int], None]) -> Recording:
        """Run of an integer graph."""

        def run() -> Recording:
            lengths = self._data.lengths
            counts, outputs = dict.fromkeys(graph.spiking, 0), []
            overflows: OverflowCounts = {}
            for start in range(0, len(self._data.x), _PART):
                samples = np.arange(start, min(start + _PART, len(self._data.x)))
                found = fixed_point.run(
                    graph,
                    self._data.x[samples],
                    noise=self.noise,
                    samples=samples,
                    draw=draw,
                    record=graph.spiking,
                    lengths=None if lengths is None else lengths[samples],
                )
                for name in counts:
                    counts[name] += self._spikes(found.values[name], samples)
                outputs.append(found.outputs)
                overflows = added_overflows(overflows, found.run["overflows_by_node"])
                advance(len(samples))
            header = {
                **found.run,
                "overflows": sum(sum(kinds.values()) for kinds in overflows.values()),
                "overflows_by_node": overflows,
            }
            return self._recording(graph, np.concatenate(outputs), header, counts)

        return self._kept(graph, draw, run, advance)

    def remove(self) -> None:
        """The card is written: nothing has to be kept."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _spikes(self, spikes: npt.NDArray[Any], samples: npt.NDArray[np.int64]) -> int:
        """Number of spikes (sample, step, neuron) before the ends of the sequences."""
        counted = np.arange(spikes.shape[1]) < self._ends[samples, None]
        return int(spikes[counted].sum(dtype=np.float64))

    def _recording(
        self,
        graph: Graph,
        outputs: npt.NDArray[Any],
        header: Mapping[str, Any],
        counts: Mapping[str, int],
    ) -> Recording:
        steps = int(self._ends.sum())
        rates = {
            name: count / (steps * int(graph.nodes[name].output_shape[0]))
            for name, count in counts.items()
        }
        return Recording(
            {}, {}, outputs, np.arange(len(outputs)), {**header, "firing_rates": rates}
        )

    def _kept(
        self, graph: Graph, draw: int, run: Callable[[], Recording], advance: Callable[[int], None]
    ) -> Recording:
        """A run that was finished earlier, or a new one."""
        content = [pspike_deploy.__version__, graph.digest, self._digest, CARD_NOISE_SEED, draw]
        key = hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()
        path = self._folder / f"{key[:32]}.npz"
        if path.is_file():
            advance(len(self._data.x))
            return Recording.load(path)
        found = run()
        with readable_os_errors(self._folder):
            self._folder.mkdir(exist_ok=True)
        found.save(path)
        return found
