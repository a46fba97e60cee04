"""A model asked a part at a time answers as it would about all."""

from __future__ import annotations

import pytest
import torch

from priorscope import InputError
from priorscope.diffusion import Condition, Denoiser, FlowSchedule, InBatches


class Recording:
    """A network that keeps the sizes of its batches, and sees level and condition."""

    def __init__(self):
        self.sizes = []

    def __call__(self, x, label, shift, scale):
        self.sizes.append(len(x))
        return torch.tanh(x * label.reshape(-1, 1).to(x) * scale + shift)


@pytest.mark.parametrize("t", [0.4, torch.tensor(0.4), torch.tensor([0.9, 0.7, 0.5, 0.3, 0.2]), torch.tensor([0.4])])
@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_parts_add_up_to_the_whole(size, t):
    network = Recording()
    model = Denoiser(network, FlowSchedule(), "v")
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    condition = Condition({"shift": torch.arange(5.0)[:, None], "scale": torch.full((1, 1), 2.0)}, shared=["scale"])
    whole = model(x, t, condition)
    network.sizes.clear()
    parts = InBatches(model, size)(x, t, condition)
    assert network.sizes == [len(rows) for rows in x.split(size)]
    for found, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(found, expected)
    found, expected = (torch.autograd.grad(p.x0.sum() + p.eps.square().sum(), x)[0] for p in (parts, whole))
    torch.testing.assert_close(found, expected)


def test_an_empty_batch_and_wrong_sizes():
    model = Denoiser(lambda x, label: x, FlowSchedule(), "v")
    assert InBatches(model, 2)(torch.ones(0, 3), 0.5).x0.shape == (0, 3)
    for size in (0, 2.5):
        with pytest.raises(InputError, match="batches of"):
            InBatches(model, size)
