"""What a ``.net`` network computes, in plain Python integers and as slowly as it reads.

An implementation of its own for the tests: it shares nothing with the exporter but the dataclasses.
Time is that of Lava: synapses deliver one step later, and a bias acts before the input arrives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pspike_deploy.exporters.loihi.netx.network import (
    Convolution,
    Cuba,
    Dense,
    Flatten,
    Input,
    Network,
    ResonateAndFire,
    SigmaDelta,
)

LIMIT = 2**23 - 1


def cut(value: int, shift: int) -> int:
    """Divide by a power of two, towards zero."""
    return abs(value) // 2**shift * (1 if value >= 0 else -1)


def clamp(value: int) -> int:
    return max(-LIMIT, min(LIMIT, value))


def run(network: Network, x: Sequence[Any]) -> dict[int, np.ndarray]:
    """What each layer with neurons sends, (step, neuron), for one sample (step, ...).

    A layer behind n layers of synapses answers to ``x[t]`` at step t + n, so there are as many more
    steps as there are such layers.
    """
    depth = sum(isinstance(layer, Dense | Convolution) for layer in network.layers)
    flowing = np.concatenate([x, np.zeros((depth, *np.shape(x)[1:]), int)])
    found = {}
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Flatten):
            flowing = flowing.reshape(len(flowing), -1)
            continue
        if isinstance(layer, Input):
            flowing = flowing.reshape(len(flowing), *layer.shape)
            if layer.neuron is None:
                continue
            flat = flowing.reshape(len(flowing), -1)
            sent = np.array([delta(layer.neuron, column) for column in flat.T.tolist()]).T
            flowing = sent.reshape(flowing.shape)
        elif isinstance(layer, Dense):
            flowing = np.array(dense(layer, one_later(flowing).tolist()))
        else:
            flowing = one_later(flowing)
            sums = np.array([correlate(layer, step.tolist()) for step in flowing])
            flat = sums.reshape(len(sums), -1)
            per_channel = flat.shape[1] // len(layer.weight)
            sent = [
                neuron_output(layer.neuron, column, bias_of(layer, i // per_channel), i)
                for i, column in enumerate(flat.T.tolist())
            ]
            flowing = np.array(sent).T.reshape(sums.shape)
        found[index] = flowing.reshape(len(flowing), -1)
    return found


def one_later(values: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(values[:1]), values[:-1]])


def bias_of(layer: Dense | Convolution, neuron: int) -> int:
    return 0 if layer.bias is None else int(layer.bias[neuron])


def dense(layer: Dense, x: list[list[int]]) -> list[list[int]]:
    """Output (step, neuron) of a dense layer."""
    if isinstance(layer.neuron, ResonateAndFire):
        assert layer.imaginary_weight is not None
        real = [[dot(row, step) for step in x] for row in layer.weight.tolist()]
        imaginary = [[dot(row, step) for step in x] for row in layer.imaginary_weight.tolist()]
        pairs = zip(real, imaginary, strict=True)
        return [list(s) for s in zip(*(resonate(layer.neuron, a, b) for a, b in pairs))]  # noqa: B905
    if layer.recurrent_weight is not None:
        return recurrent(layer, x)
    out, into = layer.weight.shape
    delay = np.zeros((out, into), int)
    if layer.delay is not None:
        column = layer.delay.ndim == 1 and len(layer.delay) == out
        delay = delay + (layer.delay[:, None] if column else layer.delay)
    columns = []
    for i in range(out):
        sums = [
            sum(
                int(layer.weight[i, j]) * x[t - delay[i, j]][j]
                for j in range(into)
                if t >= delay[i, j]
            )
            for t in range(len(x))
        ]
        columns.append(neuron_output(layer.neuron, sums, bias_of(layer, i), i))
    return [list(step) for step in zip(*columns)]  # noqa: B905


def dot(row: Iterable[int], step: Iterable[int]) -> int:
    return sum(w * value for w, value in zip(row, step, strict=True))


def recurrent(layer: Dense, x: list[list[int]]) -> list[list[int]]:
    """A layer whose own spikes come back one step later."""
    assert isinstance(layer.neuron, Cuba)
    assert layer.recurrent_weight is not None
    n = len(layer.weight)
    states, spikes, sent = [(0, 0)] * n, [0] * n, []
    for step in x:
        sums = [
            dot(layer.weight[i].tolist(), step) + dot(layer.recurrent_weight[i].tolist(), spikes)
            for i in range(n)
        ]
        moved = [
            cuba_step(layer.neuron, states[i], sums[i], bias_of(layer, i), i) for i in range(n)
        ]
        states, spikes = [state for state, _ in moved], [spike for _, spike in moved]
        sent.append(spikes)
    return sent


def neuron_output(neuron: Any, sums: list[int], bias: int, index: int) -> list[int]:
    """What one neuron sends for its weighted sums."""
    if isinstance(neuron, Cuba):
        state, sent = (0, 0), []
        for total in sums:
            state, spike = cuba_step(neuron, state, total, bias, index)
            sent.append(spike)
        return sent
    assert isinstance(neuron, SigmaDelta)
    levels, level = [], 0
    for total in sums:
        level += total
        levels.append(level)
    if neuron.sigma_output:
        return levels
    return changes([max(0, level + bias * 4096) for level in levels], int(neuron.threshold) * 4096)


def cuba_step(
    neuron: Cuba, state: tuple[int, int], total: int, bias: int, index: int
) -> tuple[tuple[int, int], int]:
    def own(values: Any) -> int:
        return int(values) if values.shape == () else int(values[index])

    u = cut(state[0] * (4096 - own(neuron.current_decay)), 12) + 64 * total
    assert abs(u) <= LIMIT, "wrapping is not modelled here"
    v = clamp(cut(state[1] * (4096 - own(neuron.voltage_decay)), 12) + u + 64 * bias)
    spike = int(v > 64 * own(neuron.threshold))
    return (u, 0 if spike else v), spike


def delta(neuron: Any, values: list[int]) -> list[int]:
    """Messages of a sigma-delta input neuron."""
    return changes([4096 * value for value in values], int(neuron.threshold) * 4096)


def changes(levels: list[int], threshold: int) -> list[int]:
    """What is sent of a level that changes; a fraction of 6 bits is lost for ever."""
    last, owed, sent = 0, 0, []
    for level in levels:
        change = level - last + owed
        message = change if abs(change) >= threshold else 0
        owed, last = change - message, level
        sent.append(message // 64)
    return sent


def resonate(neuron: ResonateAndFire, real_sums: list[int], imaginary_sums: list[int]) -> list[int]:
    s, c = int(neuron.sine_decay), int(neuron.cosine_decay)
    threshold = 64 * int(neuron.threshold)
    re, im, sent = 0, 0, []
    for a, b in zip(real_sums, imaginary_sums, strict=True):
        new_re = clamp(cut(c * re, 12) - cut(s * im, 12) + 64 * a)
        new_im = clamp(cut(s * re, 12) + cut(c * im, 12) + 64 * b)
        if neuron.phase:
            spike = int(new_re >= threshold and new_im >= 0 > im)
        else:
            spike = int(new_im >= threshold)
            if spike:
                new_re, new_im = 0, threshold - 1
        re, im = new_re, new_im
        sent.append(spike)
    return sent


def correlate(layer: Convolution, x: list[list[list[int]]]) -> list[list[list[int]]]:
    """Weighted sums (channel, row, column) for one step (channel, row, column)."""
    out, into, height, width = layer.weight.shape
    kernel = layer.weight.tolist()
    rows = (
        len(x[0]) + 2 * layer.padding[0] - layer.dilation[0] * (height - 1) - 1
    ) // layer.stride[0] + 1
    columns = (
        len(x[0][0]) + 2 * layer.padding[1] - layer.dilation[1] * (width - 1) - 1
    ) // layer.stride[1] + 1

    def at(channel: int, row: int, column: int) -> int:
        inside = 0 <= row < len(x[0]) and 0 <= column < len(x[0][0])
        return x[channel][row][column] if inside else 0

    def total(o: int, r: int, c: int) -> int:
        first = o // (out // layer.groups) * into
        return sum(
            kernel[o][i][h][w]
            * at(
                first + i,
                r * layer.stride[0] + h * layer.dilation[0] - layer.padding[0],
                c * layer.stride[1] + w * layer.dilation[1] - layer.padding[1],
            )
            for i in range(into)
            for h in range(height)
            for w in range(width)
        )

    return [[[total(o, r, c) for c in range(columns)] for r in range(rows)] for o in range(out)]
