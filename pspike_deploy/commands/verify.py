"""``pspike verify``: the verdict on a device, in distribution."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pspike_deploy.commands.common import (
    AsJson,
    Data,
    Device,
    Labels,
    Quiet,
    Seed,
    Settings,
    print_json,
    reported_errors,
)
from pspike_deploy.errors import EXIT_INCONCLUSIVE, EXIT_NEGATIVE


def verify(
    a: Annotated[
        Path,
        typer.Argument(
            metavar="A", help="what is right: checkpoint, graph (.nir), folder of an export"
        ),
    ],
    b: Annotated[
        str | None,
        typer.Argument(
            metavar="B",
            help="what is judged: checkpoint, graph, folder of an export, Lava bundle, recording; "
            "default: the integer graph of the folder A, or A quantised with the default widths",
        ),
    ] = None,
    data: Data = None,
    labels: Labels = None,
    settings: Settings = None,
    samples: Annotated[
        int | None,
        typer.Option(help="samples to run; default: as many as decide most cases", min=1),
    ] = None,
    margin: Annotated[
        str | None,
        typer.Option(
            help="largest shift of a rate in spikes per step, or 'task': the shift that moves the "
            "accuracy by 0.1 point; default: the larger of 0.005 and 5 % of each rate"
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(help="chance of any false alarm")] = 0.01,
    noise: Annotated[
        str | None,
        typer.Option(
            help="B draws noise of its own, for instance lfsr:width=16,taps=0xB400,shifts=1,"
            "sharing=core; default: the uniform numbers of A"
        ),
    ] = None,
    fault: Annotated[
        str | None,
        typer.Option(
            metavar="<fault>[@<node>]",
            help="plant a fault in B, to see that it is found; 'list' names all",
        ),
    ] = None,
    outputs_only: Annotated[
        bool, typer.Option("--outputs-only", help="judge spikes and scores from outside only")
    ] = False,
    sequential: Annotated[
        bool,
        typer.Option("--sequential", help="run sample by sample and stop when it is decided"),
    ] = False,
    memory: Annotated[
        str, typer.Option(help="budget for runs and kept draws, for instance 500M or 2G")
    ] = "1G",
    draw: Annotated[int, typer.Option(help="number of the repetition", min=0)] = 0,
    out: Annotated[
        Path | None, typer.Option(help="folder for verification.json and report.html")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="replace an existing verification")
    ] = False,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say whether B samples the same spikes as A, in distribution: equivalent, different (exit
    status 1) or inconclusive (exit status 5)."""
    with reported_errors(as_json):
        from pspike_deploy.report.progress import StageProgress
        from pspike_deploy.report.tables import plain_console
        from pspike_deploy.report.verification_tables import (
            sequential_table,
            verdict_lines,
            verification_table,
        )
        from pspike_deploy.verify_files import VerifyRequest, verify_files

        if fault == "list":
            _list_faults(as_json)
            raise typer.Exit(0)

        request = VerifyRequest(
            a=a,
            b=b,
            data=data,
            labels=labels,
            settings=settings,
            samples=samples,
            margin=margin,
            alpha=alpha,
            noise=noise,
            fault=fault,
            outputs_only=outputs_only,
            sequential=sequential,
            memory=memory,
            draw=draw,
            out=out,
            force=force,
            device=device,
            seed=seed,
        )
        with StageProgress(quiet=quiet) as progress:
            result = verify_files(request, progress)
        document = result.to_dict()
        if as_json:
            print_json(document)
        elif not quiet:
            console = plain_console()
            if sequential:
                console.print(sequential_table(document))
                console.print()
                console.print(result.sentence, markup=False)
            else:
                console.print(verification_table(document))
                console.print()
                for line in verdict_lines(document):
                    console.print(line)
        status = {"equivalent": 0, "different": EXIT_NEGATIVE}
        raise typer.Exit(status.get(result.verdict, EXIT_INCONCLUSIVE))


def _list_faults(as_json: bool) -> None:
    """Names and descriptions of the faults that can be planted."""
    from pspike_deploy.simulators.faults import FAULTS

    if as_json:
        print_json({name: fault.description for name, fault in FAULTS.items()})
        return
    width = max(map(len, FAULTS))
    for name, fault in FAULTS.items():
        typer.echo(f"{name:{width}}  {fault.description}")
