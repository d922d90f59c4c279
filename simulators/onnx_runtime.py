"""Models of the ONNX export in ONNX Runtime: sequence by sequence, or step by step.

ONNX Runtime is optional (``pip install 'pspike-deploy[onnx]'``); without it models are written and
not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.onnx.models import Models
from pspike_deploy.exporters.onnx.noise import uniforms
from pspike_deploy.graph.graph import Graph
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording, overflow_facts
from pspike_deploy.simulators import layerwise

if TYPE_CHECKING:
    import onnx
    import onnxruntime

Array = npt.NDArray[Any]

#: Bytes that all values of all nodes of one call may take.
CALL_BYTES: Final = 256 * 2**20


def is_installed() -> bool:
    """Whether ONNX Runtime can be imported."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return False
    return True


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A model in ONNX Runtime, on one thread of the CPU.

    Raises:
        PspikeError: E-ONNX-RUNTIME where it is not installed, or does not take the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise PspikeError(
            "E-ONNX-RUNTIME",
            "ONNX Runtime is not installed",
            why=str(error),
            fix="pip install 'pspike-deploy[onnx]'",
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its errors are raised; it need not print them, too
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions have no common base
        raise _failed("does not take the model", error) from error


def _failed(what: str, error: Exception) -> PspikeError:
    return PspikeError(
        "E-ONNX-RUNTIME",
        f"ONNX Runtime {what}",
        why=f"{type(error).__name__}: {error}",
        fix="install a version of onnxruntime that the tests run with (constraints.txt)",
    )


def run(
    graph: Graph,
    models: Models,
    x: npt.ArrayLike,
    *,
    noise: Noise,
    samples: npt.ArrayLike | None = None,
    draw: int = 0,
    form: Literal["sequence", "step"] = "sequence",
) -> Recording:
    """Run the models of a graph and record every node.

    Args:
        graph: the graph that ``models`` were made of.
        models: from :func:`~pspike_deploy.exporters.onnx.models.models_of`.
        x: (sample, step, feature), real numbers.
        noise: source of the uniforms.
        samples: index of each sample in the data set, default 0 … n - 1.
        draw: number of the repetition.
        form: which model; the step model is called once per step.

    Returns:
        Values of all nodes (sample, step, neuron): uint8 for spikes, else int64 or float64; real
        outputs after the last step. Probabilities are not among the outputs of a model.

    Raises:
        PspikeError: E-ONNX-RUNTIME; E-DATA-*, E-NOISE; E-OVERFLOW under the policy ``error``.
    """
    data = layerwise.checked_input(graph, x)
    indices = layerwise.sample_indices(samples, len(data))
    engine = session(models.step if form == "step" else models.sequence)
    call = _steps if form == "step" else _sequences
    gathered = layerwise.Gathered(len(data))
    overflows = 0
    for part in _parts(models, len(data), data.shape[1]):
        ports = {"x": data[part], **uniforms(graph, noise, indices[part], data.shape[1], draw)}
        try:
            found = call(engine, models, ports)
        except Exception as error:  # its exceptions have no common base
            raise _failed("failed", error) from error
        overflows += int(found.get("overflows", np.zeros(1)).sum())
        gathered.put(part, found)
    if overflows and graph.semantics.overflow == "error":
        raise PspikeError(
            "E-OVERFLOW",
            f"{overflows} value(s) left their register in an ONNX model",
            why="the overflow policy of the graph is 'error'",
            fix="quantise again with more headroom, or choose the overflow policy 'saturate'",
        )
    return _recording(graph, gathered.arrays, indices, noise, draw, form, overflows)


def _parts(models: Models, samples: int, steps: int) -> Iterator[slice]:
    width = sum(int(np.prod(port.shape)) for port in models.outputs)
    size = max(1, CALL_BYTES // max(1, 8 * width * steps))
    for start in range(0, samples, size):
        yield slice(start, min(samples, start + size))


def _sequences(
    engine: onnxruntime.InferenceSession, models: Models, ports: Mapping[str, Array]
) -> dict[str, Array]:
    names = [port.name for port in models.outputs]
    return dict(zip(names, engine.run(names, dict(ports)), strict=True))


def _steps(
    engine: onnxruntime.InferenceSession, models: Models, ports: Mapping[str, Array]
) -> dict[str, Array]:
    names = [port.name for port in models.outputs]
    after = [port.name.replace("state/", "next/", 1) for port in models.states]
    samples, steps = ports["x"].shape[:2]
    states = {p.name: np.zeros((samples, *p.shape), p.dtype) for p in models.states}
    found: dict[str, list[Array]] = {name: [] for name in names}
    for step in range(steps):
        now = {name: a if name == "start" else a[:, step] for name, a in ports.items()}
        results = engine.run([*names, *after], {**now, **states})
        done = dict(zip([*names, *after], results, strict=True))
        states = dict(zip(states, (done[name] for name in after), strict=True))
        for name in names:
            found[name].append(done[name])
    return {name: np.stack(values, axis=1) for name, values in found.items()}


def _recording(
    graph: Graph,
    arrays: Mapping[str, Array],
    indices: npt.NDArray[np.int64],
    noise: Noise,
    draw: int,
    form: str,
    overflows: int,
) -> Recording:
    import onnxruntime

    names = layerwise.recordable(graph)
    values = {name: arrays[f"value/{name}"] for name in names}
    points = {
        name: graph.output_format(name).to_dict()["fraction_bits"]
        for name in (names if graph.is_integer else ())
    }
    return Recording(
        values={n: v.astype(np.uint8) if graph.nodes[n].spikes else v for n, v in values.items()},
        probabilities={},
        outputs=arrays["output"][:, -1],
        samples=indices,
        run={
            "backend": f"onnx-{form}",
            "graph": graph.digest,
            "noise": noise.describe(),
            "draw": draw,
            "integer": graph.is_integer,
            "noise_bits": graph.semantics.noise_bits,
            "fraction_bits": points,
            "order": list(names),
            "latency": dict.fromkeys(names, 0),
            **overflow_facts({}),
            "overflows": overflows,
            "onnxruntime": onnxruntime.__version__,
        },
    )
