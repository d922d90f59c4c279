"""What a report may hold; every part is optional."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pspike_deploy.errors import PspikeError
from pspike_deploy.verify.sampled.draws import FloatArray, SiteDraws, Spikes

Document = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class LayerSpikes:
    """Spikes of one layer on both sides, and the probabilities behind them where there are any.

    Attributes:
        node: its name.
        x: uint8 ``(trial, step, neuron)``, spikes of the target.
        reference: uint8 like ``x``, spikes of the reference; None where they are not known.
        q: float64 like ``x``, probabilities that ``x`` was drawn with; None for deterministic
            neurons.
        p: float64 like ``x``, probabilities of the reference; None where they are not known.
        neurons: numbers of the neurons, where only some of the layer were kept.

    Raises:
        PspikeError: ``E-DATA-SHAPE`` for arrays of other shapes.
    """

    node: str
    x: Spikes
    reference: Spikes | None = None
    q: FloatArray | None = None
    p: FloatArray | None = None
    neurons: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        shapes = {a.shape for a in (self.x, self.reference, self.q, self.p) if a is not None}
        kept = self.x.shape[2:] if self.neurons is None else (len(self.neurons),)
        if len(shapes) != 1 or self.x.ndim != 3 or 0 in self.x.shape or kept != self.x.shape[2:]:
            raise PspikeError(
                "E-DATA-SHAPE",
                "the spikes of a layer cannot be shown",
                why=f"arrays of shapes {sorted(map(str, shapes))} and neurons {kept}",
                fix="give spikes and probabilities (trial, step, neuron) of the same draws",
                where=self.node,
            )

    @classmethod
    def of(cls, layer: SiteDraws | LayerSpikes) -> LayerSpikes:
        """The layer itself, or what a sampling node drew."""
        if isinstance(layer, LayerSpikes):
            return layer
        return cls(layer.node, layer.x, layer.reference, layer.q, layer.p)

    def neuron(self, place: int) -> int:
        """Number of the neuron in a column of the arrays."""
        return place if self.neurons is None else self.neurons[place]


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything that a report may hold.

    Strings may come from anywhere: they are shown as they are, never read as markup.

    Attributes:
        title: heading of the page.
        facts: short facts about network, data and tool, by name, in the order to show.
        verification: document of ``verification.json``; ``judgement``, ``families`` and
            ``equivalences``, of sampled spikes, are shown where it holds them.
        sites: layers to draw, in the order to show.
        conditions: sentence on how the spikes of both sides were obtained.
        quantization: document of ``quantization.json``.
        accuracy: shares of ``summary.json``: ``float``, ``integer`` (and ``lava``), each with
            ``_std``, the standard deviation over ``draws``; ``agreement``, ``samples``.
        lava: facts of ``summary.json`` about the run in Lava's CPU simulator.
        energy: document of ``energy.json``.
        mapping: document of ``mapping.json`` of an export toward Loihi.
        summary: that of ``summary.json``, beside a mapping.
        onnx: the same about the runs in ONNX Runtime.
        provenance: digests, versions and the like, by name.
        reference: what the reference is called.
        target: what is compared with it.
    """

    title: str = "Verification report"
    facts: Mapping[str, str] = field(default_factory=dict)
    verification: Document | None = None
    sites: Sequence[SiteDraws | LayerSpikes] = ()
    conditions: str = ""
    quantization: Document | None = None
    accuracy: Document | None = None
    lava: Document | None = None
    energy: Document | None = None
    mapping: Document | None = None
    summary: Document | None = None
    onnx: Document | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    reference: str = "float network"
    target: str = "integer network"

    @property
    def layers(self) -> tuple[LayerSpikes, ...]:
        """The layers to draw, all of one type."""
        return tuple(LayerSpikes.of(site) for site in self.sites)
