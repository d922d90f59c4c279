"""Energy of a network on chips against GPUs: counts, estimates, comparisons, as one document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.energy import gpu, neurobench
from pspike_deploy.energy.activity import Activity
from pspike_deploy.energy.baselines import (
    NOT_STATED,
    TECHNOLOGIES,
    Accuracy,
    Baseline,
    dense_float32,
    dense_int8,
    quantised_network,
    sparse_float32,
)
from pspike_deploy.energy.batches import first_and_best
from pspike_deploy.energy.chip_constants import CHIPS
from pspike_deploy.energy.chip_energy import DRAWS, ChipEstimate, estimate, totals
from pspike_deploy.energy.compare import MATCHING, Comparison, compare
from pspike_deploy.energy.device_constants import constants
from pspike_deploy.energy.measure import Measurement
from pspike_deploy.energy.on_chip import OnChip, activity_on, facts_of, recorded_activity_on
from pspike_deploy.energy.operations import MODES, Mode, Operations, operations
from pspike_deploy.energy.simple_models import simple_models
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.loihi.mapping.result import Mapping as CoreMapping
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point
from pspike_deploy.targets.profile import load_profile

FORMAT: Final = "pspike-energy"
VERSION: Final = 1
#: What may be said of any figure here, and nothing stronger.
CLAIM: Final = (
    "Published per-operation constants give core dynamic energy 1.4 to 2.0 times too high on the "
    "one public case with weights; the total is not predictable without the term of the x86 "
    "processors; intervals span 3x to 10x on Loihi 1 and about two decades on Loihi 2, for which "
    "no constant is public."
)
DEVICES: Final = ("A100", "OrinNano")
#: Samples that NeuroBench's metrics are taken on, all nodes recorded.
NEUROBENCH_SAMPLES: Final = 16
#: Synaptic operations per stored synapse and inference beyond which spiking loses to dense
#: arithmetic (Dampfhoffer et al., IEEE TETCI 7(3):731, 2023).
SPIKES_PER_SYNAPSE: Final = 1.38


@dataclass(frozen=True)
class StudyOptions:
    """What to estimate.

    Attributes:
        chips: of :data:`~pspike_deploy.energy.chip_constants.CHIPS`.
        devices: of :data:`~pspike_deploy.energy.gpu.DEVICES`.
        modes: how kernels run on the devices.
        seed, draws: of the Monte-Carlo.
        throttled: steps of a chip take at least 1 ms.
        measured_step: measured time of a step of a chip in s, in the place of the time model.
        board_power: measured power of the board without its chips in W.
    """

    chips: tuple[str, ...] = CHIPS
    devices: tuple[str, ...] = DEVICES
    modes: tuple[Mode, ...] = MODES
    seed: int = 0
    draws: int = DRAWS
    throttled: bool = False
    measured_step: float | None = None
    board_power: float | None = None


@dataclass(frozen=True, eq=False)
class ChipStudy:
    """A network on a chip: counts and estimate."""

    on_chip: OnChip
    estimate: ChipEstimate

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        counts = simple_counts(self.on_chip)
        document = facts_of(self.on_chip) | self.estimate.to_dict()
        document["label"] = ", ".join(dict.fromkeys((self.on_chip.label, self.estimate.chip.label)))
        document["warnings"] = [*document["warnings"], *_activity_warnings(self.on_chip)]
        document["simple_models"] = [
            {"title": m.title, "energy_J": m.energy(counts), "lacks": m.lacks}
            for m in simple_models()
        ]
        return document


@dataclass(frozen=True, eq=False)
class Study:
    """Everything that was estimated.

    Attributes:
        graph: integer graph.
        samples, steps: of the data.
        chips: by name.
        devices: every device, mode and batch, all of one number of draws.
        measured: what was measured on this machine; its estimates are among the devices.
        baselines: labelled proxies, operations times arithmetic.
        comparisons: of every chip and matching boundary with the devices.
        dense: what the network asks as a dense network, per sample.
        metrics: NeuroBench's.
        accuracy: of the networks compared, where it is known.
        options: what was asked for.
    """

    graph: Graph
    samples: int
    steps: int
    chips: Mapping[str, ChipStudy]
    devices: tuple[gpu.DeviceEstimate, ...]
    measured: tuple[Measurement, ...]
    baselines: tuple[Baseline, ...]
    comparisons: tuple[Comparison, ...]
    dense: Operations
    metrics: neurobench.Metrics
    accuracy: Mapping[str, Accuracy] = field(default_factory=dict)
    options: StudyOptions = field(default_factory=StudyOptions)

    def to_dict(self) -> dict[str, Any]:
        """The document of ``energy.json``."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "claim": CLAIM,
            "network": {
                "integer_digest": self.graph.digest,
                "parameters": self.graph.parameters,
                "samples": self.samples,
                "steps": self.steps,
            },
            "accuracy": {
                kind: str(self.accuracy.get(kind, NOT_STATED)) for kind in ("float", "integer")
            },
            "seed": self.options.seed,
            "draws": self.options.draws,
            "chips": {name: found.to_dict() for name, found in self.chips.items()},
            "devices": [device.to_dict() for device in self.devices],
            "measured": [found.to_dict() for found in self.measured],
            "baselines": [found.to_dict() for found in self.baselines],
            "comparisons": [found.to_dict() for found in self.comparisons],
            "dense_network": {
                "macs": self.dense.macs,
                "elementwise": self.dense.elementwise,
                "launches": self.dense.launches,
                "lower_bounds": [
                    {
                        "energy_J": bound.energy,
                        "label": bound.label,
                        "constant": bound.constant.to_dict(),
                    }
                    for bound in self._lower_bounds()
                ],
            },
            "neurobench": self.metrics.to_dict(),
        }

    def _lower_bounds(self) -> Iterator[gpu.LowerBound]:
        known = constants()
        for name in gpu.PER_OPERATION:
            yield gpu.lower_bound(self.dense.macs, known[name])


def study(
    graph: Graph,
    x: npt.ArrayLike | None = None,
    *,
    recording: Recording | None = None,
    noise: Noise | None = None,
    lengths: npt.ArrayLike | None = None,
    dense: Graph | None = None,
    accuracy: Mapping[str, Accuracy] | None = None,
    measured: Sequence[Measurement] = (),
    mappings: Mapping[str, CoreMapping] | None = None,
    options: StudyOptions | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Study:
    """Estimate what a network takes on chips and on GPUs.

    Args:
        graph: integer graph.
        x: (sample, step, feature), data of the task; 100 samples or more are advised.
        recording: a run of the graph with all nodes recorded, in the place of ``x``.
        noise: of the run; default ``Noise.philox(options.seed)``.
        lengths: true steps of every sample, (sample,).
        dense: the network that the GPU runs; default: the graph itself.
        accuracy: of the networks by kind, ``float`` and ``integer``; what is not stated, is said.
        measured: of the dense network on this machine
            (:func:`~pspike_deploy.energy.reference_measurement.measure_reference`).
        mappings: of the graph by chip, where they exist already; others are made.
        options: chips, devices, draws.
        progress: called with the samples that are done and with all.

    Raises:
        PspikeError: E-USAGE without data, for a float graph or unknown names;
            E-TARGET-UNSUPPORTED where the graph has no neuron groups.
    """
    chosen = options or StudyOptions()
    _require(graph, x, recording, chosen)
    profiles = [load_profile(name) for name in chosen.chips]
    generator = noise or Noise.philox(chosen.seed)
    if recording is None:
        data = np.asarray(x)
        counted = activity_on(
            graph,
            profiles,
            data,
            noise=generator,
            lengths=lengths,
            mappings=mappings,
            progress=progress,
        )
        some = data[:NEUROBENCH_SAMPLES]
        excerpt = fixed_point.run(graph, some, noise=generator)
        metrics = neurobench.metrics(graph, excerpt, some)
        samples, steps = data.shape[:2]
    else:
        counted = recorded_activity_on(graph, profiles, recording, mappings=mappings)
        metrics = neurobench.metrics(graph, recording)
        samples, steps = next(iter(recording.values.values())).shape[:2]
    chips = {found.profile: _chip_study(found, chosen) for found in counted}
    asked = operations(dense or graph, steps, "eager")
    devices = (
        *(found.estimate(seed=chosen.seed, draws=chosen.draws) for found in measured),
        *_devices(dense or graph, steps, chosen),
    )
    stated = accuracy or {}
    return Study(
        graph,
        samples,
        steps,
        chips,
        devices,
        tuple(measured),
        tuple(_baselines(asked, metrics, stated)),
        tuple(_comparisons(chips, devices)),
        asked,
        metrics,
        stated,
        chosen,
    )


def _require(
    graph: Graph, x: npt.ArrayLike | None, recording: Recording | None, options: StudyOptions
) -> None:
    unknown = [name for name in options.chips if name not in CHIPS]
    unknown += [name for name in options.devices if name not in gpu.DEVICES]
    why = ""
    if unknown:
        why = f"unknown: {', '.join(unknown)}; chips: {', '.join(CHIPS)}; GPUs: " + ", ".join(
            gpu.DEVICES
        )
    elif not graph.is_integer:
        why = "the graph is not quantised, and activity is counted in integers"
    elif (x is None) == (recording is None):
        why = "activity comes from data or from a recording, from one of them"
    if why:
        raise PspikeError(
            "E-USAGE",
            "the energy cannot be estimated",
            why=why,
            fix="give an integer graph, data or a recording, and known chips and GPUs",
        )


def _chip_study(found: OnChip, options: StudyOptions) -> ChipStudy:
    return ChipStudy(
        found,
        estimate(
            found.run.activity,
            found.profile,
            seed=options.seed,
            draws=options.draws,
            throttled=options.throttled,
            measured_step=options.measured_step,
            board_power=options.board_power,
            other_mapping=found.elsewhere,
        ),
    )


def _devices(graph: Graph, steps: int, options: StudyOptions) -> Iterator[gpu.DeviceEstimate]:
    for name in options.devices:
        drawn = gpu.draw_device(name, seed=options.seed, draws=options.draws)
        for mode in options.modes:
            yield from gpu.sweep(operations(graph, steps, mode), drawn)
        integers = gpu.draw_device(name, precision="int8", seed=options.seed, draws=options.draws)
        last = operations(graph, steps, options.modes[-1])
        yield from first_and_best(gpu.sweep(last, integers), lambda each: each.kind_and_batch)


def _baselines(
    asked: Operations, metrics: neurobench.Metrics, accuracy: Mapping[str, Accuracy]
) -> Iterator[Baseline]:
    """Proxies without memory or control. A step is new input, so one step codes a value."""
    exact, rounded = accuracy.get("float"), accuracy.get("integer")
    for technology in TECHNOLOGIES:
        yield dense_float32(asked, technology, exact)
        yield dense_int8(asked, technology, rounded)
        yield sparse_float32(asked, metrics, technology, exact)
        yield quantised_network(asked, 1, technology)


def _comparisons(
    chips: Mapping[str, ChipStudy], devices: Sequence[gpu.DeviceEstimate]
) -> Iterator[Comparison]:
    """Every chip and matching boundary with batch 1 and the best batch of every device."""
    ends = first_and_best(devices, lambda device: device.kind_and_batch)
    for found in chips.values():
        for boundary in MATCHING:
            for device in ends:
                yield compare(found.estimate, device, boundary)


def simple_counts(found: OnChip) -> dict[str, float]:
    """Mean counts of an inference, as the simple models of others take them."""
    activity: Activity = found.run.activity
    mean = {name: float(values.mean()) for name, values in totals(activity).items()}
    neurons = sum(piece.stop - piece.start for piece in found.placement.pieces)
    return {
        "synaptic_operations": mean["synaptic_operations"],
        "compartment_steps": mean["compartment_steps"],
        "neuron_steps": neurons * float(activity.lengths.mean()),
        "spikes": float(activity.spikes.sum(axis=(1, 2)).mean()),
        "dense_operations": float(activity.dense_operations.mean()),
    }


def _activity_warnings(found: OnChip) -> list[str]:
    """What the literature says of such activity."""
    warnings = [f"layer {name} never spikes" for name in found.run.silent]
    stored = sum(layer.synapses for layer in found.run.layers)
    done = float(found.run.activity.synaptic_operations.sum(axis=(1, 2)).mean())
    if stored and done / stored > SPIKES_PER_SYNAPSE:
        warnings.append(
            f"{done / stored:.3g} spikes per synapse and inference: integrate-and-fire networks "
            f"were found to win against dense ones up to {SPIKES_PER_SYNAPSE} only "
            "(Dampfhoffer et al. 2023)"
        )
    return warnings
