"""What a user would write without this tool: plain PyTorch, float32, in the obvious way."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the field's usual name
from torch import Tensor

from pspike_deploy.models.dplr import DPLR
from pspike_deploy.models.p_spikessm import PSpikeSSM
from pspike_deploy.models.two_state import TwoStateNetwork


class RebuiltKernels:
    """P-SpikeSSM as its authors evaluate it: DPLR kernels are generated in every forward pass.

    Kernels by the generating function on the unit circle (Gu et al., S4, arXiv 2111.00396): four
    Cauchy products per layer, one step of the Woodbury formula, an inverse FFT.
    """

    def __init__(self, network: PSpikeSSM, steps: int) -> None:
        self.network, self.steps = network, steps
        self.ends = [_truncated_output(block.ssm, steps) for block in network.blocks]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Logits of (sample, step, feature)."""
        net = self.network
        stream = net.encoder(x)
        for block, end in zip(net.blocks, self.ends, strict=True):
            stream = stream + self._block(block, end, stream)
        stream = _normed(net.norm, stream)
        return net.decoder(stream.mean(1))

    def _block(self, block: torch.nn.Module, end: Tensor, stream: Tensor) -> Tensor:
        driven = _normed(block.norm, block.inp_a * stream + block.inp_b)
        spikes = (torch.rand_like(driven) < driven).float()
        v = F.gelu(self.membrane(block.ssm, end, spikes))
        p = block.out_a * v + block.out_b
        spikes = (torch.rand_like(p) < p).float()
        return F.gelu(block.mixer(spikes))

    def membrane(self, ssm: DPLR, end: Tensor, spikes: Tensor) -> Tensor:
        """Membranes (sample, step, neuron)."""
        kernel = self.kernel(ssm, end)
        n = 2 * self.steps
        spectrum = torch.fft.rfft(spikes, n, dim=1) * torch.fft.rfft(kernel, n, dim=1).T
        return torch.fft.irfft(spectrum, n, dim=1)[:, : self.steps] + ssm.D * spikes

    def kernel(self, ssm: DPLR, end: Tensor) -> Tensor:
        """Kernels (neuron, step)."""
        dt = F.softplus(ssm.inv_dt)
        lam = dt * (-torch.exp(ssm.A_real) - 1j * ssm.A_imag)
        b, p = torch.view_as_complex(ssm.B)[0], torch.view_as_complex(ssm.P)[0]
        turns = torch.arange(self.steps // 2 + 1) / self.steps
        omega = torch.exp(-2j * math.pi * turns)
        z = 2 * (1 - omega) / (1 + omega)
        r = [
            dt * _cauchy(left * right, lam, z)
            for left, right in ((b, end), (b, p.conj()), (p, end), (p, p.conj()))
        ]
        spectrum = (r[0] - r[2] * r[1] / (1 + r[3])) * 2 / (1 + omega)
        return torch.fft.irfft(spectrum, self.steps)


def _cauchy(v: Tensor, w: Tensor, z: Tensor) -> Tensor:
    """Sums of v / (z - w) and its mirror image over modes, (neuron, frequency)."""
    v = v.expand(w.shape)
    terms = v[..., None] / (z - w[..., None]) + v.conj()[..., None] / (z - w.conj()[..., None])
    return terms.sum(-2)


def _truncated_output(ssm: DPLR, steps: int) -> Tensor:
    """C (I - A_bar**L) of every neuron, as the reference code stores it; complex (neuron, mode)."""
    system = ssm.system(torch.arange(ssm.D.shape[1]))
    power = torch.linalg.matrix_power(system.a_bar, steps)
    c = system.c[0]
    end = c - torch.einsum("hn,hnm->hm", c, power)
    modes = end.shape[1] // 2
    return torch.complex(end[:, :modes], -end[:, modes:]).to(torch.complex64) / math.sqrt(2)


def _normed(norm: torch.nn.Module | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x.transpose(1, 2)).transpose(1, 2)


class LoopOverSteps:
    """SiLIF as a loop over time steps, every update one expression of PyTorch."""

    def __init__(self, network: TwoStateNetwork) -> None:
        self.network = network

    @torch.no_grad()
    def __call__(self, x: Tensor) -> list[Tensor]:
        """Spikes of the hidden layers, each (sample, step, neuron)."""
        found = []
        for layer in self.network.layers:
            current = layer.norm(F.linear(x, layer.synapses.weight).transpose(1, 2)).transpose(1, 2)
            alpha, beta, a, b = layer.cell.effective()
            u = w = s = torch.zeros_like(current[:, 0])
            spikes = []
            for step in range(x.shape[1]):
                w = beta * w + a * u + b * s
                u = alpha * (u - s) + (1 - alpha) * (current[:, step] - w)
                s = (u > 1).float()
                spikes.append(s)
            x = torch.stack(spikes, 1)
            found.append(x)
        return found


def as_tensor(x: np.ndarray) -> Tensor:
    """Data for these networks."""
    return torch.from_numpy(x.astype(np.float32))
