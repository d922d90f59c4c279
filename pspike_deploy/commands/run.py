"""``pspike simulate``, ``compare`` and ``replay``: run graphs and compare recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pspike_deploy.commands.common import (
    AsJson,
    Data,
    Device,
    Offline,
    Seed,
    Settings,
    print_json,
    print_result,
    reported_errors,
)
from pspike_deploy.errors import EXIT_NEGATIVE


def simulate(
    graph: Annotated[
        Path, typer.Argument(metavar="GRAPH", help="graph (.nir) or checkpoint (.pt, .pth)")
    ],
    out: Annotated[Path, typer.Option(help="recording to write (.npz)")],
    data: Data = None,
    settings: Settings = None,
    offline: Offline = False,
    backend: Annotated[
        str, typer.Option(help="reference, fixed-point, interpreter or lava")
    ] = "fixed-point",
    samples: Annotated[int | None, typer.Option(help="number of samples; default: all")] = None,
    draw: Annotated[int, typer.Option(help="number of the repetition", min=0)] = 0,
    device: Device = "auto",
    seed: Seed = 0,
    noise: Annotated[
        str,
        typer.Option(
            help="philox, or a poor generator as on a chip: lfsr:width=16,taps=0xB400,shifts=1,"
            "sharing=core or lcg:byte=low"
        ),
    ] = "philox",
    as_json: AsJson = False,
) -> None:
    """Run a graph on data and write a recording."""
    with reported_errors(as_json):
        from pspike_deploy.runs import simulate_file

        facts = simulate_file(
            graph,
            data,
            out,
            backend,
            samples=samples,
            draw=draw,
            seed=seed,
            noise=noise,
            device=device,
            settings=settings,
            offline=offline,
        )
        print_json(facts) if as_json else typer.echo(
            f"{facts['samples']} samples recorded in {out}"
        )


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="recording (.npz)")],
    b: Annotated[Path, typer.Argument(metavar="B", help="recording (.npz)")],
    graph: Annotated[
        Path | None, typer.Option(help="the integer graph (.nir) that ran; for --replay")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="write the one differing neuron as a replay case (.npz)")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Name the first step, node, neuron and bit at which two recordings differ."""
    with reported_errors(as_json):
        from pspike_deploy.report.tables import comparison_table
        from pspike_deploy.runs import compare_files

        result = compare_files(a, b, graph, replay)
        document = result.to_dict()
        print_result(document, comparison_table(document), as_json=as_json)
        if not as_json:
            typer.echo("\n".join([*result.notes, result.sentence]))
        raise typer.Exit(0 if result.equal else EXIT_NEGATIVE)


def replay(
    case: Annotated[Path, typer.Argument(metavar="CASE", help="replay case (.npz)")],
    as_json: AsJson = False,
) -> None:
    """Compute the one neuron of a replay case again, and say which side is right."""
    with reported_errors(as_json):
        from pspike_deploy.verify.replay import run_replay

        result = run_replay(case)
        if as_json:
            print_json(result.to_dict())
        else:
            typer.echo(
                f"node {result.node}, neuron {result.neuron}: "
                f"the interpreter agrees with {result.agrees_with}"
            )
