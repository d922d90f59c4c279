"""``pspike sweep``: accuracy in every cell of a grid of widths."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pspike_deploy.commands.common import (
    AsJson,
    Data,
    Labels,
    Model,
    Overflow,
    Quiet,
    Seed,
    Settings,
    print_result,
    reported_errors,
)
from pspike_deploy.errors import PspikeError


def sweep(
    model: Model,
    out: Annotated[
        Path | None,
        typer.Option(help="folder of the results; cells that lie there are not run again"),
    ] = None,
    data: Data = None,
    labels: Labels = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="samples that ranges are measured on; default: training split or data"),
    ] = None,
    settings: Settings = None,
    weight_bits: Annotated[str, typer.Option(help="bits of a synaptic weight")] = "8,6,4,3,2",
    state_bits: Annotated[str, typer.Option(help="bits of a state")] = "24,16,12",
    noise_bits: Annotated[str, typer.Option(help="random bits per draw")] = "16,8",
    coefficient_bits: Annotated[
        str, typer.Option(help="bits of decays, read-outs and gains")
    ] = "16",
    ssm_states: Annotated[
        str | None,
        typer.Option(help="real states per neuron of a diagonal SSM, or auto; default: all"),
    ] = None,
    overflow: Overflow = "saturate",
    samples: Annotated[
        int | None, typer.Option(help="samples, from the first; default: all", min=1)
    ] = None,
    draws: Annotated[int, typer.Option(help="repetitions with other noise", min=1)] = 3,
    seed: Seed = 0,
    jobs: Annotated[
        int | None, typer.Option(help="processes; default: one per processor", min=1)
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure accuracy for all combinations of widths, each of which may be a list like 8,4,2.

    An interrupted sweep goes on where it was when the command is given again.
    """
    with reported_errors(as_json, interrupted="finished cells are kept for the same command"):
        from pspike_deploy.quantize.config import QuantConfig
        from pspike_deploy.report.progress import counted
        from pspike_deploy.report.sweep import caption, grid_table
        from pspike_deploy.sweep.files import write_files
        from pspike_deploy.sweep.grid import Grid
        from pspike_deploy.sweep.sweep import SweepOptions
        from pspike_deploy.sweep.sweep import sweep as measure_all

        lists = {
            "weight_bits": weight_bits,
            "state_bits": state_bits,
            "noise_bits": noise_bits,
            "coefficient_bits": coefficient_bits,
            "ssm_states": ssm_states,
        }
        axes = {name: _values(name, text) for name, text in lists.items() if text is not None}
        options = SweepOptions(
            model=model,
            out=out or Path(f"{model.stem}-sweep"),
            grid=Grid(axes, QuantConfig(overflow=overflow)),  # type: ignore[arg-type]  # checked
            data=data,
            labels=labels,
            calibration=calibration,
            samples=samples,
            draws=draws,
            seed=seed,
            jobs=jobs,
            settings=settings,
        )
        start = time.monotonic()
        with counted("Measuring", quiet=quiet) as progress:
            document = measure_all(options, progress)
        files = write_files(document, options.out)
        print_result(document, grid_table(document), as_json=as_json, quiet=quiet)
        if quiet:
            return
        typer.echo(caption(document), err=True)
        seconds, cells = time.monotonic() - start, len(document["cells"])
        typer.echo(
            f"{cells} cells in {seconds:.0f} s; {', '.join(files)} in {options.out}", err=True
        )


def _values(name: str, text: str) -> tuple[int | str, ...]:
    """The numbers of a list like ``8,4,2``, in which an order may be ``auto``."""
    try:
        return tuple(
            part.strip() if name == "ssm_states" and part.strip() == "auto" else int(part)
            for part in text.split(",")
        )
    except ValueError:
        raise PspikeError(
            "E-USAGE",
            f"--{name.replace('_', '-')} {text!r} is no list of numbers",
            fix="give whole numbers with commas between them, for instance 8,4,2",
        ) from None
