"""Runs and recordings as files: what ``pspike simulate`` and ``pspike compare`` do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pspike_deploy.atomic import refuse_existing
from pspike_deploy.errors import PspikeError

if TYPE_CHECKING:
    from pspike_deploy.verify.compare import Comparison


def simulate_file(
    model: Path,
    data: Path | None,
    out: Path,
    backend: str,
    *,
    samples: int | None,
    draw: int,
    seed: int,
    device: str,
    noise: str = "philox",
    settings: Path | None = None,
    offline: bool = False,
) -> dict[str, Any]:
    """Run a graph file or checkpoint on data and write the recording; returns its facts.

    ``noise``: generator, as :func:`~pspike_deploy.numerics.noise_text.noise_of` reads it;
    ``settings``: YAML or JSON file with what an official checkpoint does not hold; ``offline``: on
    buffered sequences.
    """
    from pspike_deploy.api import simulate
    from pspike_deploy.numerics.noise_text import noise_of
    from pspike_deploy.sources import load_data, load_model

    refuse_existing(out, "recording", "choose another --out")
    generator = noise_of(noise, seed)
    graph, facts = load_model(model, settings, offline=offline)
    x = load_data(data, None, graph, facts).x[:samples]
    recording = simulate(graph, x, backend=backend, noise=generator, draw=draw, device=device)
    recording.save(out)
    return {"samples": len(x), "out": str(out), "run": dict(recording.run)}


def compare_files(a: Path, b: Path, graph: Path | None, replay: Path | None) -> Comparison:
    """Compare two recordings; write the neuron that differs first as a replay case.

    Args:
        a, b: recordings (``.npz``).
        graph: the integer graph that ran; needed for a replay case.
        replay: where to write the case (``.npz``); nothing is written where the runs are equal.

    Raises:
        PspikeError: E-INPUT-MISSING, E-RECORDING-FILE, E-OUT-EXISTS, E-USAGE.
    """
    from pspike_deploy.graph.file import read_graph
    from pspike_deploy.recording import Recording
    from pspike_deploy.verify.compare import compare
    from pspike_deploy.verify.replay import replay_case, write_replay

    if replay is not None and graph is None:
        raise PspikeError(
            "E-USAGE",
            "a replay case needs the graph",
            why="it holds the parameters of the neuron that differs",
            fix="name the integer graph that ran with --graph quantized.nir",
        )
    if replay is not None:
        refuse_existing(replay, "replay case", "choose another --replay")
    first = Recording.load(a)
    result = compare(first, Recording.load(b))
    if replay is not None and graph is not None and result.first_divergence is not None:
        write_replay(replay_case(read_graph(graph), first, result.first_divergence), replay)
    return result
