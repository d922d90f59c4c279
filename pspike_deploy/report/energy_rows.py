"""Rows of the tables on energy, for terminal and report alike, from ``energy.json``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from pspike_deploy.energy.batches import first_and_best
from pspike_deploy.report.energy_text import interval, plain, probability, quantity, ratio
from pspike_deploy.report.text import MISSING

Document = Mapping[str, Any]

#: What a boundary is, in words.
BOUNDARY_WORDS: Final[Mapping[str, str]] = {
    "operations": "(a) operations of the cores",
    "cores": "(b) cores, leakage of used ones",
    "cores_of_chips": "(b) cores, leakage of powered chips",
    "chip": "(c) chip with its x86 processors",
    "board": "(d) board",
}
NOT_MODELLED: Final = "not modelled: give the measured power of the board"
#: What the terms of the time model are.
TIME_WORDS: Final[Mapping[str, str]] = {
    "t_comp": "neuron updates",
    "t_synop": "synaptic operations",
    "t_msg": "messages",
    "t_barrier": "barrier",
    "t_x86": "host",
}
#: Terms of the time that are named.
_NAMED_TERMS: Final = 3


def chip_rows(document: Document) -> Iterator[tuple[str, ...]]:
    """(what, value of every chip) on energy and time."""
    chips = list(document["chips"].values())
    yield ("status", *(chip["label"] for chip in chips))
    yield ("accuracy of the integers", *(document["accuracy"]["integer"] for _ in chips))
    yield ("cores", *(f"{c['cores']} on {c['chips']} chip(s), {c['mapping']}" for c in chips))
    for boundary, words in BOUNDARY_WORDS.items():
        found = [chip["energy_J"][boundary] for chip in chips]
        yield (words, *(interval(e, "J") if e is not None else NOT_MODELLED for e in found))
    yield ("time of an inference", *(interval(c["seconds"], "s") for c in chips))
    yield ("step", *(interval(c["step_seconds"], "s") for c in chips))
    yield ("inferences per second", *(_plain_interval(c["inferences_per_second"]) for c in chips))
    yield ("the step waits for", *(_bottleneck(chip) for chip in chips))
    yield ("time from", *(chip["time_source"] for chip in chips))


def count_rows(document: Document) -> Iterator[tuple[str, ...]]:
    """(what is counted, mean and quantiles of every chip)."""
    chips = list(document["chips"].values())
    for name in chips[0]["counts"]:
        cells = []
        for chip in chips:
            found = chip["counts"][name]
            cells.append(
                f"{plain(found['mean'], 4)} [{plain(found['p5'], 3)} … {plain(found['p95'], 3)}]"
            )
        yield (name.replace("_", " "), *cells)


def layer_rows(document: Document) -> Iterator[tuple[str, ...]]:
    """(layer, neurons, spikes per neuron and step, synaptic operations, of dense)."""
    chip = next(iter(document["chips"].values()))
    for layer in chip["layers"]:
        dense = layer["dense_operations"]["mean"]
        done = layer["synaptic_operations"]["mean"]
        rate = layer["rate"]
        yield (
            layer["name"],
            f"{layer['neurons']:,}",
            f"{rate['mean']:.3f} [{rate['p5']:.3f} … {rate['p95']:.3f}]",
            plain(done, 4) if dense else MISSING,
            f"{100 * done / dense:.0f} %" if dense else MISSING,
        )


def device_rows(document: Document) -> Iterator[tuple[str, ...]]:
    """(device, mode, precision, batch, total, dynamic, time of a batch): batch 1 and the best."""
    for device in first_and_best(document["devices"], _kind_and_batch):
        yield (
            device["device"],
            device["mode"],
            device["precision"],
            f"{device['batch']:,}",
            interval(device["total_J_per_inference"], "J"),
            interval(device["dynamic_J_per_inference"], "J"),
            interval(device["seconds_per_batch"], "s"),
            device["label"],
        )


def _kind_and_batch(device: Document) -> tuple[tuple[str, str, str], int]:
    return (device["device"], device["mode"], device["precision"]), device["batch"]


def baseline_rows(document: Document) -> Iterator[tuple[str, ...]]:
    """(proxy, energy, accuracy, label)."""
    for found in document["baselines"]:
        energy = found["J_per_inference"]["a"][1]
        yield found["name"], quantity(energy, "J"), found["accuracy"], found["label"]


def comparison_rows(
    document: Document, boundaries: Collection[str] = tuple(BOUNDARY_WORDS)
) -> Iterator[tuple[str, ...]]:
    """(chip, boundary, GPU, how it runs, probability, ratio)."""
    hypothetical = {c["chip"] for c in document["chips"].values() if c["obstacles"]}
    for found in document["comparisons"]:
        if found["boundary"] not in boundaries:
            continue
        yield (
            found["chip"] + (" (hypothetical)" if found["chip"] in hypothetical else ""),
            f"{BOUNDARY_WORDS[found['boundary']][:3]} against {found['side']}",
            found["device"],
            f"{found['precision']}, {found['mode']}, batch {found['batch']:,}",
            probability(found["probability_that_chip_takes_less"], found["monte_carlo_error"]),
            ratio(found["ratio_chip_to_device"]),
        )


def simple_rows(chip: Document) -> Iterator[tuple[str, ...]]:
    """(model that others use, its energy, over our median of boundary a and c, what it lacks)."""
    operations, whole = (chip["energy_J"][name][1] for name in ("operations", "chip"))
    for model in chip["simple_models"]:
        energy = model["energy_J"]
        yield (
            model["title"],
            quantity(energy, "J", 3),
            f"{energy / operations:.2g}",
            f"{energy / whole:.2g}",
            model["lacks"],
        )


def constant_rows(document: Document) -> Iterator[tuple[str, ...]]:
    """(id, range, unit, kind, quality, citation) of every constant of every estimate, once."""
    seen: dict[str, Document] = {}
    for part in (*document["chips"].values(), *document["devices"]):
        for constant in part["constants_used"]:
            seen.setdefault(constant["id"], constant)
    for constant in seen.values():
        fixed = constant["dist"] == "fix"
        span = f"{constant['low']:g}" if fixed else f"{constant['low']:g} … {constant['high']:g}"
        mode = "" if constant["dist"] != "logtri" else f", mode {constant['mode']:.3g}"
        yield (
            constant["id"],
            span + mode,
            constant["unit"],
            constant["kind"],
            constant["quality"],
            constant["citation"],
        )


def _plain_interval(values: Any) -> str:
    low, middle, high = values
    return f"{plain(middle)} [{plain(low)} … {plain(high)}]"


def _bottleneck(chip: Document) -> str:
    if not chip["time_shares"]:
        return "not modelled: the time was measured"
    shares = sorted(chip["time_shares"].items(), key=lambda pair: -pair[1])[:_NAMED_TERMS]
    return ", ".join(f"{TIME_WORDS[name]} {share:.0%}" for name, share in shares if share >= 0.01)
