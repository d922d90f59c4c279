"""Terminal tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from pspike_deploy.models.card_page import deployed_columns, deployed_rows
from pspike_deploy.report.chip_rows import feasibility_rows
from pspike_deploy.report.energy_text import interval


def export_table(summary: Mapping[str, Any]) -> Table:
    """The short table at the end of an export."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    network, quantization = summary["network"], summary["quantization"]
    table.add_row("network", f"{network['parameters']:,} parameters, {network['digest'][:16]}…")
    if network["offline"]:
        table.add_row("offline", "whole sequences are buffered; no streaming target can run this")
    for warning in summary["warnings"]:
        table.add_row("warning", f"[yellow]{warning}[/yellow]")
    table.add_row(
        "integers",
        f"{quantization['weight_bits']}-bit weights, {quantization['state_bits']}-bit states, "
        f"{quantization['noise_bits']}-bit noise, {quantization['overflows']} overflows",
    )
    for number, (name, layer) in enumerate(summary["ssm_order"].items()):
        table.add_row("" if number else "SSM order", _order(name, layer))
    table.add_row("calibration", summary["calibration"])
    table.add_row("accuracy", _accuracy(summary["accuracy"]))
    if summary["lava"] is not None:
        table.add_row("Lava", _lava(summary["lava"]))
    if summary.get("loihi") is not None:
        for number, (what, value) in enumerate(feasibility_rows(summary)):
            table.add_row("" if number else "Loihi", f"{what}: {value}")
    if (summary.get("energy") or {}).get("chips"):
        for number, words in enumerate(_energy(summary["energy"])):
            table.add_row("" if number else "energy", words)
    if summary.get("core") is not None:
        table.add_row("core NIR", _core(summary["core"]))
    if summary.get("onnx") is not None:
        table.add_row("ONNX", _onnx(summary["onnx"]))
    verification = summary["verification"]
    if "T0" in verification["tests"]:
        table.add_row(
            "probabilities",
            f"|p - q| at most {verification['max_abs_dp']:.2g}, "
            f"mean {verification['mean_abs_dp']:.2g}; "
            f"{verification['coupled_mismatches']} of the spikes differ under common noise, "
            f"{verification['expected_mismatches']:.1f} expected",
        )
    for number, layer in enumerate(verification["layer_rates"]):
        table.add_row(
            "" if number else "rates",
            f"{layer['node']}: float {layer['rate']:.4f}, integer {layer['integer_rate']:.4f} per "
            f"step; {100 * layer['flips'] / layer['spikes']:.2f} % of the steps differ",
        )
    colour = {"equivalent": "green", "different": "red"}.get(verification["verdict"], "yellow")
    tests = ", ".join(verification["tests"])
    table.add_row("verdict", f"[{colour}]{verification['verdict']}[/{colour}] ({tests})")
    for reason in verification["reasons"]:
        table.add_row("", reason)
    for warning in verification["warnings"]:
        table.add_row("warning", f"[yellow]{warning}[/yellow]")
    return table


def _order(name: str, layer: Mapping[str, Any]) -> str:
    effect = layer["effect"]
    shift = f"|v - v'| at most {effect['max_abs_dv']:.2g} (bound {layer['membrane_bound']:.2g})"
    if effect["mean_abs_dp"] is not None:
        shift += f", |p - p'| {effect['max_abs_dp']:.2g}, mean {effect['mean_abs_dp']:.2g}"
    return f"{name}: {layer['states']} of {layer['states_before']} states per neuron; {shift}"


def _accuracy(accuracy: Mapping[str, Any]) -> str:
    runs = f"{accuracy['samples']} samples, {accuracy['draws']} draws"
    if accuracy["agreement"] is None:  # there is no float network
        labelled = accuracy["integer"] is not None
        return f"{_share(accuracy, 'integer') if labelled else 'no labels'} ({runs})"
    agreement = f"predictions agree on {100 * accuracy['agreement']:.2f} %"
    if accuracy["float"] is None:
        return f"no labels; {agreement} ({runs})"
    sides = f"{_share(accuracy, 'float')}, {_share(accuracy, 'integer')}"
    return f"{sides}; {agreement} ({runs})"


def _share(accuracy: Mapping[str, Any], kind: str) -> str:
    spread = accuracy[f"{kind}_std"]
    error = "" if spread is None else f" ± {100 * spread:.2f}"
    return f"{kind} {100 * accuracy[kind]:.2f}{error} %"


def _energy(energy: Mapping[str, Any]) -> Iterator[str]:
    """The whole chip's energy per inference, chip by chip."""
    for name, chip in energy["chips"].items():
        yield (
            f"{name}: {interval(chip['energy_J']['chip'], 'J')} per inference with its x86 "
            f"processors, {chip['label']}"
        )


def _core(core: Mapping[str, Any]) -> str:
    if not core["written"]:
        first, *more = core["refused"]
        others = f" ({len(more)} more in core.refused.json)" if more else ""
        return f"[yellow]none[/yellow]: {first['node']}: {first['reason']}{others}"
    return (
        f"core.nir, {core['nodes']} nodes, {core['lanes']} input lanes; core_inputs.npz with "
        f"{core['samples']} samples x {core['steps']} steps and {core['spikes']:,} expected spikes"
    )


def _lava(lava: Mapping[str, Any]) -> str:
    state = "[green]bit-exact[/green]" if lava["bit_exact"] else "[red]not bit-exact[/red]"
    return (
        f"{state}: {lava['mismatches']} mismatches in {lava['spikes']:,} spikes and all graded "
        f"values, {lava['samples']} samples x {lava['steps']} steps, {lava['seconds']:.1f} s"
    )


def _onnx(onnx: Mapping[str, Any]) -> str:
    written = f"opset {onnx['opset']}, {onnx['operators']} operators per step"
    if onnx["why_not_run"]:
        return f"{written}; [yellow]not run[/yellow]: {onnx['why_not_run']}"
    state = "[green]bit-exact[/green]" if onnx["bit_exact"] else "[red]not bit-exact[/red]"
    text = (
        f"{state}: {onnx['mismatches']} mismatches in {onnx['values']:,} integers, "
        f"{onnx['samples']} samples x {onnx['steps']} steps; {written}"
    )
    real = onnx["float"]
    if real is None:
        return text
    return (
        f"{text}; float: {real['spike_flips']} of {real['spikes']:,} spikes differ, outputs by at "
        f"most {real['output_max_error']:.2g}"
    )


def inspection_table(description: Mapping[str, Any]) -> Table:
    """Nodes of a graph, one row each."""
    table = Table(title=None, box=None, pad_edge=False)
    for column in ("node", "type", "output", "parameters", "states", "format"):
        right = column in ("parameters", "states")
        table.add_column(column, justify="right" if right else "left", no_wrap=column == "node")
    for row in description["nodes"]:
        table.add_row(
            row["name"],
            row["type"],
            " x ".join(map(str, row["output_shape"])),
            f"{row['parameters']:,}",
            f"{row['states']:,}" if row["states"] else "",
            row["format"] or "",
        )
    return table


def loss_table(rows: Sequence[Mapping[str, str]]) -> Table:
    """What readers of a file of plain NIR will not know, one row per field."""
    table = Table(title="other readers will not know", title_justify="left", box=None)
    for column in ("field", "value", "meaning"):
        table.add_column(column, no_wrap=column != "meaning")
    for row in rows:
        table.add_row(row["field"], row["value"], row["meaning"])
    return table


def comparison_table(comparison: Mapping[str, Any]) -> Table:
    """Per-node metrics of a comparison."""
    table = Table(box=None, pad_edge=False)
    for column in ("node", "exact", "mismatches", "spike flips", "max error", "mean error"):
        table.add_column(column, justify="left" if column == "node" else "right", no_wrap=True)
    for row in comparison["nodes"]:
        table.add_row(
            row["node"],
            f"{100 * row['exact_share']:.4g} %",
            f"{row['mismatches']:,}",
            "" if row["spike_flips"] is None else f"{row['spike_flips']:,}",
            f"{float(row['max_error']):.3g}",
            f"{float(row['mean_error']):.3g}",
        )
    return table


def plain_console(*, stderr: bool = False) -> Console:
    """Console for tables; wide enough for them where the output is no terminal."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, width=160)
    return console


def deployed_table(deployed: Mapping[str, Any]) -> Table:
    """The networks of a card: accuracies, losses and overflows."""
    table = Table(box=None, pad_edge=False)
    table.add_column("network", style="bold", no_wrap=True)
    for head in deployed_columns(deployed):
        table.add_column(head, justify="right")
    for cells in deployed_rows(deployed):
        table.add_row(*cells)
    return table
