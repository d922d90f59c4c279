"""What is asked of the tool, one entry per row of the table in ``docs/performance.md``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Goal:
    """A figure that is asked for.

    Attributes:
        subject: heading under which it stands.
        what: what is measured, beside what.
        asked: the figure.
        unit: of both figures.
        at_least: whether more is better.
        limit: what keeps a figure that is not reached from being so; ``docs/performance.md`` prints
            it only there.
    """

    subject: str
    what: str
    asked: float
    unit: str
    at_least: bool
    limit: str = ""

    def met(self, measured: float) -> bool:
        """Whether a measured figure is good enough."""
        return measured >= self.asked if self.at_least else measured <= self.asked


_ARITHMETIC: Final = (
    "arithmetic: noise, states and registers of every neuron and step; Lava's own cost is the "
    "barrier of its processes, which does not grow with the work"
)
_SIMULATOR: Final = "Integer simulator"
_REFERENCE: Final = "Reference"
_LAVA: Final = "Lava run"
_SCALE: Final = "Scale"
_START: Final = "Start-up"


def _against_lava(network: str, batch: int, asked: float) -> Goal:
    return Goal(
        _SIMULATOR,
        f"{network}, batch {batch}: time per sample and step, Lava's over ours",
        asked,
        "x",
        True,
        _ARITHMETIC,
    )


GOALS: Final[dict[str, Goal]] = {
    **{
        f"simulator-{key}-{batch}": _against_lava(network, batch, asked)
        for key, network in (
            ("p2", "P-SpikeSSM, 2 blocks"),
            ("p4", "P-SpikeSSM, 4 blocks"),
            ("silif", "SiLIF 512-512-35"),
        )
        for batch, asked in ((1, 100), (64, 2000))
    },
    "synapses": Goal(
        _SIMULATOR,
        "synapses of the SiLIF network, batch 64: synaptic operations per second over additions "
        "of vectors per second",
        30,
        "%",
        True,
        "rows are read again for every spike, and results widen to 64 bits",
    ),
    "synaptic-operations": Goal(
        _SIMULATOR,
        "whole run of the SiLIF network, batch 64: synaptic operations per second over additions "
        "of vectors per second",
        30,
        "%",
        True,
        "most of the time goes into neurons, which are no synaptic operations",
    ),
    "reference-dplr": Goal(
        _REFERENCE,
        "P-SpikeSSM with DPLR kernels (H = 400, N = 64, 2 blocks, 784 steps, batch 16): PyTorch "
        "that builds kernels in every pass, over ours",
        10,
        "x",
        True,
        "transforms of the sequences, activations and mixers, which both sides need",
    ),
    "reference-silif": Goal(
        _REFERENCE,
        "SiLIF 512-512-35, batch 64: a loop over steps in PyTorch, over ours",
        3,
        "x",
        True,
        "the first layer's dense product, and passes over memory for norms, which both sides need",
    ),
    "lava-grouped": Goal(
        _LAVA,
        "P-SpikeSSM, 4 blocks, one sample at a time: one process per node, over ours",
        3,
        "x",
        True,
        "one process per layer of synapses and one per chain of neurons remain; each costs a "
        "barrier per step",
    ),
    "lava-batch": Goal(
        _LAVA,
        "P-SpikeSSM, 4 blocks, 192 samples side by side: one process per node and one sample, "
        "over ours, per sample and step",
        50,
        "x",
        True,
        "NumPy's arithmetic in Lava's Python, which has no compiler",
    ),
    "lava-start": Goal(_LAVA, "start and stop of a run, 4 blocks", float("inf"), "s", False),
    "scale-steps": Goal(
        _SCALE,
        "exponent of time over steps, 1,024 to 16,384",
        1.1,
        "",
        False,
        "nodes are computed over whole sequences, and long ones leave the caches",
    ),
    "scale-neurons": Goal(
        _SCALE, "exponent of time over neurons, 128 to 2,048", 1.1, "", False, "noise of timing"
    ),
    "scale-synapses": Goal(
        _SCALE, "exponent of time over synapses, 2^14 to 2^22", 1.1, "", False, "noise of timing"
    ),
    "scale-length-memory": Goal(
        _SCALE,
        "memory of a run of 16,384 steps at batch 1, over that of 1,024 steps",
        1.1,
        "x",
        False,
        "nodes are computed over whole sequences",
    ),
    "scale-mapping": Goal(_SCALE, "one million neurons mapped to cores", 60, "s", False),
    "scale-export-nir": Goal(
        _SCALE,
        "10 million parameters, 16 blocks: peak memory of an export to NIR over float32 size",
        4,
        "x",
        False,
        "float64 weights of all layers, and tables of their synapses, at once",
    ),
    "scale-export-lava": Goal(
        _SCALE,
        "the same to Lava, over float32 size",
        4,
        "x",
        False,
        "float64 weights of all layers, and tables of their synapses, at once",
    ),
    "scale-export-loihi": Goal(
        _SCALE,
        "the same to Loihi, over float32 size",
        4,
        "x",
        False,
        "float64 weights of all layers, and tables of their synapses, at once",
    ),
    "start-help": Goal(_START, "pspike --help, processor time", 0.3, "s", False),
    "start-inspect": Goal(
        _START,
        "pspike inspect of a graph, without torch, processor time",
        1.0,
        "s",
        False,
        "imports of NumPy, h5py and the command line, and the audit of the file",
    ),
}


def record(benchmark: Any, goal: str, measured: float, **facts: Any) -> None:
    """Leave a measured figure, and what explains it, in the results."""
    benchmark.extra_info.update(goal=goal, measured=measured, **facts)
