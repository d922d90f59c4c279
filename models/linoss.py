"""LinOSS and D-LinOSS: forced harmonic oscillators as a linear state-space layer.

Per complex oscillator p with input ``u_t`` (H channels), z (velocity) and x (position) starting at
0, B (P, H) and C (H, P) complex, D (H) real (Rusch and Rus; code tk-rusch/linoss and
jaredbmit/damped-linoss)::

    A = relu(A_diag) ;  Delta = sigmoid(steps) ;  f_t = Delta (-A x_{t-1} + B u_t)
    IMEX:    z_t = z_{t-1} + f_t
    IM:      z_t = (z_{t-1} + f_t) / (1 + Delta**2 A)
    damped:  z_t = (z_{t-1} + f_t) / (1 + Delta G),  G = relu(G_diag), A clamped to the stiffness
             for which the eigenvalues are complex: between (2 + Delta G -+ 2 sqrt(1 + Delta G)) /
             max(Delta**2, 1e-6)
    x_t = x_{t-1} + Delta z_t ;  y_t = Re(C x_t) + D u_t

Squared moduli of the eigenvalues: 1, 1 / (1 + Delta**2 A), 1 / (1 + Delta G). A, Delta and G are
real, so a complex oscillator is two real ones with the same constants.

    block:   a = BatchNorm(x), no affine ;  g = dropout(GELU(SSM(a)))
             x <- x + dropout(value(g) * sigmoid(gate(g)))
    network: encoder (linear), blocks, mean over time, decoder (linear)

Tensors of the state_dict, H = d_model, P = d_state:

===========================================  ======================  ============================
name                                         shape                   meaning
===========================================  ======================  ============================
encoder.weight, bias                         (H, d_input), (H)       linear encoder
blocks.{i}.norm.running_mean, running_var    (H)                     BatchNorm without affine
blocks.{i}.norm.num_batches_tracked          ()                      int64
blocks.{i}.ssm.A_diag, steps                 (P)                     stiffness, step before sigmoid
blocks.{i}.ssm.G_diag                        (P)                     damping, ``damped`` only
blocks.{i}.ssm.B, C                          (P, H, 2), (H, P, 2)    (real, imaginary)
blocks.{i}.ssm.D                             (H)                     direct term
blocks.{i}.value.*, blocks.{i}.gate.*        (H, H), (H)             gated linear unit
decoder.weight, bias                         (n_classes, H), ...     linear decoder
===========================================  ======================  ============================
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812  # the field's usual name
from torch import Tensor, nn

from pspike_deploy.models.inputs import require_sequences
from pspike_deploy.models.linoss_config import LinOSSConfig

#: Standard deviation of the initial ``steps`` of D-LinOSS.
DAMPED_STEPS_STD: Final = 0.5
LEAST_SQUARED_STEP: Final = 1e-6

Trace = dict[str, Tensor]


class StepConstants(NamedTuple):
    """One step of every oscillator, (P,) each.

    ``z_t = a_zz z_{t-1} + a_zx x_{t-1} + gain (B u_t)`` and ``x_t = x_{t-1} + a_xz z_t``.
    """

    a_zz: Tensor
    a_zx: Tensor
    a_xz: Tensor
    gain: Tensor


class LinOSSLayer(nn.Module):
    """P complex oscillators between dense matrices B and C. Equations: see the module."""

    def __init__(self, config: LinOSSConfig) -> None:
        super().__init__()
        width, states = config.d_model, config.d_state
        self.variant = config.variant
        if config.variant == "damped":
            self._init_ring(config)
        else:
            self.A_diag = nn.Parameter(torch.rand(states))
            self.steps = nn.Parameter(torch.rand(states))
        self.B = nn.Parameter(_uniform(states, width) / math.sqrt(width))
        self.C = nn.Parameter(_uniform(width, states) / math.sqrt(states))
        self.D = nn.Parameter(torch.randn(width))

    def _init_ring(self, config: LinOSSConfig) -> None:
        """Eigenvalues r exp(+-i theta) spread over a ring: r**2 and theta are uniform."""
        states = config.d_state
        self.steps = nn.Parameter(DAMPED_STEPS_STD * torch.randn(states))
        step = torch.sigmoid(self.steps.detach())
        low, high = config.r_min**2, config.r_max**2
        squared = low + (high - low) * torch.rand(states)
        theta = config.theta_max * torch.rand(states)
        # det = 1 / (1 + step G) = r**2; trace = 1 + r**2 - step**2 A r**2 = 2 r cos(theta)
        self.G_diag = nn.Parameter((1 / squared - 1) / step)
        trace = 2 * squared.sqrt() * torch.cos(theta)
        self.A_diag = nn.Parameter((1 + squared - trace) / (step**2 * squared))

    def constants(self) -> StepConstants:
        """The constants as they are used, differentiable."""
        step, stiffness = torch.sigmoid(self.steps), torch.relu(self.A_diag)
        if self.variant == "IMEX":
            shrink = torch.ones_like(step)
        elif self.variant == "IM":
            shrink = 1 / (1 + step**2 * stiffness)
        else:
            damping = step * torch.relu(self.G_diag)
            stiffness = _oscillating(stiffness, damping, step)
            shrink = 1 / (1 + damping)
        return StepConstants(shrink, -shrink * step * stiffness, step, shrink * step)

    def input_matrix(self) -> Tensor:
        """B as real rows (2 P, H): real parts, then imaginary parts."""
        return torch.cat(self.B.unbind(-1))

    def output_matrix(self) -> Tensor:
        """C as real columns (H, 2 P), so that Re(C x) is a real product."""
        real, imag = self.C.unbind(-1)
        return torch.cat((real, -imag), dim=1)

    def forward(self, u: Tensor) -> Tensor:
        """Whole sequences (batch, step, H) to the same shape."""
        step = StepConstants(*(value.repeat(2) for value in self.constants()))
        force = step.gain * F.linear(u, self.input_matrix())
        return F.linear(scan(step, force), self.output_matrix()) + self.D * u


def scan(step: StepConstants, force: Tensor) -> Tensor:
    """Positions (batch, step, oscillator) of real oscillators from the forces on them, same shape.

    The step is one constant 2 x 2 matrix M, so the sum over earlier forces doubles its reach with
    every product: after k rounds it holds the last 2**k of them.
    """
    a_zz, a_zx, a_xz, _ = step
    velocity = torch.stack((a_zz, a_zx), dim=-1)
    position = a_xz[:, None] * velocity + torch.tensor([0.0, 1.0]).to(velocity)
    power = torch.stack((velocity, position), dim=1)
    state = torch.stack((force, a_xz * force), dim=-1)
    reach = 1
    while reach < force.shape[1]:
        earlier = torch.einsum("pij,btpj->btpi", power, state[:, :-reach])
        state = torch.cat((state[:, :reach], state[:, reach:] + earlier), dim=1)
        power = power @ power
        reach *= 2
    return state[..., 1]


class LinOSSBlock(nn.Module):
    """Norm, oscillators, gated linear unit, skip. Equations: see the module."""

    def __init__(self, config: LinOSSConfig) -> None:
        super().__init__()
        width = config.d_model
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.ssm = LinOSSLayer(config)
        self.value = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """The residual stream (batch, step, H) to the next one."""
        normalised = cast(Tensor, self.norm(x.flatten(0, 1))).view_as(x)
        g = self.dropout(F.gelu(self.ssm(normalised)))
        return x + cast(Tensor, self.dropout(self.value(g) * torch.sigmoid(self.gate(g))))


class LinOSSNetwork(nn.Module):
    """Encoder, blocks of oscillators, mean over time, decoder; nothing in it spikes.

    Initial values draw from torch's default generator.
    """

    def __init__(self, config: LinOSSConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Linear(config.d_input, config.d_model)
        self.blocks = nn.ModuleList(LinOSSBlock(config) for _ in range(config.n_layers))
        self.decoder = nn.Linear(config.d_model, config.n_classes)

    def forward(self, x: Tensor, trace: Trace | None = None) -> Tensor:
        """Logits (batch, class) of sequences (batch, step, feature).

        The trace receives ``encoder``, ``block{i}.output`` and ``logits``.

        Raises:
            PspikeError: ``E-DATA-SHAPE``.
        """
        require_sequences(x, self.config.d_input)
        stream = cast(Tensor, self.encoder(x))
        noted = {"encoder": stream}
        for index, block in enumerate(self.blocks):
            noted[f"block{index}.output"] = stream = cast(Tensor, block(stream))
        noted["logits"] = logits = cast(Tensor, self.decoder(stream.mean(dim=1)))
        if trace is not None:
            trace.update(noted)
        return logits


def _oscillating(stiffness: Tensor, damping: Tensor, step: Tensor) -> Tensor:
    """The stiffness, moved to where eigenvalues are complex; ``damping`` is Delta G."""
    scale = step.square().clamp(min=LEAST_SQUARED_STEP)
    spread = 2 * torch.sqrt(1 + damping)
    low, high = (2 + damping - spread) / scale, (2 + damping + spread) / scale
    return low + torch.relu(stiffness - low) - torch.relu(stiffness - high)


def _uniform(*shape: int) -> Tensor:
    return 2 * torch.rand(*shape, 2) - 1
