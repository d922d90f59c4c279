"""Peak memory of an export in a process of its own, above what its imports take.

python -m benchmarks.memory MODEL DATA TARGET OUT     prints bytes
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_IMPORTS = (
    "numba",
    "torch",
    "scipy.signal",
    "ortools.sat.python.cp_model",
    "pspike_deploy.simulators.fixed_point_nodes",
    "pspike_deploy.simulators.reference",
    "pspike_deploy.pipeline",
    "pspike_deploy.lava_stage",
    "pspike_deploy.loihi_stage",
    "pspike_deploy.report.page",
)


def peak_of_export(model: Path, data: Path, target: str, out: Path) -> int:
    """Bytes above the memory after imports; kernels are compiled by an earlier run."""
    command = [sys.executable, "-m", "benchmarks.memory", *map(str, (model, data, target, out))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.strip().splitlines()[-1])


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise KeyError(name)


def _main(model: str, data: str, target: str, out: str) -> None:
    import importlib
    from contextlib import suppress

    for name in _IMPORTS:
        with suppress(ImportError):
            importlib.import_module(name)
    from pspike_deploy.options import ExportOptions
    from pspike_deploy.pipeline import export_network

    begin = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    export_network(
        ExportOptions(Path(model), target, Path(out), Path(data), draws=1, lava_samples=1)
    )
    print(_status("VmHWM") - begin)


if __name__ == "__main__":
    _main(*sys.argv[1:])
