"""DiffusionEdge's process: moments, exact recovery by a network that knows, and the step against its text."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from priorscope import InputError
from priorscope.diffusion import (
    DecoupledDenoiser,
    DecoupledSchedule,
    Noise,
    VPSchedule,
    brownian_bridge,
    ddim,
    decoupled_losses,
    decoupled_times,
    sample,
)
from priorscope.diffusion.denoiser import Denoiser


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def oracle(x0):
    """Knows x0, and so the noise that makes x of it."""

    def network(x, label):
        t = label.reshape(-1, *[1] * (x.ndim - 1)).to(x)
        return torch.cat([-x0.expand_as(x), (x - (1 - t) * x0) / t.sqrt()], dim=1)

    return DecoupledDenoiser(network)


def test_moments_of_the_noised_sample():
    """Mean (1 - t) x0, variance t: within four standard errors of 200 000 draws."""
    count = 200_000
    noise = draws(count, 1)
    for t in (1e-4, 0.2, 0.7, 1.0):
        x = DecoupledSchedule().add_noise(torch.full((count, 1), 3.0, dtype=torch.float64), t, noise)
        assert abs(x.mean() - (1 - t) * 3) < 4 * math.sqrt(t / count)
        assert abs(x.var() - t) < 4 * t * math.sqrt(2 / count)


@pytest.mark.parametrize("steps", [1, 2, 5, 17])
def test_a_network_that_knows_leads_to_the_sample(steps):
    x0 = draws(3, 2, 4, 4, seed=1)
    times = decoupled_times(steps)
    for row in range(3):
        start = draws(1, 2, 4, 4, seed=2 + row)
        known = x0[row : row + 1]
        x = sample(oracle(known), start, times, step=brownian_bridge, noise=Noise.shared(row))
        torch.testing.assert_close(x, known, rtol=0, atol=1e-6)  # labels are float32


def test_the_bridge_keeps_the_marginals():
    """From x_t with the true noise, x_s has mean (1 - s) x0 and variance s, over many starts."""
    count, x0 = 200_000, torch.full((200_000, 1), -2.0, dtype=torch.float64)
    x = DecoupledSchedule().add_noise(x0, 1.0, draws(count, 1))
    noise = Noise.shared(5)
    for t, s in pairwise(decoupled_times(5)[:-1]):
        x, _ = brownian_bridge(oracle(x0), x, t, s, None, noise)
        assert abs(x.mean() + 2 * (1 - s)) < 5 * math.sqrt(s / count)
        assert abs(x.var() - s) < 5 * s * math.sqrt(2 / count)


def test_step_as_the_paper_writes_it():
    """Also where the two outputs contradict each other: C is set to -x0 first."""
    x, drift, noise, fresh = (draws(2, 3, 4, 4, seed=seed) for seed in range(4))
    t, s = 0.6, 0.4
    x0 = x - drift * t - math.sqrt(t) * noise
    reset = -x0
    step = t - s
    mean = x + reset * (t - step) - reset * t - step / math.sqrt(t) * noise
    expected = mean + math.sqrt(step * (t - step) / t) * fresh
    model = DecoupledDenoiser(lambda x, label: torch.cat([drift, noise], dim=1))
    found, _ = brownian_bridge(model, x, t, s, None, Noise.recorded([fresh]))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, ddim(model, x, t, s, None, None)[0])


def test_times():
    assert decoupled_times(5) == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 1e-4, 0])
    assert decoupled_times(2, split=0) == [1, 0.5, 0]
    for steps, split in ((0, 0.0), (5, 0.2), (5, -1.0)):
        with pytest.raises(InputError):
            decoupled_times(steps, split)


def test_losses_worked_out_by_hand():
    x0, noise = draws(4, 2, 3, 3, seed=1), draws(4, 2, 3, 3, seed=2)
    t = torch.tensor([0.25, 0.25, 0.25, 0.25], dtype=torch.float64)
    right = DecoupledDenoiser(lambda x, label: torch.cat([-x0, noise], dim=1))
    assert decoupled_losses(right, x0, noise, t)["loss"] < 1e-6
    # both outputs wrong by 0.5: squared 0.25, absolute 0.5, their mean 0.375
    wrong = DecoupledDenoiser(lambda x, label: torch.cat([-x0 + 0.5, noise - 0.5], dim=1))
    parts = decoupled_losses(wrong, x0, noise, t)
    assert parts["drift"] == pytest.approx(1.25 / 0.5 * 0.375, rel=1e-5)
    assert parts["noise"] == pytest.approx(math.sqrt(1.75 / 0.7501) * 0.375, rel=1e-5)
    # x0 is wrong by -0.25 * 0.5 + 0.5 * 0.5
    assert parts["rebuilt"] == pytest.approx(0.75**2 * 0.125, rel=1e-5)
    assert parts["loss"] == pytest.approx(sum(float(parts[name]) for name in ("drift", "noise", "rebuilt")))


def test_mistakes():
    x = draws(1, 2, 4, 4)
    with pytest.raises(InputError, match="channels"):
        DecoupledDenoiser(lambda x, label: x)(x, 0.5)
    with pytest.raises(InputError, match="outside"):
        DecoupledSchedule()(1.5)
    with pytest.raises(InputError, match="VPSchedule"):
        brownian_bridge(Denoiser(lambda x, label: x, VPSchedule.from_betas()), x, 0.5, 0.2, None, None)
    with pytest.raises(InputError, match="fall"):
        brownian_bridge(oracle(x), x, 0.2, 0.5, None, None)
    with pytest.raises(InputError, match="noise"):
        sample(oracle(x), x, decoupled_times(2), step=brownian_bridge)
