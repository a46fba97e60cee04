"""Losses of depth and normals: invariances, values by hand, gradients that stay finite."""

from __future__ import annotations

import math

import pytest
import torch

from priorscope_depth.losses import angular_loss, fit_scale_shift, relative_depth_loss, relative_l1, ssi_loss, unit


@pytest.fixture
def case():
    draw = torch.Generator().manual_seed(0)
    depth = 1 + 20 * torch.rand(3, 1, 6, 7, generator=draw)
    predicted = 1 / depth + 0.05 * torch.randn(depth.shape, generator=draw)
    valid = torch.rand(depth.shape, generator=draw) > 0.2
    return predicted, depth, valid


def test_relative_depth_ignores_scale_and_shift(case):
    predicted, depth, valid = case
    loss = relative_depth_loss(predicted, depth, valid)
    assert loss > 0.01
    for scale, shift in ((3.0, 0.0), (0.2, -0.5), (7.0, 2.0)):
        torch.testing.assert_close(relative_depth_loss(scale * predicted + shift, depth, valid), loss)
    assert relative_depth_loss(4 / depth - 1, depth, valid).item() == pytest.approx(0, abs=1e-5)


def test_relative_depth_by_hand():
    # disparities 1, 2, 3 are answered by 0, 1, 0: the fit is 2 + 0 p, ratios 2, 1 and 2/3
    depth = (1 / torch.tensor([1.0, 2.0, 3.0])).reshape(1, 1, 1, 3)
    predicted = torch.tensor([0.0, 1.0, 0.0]).reshape(1, 1, 1, 3)
    expected = (math.log(2) + math.log(1.5)) / 3
    assert relative_depth_loss(predicted, depth, depth > 0).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["constant", "inverted", "zero", "no pixel", "one pixel", "half precision range"])
def test_gradients_stay_finite(case, kind):
    predicted, depth, valid = case
    changed = {
        "constant": torch.full_like(predicted, 0.3),
        "inverted": -predicted,
        "zero": torch.zeros_like(predicted),
        "half precision range": predicted * 6e4,
    }.get(kind, predicted)
    if kind == "no pixel":
        valid = torch.zeros_like(valid)
    elif kind == "one pixel":
        valid = torch.zeros_like(valid)
        valid[0, 0, 2, 3] = True
    # depth is 0 or even NaN where it is not known
    for unknown in (0.0, math.nan):
        given = changed.clone().requires_grad_()
        hidden = torch.where(valid, depth, unknown)
        loss = relative_depth_loss(given, hidden, valid) + ssi_loss(given, hidden, valid)
        loss.backward()
        assert loss.isfinite()
        assert given.grad.isfinite().all()
        assert (given.grad[~valid] == 0).all()


def test_a_gradient_step_improves_an_inverted_answer(case):
    predicted, depth, valid = case
    given = (-predicted).requires_grad_()
    before = relative_depth_loss(given, depth, valid)
    before.backward()
    with torch.no_grad():
        after = relative_depth_loss(given - 0.01 * given.grad / given.grad.abs().max(), depth, valid)
    assert after < before


def test_scale_and_shift_are_least_squares(case):
    predicted, depth, valid = case
    scale, shift = fit_scale_shift(predicted, depth, valid)
    for row in range(3):
        p, g = predicted[row][valid[row]].double(), depth[row][valid[row]].double()
        solved = torch.linalg.lstsq(torch.stack([p, torch.ones_like(p)], 1), g[:, None]).solution.flatten()
        torch.testing.assert_close(torch.stack([scale[row], shift[row]]).double(), solved, atol=1e-3, rtol=1e-4)
    constant = fit_scale_shift(torch.full_like(depth, 2.0), depth, valid)
    assert torch.equal(constant[0], torch.zeros(3))
    torch.testing.assert_close(constant[1], torch.stack([depth[row][valid[row]].mean() for row in range(3)]))


def test_ssi_ignores_scale_and_shift_of_either_sign(case):
    predicted, depth, valid = case
    loss = ssi_loss(predicted, depth, valid)
    torch.testing.assert_close(ssi_loss(-2 * predicted + 1, depth, valid), loss)
    assert ssi_loss(-3 * depth + 1, depth, valid).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("degrees", [10.0, 45.0, 90.0, 135.0])
def test_angles(degrees):
    angle = math.radians(degrees)
    first = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1).expand(2, 3, 4, 4)
    second = torch.tensor([math.sin(angle), 0.0, math.cos(angle)]).reshape(1, 3, 1, 1).expand(2, 3, 4, 4)
    everywhere = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    assert angular_loss(first, second, everywhere).item() == pytest.approx(angle, rel=1e-4)
    half = everywhere.clone()
    half[1] = False
    mixed = torch.cat([second[:1], first[:1]])
    assert angular_loss(first, mixed, half).item() == pytest.approx(angle, rel=1e-4)
    assert angular_loss(first, mixed, everywhere).item() == pytest.approx(angle / 2, abs=1e-3)


def test_equal_and_opposite_normals_have_finite_gradients():
    normals = unit(torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(0)))
    everywhere = torch.ones(1, 1, 5, 5, dtype=torch.bool)
    for sign, expected in ((1, 0.0), (-1, math.pi)):
        given = (sign * normals).requires_grad_()
        loss = angular_loss(given, normals, everywhere)
        loss.backward()
        assert loss.item() == pytest.approx(expected, abs=6e-3)
        assert given.grad.isfinite().all()
    zero = torch.zeros(1, 3, 2, 2, requires_grad=True)
    unit(zero).sum().backward()
    assert zero.grad.isfinite().all()


def test_relative_l1_weighs_far_pixels_more():
    # near the horizon, near, sky, unknown
    target = torch.tensor([-1.0, 1.0, -1.0, -1.0]).reshape(1, 1, 1, 4)
    valid = torch.tensor([True, True, False, False]).reshape(1, 1, 1, 4)
    counts = torch.tensor([True, True, True, False]).reshape(1, 1, 1, 4)
    shares = torch.tensor([1 / 0.15, 1 / 1.15, 1.0, 0.0])
    for place in range(4):
        predicted = target.clone()
        predicted[..., place] += 0.3
        torch.testing.assert_close(relative_l1(predicted, target, valid, counts), 0.3 * shares[place] / shares.sum())
