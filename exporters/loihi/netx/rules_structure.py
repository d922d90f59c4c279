"""Rules on layers: which there are, in which order, with which neurons and shapes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pspike_deploy.exporters.loihi.netx.network import (
    Convolution,
    Cuba,
    Dense,
    Flatten,
    Input,
    Layer,
    Network,
    ResonateAndFire,
    Shape,
    SigmaDelta,
    output_shape,
)
from pspike_deploy.exporters.loihi.netx.violation import Bounds, Violation


def the_first_layer_alone_is_an_input(network: Network, bounds: Bounds) -> Iterator[Violation]:
    """Layer 0 is the input, and no other is."""
    fix = "begin the network with one Input"
    if not network.layers or not isinstance(network.layers[0], Input):
        yield Violation(0, "the network does not begin with an input layer", fix)
    for index, layer in enumerate(network.layers[1:], 1):
        if isinstance(layer, Input):
            yield Violation(index, "a second input layer", fix)
    if not any(isinstance(layer, Dense | Convolution) for layer in network.layers):
        yield Violation(0, "there is no layer with synapses", "add a Dense")


def an_input_has_no_neuron_but_sigma_delta(network: Network, bounds: Bounds) -> Iterator[Violation]:
    """NetX does not connect its input port to an input layer with other neurons."""
    for index, layer in enumerate(network.layers):
        if not isinstance(layer, Input) or layer.neuron is None:
            continue
        if not isinstance(layer.neuron, SigmaDelta):
            yield Violation(
                index,
                f"the input layer has {type(layer.neuron).__name__} neurons, which NetX does not "
                "connect to its input",
                "leave the neuron of the input out, and put a layer of neurons behind it",
            )
        elif layer.neuron.sigma_output:
            yield Violation(index, "the input layer has sigma_output", "leave it out")


def shapes_follow_each_other(network: Network, bounds: Bounds) -> Iterator[Violation]:
    """Every layer takes what the one before sends, and its arrays fit each other."""
    shape: Shape = ()
    for index, layer in enumerate(network.layers):
        problems = list(_shape_problems(layer, shape))
        for problem in problems:
            yield Violation(index, problem, "give weights for the shape of the layer before")
        if problems:
            return
        shape = output_shape(layer, shape)


def flatten_stands_between_convolution_and_dense(
    network: Network, bounds: Bounds
) -> Iterator[Violation]:
    """A dense layer takes features; what has channels and rows is flattened first."""
    axes = 0
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Input):
            axes = len(layer.shape)
        elif isinstance(layer, Dense) and axes == 3:
            yield Violation(
                index, "a dense layer takes channels, rows and columns", "add a Flatten"
            )
        elif isinstance(layer, Flatten) and axes != 3:
            yield Violation(index, "a flatten layer takes features already", "remove the Flatten")
        if not isinstance(layer, Input):
            axes = 3 if isinstance(layer, Convolution) else 1


def _shape_problems(layer: Layer, before: Shape) -> Iterator[str]:
    if isinstance(layer, Input):
        if len(layer.shape) not in (1, 3) or min(layer.shape) < 1:
            yield f"an input of shape {layer.shape}; there are (features,) and three axes"
    elif isinstance(layer, Dense):
        yield from _dense_problems(layer, before)
    elif isinstance(layer, Convolution):
        yield from _convolution_problems(layer, before)


def _dense_problems(layer: Dense, before: Shape) -> Iterator[str]:
    if layer.weight.ndim != 2 or not layer.weight.size:
        yield f"weights of shape {layer.weight.shape}"
        return
    out, into = layer.weight.shape
    if len(before) == 1 and into != before[0]:
        yield f"weights for {into} inputs behind a layer of {before[0]}"
    wanted = {
        "recurrent_weight": ((out, out),),
        "imaginary_weight": ((out, into),),
        "bias": ((out,),),
        "delay": ((), (out,), (into,), (out, into)),
    }
    for name, shapes in wanted.items():
        found = getattr(layer, name)
        if found is not None and found.shape not in shapes:
            yield f"{name} of shape {found.shape}, with {out} neurons and {into} inputs"
    yield from _neuron_shape_problems(layer.neuron, out)


def _convolution_problems(layer: Convolution, before: Shape) -> Iterator[str]:
    if layer.weight.ndim != 4 or not layer.weight.size:
        yield f"a kernel of shape {layer.weight.shape}"
        return
    out, into = layer.weight.shape[:2]
    if len(before) != 3:
        yield f"a convolution behind a layer of shape {before}"
        return
    if layer.groups < 1 or into * layer.groups != before[0] or out % layer.groups:
        yield (
            f"a kernel of {out} and {into} channels in {layer.groups} group(s) behind {before[0]}"
        )
    if min(*layer.stride, *layer.dilation) < 1 or min(layer.padding) < 0:
        yield f"stride {layer.stride}, dilation {layer.dilation}, padding {layer.padding}"
    elif max(*layer.stride, *layer.dilation, *layer.padding, *layer.weight.shape[2:]) > 127:
        yield "a stride, dilation, padding or kernel above 127, which Lava keeps in 8 bits"
    elif min(output_shape(layer, before)) < 1:
        yield f"a kernel that is larger than the layer of shape {before}"
    if layer.bias is not None and layer.bias.shape != (out,):
        yield f"bias of shape {layer.bias.shape} for {out} channels"
    yield from _neuron_shape_problems(layer.neuron, None)


def _neuron_shape_problems(neuron: object, neurons: int | None) -> Iterator[str]:
    for name, value in vars(neuron).items() if neuron is not None else ():
        if not isinstance(value, np.ndarray):
            continue
        if name in ("current_decay", "voltage_decay") and value.shape == (neurons,):
            continue
        if value.shape != ():
            yield f"{name} of shape {value.shape}"


# --- neurons and synapses ---------------------------------------------------------------------


def neurons_are_cuba_sdnn_or_rf(network: Network, bounds: Bounds) -> Iterator[Violation]:
    """Without a neuron NetX takes one that never fires, or fails."""
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Dense | Convolution) and not isinstance(
            layer.neuron, Cuba | SigmaDelta | ResonateAndFire
        ):
            yield Violation(
                index,
                "the layer has no neuron; NetX takes one with threshold 131072, which never fires",
                "give the layer Cuba, SigmaDelta or ResonateAndFire neurons",
            )


def resonators_have_complex_weights_and_nothing_else(
    network: Network, bounds: Bounds
) -> Iterator[Violation]:
    """NetX drops bias, delay and recurrence of complex weights, and needs them for resonators."""
    for index, layer in enumerate(network.layers):
        resonates = isinstance(getattr(layer, "neuron", None), ResonateAndFire)
        if isinstance(layer, Convolution) and resonates:
            yield Violation(index, "a convolution with resonators", "take a Dense")
        if not isinstance(layer, Dense):
            continue
        if resonates != (layer.imaginary_weight is not None):
            yield Violation(
                index,
                "resonators need imaginary weights, and other neurons take none",
                "give imaginary_weight where, and only where, the neurons are ResonateAndFire",
            )
        dropped = [
            n for n in ("bias", "delay", "recurrent_weight") if getattr(layer, n) is not None
        ]
        if resonates and dropped:
            yield Violation(
                index, f"NetX drops {' and '.join(dropped)} of resonators", "leave them out"
            )


def recurrence_is_of_cuba_without_delays(network: Network, bounds: Bounds) -> Iterator[Violation]:
    """With delays NetX loses the weight exponent; graded recurrence depends on the input's kind."""
    for index, layer in enumerate(network.layers):
        if not isinstance(layer, Dense) or layer.recurrent_weight is None:
            continue
        if layer.delay is not None:
            yield Violation(
                index,
                "a recurrent layer has delays; NetX loses the exponent of its weights then",
                "leave the delays out",
            )
        if isinstance(layer.neuron, SigmaDelta):
            yield Violation(
                index,
                "a recurrent layer has sigma-delta neurons, whose graded messages NetX takes for "
                "spikes or not by the kind of the layer before",
                "take Cuba neurons",
            )


def a_sigma_output_has_no_bias(network: Network, bounds: Bounds) -> Iterator[Violation]:
    """Lava's Sigma process takes none: NetX fails."""
    for index, layer in enumerate(network.layers):
        neuron, bias = getattr(layer, "neuron", None), getattr(layer, "bias", None)
        if isinstance(neuron, SigmaDelta) and neuron.sigma_output and bias is not None:
            yield Violation(index, "a layer with sigma_output has a bias", "leave it out")
