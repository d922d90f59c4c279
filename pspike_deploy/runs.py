"""Runs as files: what ``pspike simulate`` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pspike_deploy.atomic import refuse_existing

if TYPE_CHECKING:
    from pspike_deploy.foreign.reading import Reading


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
    reading: Reading | None = None,
) -> dict[str, Any]:
    """Run a graph file or checkpoint on data and write the recording; returns its facts.

    ``out``: ``.npz``, or ``.h5`` for a NIR data file, which holds less;
    ``noise``: generator, as :func:`~pspike_deploy.numerics.noise_text.noise_of` reads it;
    ``settings``: YAML or JSON file with what an official checkpoint does not hold; ``offline``: on
    buffered sequences; ``reading``: decisions for a NIR file of another framework.
    """
    from pspike_deploy.api import simulate
    from pspike_deploy.nir_data import write_nir_data
    from pspike_deploy.numerics.noise_text import noise_of
    from pspike_deploy.sources import load_data, load_model

    refuse_existing(out, "recording", "choose another --out")
    generator = noise_of(noise, seed)
    graph, facts = load_model(model, settings, offline=offline, reading=reading)
    x = load_data(data, None, graph, facts).x[:samples]
    recording = simulate(graph, x, backend=backend, noise=generator, draw=draw, device=device)
    write_nir_data(recording, out) if out.suffix == ".h5" else recording.save(out)
    return {"samples": len(x), "out": str(out), "run": dict(recording.run)}
