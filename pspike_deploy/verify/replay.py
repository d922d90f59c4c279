"""A divergence as a file: one neuron of one node with all that it takes to compute it again.

The case holds the neuron's share of the node's parameters, its inputs from the first step of the
sample to the step that differs, its noise, and what both sides say. Running it asks the slow
interpreter, which knows nothing else of the network, which side is right.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from pspike_deploy.archives import read_arrays
from pspike_deploy.atomic import write_file
from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import (
    NODE_TYPES,
    Linear,
    LoihiLIF,
    Node,
    RecurrentNeuron,
    SoftmaxSum,
    TwoStateNeuron,
)
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.generators import GeneratorNoise
from pspike_deploy.numerics.noise import UNIFORM_BITS, Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators.interpreter import input_points, run_node
from pspike_deploy.simulators.interpreter_nodes import Machine, Unit, half_up
from pspike_deploy.simulators.interpreter_noise import words_of
from pspike_deploy.verify.divergence import OUTPUTS, Divergence
from pspike_deploy.verify.single_neuron import formats_of_neuron, input_columns
from pspike_deploy.verify.single_neuron import only_neuron as only_neuron

_FORMAT = "pspike-replay"
#: Version 1 held noise integers of ``noise_bits`` bits.
_VERSION = 2

#: Most bytes of a case, unpacked, and the largest width or binary point in it.
MAXIMUM_BYTES: Final = 2**28
MAXIMUM_BITS: Final = 256

#: What the wrong contents of a case raise.
_UNUSABLE: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

Array = npt.NDArray[Any]
Side = Literal["a", "b", "both", "neither"]


@dataclass(frozen=True)
class ReplayResult:
    """What the interpreter computes for a replay case.

    Attributes:
        node: name of the node.
        neuron: number of the neuron in the whole node.
        values: what it computes at every step: outputs, or codes Q where those differed.
        agrees_with: the side whose values are the same at every step.
    """

    node: str
    neuron: int
    values: tuple[int, ...]
    agrees_with: Side

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return asdict(self)


def replay_case(
    graph: Graph,
    a: Recording,
    divergence: Divergence,
    *,
    x: npt.ArrayLike | None = None,
    noise: Noise | None = None,
) -> dict[str, Any]:
    """The one neuron that differs, cut out of its graph.

    Args:
        graph: integer graph that ran.
        a: integer recording of it, the first of the two that were compared; it must hold the
            sources of the node.
        divergence: where they differ first.
        x: real input of the run (sample, step, feature); needed for a Quantize node only.
        noise: noise of the run; needed for a sampling node where it was injected.

    Returns:
        ``header``: plain data; ``arrays``: parameters, inputs ``input/0`` … (step, width),
        ``uniforms`` (step,) of a sampling node, ``expected_a`` and ``expected_b`` (step,). Before
        the step that differs both sides are taken to be the same.

    Raises:
        PspikeError: E-USAGE where the recording is not one of integers, does not hold the sample
            or what the node takes, or where ``x`` or ``noise`` is missing.
    """
    name, steps = divergence.node, divergence.step + 1
    if not graph.is_integer or not a.run.get("integer") or name not in graph.semantics.quantization:
        raise _not_replayable(
            "only nodes of an integer graph can be computed again",
            f"node {name}"
            + ("" if name != OUTPUTS else ", which is the output: no recorded node differs"),
        )
    rows = np.flatnonzero(np.asarray(a.samples) == divergence.sample)
    if a.run.get("graph") != graph.digest:
        raise _not_replayable(
            "the graph is not the one that ran",
            f"digest {graph.digest}, recorded {a.run.get('graph')}",
        )
    if not isinstance(divergence.a, int):
        raise _not_replayable(
            "the two runs have different binary points", f"node {name} of two different graphs"
        )
    if not rows.size:
        raise _not_replayable("the recording does not hold the sample", f"{divergence.sample}")
    node, neuron, row = graph.nodes[name], divergence.neuron, int(rows[0])
    if not node.streams:
        raise _not_replayable("the interpreter computes step by step", f"{name} looks ahead")
    inputs = _inputs(graph, a, name, row, steps, x)
    if isinstance(node, SoftmaxSum):  # the same for any order of the classes
        inputs = [np.roll(source, -neuron, axis=1) for source in inputs]
    elif not isinstance(node, Linear):  # all others take values of their own neuron only
        inputs = [source[:, input_columns(node, neuron)] for source in inputs]
    if isinstance(node, TwoStateNeuron) and node.is_recurrent:
        inputs = [inputs[0] + _returned(graph, a, name, neuron, row, steps)]
    if isinstance(node, LoihiLIF) and node.is_recurrent:
        inputs.append(_returned_sums(graph, a, name, neuron, row, steps))
    arrays = {f"input/{number}": source for number, source in enumerate(inputs)}
    if node.noise_site is not None:
        arrays["uniforms"] = _uniforms(graph, a, node, divergence, noise)
    arrays |= _expected(a, divergence, row)
    points = input_points(graph, name)
    formats = graph.semantics.quantization[name]
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "graph": graph.digest,
        "node": name,
        "type": type(node).__name__,
        "quantization": formats_of_neuron(formats, neuron).to_dict(),
        "f_in": [] if isinstance(node, Linear) or not points else _points(node, neuron, points),
        "noise_bits": graph.semantics.noise_bits,
        "overflow": graph.semantics.overflow,
        "divergence": divergence.to_dict(),
    }
    for field, value in only_neuron(node, neuron).parameters():
        (arrays if isinstance(value, np.ndarray) else header)[f"parameter/{field}"] = value
    return {"header": header, "arrays": arrays}


def write_replay(case: dict[str, Any], path: str | Path) -> None:
    """Write a case as a compressed ``.npz`` (readable with ``numpy.load``, no pickle)."""
    header = np.array(json.dumps(case["header"], sort_keys=True))
    arrays: dict[str, Any] = case["arrays"]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, header=header, **arrays)
    write_file(path, buffer.getvalue())


def run_replay(path: str | Path) -> ReplayResult:
    """Compute a case written by :func:`write_replay` again, with the interpreter.

    Raises:
        PspikeError: E-INPUT-MISSING, E-RECORDING-FILE; E-OVERFLOW where the neuron overflows.
    """
    header, arrays = _read(Path(path))
    try:
        node, unit, inputs = rebuild(header, arrays)
        at = header["divergence"]
        expected = {side: arrays[f"expected_{side}"].tolist() for side in ("a", "b")}
        by_codes = at["quantity"] == "probability"
        place = str(at["node"]), int(at["neuron"])
        outputs, codes = run_node(node, unit, inputs)
    except _UNUSABLE as error:
        raise _not_a_case(Path(path), f"{type(error).__name__}: {error}") from error
    values = [vector[0] for vector in (codes if by_codes else outputs)]
    agrees = [side for side in ("a", "b") if values == expected[side]]
    side: Side = "neither"
    if agrees:
        side = "both" if len(agrees) == 2 else "a" if agrees == ["a"] else "b"
    return ReplayResult(*place, tuple(values), side)


# --- cutting a neuron out ------------------------------------------------------------------


def _inputs(
    graph: Graph, a: Recording, name: str, row: int, steps: int, x: npt.ArrayLike | None
) -> list[Array]:
    """Outputs of the node's sources in one sample, (step, width) each."""
    found = []
    for source in graph.sources(name):
        if source == graph.input_name:
            if x is None:
                raise _not_replayable(f"node {name} takes the real input", "no input was given")
            found.append(np.asarray(x, np.float64)[row, :steps])
        elif source in a.values:
            found.append(a.values[source][row, :steps].astype(np.int64))
        else:
            raise _not_replayable("a source of the node was not recorded", f"{source}->{name}")
    return found


def _points(node: Node, neuron: int, points: list[int]) -> list[int]:
    """Binary points of the input of one neuron."""
    if isinstance(node, SoftmaxSum):
        return points[neuron : neuron + 1]
    return [points[column] for column in input_columns(node, neuron)]


def _returned(graph: Graph, a: Recording, name: str, neuron: int, row: int, steps: int) -> Array:
    """What recurrent synapses bring one neuron at every step, (step, 1), from recorded spikes."""
    node, tensors = graph.nodes[name], graph.semantics.quantization[name].tensors
    assert isinstance(node, TwoStateNeuron)
    sums = _returned_sums(graph, a, name, neuron, row, steps)[:, 0]
    gain_point = tensors["recurrent_gain"].fraction_bits
    point = gain_point[neuron] if isinstance(gain_point, tuple) else gain_point
    shift = point - int(tensors["state"].fractions())
    gain = int(node.recurrent_gain[neuron])
    return np.array([[half_up(gain * int(total), shift)] for total in sums], np.int64)


def _returned_sums(
    graph: Graph, a: Recording, name: str, neuron: int, row: int, steps: int
) -> Array:
    """Sums of the recurrent synapses of one neuron at every step, (step, 1)."""
    node = graph.nodes[name]
    assert isinstance(node, RecurrentNeuron)
    if name not in a.values:
        raise _not_replayable("the spikes of the recurrent layer were not recorded", name)
    before = np.zeros((steps, len(node.recurrent_weight)), np.int64)
    before[1:] = a.values[name][row, : steps - 1]
    sums: Array = before @ node.recurrent_weight[neuron].astype(np.int64)
    return sums[:, None]


def _uniforms(graph: Graph, a: Recording, node: Node, at: Divergence, noise: Noise | None) -> Array:
    """Noise integers (53 bits) of one neuron, (draw,): one per step, or of a random start."""
    noise = noise or a.noise
    if noise is None:
        raise _not_replayable("the noise of the run was injected", "no noise was given")
    by_chance = graph.semantics.quantization[at.node].rounding == "stochastic"
    words = words_of(
        noise,
        int(a.run.get("draw", 0)),
        graph.semantics.noise_bits,
        stochastic=by_chance or not isinstance(noise, GeneratorNoise),
    )
    site, (width,) = node.noise_site, node.output_shape
    assert site is not None
    drawn = [words(site, at.sample, t, width)[at.neuron] for t in range(node.draws(at.step + 1))]
    return np.array(drawn, np.int64)


def _expected(a: Recording, at: Divergence, row: int) -> dict[str, Array]:
    source = a.probabilities if at.quantity == "probability" else a.values
    first = source[at.node][row, : at.step + 1, at.neuron].astype(np.int64)
    if int(first[-1]) != at.a:
        raise _not_replayable(
            "the recording is not the first one of the comparison",
            f"it has {int(first[-1])} where the divergence says {at.a}",
        )
    second = first.copy()
    second[-1] = at.b
    return {"expected_a": first, "expected_b": second}


# --- files ---------------------------------------------------------------------------------


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    if not path.is_file():
        raise PspikeError(
            "E-INPUT-MISSING",
            "the replay file does not exist",
            where=str(path),
            fix="give the path of a .npz file written by 'pspike compare --replay'",
        )
    arrays = read_arrays(path, lambda why: _not_a_case(path, why), most_bytes=MAXIMUM_BYTES)
    try:
        header = json.loads(str(arrays.pop("header")))
        if header["format"] != _FORMAT or header["version"] > _VERSION:
            raise ValueError(f"format {header['format']}, version {header['version']}")
    except _UNUSABLE as error:
        raise _not_a_case(path, f"{type(error).__name__}: {error}") from error
    return header, arrays


def rebuild(
    header: dict[str, Any], arrays: dict[str, Array], machine_type: type[Machine] = Machine
) -> tuple[Node, Unit, list[tuple[list[Any], ...]]]:
    """Node, unit and the inputs of every step of a case, ready for the interpreter."""
    prefix = "parameter/"
    fields = {
        key[len(prefix) :]: tuple(value) if isinstance(value, list) else value
        for key, value in {**header, **arrays}.items()
        if key.startswith(prefix)
    }
    if header["type"] != "SoftmaxSum" and fields.get("shape", (1,)) != (1,):
        raise ValueError(f"a case holds one neuron, not {fields['shape']}")
    node = NODE_TYPES[header["type"]](**fields)
    uniforms = _stored_uniforms(header, arrays) if node.noise_site is not None else []
    machine = machine_type(
        str(header["overflow"]),
        int(header["noise_bits"]),
        lambda _site, _sample, step, _neurons: [uniforms[step]],
        sample=int(header["divergence"]["sample"]),
    )
    formats = NodeQuantization.from_dict(header["quantization"])
    unit = Unit(str(header["node"]), formats, [int(f) for f in header["f_in"]], machine)
    for number in (machine.noise_bits, *unit.f_in, *_numbers(formats)):
        if abs(number) > MAXIMUM_BITS:
            raise ValueError(f"{number} bits")
    count = sum(key.startswith("input/") for key in arrays)
    sources = [arrays[f"input/{number}"].tolist() for number in range(count)]
    return node, unit, list(zip(*sources, strict=True))


def _stored_uniforms(header: dict[str, Any], arrays: dict[str, Array]) -> list[int]:
    """Noise integers of a case, filled up with zeros to 53 bits where it holds fewer."""
    missing = UNIFORM_BITS - int(header["noise_bits"]) if header["version"] == 1 else 0
    return [u << missing for u in arrays["uniforms"].tolist()]


def _numbers(formats: NodeQuantization) -> Iterator[int]:
    """All widths and binary points of a node."""
    for format_ in (formats.output, *formats.tensors.values()):
        yield format_.bits
        yield from np.atleast_1d(format_.fraction_bits).tolist()


def _not_a_case(path: Path, why: str) -> PspikeError:
    return PspikeError(
        "E-RECORDING-FILE",
        "the file is not a replay case of this tool",
        why=why,
        where=str(path),
        fix="write it again with 'pspike compare A B --graph G --replay FILE'",
    )


def _not_replayable(what: str, why: str) -> PspikeError:
    return PspikeError(
        "E-USAGE",
        f"the divergence cannot be replayed: {what}",
        why=why,
        fix="record all nodes of an integer run, and give its input and its injected noise",
    )
