"""``pspike card``: the card of a network, with what its integers lose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pspike_deploy.commands.common import AsJson, Quiet, print_result, reported_errors


def card(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="network that 'pspike train' made (.pt)")
    ],
    data: Annotated[
        Path | None, typer.Option(help="your copy of a data set that is not packaged, .npz")
    ] = None,
    finetuned: Annotated[
        Path | None, typer.Option(help="graph that 'pspike finetune' made of it (.nir)")
    ] = None,
    draws: Annotated[int, typer.Option(help="repetitions with other noise", min=1)] = 5,
    force: Annotated[
        bool, typer.Option("--force", help="replace a card of another checkpoint")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure a trained network as float and as integers on its test set; writes its card.

    An interrupted measurement goes on where it was when the command is given again.
    """
    with reported_errors(as_json, interrupted="finished runs are kept for the same command"):
        from pspike_deploy.deployed_card import CardOptions, write_card
        from pspike_deploy.report.progress import counted
        from pspike_deploy.report.tables import deployed_table

        options = CardOptions(checkpoint, data, finetuned, draws, force)
        with counted("Measuring", quiet=quiet) as progress:
            facts = write_card(options, progress)
        print_result(facts, deployed_table(facts["deployed"]), as_json=as_json, quiet=quiet)
