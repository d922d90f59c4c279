"""The worked example of ``docs/new-neuron.md`` runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.node import Node
from pspike_deploy.graph.registration import register_node_type
from pspike_deploy.simulators.lava.environment import find_lava_python

PAGE = Path(__file__).parent.parent / "docs" / "new-neuron.md"


@pytest.mark.lava
def test_the_pendulum_runs_on_every_backend(tmp_path: Path) -> None:
    find_lava_python()
    page = PAGE.read_text("utf-8")
    files = dict(re.findall(r'```python title="(\w+\.py)"\n(.*?)```', page, re.S))
    assert len(files) == 4
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "run_pendulum.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (printed,) = re.findall(r"```text\n(.*?)```", page, re.S)
    assert run.stdout == printed
    assert "lava: first divergence None" in printed


def test_a_name_that_is_taken_is_refused() -> None:
    class Linear2(Node):
        pass

    Linear2.__name__ = "Linear"
    with pytest.raises(PspikeError, match="there is a node type 'Linear' already"):
        register_node_type(Linear2, axes={}, rounding="exact", tensors=())
