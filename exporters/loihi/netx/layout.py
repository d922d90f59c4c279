"""Names of the ``.net`` layout: which keys NetX reads and which SLAYER writes."""

from __future__ import annotations

from typing import Final

#: Layer types that NetX loads, with the keys that it reads.
READ_KEYS: Final[dict[str, frozenset[str]]] = {
    "input": frozenset({"type", "shape", "neuron", "weight", "bias"}),
    "flatten": frozenset({"type"}),
    "dense": frozenset({"type", "shape", "weight", "bias", "delay", "neuron"}),
    "dense_rec": frozenset({"type", "shape", "weight", "weight_rec", "bias", "delay", "neuron"}),
    "conv": frozenset(
        {"type", "shape", "weight", "bias", "neuron", "stride", "padding", "dilation", "groups"}
    ),
}
#: Keys that SLAYER writes and nothing is lost by when they are not read.
HARMLESS_KEYS: Final = frozenset(
    {"shape", "inFeatures", "outFeatures", "inChannels", "outChannels", "kernelSize"}
)
#: Layer types of SLAYER that NetX cannot load.
NOT_LOADED: Final = ("pool", "convT", "unpool", "average", "concat", "dense_comp", "affine")

CUBA_TYPES: Final = ("CUBA", "LOIHI")
SIGMA_DELTA_TYPE: Final = "SDNN"
#: Types with this in their name become resonators, those with the second in it by phase.
RESONATOR_WORD: Final = "RF"
PHASE_WORD: Final = "PHASE"
ADAPTIVE_WORD: Final = "AD"

#: Keys of a neuron that NetX reads, by kind.
NEURON_KEYS: Final[dict[str, frozenset[str]]] = {
    "CUBA": frozenset({"type", "iDecay", "vDecay", "vThMant"}),
    "SDNN": frozenset({"type", "vThMant", "sigma_output"}),
    "RF": frozenset({"type", "sinDecay", "cosDecay", "vThMant"}),
}
#: Keys of a neuron that SLAYER writes and NetX ignores, with the value at which that is harmless.
IGNORED_NEURON_KEYS: Final[dict[str, object]] = {
    "refDelay": 1,
    "gradedSpike": False,
    "wgtExp": 0,
    "weight_exp": 0,
    "activation": "relu",
}
#: Keys of a neuron that only training needs; ``theta`` repeats the threshold.
TRAINING_KEYS: Final = frozenset({"tauRho", "scaleRho", "theta"})
