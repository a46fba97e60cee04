"""Multi-resolution noise: white where it should be, coarse where it should be, per item."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from priorscope import InputError
from priorscope.diffusion.multi_resolution import annealed_noise, multi_resolution_noise

LIKE = torch.empty(1, 4, 48, 64)


def draws(count):
    return [np.random.default_rng(seed) for seed in range(count)]


def test_without_strength_it_is_white():
    noise = multi_resolution_noise(LIKE, 0.0, np.random.default_rng(3))
    assert np.array_equal(noise, np.random.default_rng(3).standard_normal(LIKE.shape, dtype=np.float32))


def test_variance_is_one_and_coarse_structure_grows_with_strength():
    coarse = []
    for strength in (0.0, 0.3, 0.9):
        noise = torch.cat([multi_resolution_noise(LIKE, strength, draw) for draw in draws(12)])
        torch.testing.assert_close(noise.std((1, 2, 3)), torch.ones(12), atol=0.02, rtol=0)
        coarse.append(functional.avg_pool2d(noise, 8).std().item())
    assert coarse[0] == pytest.approx(1 / 8, rel=0.1)  # 64 independent pixels
    assert coarse[0] < coarse[1] < coarse[2]


def test_annealed_noise_fades_with_the_level_whatever_the_batch():
    like = LIKE.expand(3, -1, -1, -1)
    batch = annealed_noise(like, [0.0, 0.5, 1.0], draws(3), strength=0.8)
    for row, share in enumerate((0.0, 0.5, 1.0)):
        assert torch.equal(batch[row : row + 1], multi_resolution_noise(LIKE, 0.8 * share, np.random.default_rng(row)))
    with pytest.raises(InputError, match="2 levels and 3 generators for a batch of 3"):
        annealed_noise(like, [0.0, 0.5], draws(3))
