"""The Markdown page of a model card, made from its facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def render(facts: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    accuracy, data, training = facts["accuracy"], facts["data"], facts["training"]
    settings = training["settings"]
    is_sampled = facts["architecture"] == "p_spikessm"
    lines = [
        f"# {facts['name']}",
        "",
        _summary(facts),
        "",
        *_accuracy_lines(accuracy),
        "",
        *_held_out_lines(facts),
        *_rate_lines(facts["firing_rates"]),
        *_deployed_lines(facts),
        "## Data",
        "",
        *(f"- {key}: {data[key]}" for key in ("source", "licence", "encoding", "split")),
        f"- SHA-256 of the test positions (little-endian int64): `{data['test_index_sha256']}`",
        "",
        "## Training",
        "",
        f"- optimiser: {training['optimizer']}, "
        + ", ".join(f"{key} {value}" for key, value in settings.items() if key != "name"),
        f"- seed {training['seed']}, "
        + (f"{training['seconds']} s on one CPU thread, " if "seconds" in training else "")
        + f"torch {training['torch']}"
        + ("; trained with sampled spikes" if is_sampled else ""),
        f"- settings chosen {training['choice_of_settings']}",
        "",
        "## File",
        "",
        f"- `{facts['file']['name']}`, SHA-256 `{facts['file']['sha256']}`",
        f"- {facts['parameters']:,} parameters; configuration: "
        + ", ".join(f"{key} {value}" for key, value in facts["config"].items()),
        f"- to reproduce: `{facts['reproduce']}` (equal weights on one machine with one torch)",
    ]
    return "\n".join(lines) + "\n"


def _accuracy_lines(accuracy: Mapping[str, Any]) -> list[str]:
    low, high = accuracy["binomial_95"]
    interval = (
        f"| binomial 95 % interval ({accuracy['samples']} samples, Wilson) "
        f"| {_percent(low)} to {_percent(high)} |"
    )
    head = ["| accuracy on the test samples | |", "|---|---|"]
    if accuracy["draws"] == 1:
        return [*head, f"| accuracy (nothing is drawn) | {_percent(accuracy['mean'])} |", interval]
    lines = [
        *head,
        f"| one draw, mean of {accuracy['draws']} draws | {_percent(accuracy['mean'])} |",
        f"| standard deviation over draws | {_percent(accuracy['std'])} |",
        interval,
    ]
    if accuracy["mean_field"] is not None:
        lines.append(
            f"| mean field (spikes replaced by their probabilities) "
            f"| {_percent(accuracy['mean_field'])} |"
        )
    return [
        *lines,
        "",
        f"Per draw: {', '.join(_percent(value) for value in accuracy['per_draw'])}.",
        f"Noise: {accuracy['noise']['kind']}, seed {accuracy['noise']['seed']}, "
        f"draws 0 to {accuracy['draws'] - 1}; no averaging of draws.",
    ]


def _held_out_lines(facts: Mapping[str, Any]) -> list[str]:
    held_out = facts.get("held_out_speakers")
    if held_out is None:
        return []
    return [
        "| speaker held out | test samples | accuracy |",
        "|---|---|---|",
        *(
            f"| {speaker} | {entry['samples']} | {_percent(entry['accuracy'])} |"
            for speaker, entry in held_out["speakers"].items()
        ),
        f"| mean over speakers | | {_percent(held_out['mean'])} |",
        "",
        "For every speaker a network of its own was trained, by the same recipe and seed and on "
        "the other speakers only; these networks are not published. The published one has heard "
        "all speakers.",
        "",
    ]


def _rate_lines(rates: Mapping[str, float]) -> list[str]:
    """The table of firing rates; nothing where nothing spikes."""
    if not rates:
        return []
    return [
        "| spike site | mean firing rate (spikes per neuron and step) |",
        "|---|---|",
        *(f"| {site} | {rate:.4f} |" for site, rate in rates.items()),
        "",
    ]


def _deployed_lines(facts: Mapping[str, Any]) -> list[str]:
    """What ``pspike card`` measured; nothing where it has not."""
    deployed = facts.get("deployed")
    if deployed is None:
        return []
    return [
        "## As integers",
        "",
        "| network | " + " | ".join(deployed_columns(deployed)) + " |",
        "|" + "---|" * (1 + len(deployed_columns(deployed))),
        *(f"| {' | '.join(cells)} |" for cells in deployed_rows(deployed)),
        "",
        *_deployed_notes(deployed, facts["accuracy"]["mean_field"]),
        "",
        *_deployed_rates(deployed),
    ]


def deployed_columns(deployed: Mapping[str, Any]) -> list[str]:
    """Heads of the columns behind the network's name."""
    draws = deployed["draws"]
    accuracy = ["accuracy"]
    if draws > 1:
        accuracy = [f"one draw, mean of {draws}", "std over draws", f"{draws} draws averaged"]
    return [*accuracy, "loss against float", "overflows"]


def deployed_rows(deployed: Mapping[str, Any]) -> list[list[str]]:
    """Cells of the table of networks, line by line."""
    rows = []
    for line in deployed["networks"]:
        if line["error"] is not None:
            blank = len(deployed_columns(deployed)) - 1
            rows.append([line["name"], line["error"]["code"], *[""] * blank])
            continue
        cells = [line["name"], _percent(line["accuracy"])]
        if deployed["draws"] > 1:
            cells += [_percent(line["accuracy_std"]), _percent(line["averaged"])]
        is_float = line["options"] is None
        cells += (
            ["", ""] if is_float else [f"{100 * line['loss'] + 0.0:.2f}", str(line["overflows"])]
        )
        rows.append(cells)
    return rows


def _deployed_notes(deployed: Mapping[str, Any], mean_field: float | None) -> list[str]:
    options = next(line["options"] for line in deployed["networks"] if line["options"])
    notes = (
        f"{deployed['samples']} test samples, the same noise for every network; losses are means "
        "over draws, in percentage points. "
    )
    if deployed["draws"] > 1:
        notes += "Averaged: the class of the mean of the outputs over the draws. "
    if mean_field is not None:
        notes += f"Mean field of the float network: {_percent(mean_field)}. "
    return [
        f"{notes}States of {options['state_bits']} bits, coefficients of "
        f"{options['coefficient_bits']}, noise of {options['noise_bits']}; formats from "
        f"{deployed['calibration']}; overflow policy `{options['overflow']}`. "
        f"Measured by `{deployed['command']}`."
    ]


def _deployed_rates(deployed: Mapping[str, Any]) -> list[str]:
    measured = [line for line in deployed["networks"] if line["error"] is None]
    sites = list(measured[0]["firing_rates"])
    if not sites:
        return []
    return [
        "| mean firing rate of | " + " | ".join(line["name"] for line in measured) + " |",
        "|" + "---|" * (1 + len(measured)),
        *(
            f"| `{site}` | "
            + " | ".join(f"{line['firing_rates'][site]:.4f}" for line in measured)
            + " |"
            for site in sites
        ),
        "",
    ]


def _summary(facts: Mapping[str, Any]) -> str:
    config, data = facts["config"], facts["data"]
    if facts["architecture"] == "p_spikessm":
        size = f"{config['n_layers']} blocks, {config['d_model']} neurons"
        state = f"state dimension {config['d_state']}"
        mixer = f"mixer activation {config['mixer_activation']}"
        network = f"P-SpikeSSM (causal S4D-Lin, {size}, {state}, {mixer})"
    elif facts["architecture"] == "spiking_ssm":
        size = f"{config['n_layers']} blocks, {config['d_model']} neurons"
        network = f"SpikingSSM ({size}, state dimension {config['d_state']})"
    elif facts["architecture"] == "linoss":
        kind = "D-LinOSS" if config["variant"] == "damped" else f"LinOSS-{config['variant']}"
        size = f"{config['n_layers']} blocks, {config['d_model']} channels"
        network = f"{kind} ({size}, {config['d_state']} complex oscillators; nothing spikes)"
    else:
        widths = "-".join(map(str, [config["d_input"], *config["d_hidden"], config["n_classes"]]))
        network = f"Spiking network of {config['neuron']} neurons ({widths})"
    return (
        f"{network} on {data['name']}. Weights: same licence as the project; trained on data under "
        f"{data['licence']}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
