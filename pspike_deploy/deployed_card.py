"""``pspike card``: what a network of the zoo is worth as integers, measured and put on its card."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import pspike_deploy
from pspike_deploy.atomic import readable_os_errors, refuse_existing, write_file
from pspike_deploy.data import ExportData
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.file import read_graph, read_provenance
from pspike_deploy.graph.graph import Graph
from pspike_deploy.models.card import CARD_NOISE_SEED, measure
from pspike_deploy.models.card_page import render
from pspike_deploy.models.checkpoint import load_checkpoint
from pspike_deploy.models.datasets import is_copy_of, load_dataset
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.numerics.threads import one_thread
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.quantize.quantize import quantize
from pspike_deploy.recording import Recording, added_overflows
from pspike_deploy.simulators import fixed_point, reference
from pspike_deploy.sources import load_data, load_model

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
    """One line of the card: a graph, and the options of the integers (None: the float one)."""

    name: str
    graph: Graph
    config: QuantConfig | None = None


def write_card(
    options: CardOptions, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Measure a network as float and as integers on its whole test set, and write its card.

    All networks run under the same noise. The overflow policy is ``error``: a network whose
    integers leave a register gets no accuracy. What is finished lies in ``NAME.card`` until the
    card is written, and is not run again.

    Args:
        options: what to measure.
        progress: told the number of finished parts and of all.

    Returns:
        The facts of the card; those of this function are under ``deployed``.

    Raises:
        PspikeError: E-OUT-EXISTS, E-USAGE for a fine-tuned graph of another checkpoint, and what
            the readers of checkpoint, graph and data raise.
    """
    path = options.checkpoint
    facts = _float_facts(options)
    graph, model_facts = load_model(path)
    data = load_data(options.data, None, graph, model_facts)
    networks = list(_networks(graph, data, options, model_facts["sha256"]))
    draws = options.draws if graph.noise_sites else 1
    runs = _Runs(path.with_suffix(".card"), data, draws)
    total = len(networks) * draws * runs.parts
    lines: list[dict[str, Any]] = []
    reported = 0

    def advance() -> None:
        nonlocal reported
        reported += 1
        progress(reported, total)

    float_accuracies: FloatArray | None = None
    for network in networks:
        line = runs.line(network, float_accuracies, advance)
        float_accuracies = (
            np.asarray(line["accuracies"]) if float_accuracies is None else float_accuracies
        )
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


def _float_facts(options: CardOptions) -> dict[str, Any]:
    """Facts of the card beside the checkpoint, or new ones where there is none."""
    path = options.checkpoint
    checkpoint = load_checkpoint(path)
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
    name = str((checkpoint.data or {}).get("name"))
    copy = options.data if options.data is not None and is_copy_of(name, options.data) else None
    return measure(path.stem, checkpoint, dataset=load_dataset(name, copy))


def _networks(
    graph: Graph, data: ExportData, options: CardOptions, sha256: str
) -> Iterator[_Network]:
    yield _Network("float", graph)
    for bits in POST_TRAINING_BITS:
        config = QuantConfig(weight_bits=bits, overflow="error")
        yield _Network(
            f"W{bits}, post-training",
            quantize(graph, data.calibration, config),
            config,
        )
    if options.finetuned is not None:
        tuned, config = _finetuned(options.finetuned, sha256)
        yield _Network(
            f"W{config.weight_bits}, fine-tuned",
            quantize(tuned, data.calibration, config),
            config,
        )


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
    """Runs of networks over all samples; finished ones are kept in a folder."""

    def __init__(self, folder: Path, data: ExportData, draws: int) -> None:
        if data.labels is None:
            raise PspikeError(
                "E-DATA-LABELS",
                "there are no labels to measure accuracy with",
                fix="store them as y in the .npz file",
            )
        self._folder, self._data, self._draws = folder, data, draws
        self._labels = data.labels
        self.noise = Noise.philox(CARD_NOISE_SEED)
        self.parts = -(-len(data.x) // _PART)
        digest = hashlib.sha256()
        for array in (data.x, data.labels, data.lengths):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        self._digest = digest.hexdigest()

    def line(
        self, network: _Network, float_accuracies: FloatArray | None, advance: Callable[[], None]
    ) -> dict[str, Any]:
        """One line of the card."""
        line: dict[str, Any] = {
            "name": network.name,
            "options": None if network.config is None else network.config.to_dict(),
        }
        try:
            runs = [self._run(network.graph, draw, advance) for draw in range(self._draws)]
        except PspikeError as error:
            if error.code != "E-OVERFLOW":
                raise
            return line | {"error": error.to_dict()}
        accuracies = np.asarray([float(np.mean(r.predictions == self._labels)) for r in runs])
        averaged = np.mean([r.outputs for r in runs], axis=0).argmax(axis=-1)
        rates = {
            name: float(np.mean([r.run["firing_rates"][name] for r in runs]))
            for name in runs[0].run["firing_rates"]
        }
        several = len(runs) > 1
        line |= {
            "accuracies": [round(float(a), 5) for a in accuracies],
            "accuracy": round(float(accuracies.mean()), 5),
            "accuracy_std": round(float(accuracies.std(ddof=1)), 5) if several else None,
            "averaged": round(float(np.mean(averaged == self._labels)), 5) if several else None,
            "firing_rates": {name: round(rate, 5) for name, rate in rates.items()},
            "error": None,
        }
        if float_accuracies is not None:
            line["loss"] = round(float((float_accuracies - accuracies).mean()), 5)
            line["overflows"] = sum(int(r.run["overflows"]) for r in runs)
        return line

    def remove(self) -> None:
        """The card is written: nothing has to be kept."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, graph: Graph, draw: int, advance: Callable[[], None]) -> Recording:
        """Outputs of one draw over all samples, with firing rates in the header."""
        content = [pspike_deploy.__version__, graph.digest, self._digest, CARD_NOISE_SEED, draw]
        key = hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()
        path = self._folder / f"{key[:32]}.npz"
        if path.is_file():
            for _ in range(self.parts):
                advance()
            return Recording.load(path)
        found = self._all_parts(graph, draw, advance)
        with readable_os_errors(self._folder):
            self._folder.mkdir(exist_ok=True)
        found.save(path)
        return found

    def _all_parts(self, graph: Graph, draw: int, advance: Callable[[], None]) -> Recording:
        x, lengths = self._data.x, self._data.lengths
        ends = np.full(len(x), x.shape[1]) if lengths is None else lengths
        spikes = dict.fromkeys(graph.spiking, 0)
        outputs, overflows, header = [], {}, {}
        for start in range(0, len(x), _PART):
            samples = np.arange(start, min(start + _PART, len(x)))
            found = self._part(graph, draw, samples)
            counted = np.arange(x.shape[1]) < ends[samples, None]
            for name in spikes:
                spikes[name] += int(found.values[name][counted].sum())
            outputs.append(found.outputs)
            overflows = added_overflows(overflows, found.run.get("overflows_by_node", {}))
            header = dict(found.run)
            advance()
        neurons = {name: int(graph.nodes[name].output_shape[0]) for name in spikes}
        header["overflows_by_node"] = overflows
        header["overflows"] = sum(sum(kinds.values()) for kinds in overflows.values())
        header["firing_rates"] = {
            name: count / (int(ends.sum()) * neurons[name]) for name, count in spikes.items()
        }
        return Recording({}, {}, np.concatenate(outputs), np.arange(len(x)), header)

    def _part(self, graph: Graph, draw: int, samples: npt.NDArray[np.int64]) -> Recording:
        lengths = self._data.lengths
        given: Mapping[str, Any] = {
            "noise": self.noise,
            "samples": samples,
            "draw": draw,
            "record": graph.spiking,
            "lengths": None if lengths is None else lengths[samples],
        }
        if graph.is_integer:
            return fixed_point.run(graph, self._data.x[samples], **given)
        with one_thread():
            return reference.run(graph, self._data.x[samples], **given, device="cpu")
