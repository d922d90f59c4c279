"""``pspike report``: the report of an export, again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pspike_deploy.commands.common import AsJson, print_json, reported_errors


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="folder that 'pspike-export' made")
    ],
    out: Annotated[
        Path | None, typer.Option(help="file to write; default: report.html in the folder")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of an export again, as one HTML page; replaces the one before."""
    with reported_errors(as_json):
        from pspike_deploy.folder_report import write_folder_report

        written = write_folder_report(folder, out)
        if as_json:
            print_json({"report": str(written)})
        else:
            typer.echo(f"report in {written}", err=True)
