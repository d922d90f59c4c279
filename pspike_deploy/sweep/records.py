"""Finished measurements of a sweep, as JSON lines: what is there is not computed again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import pspike_deploy
from pspike_deploy.atomic import readable_os_errors, write_file
from pspike_deploy.quantize.config import QuantConfig
from pspike_deploy.sweep.measure import Subject

#: File of the records in the folder of a sweep; a folder is recognised by it.
RECORDS: Final = "records.jsonl"


class Records:
    """Measurements by key, in a file that is whole at any moment.

    A line that is no record, as after a change by hand, counts as not there. Records of other
    networks, data or options are kept: they may be asked for again.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORDS
        self._records: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            for line in self._path.read_text("utf-8", errors="replace").splitlines():
                self._read(line)

    def _read(self, line: str) -> None:
        try:
            record = json.loads(line)
            result = record["result"]
            whole = "error" in result or (len(result["hits"]) > 0 and "overflows" in result)
            if whole:
                self._records[str(record["key"])] = record
        except (ValueError, KeyError, TypeError):
            return

    def get(self, key: str) -> dict[str, Any] | None:
        """The measurement of a key, or None."""
        record = self._records.get(key)
        return None if record is None else dict(record["result"])

    def add(self, key: str, config: QuantConfig | None, result: dict[str, Any]) -> None:
        """Store a measurement; the folder is made with the first one.

        Raises:
            PspikeError: E-OUT-DISK-FULL, E-OUT-UNWRITABLE.
        """
        options = None if config is None else config.to_dict()
        self._records[key] = {"key": key, "config": options, "result": result}
        lines = (json.dumps(record, sort_keys=True) for record in self._records.values())
        with readable_os_errors(self._path.parent):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        write_file(self._path, "".join(f"{line}\n" for line in lines).encode("utf-8"))


def record_key(subject: Subject, config: QuantConfig | None) -> str:
    """SHA-256 of everything that a measurement depends on; ``config`` is None for the float one."""
    options = None if config is None else config.to_dict()
    content = json.dumps([pspike_deploy.__version__, subject.digest, options], sort_keys=True)
    return hashlib.sha256(content.encode("utf-8")).hexdigest()
