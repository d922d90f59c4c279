"""The cached environments that run Lava: where they lie, which are complete, whether they work.

An environment lies in a folder named after the way it was made, its Python, and the digest of the
pinned requirements, those of its extras included. A marker file, written last, says that it is
complete; without the marker it is never used. One with extras serves where none are asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

import platformdirs

from pspike_deploy.atomic import write_file
from pspike_deploy.errors import PspikeError
from pspike_deploy.simulators.lava.child import run_bundle
from pspike_deploy.simulators.lava.interpreters import clean_environment

#: Names the Python to run Lava with.
PYTHON_VARIABLE: Final = "PSPIKE_LAVA_PYTHON"
#: Names the folder to cache environments in, instead of the user's cache folder.
CACHE_VARIABLE: Final = "PSPIKE_CACHE"

Way = Literal["declared", "shim"]
Extra = Literal["netx"]

#: What an environment may have beyond Lava itself, with the package and name of its requirements.
#: ``netx``: the loader of ``.net`` files of lava-dl, whose wheel has 68 MB.
EXTRAS: Final[dict[Extra, tuple[str, str]]] = {
    "netx": ("pspike_deploy.exporters.loihi", "netx-requirements.txt"),
}

_MARKER = "complete.json"
_SMOKE_LIMIT_S = 120.0


@dataclass(frozen=True)
class LavaEnvironment:
    """A Python in which Lava works.

    Attributes:
        python: path of its interpreter.
        way: ``declared`` (Python 3.10), ``shim`` (newer), or ``given`` by ``PSPIKE_LAVA_PYTHON``.
        versions: version of ``python``, ``numpy`` and ``lava`` in it.
        folder: where it lies, if it was made by :func:`setup_lava_environment`.
        extras: what it has beyond Lava, of :data:`EXTRAS`.
    """

    python: Path
    way: Literal["declared", "shim", "given"]
    versions: dict[str, str]
    folder: Path | None = None
    extras: tuple[Extra, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The environment as plain data."""
        return asdict(self) | {
            "python": str(self.python),
            "folder": None if self.folder is None else str(self.folder),
        }


def cached_environments() -> list[LavaEnvironment]:
    """The complete cached environments for today's requirements, the preferred one first."""
    running = platform.python_version()
    choices: list[tuple[Extra, ...]] = [(), *((extra,) for extra in EXTRAS)]
    found = [
        environment
        for extras in choices
        for path in environments_folder().glob(f"*-{requirements_digest(extras)}")
        if (environment := read_marker(path)) is not None and environment.extras == extras
    ]
    return sorted(
        found,
        key=lambda e: (e.way, e.versions["python"] != running, e.versions["python"], e.extras),
    )


def read_marker(folder: Path) -> LavaEnvironment | None:
    """The environment in a folder, or ``None`` if it is not complete or its Python is gone."""
    python = python_in(folder)
    try:
        marker = json.loads((folder / _MARKER).read_text())
        way, versions = marker["way"], {k: str(v) for k, v in marker["versions"].items()}
        extras = tuple(extra for extra in EXTRAS if extra in marker.get("extras", []))
        # The environment links to a Python of the system, which may be removed or replaced.
        version = subprocess.run(
            [python, "-I", "-S", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            start_new_session=True,  # a Ctrl-C must not make a good environment look broken
        ).stdout.strip()
        if way not in ("declared", "shim") or not versions["python"].startswith(f"{version}."):
            return None
    except subprocess.TimeoutExpired:  # a busy machine, not a broken environment
        pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError, subprocess.SubprocessError):
        return None
    return LavaEnvironment(python, way, versions, folder, extras)


def write_marker(environment: LavaEnvironment, folder: Path) -> None:
    """Mark the environment in a folder as complete.

    Raises:
        PspikeError: E-OUT-DISK-FULL, E-OUT-UNWRITABLE.
    """
    write_file(folder / _MARKER, json.dumps(environment.to_dict(), indent=1).encode())


def smoke_test(environment: LavaEnvironment, what: Literal["import", "network"]) -> dict[str, Any]:
    """Versions, and spikes of a small network, of an environment; run in a child process.

    What the environment has beyond Lava is imported, too.
    """

    def read(path: Path) -> dict[str, Any]:
        found = json.loads(path.read_text())
        names = ("python", "numpy", "lava", *environment.extras)
        versions = {name: str(found[name]) for name in names}
        return {"versions": versions, "spikes": found.get("spikes")}

    with tempfile.TemporaryDirectory(prefix="pspike-smoke-") as folder:
        bundle = Path(folder)
        for name in ("lava_compat.py", "parent_watch.py"):
            shutil.copy(bundle_file(name), bundle)
        if "netx" in environment.extras:
            shutil.copy(package_file("pspike_deploy.exporters.loihi", "netx_compat.py"), bundle)
        shutil.copy(Path(__file__).with_name("smoke_test.py"), bundle / "run.py")
        return run_bundle(
            bundle,
            arguments=["result.json", what, *environment.extras],
            result="result.json",
            environment=environment,
            time_limit_s=_SMOKE_LIMIT_S,
            read=read,
        ).content


def bundle_file(name: str) -> Path:
    """Path of a file that every exported Lava bundle gets a copy of."""
    return package_file("pspike_deploy.exporters.lava", name)


def package_file(package: str, name: str) -> Path:
    """Path of a file in the folder ``bundle`` of a package of exporters."""
    return Path(str(resources.files(package))) / "bundle" / name


def environments_folder() -> Path:
    """The folder that holds the cached environments."""
    cache = os.environ.get(CACHE_VARIABLE)
    root = Path(cache).expanduser().absolute() if cache else None
    return (root or Path(platformdirs.user_cache_dir("pspike-deploy", appauthor=False))) / "lava"


def requirement_files(extras: Sequence[Extra] = ()) -> list[Path]:
    """The lists of pinned requirements of an environment."""
    lists = [bundle_file("lava-requirements.txt")]
    return lists + [package_file(*EXTRAS[extra]) for extra in extras]


def requirements_digest(extras: Sequence[Extra] = ()) -> str:
    """Digest of the pinned requirements: what the lines say, not how they are commented."""
    text = "\n".join(path.read_text() for path in requirement_files(extras))
    lines = (line.strip() for line in text.splitlines())
    pins = "\n".join(line for line in lines if line and not line.startswith("#"))
    return hashlib.sha256(pins.encode()).hexdigest()[:16]


def python_in(folder: Path) -> Path:
    """Path of the interpreter of the environment in a folder."""
    return folder / "bin" / "python"


def what_and_why(error: PspikeError) -> str:
    """An error in one line, to be the reason of another error."""
    return "; ".join(part for part in (error.what, error.why) if part)
