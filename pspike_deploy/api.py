"""The Python interface: the functions that ``pspike_deploy`` itself offers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.simulators.devices import BACKENDS as BACKENDS
from pspike_deploy.simulators.devices import device_named

if TYPE_CHECKING:
    from torch import nn

    from pspike_deploy.exporters.lava.export import LavaBundle
    from pspike_deploy.graph.graph import Graph
    from pspike_deploy.numerics.noise import Noise
    from pspike_deploy.recording import Recording


def load(path: str | Path, config: Mapping[str, Any] | str | Path | None = None) -> nn.Module:
    """Network of a checkpoint, in evaluation mode; never runs code from the file.

    Args:
        path: checkpoint of this project or of a reference code.
        config: settings that an official checkpoint does not hold, or the path of a YAML or JSON
            file with them.

    Raises:
        PspikeError: E-INPUT-MISSING, E-CHECKPOINT-*, E-USAGE.
    """
    from pspike_deploy.models.checkpoint import load_checkpoint

    return load_checkpoint(path, config=config).network


def simulate(
    graph: Graph,
    x: npt.ArrayLike,
    *,
    backend: str = "fixed-point",
    noise: Noise | None = None,
    samples: npt.ArrayLike | None = None,
    draw: int = 0,
    device: str = "auto",
) -> Recording:
    """Run a graph on data.

    Args:
        graph: float graph for ``reference``, integer graph for the other backends.
        x: (sample, step, feature), real numbers.
        backend: one of :data:`BACKENDS`.
        noise: default ``Noise.philox(0)``.
        samples: index of each sample in the data set, default 0 … n - 1.
        draw: number of the repetition.
        device: where the reference runs.

    Raises:
        PspikeError: E-USAGE for an unknown backend or a graph of the wrong kind, and the errors of
            the backend.
    """
    from pspike_deploy.numerics.noise import Noise

    noise = Noise.philox(0) if noise is None else noise
    return device_named(backend, graph, device).run(x, noise=noise, samples=samples, draw=draw)


def export(
    integer: Graph,
    *,
    target: str,
    out: str | Path,
    x: npt.ArrayLike | None = None,
    noise: Noise | None = None,
) -> LavaBundle | Path:
    """Write an integer graph for a target.

    Args:
        integer: integer graph.
        target: ``lava`` (a self-contained bundle, needs ``x``) or ``nir`` (one file).
        out: folder of the bundle, or path of the file.
        x: samples that the bundle runs, (sample, step, feature); default: four samples of random
            values over the calibrated input range.
        noise: noise of that run, default ``Noise.philox(0)``.

    Returns:
        The bundle, or the path of the file.
    """
    from pspike_deploy.numerics.noise import Noise

    out = Path(out)
    if target == "nir":
        from pspike_deploy.graph.file import write_graph

        write_graph(integer, out)
        return out
    if target != "lava":
        raise PspikeError(
            "E-USAGE",
            f"cannot export to {target!r}",
            fix="choose one of the targets: nir, lava",
        )
    from pspike_deploy.exporters.lava.export import export_lava
    from pspike_deploy.simulators import fixed_point

    noise = Noise.philox(0) if noise is None else noise
    x = _random_samples(integer) if x is None else x
    samples = np.arange(len(np.asarray(x)))
    expected = fixed_point.run(integer, x, noise=noise, samples=samples)
    return export_lava(integer, out, x=x, samples=samples, noise=noise, expected=expected)


def _random_samples(integer: Graph) -> npt.NDArray[np.float64]:
    """Four samples of 64 steps, uniform over what the input registers were calibrated for."""
    (name,) = integer.targets(integer.input_name)
    form = integer.output_format(name)
    features = integer.nodes[name].output_shape
    largest = float(form.to_real(form.limit))
    return np.random.default_rng(0).uniform(0, largest, (4, 64, *features))
