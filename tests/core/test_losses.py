"""Losses: what they are for a case worked out by hand, and what must not change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from priorscope import InputError
from priorscope.diffusion import Denoiser, FlowSchedule, VPSchedule
from priorscope.diffusion.losses import denoising_loss, masked_mean

KINDS = ("epsilon", "v", "sample", "score", "flow")
MEAN, SPREAD = 0.7, 1.3


def schedule_of(kind):
    return FlowSchedule() if kind == "flow" else VPSchedule.from_betas()


def levels_of(kind, rows):
    return torch.linspace(0.1, 0.9, rows) if kind == "flow" else torch.linspace(50, 900, rows).round()


def samples(rows=6, size=5):
    draw = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(rows, 3, size, size, generator=draw, dtype=torch.float64) for _ in range(2))
    return x0, eps


def posterior_mean(denoiser):
    """The best network for x0 ~ N(MEAN, SPREAD^2), in the denoiser's own output."""

    def network(x, label):
        alpha, sigma = denoiser.schedule.coefficients(network.t, x)
        total = alpha**2 * SPREAD**2 + sigma**2
        x0 = MEAN + alpha * SPREAD**2 / total * (x - alpha * MEAN)
        eps = (x - alpha * x0) / sigma
        return denoiser.target(x0, eps, network.t)

    return network


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_knows_the_sample_has_no_loss(kind):
    x0, eps = samples()
    t = levels_of(kind, 6)
    denoiser = Denoiser(lambda x, label: denoiser.target(x0, eps, t), schedule_of(kind), kind)
    for weighting in ("output", "x0", "min-snr"):
        assert denoising_loss(denoiser, x0, eps, t, weighting=weighting).item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_posterior_mean_leaves_the_posterior_variance(kind):
    """For Gaussian data the least possible error of x0 is known: sigma^2 SPREAD^2 / (alpha^2 SPREAD^2 + sigma^2)."""
    draw = torch.Generator().manual_seed(1)
    x0, eps = (torch.randn(4, 1, 160, 160, generator=draw, dtype=torch.float64) for _ in range(2))
    x0 = MEAN + SPREAD * x0
    t = levels_of(kind, 1).expand(4) if kind == "flow" else torch.full((4,), 400.0)
    denoiser = Denoiser(lambda x, label: best(x, label), schedule_of(kind), kind)
    best = posterior_mean(denoiser)
    best.t = t
    alpha, sigma = denoiser.schedule(float(t[0]))
    least = sigma**2 * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
    loss = denoising_loss(denoiser, x0, eps, t, weighting="x0").item()
    assert loss == pytest.approx(least, rel=0.02)
    for change in (-0.05, 0.05):  # and no other answer does better
        shifted = Denoiser(lambda x, label, by=change: best(x, label) + by, schedule_of(kind), kind)
        assert denoising_loss(shifted, x0, eps, t, weighting="x0").item() > loss


@pytest.mark.parametrize("kind", KINDS)
def test_weightings_are_those_of_x0(kind):
    x0, eps = samples()
    t = levels_of(kind, 6)
    answer = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    denoiser = Denoiser(lambda x, label: answer, schedule_of(kind), kind)
    alpha, sigma = denoiser.schedule.coefficients(t, x0)
    implied = denoiser(alpha * x0 + sigma * eps, t).x0
    of_x0 = (implied - x0).square()
    snr = (alpha / sigma).square()
    expected = {
        "output": (answer - denoiser.target(x0, eps, t)).square().mean(),
        "x0": of_x0.mean(),
        "min-snr": (of_x0 * snr.clamp(max=5.0)).mean(),
    }
    for weighting, value in expected.items():
        loss = denoising_loss(denoiser, x0, eps, t, weighting=weighting)
        assert loss.ndim == 0
        assert loss.item() == pytest.approx(value.item(), rel=1e-4)
    assert snr.min() < 5 < snr.max()  # the limit matters here
    other = denoising_loss(denoiser, x0, eps, t, weighting="min-snr", gamma=0.5).item()
    assert other == pytest.approx((of_x0 * snr.clamp(max=0.5)).mean().item(), rel=1e-4)


def test_a_value_by_hand():
    # a flow at t = 0.25 with x0 = 1, eps = 3: the velocity is 2; the network says 0.5
    one = torch.ones(1, 1, 1, 1)
    denoiser = Denoiser(lambda x, label: x * 0 + 0.5, FlowSchedule(), "flow")
    t = torch.tensor([0.25])
    assert denoising_loss(denoiser, one, 3 * one, t).item() == pytest.approx(1.5**2)
    alpha, sigma = denoiser.schedule(0.25)
    assert denoising_loss(denoiser, one, 3 * one, t, weighting="x0").item() == pytest.approx(
        (1.5 * sigma / (alpha + sigma)) ** 2
    )
    with pytest.raises(InputError, match="'snr'"):
        denoising_loss(denoiser, one, one, t, weighting="snr")


@pytest.mark.parametrize("kind", ["epsilon", "v", "sample"])
def test_min_snr_is_finite_where_no_signal_is_left(kind):
    """At alpha = 0 an error of epsilon weighs 1, its limit; one of x0 weighs SNR = 0."""
    x0, eps = samples()
    denoiser = Denoiser(lambda x, label: torch.zeros_like(x), VPSchedule(np.array([0.5, 0.0])), kind)
    loss = denoising_loss(denoiser, x0, eps, torch.ones(len(x0)), weighting="min-snr").item()
    assert loss == pytest.approx(eps.square().mean().item() if kind == "epsilon" else 0.0, rel=1e-5)


def test_what_is_masked_does_not_count():
    x0, eps = samples()
    t = levels_of("v", 6)
    mask = torch.zeros(6, 1, 5, 5, dtype=torch.bool)
    mask[:, :, 1:3, 2:] = True

    def answer(hidden):
        def network(x, label):
            return torch.where(mask, torch.ones_like(x), torch.full_like(x, hidden))

        return Denoiser(network, schedule_of("v"), "v")

    losses = [denoising_loss(answer(hidden), x0, eps, t, mask=mask).item() for hidden in (0.0, 9.0, math.nan)]
    assert losses[0] == losses[1] == losses[2]
    inside = (1 - answer(0.0).target(x0, eps, t))[:, :, 1:3, 2:]
    assert losses[0] == pytest.approx(inside.square().mean().item(), rel=1e-5)


def test_masked_means():
    values = torch.tensor([[1.0, 2.0], [3.0, 10.0]], requires_grad=True)
    assert masked_mean(values).item() == 4
    mask = torch.tensor([[True, True], [True, False]])
    assert masked_mean(values, mask).item() == 2
    assert masked_mean(values, torch.tensor([[True], [False]])).item() == 1.5  # broadcast
    bad = torch.tensor([[1.0, 2.0], [3.0, math.nan]], requires_grad=True)
    mean = masked_mean(bad, mask)
    mean.backward()
    assert mean.item() == 2
    np.testing.assert_allclose(bad.grad, [[1 / 3, 1 / 3], [1 / 3, 0]], rtol=1e-6)
    nothing = masked_mean(values, torch.zeros_like(mask))
    nothing.backward()
    assert nothing.item() == 0
    assert torch.equal(values.grad, torch.zeros(2, 2))


def test_gradients_reach_the_network():
    x0, eps = samples()
    scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    denoiser = Denoiser(lambda x, label: scale * x, schedule_of("v"), "v")
    t = levels_of("v", 6)
    denoising_loss(denoiser, x0, eps, t).backward()
    alpha, sigma = denoiser.schedule.coefficients(t, x0)
    x = alpha * x0 + sigma * eps
    expected = (2 * (0.3 * x - (alpha * eps - sigma * x0)) * x).mean().item()
    assert scale.grad.item() == pytest.approx(expected, rel=1e-5)
