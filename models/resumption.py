"""Trainings that go on after an interruption: a file that holds all that the rest depends on."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pspike_deploy.atomic import write_file
from pspike_deploy.errors import PspikeError
from pspike_deploy.models.archive import load_plain


@dataclass(frozen=True)
class Resumption:
    """The file from which a training goes on.

    Attributes:
        path: the file; None: nothing is kept.
        made_by: plain data that say which training this is; another one does not go on from it.
    """

    path: Path | None
    made_by: Mapping[str, Any]

    def load(self, restore: Callable[[dict[str, Any]], None]) -> bool:
        """Give the kept state to ``restore``; False where there is none.

        Raises:
            PspikeError: ``E-CHECKPOINT-FORMAT`` for a damaged file or one of another training, and
                what :func:`~pspike_deploy.models.archive.load_plain` raises.
        """
        if self.path is None or not self.path.exists():
            return False
        content, _ = load_plain(self.path)
        try:
            if not isinstance(content, dict) or content["made_by"] != self._identity():
                raise ValueError("other settings, another seed or another torch made it")
            restore(content["state"])
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise PspikeError(
                "E-CHECKPOINT-FORMAT",
                "the training cannot go on from this file",
                why=f"{type(error).__name__}: {error}",
                fix="delete it to start over, or give the settings that it was made with",
                where=str(self.path),
            ) from error
        return True

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file; it appears whole, or stays as it was."""
        if self.path is None:
            return
        stream = io.BytesIO()
        torch.save({"made_by": self._identity(), "state": dict(state)}, stream)
        write_file(self.path, stream.getvalue())

    def _identity(self) -> dict[str, Any]:
        return {**self.made_by, "torch": str(torch.__version__)}
