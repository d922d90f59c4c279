"""Export of a network that is integers already: nothing is quantised, and no float network judges.

What can be said then is whether the integer simulators and Lava compute the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from pspike_deploy.data import ExportData
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.options import ExportOptions, Watcher
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.recording import OverflowCounts, added_overflows
from pspike_deploy.simulators import fixed_point
from pspike_deploy.simulators.devices import FixedPointDevice
from pspike_deploy.verify import reasons as why
from pspike_deploy.verify.compare import Comparison
from pspike_deploy.verify.probabilities import ProbabilityComparison
from pspike_deploy.verify.verdict import Verification, replay_in_interpreter

#: Stands in the summary and among the warnings of the verification.
NO_FLOAT_NETWORK: Final = (
    "the network was integers already: nothing was quantised, and the verdict says that the "
    "integer simulators and Lava agree, not how close they are to a float network"
)


def require_no_choices(options: ExportOptions) -> None:
    """Refuse options that choose how to quantise, where nothing is quantised.

    Raises:
        PspikeError: E-USAGE.
    """
    given = {
        "widths, scales or roundings": options.config != QuantConfig(),
        "calibration samples": options.calibration is not None,
        "offline": options.offline,
    }
    chosen = [name for name, is_given in given.items() if is_given]
    if chosen:
        raise PspikeError(
            "E-USAGE",
            "the network is quantised already",
            why=f"{', '.join(chosen)} were asked for",
            fix="leave them out, or give the checkpoint or float.nir",
            where=str(options.model),
        )


def integer_accuracy(
    integer: Graph, data: ExportData, options: ExportOptions, watcher: Watcher
) -> tuple[dict[str, Any], OverflowCounts]:
    """Accuracy over several draws of the noise, and overflows; the float side stays empty."""
    noise, hits = Noise.philox(options.seed), []
    overflows: OverflowCounts = {}
    draws = options.draws if integer.noise_sites else 1  # without noise every draw is the same
    for draw in range(draws):
        watcher.advance(draw, draws)
        found = fixed_point.run(
            integer, data.x, noise=noise, draw=draw, record=(), lengths=data.lengths
        )
        overflows = added_overflows(overflows, found.run["overflows_by_node"])
        if data.labels is not None:
            hits.append(float(np.mean(found.predictions == data.labels)))
    accuracy = dict.fromkeys(("agreement", "float", "float_std", "integer", "integer_std"))
    return accuracy | {
        "samples": len(data.x),
        "draws": draws,
        "integer": float(np.mean(hits)) if hits else None,
        "integer_std": float(np.std(hits, ddof=1)) if len(hits) > 1 else None,
    }, overflows


def verify_integer(
    integer: Graph,
    data: ExportData,
    options: ExportOptions,
    replays: Mapping[str, Comparison],
    overflows: OverflowCounts,
) -> Verification:
    """Judge whether the integer backends agree in every integer (T1a)."""
    comparisons = dict(replays)
    if integer.streams:
        comparisons["interpreter"] = replay_in_interpreter(
            FixedPointDevice(integer), data.x, np.arange(len(data.x)), Noise.philox(options.seed)
        )
    reasons = tuple(why.replays_apart(comparisons))
    nothing = () if comparisons else ("no second backend could run the network",)
    return Verification(
        verdict="different" if reasons else "inconclusive" if nothing else "equivalent",
        reasons=reasons or nothing,
        tests=tuple(f"T1a-{name}" for name in sorted(comparisons)),
        probabilities=ProbabilityComparison(()),
        replays=comparisons,
        stress={},
        warnings=(NO_FLOAT_NETWORK, *why.overflowed("the evaluation", overflows)),
    )


def widths(integer: Graph, overflows: OverflowCounts) -> dict[str, Any]:
    """The widest registers of each kind, as the summary tells them."""
    formats = integer.semantics.quantization.values()

    def widest(*names: str) -> int:
        found = [f.tensors[name].bits for f in formats for name in names if name in f.tensors]
        return max(found, default=0)

    return {
        "weight_bits": widest("weight", "recurrent_weight"),
        "state_bits": widest("state"),
        "noise_bits": integer.semantics.noise_bits if integer.noise_sites else 0,
        "overflow": integer.semantics.overflow,
        "overflows": sum(sum(found.values()) for found in overflows.values()),
    }
