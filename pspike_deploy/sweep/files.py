"""The files that a finished sweep leaves in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pspike_deploy.artefacts import to_json
from pspike_deploy.atomic import write_file
from pspike_deploy.report.sweep import PICTURE, csv_text, markdown
from pspike_deploy.report.sweep_picture import picture


def write_files(document: Mapping[str, Any], folder: Path) -> list[str]:
    """Write ``sweep.json``, ``.csv``, ``.md`` and ``.svg``.

    Returns:
        Names of the files.

    Raises:
        PspikeError: E-OUT-DISK-FULL, E-OUT-UNWRITABLE.
    """
    files = {
        "sweep.json": to_json(document),
        "sweep.csv": csv_text(document),
        "sweep.md": f"# Sweep of {document['model']['name']}\n\n{markdown(document)}",
        PICTURE: picture(document),
    }
    for name, text in files.items():
        write_file(folder / name, text.encode("utf-8"))
    return list(files)
