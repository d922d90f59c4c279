"""A double of the reference code of P-SpikeSSM: random weights by its names, and its equations.

Written from the equations, in NumPy and with dense matrices, by the names of the original files; it
shares nothing with the package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FloatArray = npt.NDArray[np.float64]
Weights = Mapping[str, FloatArray]

H, N, BLOCKS, CLASSES, STEPS = 6, 8, 2, 3, 20


@dataclass(frozen=True)
class Variant:
    """One way to build the network."""

    mode: str = "nplr"
    n_ssm: int = 1
    case_b: bool = False
    two_sided: bool = False
    norm: str | None = "batch"
    prenorm: bool = True
    residual: str | None = "R"
    tokens: int = 0
    retrieval: bool = False
    l_kernel: int = STEPS
    use_lengths: bool = False

    def settings(self) -> dict[str, Any]:
        """The settings as the original code saves them."""
        return {
            "model": {
                "d_model": H,
                "n_layers": BLOCKS,
                "prenorm": self.prenorm,
                "bidirectional": self.case_b,
                "residual": self.residual,
                "norm": self.norm,
                "layer": {
                    "d_state": N,
                    "bidirectional": self.two_sided,
                    "mode": self.mode,
                    "n_ssm": None if self.n_ssm == H else self.n_ssm,
                    "l_max": STEPS,
                },
            },
            "decoder": {"mode": "pool", "use_lengths": self.use_lengths},
        }


def state_dict(variant: Variant, seed: int = 0) -> dict[str, Tensor]:
    """Random float32 weights in which no parameter has a special value."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, mean: float = 0.0, std: float = 0.3) -> FloatArray:
        return mean + std * rng.standard_normal(shape)

    def norm(prefix: str) -> dict[str, FloatArray]:
        made = {f"{prefix}.weight": normal(H, mean=1), f"{prefix}.bias": normal(H)}
        if variant.norm == "batch":
            made[f"{prefix}.running_mean"] = normal(H)
            made[f"{prefix}.running_var"] = rng.uniform(0.5, 2, H)
        return {} if variant.norm is None else made

    def ssm(prefix: str) -> dict[str, FloatArray]:
        kernel, copies = f"{prefix}.layer.kernel", variant.n_ssm
        made = {
            f"{prefix}.layer.D": normal(1, H),
            f"{kernel}.inv_dt": rng.uniform(-4, -1, (H, 1)),
            f"{kernel}.A_real": normal(copies, N // 2, mean=math.log(0.5)),
            f"{kernel}.A_imag": normal(copies, N // 2, mean=3, std=2),
            f"{kernel}.B": normal(1, copies, N // 2, 2, std=1),
            f"{kernel}.C": normal(1 + variant.two_sided, H, N // 2, 2, std=0.7),
            f"{prefix}.output_linear.0.weight": normal(2 * H, H),
            f"{prefix}.output_linear.0.bias": normal(2 * H),
        }
        if variant.mode == "nplr":
            made[f"{kernel}.P"] = normal(1, copies, N // 2, 2, std=1)
        return made

    made: dict[str, FloatArray] = {"encoder.0.weight": normal(H, 2, std=1)}
    if variant.tokens:
        made["encoder.0.weight"] = normal(variant.tokens, H, std=1)
    else:
        made["encoder.0.bias"] = normal(H)
    for i in range(BLOCKS):
        p = f"model.layers.{i}"
        for name in ("inp_a", "inp2_a", "out_a"):
            made[f"{p}.{name}"] = normal(H, mean=1)
        for name in ("inp_b", "inp2_b", "out_b"):
            made[f"{p}.{name}"] = normal(H, mean=0.2)
        made |= ssm(f"{p}.layer") | norm(f"{p}.norm.norm")
        if variant.case_b:
            made |= ssm(f"{p}.reverse_layer")
            made[f"{p}.bidirectional_linear.weight"] = normal(H, 2 * H, std=0.5)
            made[f"{p}.bidirectional_linear.bias"] = normal(H)
        rows = H // 2 if variant.case_b else H
        made[f"{p}.bidirectional_linear1.weight"] = normal(rows, H, std=0.5)
        made[f"{p}.bidirectional_linear1.bias"] = normal(rows)
    if variant.prenorm:
        made |= norm("model.norm.norm")
    if variant.retrieval:
        head = "decoder.0.retrieval.classifier"
        made |= {f"{head}.0.weight": normal(H, 4 * H), f"{head}.0.bias": normal(H)}
        made |= {f"{head}.2.weight": normal(CLASSES, H), f"{head}.2.bias": normal(CLASSES)}
    else:
        made["decoder.0.output_transform.weight"] = normal(CLASSES, H)
        made["decoder.0.output_transform.bias"] = normal(CLASSES)
    tensors = {name: torch.tensor(value, dtype=torch.float32) for name, value in made.items()}
    for name in list(tensors):
        if name.endswith("running_mean"):
            tensors[name.replace("running_mean", "num_batches_tracked")] = torch.tensor(7)
        if name.endswith("kernel.P"):
            tensors[name[:-1] + "l_kernel"] = torch.tensor(variant.l_kernel)
    return tensors


# --- equations ----------------------------------------------------------------------------------


def _gelu(x: FloatArray) -> FloatArray:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _complex(pairs: FloatArray) -> npt.NDArray[np.complex128]:
    return pairs[..., 0] + 1j * pairs[..., 1]


def discrete_system(w: Weights, kernel: str, h: int) -> tuple[Any, Any, Any]:
    """Full complex A_bar (N, N), B_bar (N,) and plain C (side, N) of neuron h."""
    copy = h % len(w[f"{kernel}.A_real"])
    dt = math.log1p(math.exp(w[f"{kernel}.inv_dt"][h, 0]))
    half = -np.exp(w[f"{kernel}.A_real"][copy]) - 1j * w[f"{kernel}.A_imag"][copy]

    def full(vector: Any) -> Any:
        return np.concatenate([vector, vector.conj()], axis=-1)

    lam, b = full(half), full(_complex(w[f"{kernel}.B"])[0, copy])
    c = full(_complex(w[f"{kernel}.C"])[:, h])
    if f"{kernel}.P" not in w:
        return np.diag(np.exp(dt * lam)), b * (np.exp(dt * lam) - 1) / lam, c
    p = full(_complex(w[f"{kernel}.P"])[0, copy])
    a, eye = np.diag(lam) - np.outer(p, p.conj()), np.eye(len(lam))
    left = np.linalg.inv(eye - dt / 2 * a)
    a_bar, b_bar = left @ (eye + dt / 2 * a), left @ b * dt
    length = int(w[f"{kernel}.l_kernel"])
    if length:
        c = c @ np.linalg.inv(eye - np.linalg.matrix_power(a_bar, length))
    return a_bar, b_bar, c


def membranes(w: Weights, layer: str, s: FloatArray) -> FloatArray:
    """Membranes (step, neuron) of one sample; the kernel over the future by its double sum."""
    steps, width = s.shape
    v = w[f"{layer}.layer.D"] * s
    for h in range(width):
        a_bar, b_bar, c = discrete_system(w, f"{layer}.layer.kernel", h)
        state = np.zeros(len(b_bar), complex)
        response = []
        power = b_bar
        for t in range(steps):
            state = a_bar @ state + b_bar * s[t, h]
            v[t, h] += (c[0] @ state).real
            response.append(power)
            power = a_bar @ power
        if len(c) == 2:
            for t in range(steps):
                for j in range(t + 1, steps):
                    v[t, h] += (c[1] @ response[j - t - 1]).real * s[j, h]
    return v


def _norm(w: Weights, name: str, x: FloatArray) -> FloatArray:
    if f"{name}.weight" not in w:
        return x
    if f"{name}.running_mean" in w:
        mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    else:
        mean = x.mean(axis=-1, keepdims=True)
        variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    scaled = (x - mean) / np.sqrt(variance + 1e-5)
    return np.asarray(w[f"{name}.weight"] * scaled + w[f"{name}.bias"])


def run_sample(
    tensors: Mapping[str, Tensor],
    variant: Variant,
    x: npt.NDArray[Any],
    uniforms: list[FloatArray],
    length: int | None = None,
) -> dict[str, FloatArray]:
    """Everything that one sample computes: ``s{block}_{k}``, ``v…_f``, ``v…_r``, ``pooled``."""
    w = {name: np.asarray(tensor.double().numpy()) for name, tensor in tensors.items()}
    noted: dict[str, FloatArray] = {}
    if variant.tokens:
        stream = w["encoder.0.weight"][x]
    else:
        stream = x @ w["encoder.0.weight"].T + w["encoder.0.bias"]
    mask = np.ones((len(stream), 1))
    if length is not None:
        mask[length:] = 0
    for i in range(BLOCKS):
        p, (u0, u1) = f"model.layers.{i}", uniforms[2 * i : 2 * i + 2]
        drive = w[f"{p}.inp_a"] * stream + w[f"{p}.inp_b"]
        pre = [_norm(w, f"{p}.norm.norm", drive) if variant.prenorm else drive]
        spikes = [(u0 < pre[0]).astype(float)]
        noted[f"v{i}_f"] = membranes(w, f"{p}.layer", spikes[0] * mask)
        f = w[f"{p}.out_a"] * _gelu(noted[f"v{i}_f"]) + w[f"{p}.out_b"]
        if variant.case_b:
            pre.append(w[f"{p}.inp2_a"] * stream + w[f"{p}.inp2_b"])
            spikes.append((u1 < pre[1]).astype(float))
            noted[f"v{i}_r"] = membranes(w, f"{p}.reverse_layer", spikes[1] * mask)
            pre += [f, _gelu(noted[f"v{i}_r"])]
            spikes += [(u0 < value).astype(float) for value in pre[2:]]
            mixed, name = np.concatenate(spikes[2:], axis=1), f"{p}.bidirectional_linear"
        else:
            pre.append(f)
            spikes.append((u1 < f).astype(float))
            mixed, name = spikes[1], f"{p}.bidirectional_linear1"
        m = _gelu(mixed @ w[f"{name}.weight"].T + w[f"{name}.bias"])
        stream = stream + m if variant.residual == "R" else m
        if not variant.prenorm:
            stream = _norm(w, f"{p}.norm.norm", stream)
        for k, fired in enumerate(spikes):
            noted[f"s{i}_{k}"], noted[f"pre{i}_{k}"] = fired, pre[k]
    z = _norm(w, "model.norm.norm", stream) if variant.prenorm else stream
    noted["fin"] = z
    noted["pooled"] = z[:length].mean(axis=0) if variant.use_lengths else z.mean(axis=0)
    return noted


def decode(tensors: Mapping[str, Tensor], variant: Variant, pooled: FloatArray) -> FloatArray:
    """Logits from pooled features (sample, neuron)."""
    w = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    if not variant.retrieval:
        head = "decoder.0.output_transform"
        return np.asarray(pooled @ w[f"{head}.weight"].T + w[f"{head}.bias"])
    head = "decoder.0.retrieval.classifier"
    a, b = pooled[: len(pooled) // 2], pooled[len(pooled) // 2 :]
    features = np.concatenate([a, b, a - b, a * b], axis=1)
    hidden = _gelu(features @ w[f"{head}.0.weight"].T + w[f"{head}.0.bias"])
    return np.asarray(hidden @ w[f"{head}.2.weight"].T + w[f"{head}.2.bias"])
