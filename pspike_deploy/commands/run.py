"""``pspike simulate``, ``compare`` and ``replay``: run graphs and compare what they do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pspike_deploy.commands.common import (
    AsJson,
    Data,
    Device,
    Offline,
    Quiet,
    ReadingText,
    Seed,
    Settings,
    StepLength,
    print_json,
    print_result,
    reported_errors,
)
from pspike_deploy.errors import EXIT_NEGATIVE

if TYPE_CHECKING:
    from pspike_deploy.verify.divergence import Comparison


def simulate(
    graph: Annotated[
        Path,
        typer.Argument(
            metavar="GRAPH",
            help="graph (.nir, .net) or checkpoint (.pt, .pth)",
        ),
    ],
    out: Annotated[Path, typer.Option(help="recording to write (.npz, or .h5 for NIR data)")],
    data: Data = None,
    settings: Settings = None,
    offline: Offline = False,
    reading: ReadingText = None,
    dt: StepLength = None,
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
        from pspike_deploy.foreign.reading import reading_of
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
            reading=reading_of(reading, dt),
        )
        print_json(facts) if as_json else typer.echo(
            f"{facts['samples']} samples recorded in {out}"
        )


_SUBJECT = (
    "checkpoint, graph (.nir), export folder, Lava bundle, recording (.npz) or NIR data (.h5); "
    "BACKEND:GRAPH chooses the simulator, MODEL@PASS the graph behind a pass"
)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=_SUBJECT)],
    b: Annotated[str, typer.Argument(metavar="B", help="the same")],
    data: Data = None,
    samples: Annotated[
        int | None,
        typer.Option(help="number of samples; default: all of a recording, else 20", min=1),
    ] = None,
    draw: Annotated[
        int, typer.Option(help="number of the repetition, where no recording tells it", min=0)
    ] = 0,
    seed: Annotated[
        int, typer.Option(help="seed of the noise, where no recording tells it", min=0)
    ] = 0,
    noise: Annotated[
        str, typer.Option(help="generator, where no recording tells it: philox, lfsr:… or lcg:…")
    ] = "philox",
    tolerance: Annotated[
        float | None,
        typer.Option(help="largest difference of two float runs; default: 0, of two graphs 1e-9"),
    ] = None,
    dt: Annotated[
        float | None, typer.Option(help="length of a step in a NIR data file with events")
    ] = None,
    device: Device = "auto",
    settings: Settings = None,
    offline: Offline = False,
    graph: Annotated[
        Path | None,
        typer.Option(help="integer graph (.nir) that made the recordings; for --replay"),
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="write the one differing neuron as a replay case (.npz)")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Name the first sample, step, node, neuron and bit at which two things differ."""
    with reported_errors(as_json):
        from pspike_deploy.comparing import CompareOptions, compare_subjects
        from pspike_deploy.report.progress import StageProgress
        from pspike_deploy.report.tables import comparison_table
        from pspike_deploy.subjects import Opening

        options = CompareOptions(
            opening=Opening(settings, data, device, offline, dt),
            samples=samples,
            draw=draw,
            seed=seed,
            noise=noise,
            tolerance=tolerance,
            graph=graph,
            replay=replay,
        )
        with StageProgress(quiet=quiet) as watcher:
            result = compare_subjects(a, b, options, watcher)
        document = result.to_dict()
        print_result(document, comparison_table(document), as_json=as_json, quiet=quiet)
        if not as_json:
            typer.echo("\n".join([*result.notes, result.sentence, *_expressions(result)]))
        raise typer.Exit(0 if result.equal else EXIT_NEGATIVE)


def _expressions(result: Comparison) -> list[str]:
    """What both sides compute at the first divergence, one line each."""
    if result.first_divergence is None:
        return []
    texts = zip("AB", result.first_divergence.expressions, strict=True)
    return [f"  {side}: {text}" for side, text in texts if text is not None]


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
