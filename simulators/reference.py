"""Reference simulator: the float graph in PyTorch, on a GPU or a CPU, parallel where it can be.

State-space models between sampling nodes run as FFT convolutions over the whole sequence; neurons
whose spikes act on themselves run step by step. Probabilities are compared with float64 uniforms;
the default precision is float64, because probabilities of the reference are what everything else is
measured against.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import singledispatch
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    Activation,
    Affine,
    BatchNorm,
    Bernoulli,
    ChannelAffine,
    Convolution,
    DeltaEncoder,
    DiagonalSSM,
    LeakyIntegrator,
    Linear,
    LoihiLIF,
    MeanPool,
    Multiply,
    Node,
    ResonateAndFire,
    SecondOrderSSM,
    SoftmaxSum,
    Sum,
    TwoStateNeuron,
)
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import layerwise, loihi_reference
from pspike_deploy.simulators.impulse_response import convolution_kernel
from pspike_deploy.simulators.reference_neurons import two_state
from pspike_deploy.simulators.reference_run import Run, fed_by_spikes

Device = Literal["auto", "cpu", "cuda"]

Inputs = Sequence[torch.Tensor]

#: Bytes that the widest node's values of one chunk may take on a GPU, which wants much at once.
GPU_CHUNK_BYTES: Final = 256 * 2**20

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def resolve_device(device: str) -> torch.device:
    """The torch device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        PspikeError: E-DEVICE where CUDA is asked for and absent, or the name is unknown.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise PspikeError(
            "E-DEVICE",
            f"the device {device!r} is not available",
            why="this PyTorch sees no CUDA device" if device == "cuda" else "unknown name",
            fix="use --device auto or --device cpu",
        )
    return torch.device(device)


def run(
    graph: Graph,
    x: npt.ArrayLike,
    *,
    noise: Noise,
    samples: npt.ArrayLike | None = None,
    draw: int = 0,
    record: Collection[str] | None = None,
    device: str = "auto",
    dtype: Literal["float32", "float64"] = "float64",
    lengths: npt.ArrayLike | None = None,
    replay: Mapping[str, npt.NDArray[Any]] | None = None,
) -> Recording:
    """Run a float graph.

    Args:
        graph: float graph.
        x: (sample, step, feature), real numbers.
        noise: source of the uniforms.
        samples: index of each sample in the data set, default 0 … n - 1.
        draw: number of the repetition.
        record: names of nodes to record; default all.
        device: ``auto`` (CUDA where there is one), ``cpu`` or ``cuda``.
        dtype: precision of everything but the compare, which is float64.
        lengths: true lengths in steps (sample,) where sequences are padded at the end; outputs are
            those of the last true step.
        replay: spikes (sample, step, neuron) that replace a spiking node's output (teacher
            forcing).

    Raises:
        PspikeError: E-USAGE for an integer graph, E-DATA-*, E-DEVICE, E-NOISE.
    """
    if graph.is_integer:
        raise PspikeError(
            "E-USAGE",
            "the reference simulator takes float graphs",
            why="this graph holds integers",
            fix="use the backends fixed-point, interpreter or lava",
        )
    data = layerwise.checked_input(graph, x)
    indices = layerwise.sample_indices(samples, len(data))
    ends = layerwise.last_steps(lengths, len(data), data.shape[1])
    names = layerwise.recordable(graph) if record is None else tuple(record)
    target = resolve_device(device)
    values, probabilities, outputs = (layerwise.Gathered(len(data)) for _ in range(3))
    peaks: dict[str, float] = {}
    fed = fed_by_spikes(graph)
    with torch.inference_mode():
        budget = GPU_CHUNK_BYTES if target.type == "cuda" else None
        for part in layerwise.chunks(graph, len(data), data.shape[1], budget):
            state = Run(noise, indices[part], draw, target, _DTYPES[dtype], fed)
            forced = {name: state.tensor(v[part]) for name, v in (replay or {}).items()}
            result = layerwise.run_layerwise(
                graph,
                state.tensor(data[part]),
                lambda name, inputs, state=state: node_output(  # type: ignore[misc]
                    graph.nodes[name], inputs, name, state
                ),
                names,
                forced,
            )
            values.put(part, {n: _stored(graph.nodes[n], v) for n, v in result.recorded.items()})
            drawn = {n: p.cpu().numpy() for n, p in state.probabilities.items() if n in names}
            probabilities.put(part, drawn)
            last = result.output[torch.arange(len(ends[part])), ends[part]]
            outputs.put(part, {"last": last.double().cpu().numpy()})
            for name, peak in state.state_peaks.items():
                peaks[name] = max(peak, peaks.get(name, 0.0))
    return Recording(
        values={name: values.arrays[name] for name in names},
        probabilities=probabilities.arrays,
        outputs=outputs.arrays["last"],
        samples=indices,
        run={
            "backend": "reference",
            "graph": graph.digest,
            "noise": noise.describe(),
            "draw": draw,
            "integer": False,
            "noise_bits": graph.semantics.noise_bits,
            "fraction_bits": {},
            "order": list(layerwise.recordable(graph)),
            "latency": dict.fromkeys(layerwise.recordable(graph), 0),
            "device": target.type,
            "dtype": dtype,
            "state_peaks": peaks,
            "torch": str(torch.__version__),
        },
    )


def _stored(node: Node, value: torch.Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = value.cpu().numpy()
    return array.astype(np.uint8) if node.spikes else array


# --- node functions -------------------------------------------------------------------------


@singledispatch
def node_output(node: Node, inputs: Sequence[torch.Tensor], name: str, run: Run) -> torch.Tensor:
    """Output (sample, step, neuron) of a node from its inputs."""
    raise PspikeError(
        "E-TARGET-UNSUPPORTED",
        f"the reference simulator does not know {type(node).__name__}",
        fix="see docs/dialect.md for the node types that it runs",
        where=name,
    )


@node_output.register
def _(node: Linear, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    return _synapses(node, inputs[0], name, run)


@node_output.register
def _(node: Affine, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    return _synapses(node, inputs[0], name, run).add_(run.tensor(node.bias))


def _synapses(node: Linear | Affine, x: torch.Tensor, name: str, run: Run) -> torch.Tensor:
    """Sums of synapses; those that spikes enter are added one by one, which spares the zeros."""
    if run.device.type != "cpu" or name not in run.fed_by_spikes:
        return x @ run.tensor(node.weight).T
    from pspike_deploy.simulators.synapse_kernels import add_rows, rows_of

    spikes = x.numpy()
    return torch.from_numpy(add_rows(spikes, rows_of(node, spikes.dtype), spikes.dtype))


@node_output.register
def _(node: ChannelAffine, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    return (run.tensor(node.a) * inputs[0]).add_(run.tensor(node.b))


@node_output.register
def _(node: BatchNorm, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    scale = run.tensor(node.gain) / torch.sqrt(run.tensor(node.variance) + node.epsilon)
    return (inputs[0] - run.tensor(node.mean)).mul_(scale).add_(run.tensor(node.bias))


@node_output.register
def _(node: Bernoulli, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    p = torch.clamp(run.tensor(node.a) * inputs[0] + run.tensor(node.b), 0.0, 1.0).double()
    run.probabilities[name] = p
    _, steps, neurons = p.shape
    u = run.noise.uniform(node.site, run.samples, steps, neurons, run.draw)
    spikes = torch.as_tensor(u, device=run.device) < p
    return spikes.to(run.dtype)


@node_output.register
def _(node: Activation, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    if node.kind == "relu":
        return torch.relu(inputs[0])
    if node.kind == "sigmoid":
        return torch.sigmoid(inputs[0])
    return torch.nn.functional.gelu(inputs[0])


@node_output.register
def _(node: Sum, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    return torch.stack(list(inputs)).sum(dim=0)


@node_output.register
def _(node: Multiply, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    return inputs[0] * inputs[1]


@node_output.register
def _(node: MeanPool, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    (x,) = inputs
    count = torch.arange(1, x.shape[1] + 1, dtype=run.dtype, device=run.device)
    return torch.cumsum(x, dim=1) / count[:, None]


@node_output.register
def _(node: DiagonalSSM, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    (x,) = inputs
    steps = x.shape[1]
    kernel = run.tensor(convolution_kernel(node, steps).copy())  # torch takes no read-only arrays
    spectrum = torch.fft.rfft(x, n=2 * steps, dim=1) * torch.fft.rfft(kernel, n=2 * steps, dim=0)
    y: torch.Tensor = torch.fft.irfft(spectrum, n=2 * steps, dim=1)[:, :steps]
    return y + run.tensor(node.d) * x


@node_output.register
def _(node: Convolution, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    (x,) = inputs
    steps, lags = x.shape[1], node.kernel.shape[1]
    size = steps + lags - 1
    kernel = run.tensor(np.ascontiguousarray(node.kernel.T))
    spectrum = torch.fft.rfft(x, n=size, dim=1) * torch.fft.rfft(kernel, n=size, dim=0)
    whole: torch.Tensor = torch.fft.irfft(spectrum, n=size, dim=1)
    start = lags // 2
    return whole[:, start : start + steps] + run.tensor(node.d) * x


@node_output.register
def _(node: SecondOrderSSM, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    (u,) = inputs
    a_zz, a_zx, a_xz = (run.tensor(a) for a in (node.a_zz, node.a_zx, node.a_xz))
    z, x, y = torch.zeros_like(u[:, 0]), torch.zeros_like(u[:, 0]), torch.empty_like(u)
    peak = torch.zeros((), dtype=run.dtype, device=run.device)
    for step in range(u.shape[1]):
        z = a_zz * z + a_zx * x + u[:, step]
        x = x + a_xz * z
        y[:, step] = x
        peak = torch.maximum(peak, z.abs().max())
    run.state_peaks[name] = float(torch.maximum(peak, y.abs().max()))
    return y


@node_output.register
def _(node: TwoStateNeuron, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    return two_state(node, inputs[0], name, run)


@node_output.register
def _(node: LoihiLIF, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    spikes, run.state_peaks[name] = loihi_reference.lif(node, inputs[0], run.tensor)
    return spikes


@node_output.register
def _(node: ResonateAndFire, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    spikes, run.state_peaks[name] = loihi_reference.resonate(node, inputs[0], run.tensor)
    return spikes


@node_output.register
def _(node: DeltaEncoder, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    sent, run.state_peaks[name] = loihi_reference.delta(node, inputs[0], run.tensor)
    return sent


@node_output.register
def _(node: LeakyIntegrator, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    (x,) = inputs
    (u,) = run.initial(node, 1)
    decay, y = run.tensor(node.decay), torch.empty_like(x)
    if run.device.type == "cpu":
        from pspike_deploy.simulators.reference_kernels import leaky_integrator

        numbers = x.contiguous().numpy(), decay.numpy(), u.contiguous().numpy()
        y = torch.from_numpy(leaky_integrator(*numbers))
        run.state_peaks[name] = float(y.abs().max())
        return y
    for step in range(x.shape[1]):
        u = decay * u + x[:, step]
        y[:, step] = u
    run.state_peaks[name] = float(y.abs().max())
    return y


@node_output.register
def _(node: SoftmaxSum, inputs: Inputs, name: str, run: Run) -> torch.Tensor:
    return torch.cumsum(torch.softmax(inputs[0], dim=-1), dim=1)
