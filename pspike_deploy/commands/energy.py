"""``pspike energy``: GPU against neuromorphic, with ranges and where they come from."""

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
    print_result,
    reported_errors,
)


def energy(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="checkpoint (.pt, .pth), graph (.nir, .net), or the folder of an export",
        ),
    ],
    data: Data = None,
    labels: Labels = None,
    settings: Settings = None,
    profile: Annotated[str, typer.Option(help="chip: loihi1, loihi2 or all")] = "all",
    samples: Annotated[
        int, typer.Option(help="samples whose activity is counted, from the first", min=1)
    ] = 128,
    gpu: Annotated[
        str | None,
        typer.Option(help="GPUs to model, of V100,A100,H100,OrinNano; default: A100,OrinNano"),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="measure the network on this machine, too: NVML or RAPL, at least a minute",
        ),
    ] = False,
    batch: Annotated[int, typer.Option(help="samples at once in --measure", min=1)] = 1,
    step_time: Annotated[
        float | None, typer.Option(help="measured time of a chip's step in µs; default: modelled")
    ] = None,
    throttled: Annotated[
        bool, typer.Option("--throttled", help="a step of the chip takes at least 1 ms")
    ] = False,
    board_power: Annotated[
        float | None, typer.Option(help="measured power of the board without its chips in W")
    ] = None,
    draws: Annotated[int | None, typer.Option(help="of the Monte-Carlo", min=1)] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder to make, with energy.json and report.html")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an existing folder")] = False,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Estimate what an inference takes on Loihi and on a GPU: intervals, never one number.

    For the folder of an export, energy.json and the report there are written anew.
    """
    with reported_errors(as_json):
        from pspike_deploy.energy_files import EnergyRequest, energy_of_file
        from pspike_deploy.report.energy_tables import energy_tables
        from pspike_deploy.report.progress import StageProgress

        request = EnergyRequest(
            model=model,
            data=data,
            labels=labels,
            settings=settings,
            samples=samples,
            profile=profile,
            gpus=None if gpu is None else tuple(name.strip() for name in gpu.split(",")),
            measure=measure,
            batch=batch,
            device=device,
            throttled=throttled,
            step_time=step_time,
            board_power=board_power,
            draws=draws,
            seed=seed,
            out=out,
            force=force,
        )
        with StageProgress(quiet=quiet) as watcher:
            document = energy_of_file(request, watcher)
        print_result(document, energy_tables(document), as_json=as_json, quiet=quiet)
