"""The residual block: what checkpoints call its weights, and that it adds to its input."""

import torch

from priorscope.backbones.residual import ResidualBlock


def test_checkpoints_know_its_weights_by_these_names():
    names = {f"layers.{place}.{part}" for place in (0, 2, 3, 5) for part in ("weight", "bias")}
    assert set(ResidualBlock(16).state_dict()) == names


def test_it_adds_to_its_input():
    block = ResidualBlock(8)
    x = torch.randn(2, 8, 5, 7, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(block(x), x)
    torch.nn.init.zeros_(block.layers[5].weight)
    torch.nn.init.constant_(block.layers[5].bias, 0.25)
    assert torch.equal(block(x), x + 0.25)
