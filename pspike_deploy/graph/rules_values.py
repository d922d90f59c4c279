"""Audit rules on values: numbers that make a node meaningless."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.graph.core_types import lengths
from pspike_deploy.graph.findings import FileView, Found, error, integer, is_text, shown, warning
from pspike_deploy.graph.loihi_neurons import DELTA_ERRORS, LOIHI_LIF_DECAYS
from pspike_deploy.graph.neurons import INITIAL_STATES, ORDERS, RESETS, TIES
from pspike_deploy.graph.nodes import ACTIVATION_KINDS, TABLED_KINDS
from pspike_deploy.graph.rules_integer import real_values

#: Most table steps per unit, as a power of two.
MAX_TABLE_STEP_BITS: Final = 24


def first_index(wrong: npt.NDArray[np.bool_]) -> str:
    """Where the first true element stands, as it is written in messages: `` at index 1``."""
    if wrong.ndim == 0:
        return ""
    place = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    return " at index " + " ".join(str(int(i)) for i in place)


def _broken(
    array: npt.NDArray[Any] | None, is_wrong: Callable[[npt.NDArray[Any]], npt.NDArray[np.bool_]]
) -> str | None:
    if array is None or not array.size:
        return None
    wrong = np.asarray(is_wrong(array))
    return first_index(wrong) if wrong.any() else None


@error(fix="find out where the number comes from; nothing can be computed with it")
def values_are_finite(file: FileView) -> Found:
    """No parameter is NaN or infinite."""
    for node in file.nodes:
        for name, array in node.arrays.items():
            if array.dtype.kind not in "fc":
                continue
            for word, test in (("NaN", np.isnan), ("infinite", np.isinf)):
                if (index := _broken(array, test)) is not None:
                    yield node.path, f"{name} is {word}{index}"


@error(fix="give every neuron a positive time constant")
def time_constant_is_positive(file: FileView) -> Found:
    """tau > 0."""
    for node in file.nodes:
        for name in node.rule.positive if node.rule else ():
            if (index := _broken(node.arrays.get(name), lambda a: np.real(a) <= 0)) is not None:
                yield node.path, f"{name} ≤ 0{index}"


@error(fix="a delay looks back, never ahead")
def delay_is_not_negative(file: FileView) -> Found:
    """delay >= 0."""
    for node in file.nodes:
        delay = node.arrays.get("delay")
        if (index := _broken(delay, lambda a: np.real(a) < 0)) is not None:
            yield node.path, f"delay < 0{index}"


@error(fix="use steps and window sizes of at least 1 and paddings of at least 0")
def window_is_positive(file: FileView) -> Found:
    """stride, dilation and kernel size are at least 1, padding is at least 0."""
    least = {"stride": 1, "dilation": 1, "kernel_size": 1, "groups": 1, "padding": 0}
    for node in file.nodes:
        for name in node.rule.fields if node.rule else ():
            found = lengths(node.tree.get(name)) if name in least else None
            if found and min(found) < least[name]:
                yield node.path, f"{name} {min(found)} is less than {least[name]}"


@error(fix="use one of the known functions")
def activation_is_known(file: FileView) -> Found:
    """The function is one that every backend has."""
    for node in file.nodes:
        kind = node.tree.get("kind")
        if node.type != "Activation" or node.rule is None or not isinstance(kind, str):
            continue
        if kind not in ACTIVATION_KINDS:
            known = ", ".join(ACTIVATION_KINDS)
            yield node.path, f"unknown activation {shown(kind)}; known: {known}"


@error(fix="give a table with steps of 2**-0 to 2**-24; empty in a float graph")
def activation_table_fits(file: FileView) -> Found:
    """A table stands in integer graphs only; there all but relu need at least two entries."""
    for node in file.nodes:
        has_table = node.type in ("Activation", "SoftmaxSum")
        if not has_table or node.rule is None or "table" not in node.arrays:
            continue
        entries, steps = node.arrays["table"].size, integer(node.tree.get("table_step_bits"))
        if steps is not None and not 0 <= steps <= MAX_TABLE_STEP_BITS:
            yield node.path, f"table_step_bits {steps} is not within 0 … {MAX_TABLE_STEP_BITS}"
        kind = node.tree.get("kind")
        needed = node.type == "SoftmaxSum" or any(is_text(kind, known) for known in TABLED_KINDS)
        if file.quantization and needed and entries < 2:
            yield node.path, f"table has {entries} entries; GELU, sigmoid and softmax need two"
        if not file.quantization and entries:
            yield node.path, f"table has {entries} entries in a float graph"


#: Neurons with text fields, and those that can have synapses from their layer to itself.
_OPTIONAL: Final = ("TwoStateNeuron", "LoihiLIF", "DeltaEncoder", "LeakyIntegrator")
_RECURRENT: Final = ("TwoStateNeuron", "LoihiLIF")
#: Allowed values of the text fields of neurons.
_CHOICES: Final = {
    "order": ORDERS,
    "reset": RESETS,
    "tie": TIES,
    "initial_state": INITIAL_STATES,
    "error": DELTA_ERRORS,
}


@error(fix="use one of the known values")
def neuron_option_is_known(file: FileView) -> Found:
    """Order of updates, reset, tie and initial state of a neuron are known ones."""
    for node in file.nodes:
        if node.type not in _OPTIONAL or node.rule is None:
            continue
        for field, known in _CHOICES.items():
            value = node.tree.get(field)
            if isinstance(value, str) and value not in known:
                yield node.path, f"{field} {shown(value)}; known: {', '.join(known)}"


@error(fix="store the share of a state that remains after a step")
def loihi_decay_is_a_fraction(file: FileView) -> Found:
    """What remains of the states of Loihi's neurons after a step is a share of them."""
    for node in file.nodes:
        for name in LOIHI_LIF_DECAYS if node.type == "LoihiLIF" and node.rule else ():
            decay = real_values(file, node, name)
            if (index := _broken(decay, lambda a: (a < 0) | (a > 1))) is not None:
                yield node.path, f"{name} is not within 0 … 1{index}"


@error(fix="store the kernel for the lags -L … L")
def convolution_has_a_centre(file: FileView) -> Found:
    """A kernel has an odd number of lags; the middle one is that of the same step."""
    for node in file.nodes:
        kernel = node.arrays.get("kernel") if node.type == "Convolution" else None
        if node.rule is None or kernel is None or kernel.ndim != 2:
            continue
        if kernel.shape[1] % 2 == 0:
            yield node.path, f"kernel {kernel.shape} has {kernel.shape[1]} lags"


@error(fix="store one row and column per neuron, or an empty (0, 0) array")
def recurrent_synapses_join_the_layer_to_itself(file: FileView) -> Found:
    """Recurrent weights are (neurons, neurons), or absent."""
    for node in file.nodes:
        if node.type not in _RECURRENT or node.rule is None:
            continue
        weight, vector = node.arrays.get("recurrent_weight"), node.arrays.get("threshold")
        if weight is None or vector is None or weight.ndim != 2:
            continue
        if weight.size and weight.shape[0] != vector.size:
            yield node.path, f"recurrent_weight {weight.shape} for {vector.size} neurons"


@error(fix="number the sampling nodes 0, 1, 2, … in the order of the signal")
def sampling_site_is_unique(file: FileView) -> Found:
    """Two sites of one number would draw the same noise."""
    seen: dict[int, str] = {}
    for node in file.nodes:
        site = integer(node.tree.get("site"))
        draws = node.type == "Bernoulli" or is_text(node.tree.get("initial_state"), "random")
        if not draws or node.rule is None or site is None:
            continue
        if site < 0:
            yield node.path, f"site {site} is negative"
        elif site in seen:
            yield node.path, f"site {site} is that of {seen[site]}"
        seen.setdefault(site, node.path)


@error(fix="store a variance of at least 0 and a positive epsilon")
def batch_norm_divides_by_a_positive_number(file: FileView) -> Found:
    """variance >= 0 and variance + epsilon > 0."""
    for node in file.nodes:
        if node.type != "BatchNorm" or node.rule is None:
            continue
        variance, epsilon = node.arrays.get("variance"), node.number("epsilon")
        if variance is None or not isinstance(epsilon, int | float):
            continue
        if not np.isfinite(epsilon) or epsilon < 0:
            yield node.path, f"epsilon {epsilon} is negative or not finite"
        elif (index := _broken(variance, lambda a: np.real(a) < 0)) is not None:
            yield node.path, f"variance < 0{index}"
        elif epsilon == 0 and (index := _broken(variance, lambda a: a == 0)) is not None:
            yield node.path, f"variance + epsilon is 0{index}"


@warning(fix="a mode must decay; check the discretisation of the network")
def ssm_mode_decays(file: FileView) -> Found:
    """|a_bar| < 1 for every mode; else the state grows with the length of the sequence."""
    for node in file.nodes:
        if node.type != "DiagonalSSM" or "a_bar" not in node.arrays:
            continue
        a_bar = real_values(file, node, "a_bar")
        if a_bar is None or a_bar.ndim != 3 or a_bar.shape[2] != 2 or not np.isfinite(a_bar).all():
            continue
        modulus = np.hypot(a_bar[..., 0], a_bar[..., 1])
        if (index := _broken(modulus, lambda a: a >= 1)) is not None:
            yield node.path, f"|a_bar| = {modulus.max():.6g} at the largest; not below 1{index}"
