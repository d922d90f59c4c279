"""``pspike conformance``: what other readers of NIR compute from our files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pspike_deploy.commands.common import AsJson, Quiet, print_result, reported_errors
from pspike_deploy.errors import EXIT_NEGATIVE, PspikeError


def conformance(
    reader: Annotated[
        list[str] | None,
        typer.Option(
            help="nirtorch, nirtorch_alone, snntorch, norse, spikingjelly or sinabs; may be given "
            "several times; default: all"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file to write the measured rows to")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run encodings and whole networks in other readers of NIR. Exit status 1 if one must agree
    and does not.

    Each reader gets an environment of its own in the cache, about 1 GB, on its first use.
    """
    with reported_errors(as_json):
        from pspike_deploy.artefacts import write_json
        from pspike_deploy.conformance.measure import measure
        from pspike_deploy.conformance.readers import READERS
        from pspike_deploy.conformance.table import conformance_table

        unknown = sorted(set(reader or ()) - set(READERS))
        if unknown:
            raise PspikeError(
                "E-USAGE",
                f"there is no reader {', '.join(map(repr, unknown))}",
                why=f"there are: {', '.join(READERS)}",
                fix="choose one of these with --reader",
            )

        def tell(message: str) -> None:
            if not quiet:
                typer.echo(message, err=True)

        found = measure([r for r in READERS if r in (reader or READERS)], progress=tell)
        if out is not None:
            write_json(out, found.to_dict())
        print_result(found.to_dict(), conformance_table(found), as_json=as_json, quiet=quiet)
        raise typer.Exit(EXIT_NEGATIVE if found.fails else 0)
