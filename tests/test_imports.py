"""Imports point downwards only, and nothing heavy is imported before it is needed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: Rooms of the house, lowest first; rooms on one line may not import each other.
FLOORS = (
    ("errors", "_callable", "signals"),
    ("atomic", "archives"),
    ("numerics", "targets"),
    ("graph", "recording"),
    ("models", "exporters", "foreign"),
    ("simulators",),
    ("verify",),
    ("quantize", "energy"),
    ("foreign_recordings",),
    ("report", "artefacts", "data", "options", "golden", "nir_data", "spike_trains"),
    (
        "sources",
        "verification",
        "folder_report",
        "integer_export",
        "lava_stage",
        "loihi_stage",
        "core_stage",
        "onnx_stage",
    ),
    ("energy_stage", "energy_result", "conformance", "torch_import"),
    ("pipeline", "subjects"),
    ("api",),
    (
        "inspection",
        "check",
        "runs",
        "doctor",
        "training",
        "finetuning",
        "sweep",
        "deployed_card",
        "comparing",
        "verify_files",
        "energy_files",
    ),
    ("commands",),
    ("cli",),
    ("__main__",),
)
FOLDERS = {
    "models": ROOT / "models",
    "exporters": ROOT / "exporters",
    "simulators": ROOT / "simulators",
}
PACKAGE = ROOT / "pspike_deploy"


def floor_of(room: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def modules() -> Iterator[tuple[str, Path]]:
    """(room, file) of every module of the installed package."""
    for folder in FOLDERS.values():
        for file in folder.rglob("*.py"):
            if "bundle" not in file.relative_to(folder).parts:  # runs in Lava's environment
                yield folder.name, file
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__":
            yield room, file


def imported_rooms(file: Path) -> Iterator[tuple[str, int]]:
    """Rooms that a file imports, wherever in the file, with the line."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [node.module or ""]
            if node.module == "pspike_deploy":
                names = [f"pspike_deploy.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "pspike_deploy" and len(parts) > 1:
                yield parts[1], node.lineno


def test_imports_point_downwards_only() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {target}"
        for room, file in modules()
        for target, line in imported_rooms(file)
        if target != room and floor_of(target) >= floor_of(room)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_has_a_floor() -> None:
    for room, _ in modules():
        floor_of(room)


def test_the_integer_paths_share_no_arithmetic() -> None:
    simulators = ROOT / "simulators"
    for ours, theirs in (
        ("fixed_point.py", "simulators.interpreter"),
        ("kernels.py", "simulators.interpreter"),
        ("interpreter.py", "simulators.fixed_point"),
        ("interpreter.py", "kernels"),
        ("interpreter_nodes.py", "simulators.fixed_point"),
        ("interpreter_nodes.py", "kernels"),
        ("interpreter_nodes.py", "numerics.philox"),
    ):
        text = (simulators / ours).read_text("utf-8")
        imports = [
            line for line in text.splitlines() if line.lstrip().startswith(("from", "import"))
        ]
        assert not any(theirs in line for line in imports), f"{ours} imports {theirs}"
    for file in (ROOT / "exporters").glob("*/bundle/**/*.py"):
        assert "pspike_deploy" not in file.read_text("utf-8"), f"{file.name} is not self-contained"


@pytest.mark.parametrize(
    "statement",
    [
        "import pspike_deploy",
        "from pspike_deploy import cli",
        "import sys; sys.argv = ['pspike-export', '--help']\n"
        "from pspike_deploy import cli\n"
        "try: cli.export_main()\n"
        "except SystemExit: pass",
    ],
    ids=["import", "cli", "help"],
)
def test_neither_import_nor_help_loads_anything_heavy(statement: str) -> None:
    check = (
        f"{statement}\nimport sys\n"
        "heavy = {'torch', 'numba', 'matplotlib', 'scipy', 'sklearn', 'h5py', 'numpy', 'lava', "
        "'ortools', 'pandas', 'onnx', 'onnxruntime'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_no_command_imports_lava() -> None:
    check = "import pspike_deploy.pipeline, sys; print('lava' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_functions_that_are_subpackages_too_are_callable_in_any_order_of_import() -> None:
    for first in (
        "pspike_deploy.quantize.quantize",
        "pspike_deploy.verify.verdict",
        "pspike_deploy",
    ):
        check = (
            f"import {first}\nimport pspike_deploy as pspike\n"
            "assert callable(pspike.quantize) and callable(pspike.verify)\n"
            "try: pspike.quantize()\nexcept TypeError as error: print(error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", check], capture_output=True, text=True, check=True
        )
        assert "quantize() missing" in done.stdout
