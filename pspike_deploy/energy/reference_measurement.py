"""Time and energy of the same network on a GPU or CPU: the reference simulator, measured.

What runs is PyTorch node by node over the whole sequence, state-space models as convolutions: the
mode ``sequence`` of :mod:`pspike_deploy.energy.operations`. It needs the whole input at once, which
favours the GPU or CPU over a machine that streams. Uniform numbers of sampling nodes are made on
the host in every run, and results are copied back to it; both are inside of the measured time.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from pspike_deploy.energy.measure import Clock, Measurement, Plan, measure
from pspike_deploy.energy.meters import Meter, NvmlMeter, RaplMeter
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.simulators import layerwise, reference


def measure_reference(
    graph: Graph,
    x: npt.ArrayLike,
    *,
    device: str = "auto",
    batch: int = 1,
    precision: Literal["float32", "float64"] = "float32",
    noise: Noise | None = None,
    meter: Meter | Literal["auto"] | None = "auto",
    plan: Plan | None = None,
    clock: Clock | None = None,
) -> Measurement:
    """Measure a float graph in the reference simulator.

    Args:
        graph: float graph.
        x: (sample, step, feature); the first ``batch`` samples run, from the start again where
            there are fewer.
        device: ``auto``, ``cpu`` or ``cuda``.
        batch: samples per run.
        precision: of everything but the comparison with uniforms.
        noise: source of the uniforms, by default Philox with seed 0.
        meter: counter; ``auto`` takes NVML or RAPL by device, and where neither can be read
            measures time alone and says why in ``warnings``; None measures time alone.
        plan, clock: as for :func:`pspike_deploy.energy.measure.measure`.

    Raises:
        PspikeError: E-USAGE for an integer graph or a batch below 1; E-DATA-*, E-DEVICE,
            E-ENERGY-METER.
    """
    target = reference.resolve_device(device)
    data = layerwise.checked_input(graph, x)
    samples = np.resize(np.arange(len(data)), max(batch, 1))
    source = noise or Noise.philox(0)

    def call() -> None:
        reference.run(
            graph,
            data[samples],
            noise=source,
            samples=samples,
            record=(),
            device=target.type,
            dtype=precision,
        )  # ends with a copy to the host, so the device has finished

    warnings: list[str] = []
    with ExitStack() as stack:
        if meter == "auto":
            meter = _meter(target, stack, warnings)
        found = measure(
            call,
            meter=meter,
            batch=batch,
            plan=plan,
            facts=_facts(graph, target, data.shape[1], precision),
            clock=clock,
        )
    return found.with_warnings(warnings)


def _meter(device: torch.device, stack: ExitStack, warnings: list[str]) -> Meter | None:
    """The counter of a device, or None with the reason as a warning."""
    try:
        if device.type == "cuda":
            properties: Any = torch.cuda.get_device_properties(torch.cuda.current_device())
            return stack.enter_context(NvmlMeter(uuid=f"GPU-{properties.uuid}"))
        return RaplMeter()
    except PspikeError as error:
        if error.code != "E-ENERGY-METER":
            raise
        warnings.append(f"no energy counter: {error.what} ({error.why})")
        return None


def _facts(graph: Graph, device: torch.device, steps: int, precision: str) -> dict[str, Any]:
    cuda = device.type == "cuda"
    return {
        "graph": graph.digest,
        "steps": steps,
        "device": torch.cuda.get_device_name() if cuda else _processor(),
        "mode": "sequence",
        "how": "PyTorch, eager, node by node over the whole sequence; noise drawn on the host",
        "precision": precision,
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """Name of the processor as Linux states it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = (line.partition(":") for line in file if line.startswith("model name"))
            return next((value.strip() for _, _, value in lines), "processor")
    except OSError:
        return "processor"
