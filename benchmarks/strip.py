"""Leave in the results of pytest-benchmark what says something about speed, and no name of a host.

python -m benchmarks.strip benchmarks/results/latest.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(path: str) -> None:
    """Rewrite the file: single times, host names and commits go."""
    results = json.loads(Path(path).read_text("utf-8"))
    results.pop("commit_info", None)
    machine = results["machine_info"]
    for name in ("node", "release"):
        machine.pop(name, None)
    cpu = machine.get("cpu", {})
    machine["cpu"] = {name: cpu.get(name) for name in ("brand_raw", "arch", "count", "flags")}
    for entry in results["benchmarks"]:
        entry["stats"].pop("data", None)
    Path(path).write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
