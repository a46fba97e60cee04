"""What is known of haze in a picture: it is smooth, it adds light, and it adds in power."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from priorscope.diffusion.denoiser import Prediction, StepInfo
from priorscope.errors import InputError
from priorscope_medical.ultrasound.bmode_gain import HazeLevel, haze_to_take
from priorscope_medical.ultrasound.bmode_guidance import SmoothHazeGuidance, blurred


def moved_by(y, x0, **how):
    """What a guidance adds to the sample where the network says ``x0`` = the sample itself."""
    guide = SmoothHazeGuidance(y, **how)
    x = x0.clone().requires_grad_(True)
    guide(x, 0.5, Prediction(x * 1.0, x), StepInfo())
    return guide.correct(torch.zeros_like(x0), 0.0)


def test_the_step_is_the_gradient_of_the_stated_misfit():
    generator = torch.Generator().manual_seed(0)
    y, x0 = (torch.randn(2, 1, 12, 12, generator=generator, dtype=torch.float64) for _ in range(2))

    def misfit(x):
        r = y - x
        fine = r - blurred(r, 2.0)
        squares = fine.square() + (-r).clamp(min=0).square() + 0.09 * r.square()
        return squares.flatten(1).sum(1).sqrt().sum()

    x = x0.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(5 * misfit(x), x)
    torch.testing.assert_close(moved_by(y, x0, omega=5.0, sigma=2.0, hold=0.3), -expected)


def test_smooth_light_over_the_sample_is_left_to_the_prior_and_darkness_is_not():
    y = torch.zeros(1, 1, 32, 32)
    lighter = moved_by(y + 0.5, y, omega=1.0, hold=0.0)
    assert lighter.abs().max() < 1e-6
    darker = moved_by(y - 0.5, y, omega=1.0, hold=0.0)
    assert darker.max() < 0
    torch.testing.assert_close(darker, torch.full_like(darker, -1 / 32))  # the gradient of a norm has norm 1
    point = y.clone()
    point[0, 0, 16, 16] = 1.0
    towards = moved_by(point, y, omega=1.0, hold=0.0)
    assert towards[0, 0, 16, 16] > 10 * towards.flatten().sort().values[-2].abs()


def test_a_perfect_fit_is_not_moved():
    y = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(moved_by(y, y, omega=3.0), torch.zeros_like(y))


def test_blur_keeps_constants_and_has_its_width():
    torch.testing.assert_close(blurred(torch.full((1, 1, 9, 20), 0.7), 3.0), torch.full((1, 1, 9, 20), 0.7))
    point = torch.zeros(1, 1, 41, 41)
    point[0, 0, 20, 20] = 1.0
    spread_out = blurred(point, 2.0)[0, 0]
    places = torch.arange(41.0) - 20
    assert float((spread_out.sum(0) * places**2).sum()) == pytest.approx(4.0, rel=0.03)


HOW = HazeLevel(dynamic_range=50.0, margin=0.0, reach=6.0, smooth=0.0)


def two_levels(part, haze=0.4, wall=0.9):
    """Haze all over, with a wall in the middle; the estimate knows the wall alone, at a part of its brightness."""
    grey = np.full((1, 64, 64), haze, np.float32)
    grey[:, 24:40] = wall
    estimate = np.zeros_like(grey)
    estimate[:, 24:40] = part * wall
    return grey, estimate


def test_walls_well_above_the_haze_stay_and_chambers_become_black():
    for part, most in ((1.0, 1e-6), (0.9, 0.01), (0.6, 0.05)):  # the last estimate is 0.36 too dark
        grey, estimate = two_levels(part)
        off = haze_to_take(grey, estimate, np.ones((64, 64), bool), HOW)
        np.testing.assert_allclose(off[:, :14], 0.4, atol=0.01)
        assert off[:, 24:40].max() < most


def test_power_is_taken_off_as_it_was_added():
    """Echoes and haze of equal power are 3 dB above the haze alone: 3 dB are taken off."""
    more = 10 * np.log10(2) / 50
    grey = np.full((1, 64, 64), 0.5, np.float32)
    estimate = np.zeros_like(grey)
    grey[:, 30:34, 30:34] += more
    estimate[:, 30:34, 30:34] = 0.3
    how = HazeLevel(dynamic_range=50.0, margin=0.0, reach=8.0, smooth=0.0, sure=1.0)
    off = haze_to_take(grey, estimate, np.ones((64, 64), bool), how)
    assert off[0, 32, 32] == pytest.approx(more, abs=0.002)


def test_the_result_lies_between_the_estimate_and_the_picture():
    draw = np.random.default_rng(0)
    grey, estimate = (draw.random((2, 32, 32)).astype(np.float32) for _ in range(2))
    inside = np.ones((32, 32), bool)
    inside[:, :4] = False
    off = haze_to_take(grey, estimate, inside, HOW)
    assert (off >= 0).all()
    assert (grey - off >= np.minimum(estimate, grey) - 1e-6).all()
    assert not off[:, :, :4].any()
    assert not haze_to_take(grey, grey, inside, HOW).any()


def test_impossible_levels_are_refused():
    with pytest.raises(InputError, match="positive"):
        HazeLevel(dynamic_range=0.0)
    with pytest.raises(InputError, match="sigma is above 0"):
        SmoothHazeGuidance(torch.zeros(1, 1, 4, 4), omega=1.0, sigma=0.0)
    with pytest.raises(InputError, match="before a prediction"):
        SmoothHazeGuidance(torch.zeros(1, 1, 4, 4), omega=1.0).correct(torch.zeros(1), 0.0)
