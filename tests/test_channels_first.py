"""The fast training form computes the network, its gradients and its running statistics."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # the field's usual name

from pspike_deploy.models import channels_first
from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.p_spikessm import PSpikeSSM

BATCH, STEPS, WIDTH = 5, 100, 16  # steps: no multiple of a chunk


def network(**changes: Any) -> PSpikeSSM:
    torch.manual_seed(0)
    config = PSpikeSSMConfig(**{
        "d_input": 1, "d_model": WIDTH, "d_state": 8, "n_layers": 2, "n_classes": 4,
        "sequence_length": STEPS, **changes,
    })  # fmt: skip
    net = PSpikeSSM(config).double()
    with torch.no_grad():
        for block in net.blocks:
            block.inp_a.uniform_(-2, 2)
            block.out_b.uniform_(0.1, 0.5)  # off the corner of the clamp, where rounding decides
            block.norm.bias.fill_(0.4)
    return net


def noise() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (WIDTH, BATCH * STEPS)
    return [torch.rand(shape, dtype=torch.float64, generator=generator) for _ in range(4)]


def as_steps(uniform: torch.Tensor) -> torch.Tensor:
    return uniform.view(WIDTH, BATCH, STEPS).permute(1, 2, 0)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    "changes", [{}, {"mixer_activation": "none"}, {"encoder": "embedding", "d_input": 7}], ids=str
)
def test_it_agrees_with_the_plain_form(changes: dict[str, Any], mode: str) -> None:
    plain = network(**changes).train(mode == "train")
    fast = copy.deepcopy(plain)
    labels = torch.arange(BATCH) % 4
    if "encoder" in changes:
        x = torch.randint(0, 7, (BATCH, STEPS), generator=torch.Generator().manual_seed(2))
    else:
        x = torch.rand(BATCH, STEPS, 1, dtype=torch.float64)
    expected = plain(x, [as_steps(uniform) for uniform in noise()])
    found = channels_first.forward(fast, x, uniforms=noise())
    torch.testing.assert_close(found, expected)
    F.cross_entropy(expected, labels).backward()
    F.cross_entropy(found, labels).backward()
    for (name, a), b in zip(plain.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, msg=lambda text, name=name: f"{name}: {text}")
    for (name, a), b in zip(plain.named_buffers(), fast.buffers(), strict=True):
        torch.testing.assert_close(b, a, msg=lambda text, name=name: f"{name}: {text}")


def test_steps_behind_the_true_length_do_not_count() -> None:
    net = network(pool_lengths=True).eval()
    x, lengths = torch.rand(BATCH, STEPS, 1, dtype=torch.float64), torch.tensor([100, 7, 40, 99, 1])
    expected = net(x, [as_steps(uniform) for uniform in noise()], lengths=lengths)
    torch.testing.assert_close(channels_first.forward(net, x, lengths, noise()), expected)


def test_noise_has_the_probability_that_it_stands_for() -> None:
    torch.manual_seed(4)
    uniforms = channels_first.draw_uniforms(network(), BATCH, STEPS)
    assert len(uniforms) == 4
    drawn = torch.stack(uniforms)
    assert drawn.min() > 0
    assert drawn.max() < 1
    for p in (0.01, 0.3, 0.9):
        assert abs((drawn < p).double().mean() - p) < 4 * (p * (1 - p) / drawn.numel()) ** 0.5


@pytest.mark.parametrize(
    "changes",
    [{"norm": "layer"}, {"prenorm": False}, {"residual": False}, {"bidirectional": True},
     {"ssm": "dplr"}, {"two_sided": True}, {"neuron_activation": "relu"}],
    ids=str,
)  # fmt: skip
def test_it_says_which_networks_it_computes(changes: dict[str, Any]) -> None:
    assert channels_first.is_supported(network())
    config = PSpikeSSMConfig(1, 8, 4, 1, 2, 10, **changes)
    assert not channels_first.is_supported(PSpikeSSM(config))
