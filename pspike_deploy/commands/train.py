"""``pspike train``: train a network of the zoo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pspike_deploy.commands.common import AsJson, Quiet, Seed, print_json, reported_errors


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="name of a training recipe")],
    data: Annotated[
        Path | None,
        typer.Option(help="your copy of a data set that is not packaged, folder or .npz"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="folder to write to; default: models/zoo if it exists, else ."),
    ] = None,
    held_out_speakers: Annotated[
        bool,
        typer.Option(
            "--held-out-speakers", help="also train without each speaker, and test on that one"
        ),
    ] = False,
    epochs: Annotated[int | None, typer.Option(help="epochs; default: the recipe's", min=1)] = None,
    seed: Seed = 0,
    resume: Annotated[
        Path | None,
        typer.Option(help="file that keeps the training after every epoch, to go on from"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an existing checkpoint")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a network of the zoo and write its checkpoint and its card."""
    left = "nothing was left behind" if resume is None else f"{resume} keeps what is finished"
    with reported_errors(as_json, interrupted=left):
        from pspike_deploy.training import train_to_file

        facts = train_to_file(
            recipe,
            out,
            data=data,
            held_out_speakers=held_out_speakers,
            epochs=epochs,
            seed=seed,
            resume=resume,
            force=force,
            quiet=quiet,
        )
        if as_json:
            print_json(facts)
        elif not quiet:
            accuracy = facts["accuracy"]
            spread = ""
            if accuracy["draws"] > 1:
                spread = f" ± {100 * accuracy['std']:.2f} % over {accuracy['draws']} draws"
            mean = f"{100 * accuracy['mean']:.2f}" + ("" if spread else " %")
            typer.echo(f"{facts['file']['name']}: test accuracy {mean}{spread}")
