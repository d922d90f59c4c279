"""Readers of NIR in environments of their own; their pins conflict with each other."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pspike_deploy.atomic import write_file
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.nir.variants import BRIDGE_DT, write_variant
from pspike_deploy.graph.core import CoreGraph
from pspike_deploy.signals import signals_deferred
from pspike_deploy.simulators.environments import locked, run_tool
from pspike_deploy.simulators.lava.cache import environments_folder, package_file, python_in
from pspike_deploy.simulators.lava.interpreters import clean_environment, running_python
from pspike_deploy.simulators.lava.process_group import run_watched

#: Readers, each with its environment and what a table calls it.
READERS: Final[dict[str, tuple[str, str]]] = {
    "nirtorch": ("nirtorch", "nirtorch, maps of ours"),
    "nirtorch_alone": ("nirtorch", "nirtorch, its own maps"),
    "snntorch": ("snntorch", "snnTorch"),
    "norse": ("norse", "Norse"),
    "spikingjelly": ("spikingjelly", "spikingjelly"),
    "sinabs": ("sinabs", "sinabs"),
}
_PACKAGE: Final = "pspike_deploy.exporters.nir"
_PROGRAM: Final = "run_reader.py"
_COMPLETE: Final = "complete"
_TIME_LIMIT_S: Final = 900.0
_OUTPUT_LIMIT: Final = 2**24


@dataclass(frozen=True, eq=False)
class Job:
    """A file for a reader, and its input (sample, step, lane) float32."""

    core: CoreGraph
    inputs: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a reader did with a file: its output (sample, step, value), or why it has none."""

    output: npt.NDArray[np.float64] | None
    refused: str = ""


def run_jobs(
    reader: str, jobs: Sequence[Job], progress: Callable[[str], None] = lambda _message: None
) -> tuple[list[Answer], dict[str, str]]:
    """Answers of a reader, in the order of the jobs, and versions of the packages that gave them.

    The environment is made where it is missing.

    Args:
        reader: key of :data:`READERS`.
        jobs: files and inputs.
        progress: called with a sentence at each stage.

    Raises:
        PspikeError: E-READER-SETUP, E-READER-RUN.
    """
    python = reader_python(READERS[reader][0], progress)
    with TemporaryDirectory(prefix="pspike-reader-") as name:
        folder = Path(name)
        listed = [_write(job, folder / f"{i:03d}") for i, job in enumerate(jobs)]
        (folder / "jobs.json").write_text(json.dumps(listed))
        shutil.copy(package_file(_PACKAGE, _PROGRAM), folder)
        ending = run_watched(
            [python, "-I", _PROGRAM, reader, "jobs.json"],
            folder=folder,
            environment=clean_environment(),
            stdout=folder / "stdout.txt",
            stderr=folder / "stderr.txt",
            time_limit_s=_TIME_LIMIT_S,
            output_limit=_OUTPUT_LIMIT,
        )
        answers = [_answer(Path(one["output"]), ending.stopped) for one in listed]
        if ending.status != 0 and ending.stopped is None:
            raise _run_error(reader, (folder / "stderr.txt").read_text(errors="replace"))
        versions = json.loads((folder / "versions.json").read_text())
    return answers, {str(k): str(v) for k, v in versions.items()}


def _write(job: Job, stem: Path) -> dict[str, Any]:
    write_variant(job.core, stem.with_suffix(".nir"))
    np.save(stem.with_suffix(".in.npy"), job.inputs)
    return {
        "file": str(stem.with_suffix(".nir")),
        "inputs": str(stem.with_suffix(".in.npy")),
        "output": str(stem.with_suffix(".out.npy")),
        "dt": BRIDGE_DT,
    }


def _answer(output: Path, stopped: str | None) -> Answer:
    refused = output.with_name(f"{output.name}.refused")
    if refused.exists():
        return Answer(None, refused.read_text("utf-8"))
    if not output.exists():
        return Answer(None, f"did not end within {_TIME_LIMIT_S:g} s" if stopped else "no answer")
    return Answer(np.load(output, allow_pickle=False))


# --- environments -----------------------------------------------------------------------------


def reader_python(name: str, progress: Callable[[str], None] = lambda _message: None) -> Path:
    """The Python of a reader's environment, which is made where it is missing.

    Args:
        name: environment, one of those in :data:`READERS`.
        progress: called with a sentence at each stage.

    Raises:
        PspikeError: E-READER-SETUP.
    """
    digest = hashlib.sha256(_requirements(name).read_bytes()).hexdigest()[:16]
    version = f"py{sys.version_info.major}.{sys.version_info.minor}"
    folder = environments_folder().with_name("readers") / f"{name}-{version}-{digest}"
    python = python_in(folder)
    lock_file = folder.with_name(f"{folder.name}.lock")
    with locked(lock_file, progress, _setup_error) as lock, signals_deferred():
        if (folder / _COMPLETE).exists() and python.exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _install(name, folder, lock, progress)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return python


def _requirements(name: str) -> Path:
    return package_file(_PACKAGE, f"{name}-requirements.txt")


def _install(name: str, folder: Path, lock: int, progress: Callable[[str], None]) -> None:
    interpreter = running_python()
    if interpreter is None:
        raise _setup_error(
            "no environment can be made from the Python that runs this program",
            "it has no venv or ensurepip (Debian: package python3-venv)",
            sys.executable,
        )
    progress(f"installing {name} with PyTorch in {folder}")
    run_tool([interpreter.executable, "-I", "-m", "venv", folder], "venv", lock, _setup_error)
    pip: list[str | Path] = [python_in(folder), "-I", "-m", "pip", "install", "--no-input"]
    pip += ["--disable-pip-version-check", "-r", _requirements(name)]
    run_tool(pip, "pip", lock, _setup_error)
    write_file(folder / _COMPLETE, b"")


def _setup_error(what: str, why: str, where: str | Path) -> PspikeError:
    return PspikeError(
        "E-READER-SETUP",
        what,
        why=why,
        fix="check the network and the disk (about 1 GB for each reader) and run it again; "
        "PSPIKE_CACHE moves the cache",
        where=str(where),
    )


def _run_error(reader: str, log: str) -> PspikeError:
    lines = log.strip().splitlines()[-5:]
    return PspikeError(
        "E-READER-RUN",
        f"the environment of {reader} does not work",
        why="\n".join(["its last lines:", *lines]),
        fix="remove the folder readers in the cache and run it again",
    )
