"""The log-depth codec, and each effect of the sensor model on its own against what geometry says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from priorscope import InputError
from priorscope_depth.scenes import render_scene
from priorscope_depth.sensor.codec import LogDepth
from priorscope_depth.sensor.structured_light import StructuredLight, normals_of

WIDTH = 640  # disparities are then in the units of the sensor's numbers
FB = 0.9 * WIDTH * 0.075


def test_codec_ends_and_middle():
    codec = LogDepth()
    code = codec.encode(np.array([0.05, 0.5, 4.9, 0.0, 4.95, np.nan, 0.01]))
    assert code == pytest.approx([-1, 0, 2 * math.log(98) / math.log(100) - 1, 1, 1, 1, -1])
    assert codec.decode(np.array([-1.0, 0.0, 1.0, 3.0])) == pytest.approx([0.05, 0.5, 0, 0])


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_codec_there_and_back(library):
    codec, draw = LogDepth(), np.random.default_rng(0)
    clean, scan = draw.uniform(0.1, 4.8, (2, 30, 40))
    scan[3:5] = 0
    if library == "torch":
        clean, scan = torch.from_numpy(clean), torch.from_numpy(scan)
    np.testing.assert_allclose(codec.decode(codec.encode(scan)), scan, rtol=1e-12)
    residual = codec.residual(scan, clean)
    assert float(abs(residual).max()) <= 1
    np.testing.assert_allclose(codec.apply(residual, clean), scan, rtol=1e-12)
    assert not codec.apply(residual, clean)[3:5].any()


def test_codec_steps_are_relative():
    codec = LogDepth()
    for depth in (0.2, 1.0, 4.0):
        small = codec.residual(np.array([depth * 1.001]), np.array([depth]))
        assert small == pytest.approx(codec.step * math.log(1.001) / 2)
    with pytest.raises(InputError):
        LogDepth(near=1.0, invalid=0.5)


def test_a_perfect_sensor_reports_the_truth():
    depth = render_scene(3, kind="clutter").depth
    found = StructuredLight.perfect().scan(depth, 0)
    np.testing.assert_allclose(found, depth, rtol=1e-6)


def test_fixed_by_its_seed():
    depth = render_scene(3, kind="clutter").depth
    sensor = StructuredLight()
    one, again, other = sensor.scan(depth, 1), sensor.scan(depth, 1), sensor.scan(depth, 2)
    np.testing.assert_array_equal(one, again)
    assert (one != other).mean() > 0.2
    # an effect switched off leaves the others' draws: noise of what both measure is the same
    quiet = StructuredLight(border=0.0, grazing=0.0).scan(depth, 1)
    both = (one > 0) & (quiet > 0)
    np.testing.assert_array_equal(one[both], quiet[both])


def board(front=1.0, back=2.0, left=300, right=360, height=20):
    depth = np.full((height, WIDTH), back)
    depth[:, left:right] = front
    return depth


def test_shadow_has_the_width_of_the_disparity_step():
    """The projector stands on the right: the board hides what lies to its left, for f b (1/1 - 1/2) pixels."""
    found = StructuredLight.perfect(shadow=True).scan(board(), 0)
    dark = found[5] == 0
    columns = np.flatnonzero(dark)
    width = FB * (1 / 1.0 - 1 / 2.0)
    assert columns[-1] == 299
    assert len(columns) == columns[-1] - columns[0] + 1
    assert len(columns) == math.floor(width) or len(columns) == math.ceil(width)
    assert not (StructuredLight.perfect(shadow=True).scan(np.full((4, WIDTH), 1.5), 0) == 0).any()


def test_holes_at_borders_only():
    found = StructuredLight.perfect(border=1.0, window=5).scan(board(), 0)
    columns = np.flatnonzero((found == 0).any(0))
    # the window of 5 reaches two pixels to either side of each border
    assert columns.tolist() == [298, 299, 300, 301, 358, 359, 360, 361]
    some = StructuredLight.perfect(border=0.5, window=5).scan(board(height=400), 0) == 0
    assert some[:, columns].mean() == pytest.approx(0.5, abs=0.03)


def slope(degrees, height=60):
    """A plane turned about the vertical by so many degrees, 2 m off in the middle."""
    u = (np.arange(WIDTH) + 0.5 - WIDTH / 2) / (0.9 * WIDTH)
    along = 1 - np.tan(np.radians(degrees)) * u
    depth = np.where(along > 0.05, 2 / np.maximum(along, 0.05), 0)  # beyond, the plane is behind the camera
    return np.broadcast_to(depth, (height, WIDTH)).copy()


def test_normals_of_a_slope():
    normals = normals_of(slope(50.0), 0.9)[5:-5, 5:-5]
    expected = np.array([math.sin(math.radians(50)), 0, math.cos(math.radians(50))])
    np.testing.assert_allclose(normals @ expected, 1, atol=1e-9)
    assert (normals[..., 2] > 0).all()


def test_grazing_surfaces_are_lost():
    sensor = StructuredLight.perfect(grazing=0.3)
    middle = np.s_[:, WIDTH // 2 - 10 : WIDTH // 2 + 10]
    assert (sensor.scan(slope(0.0), 0)[middle] > 0).all()
    assert (sensor.scan(slope(50.0), 0)[middle] > 0).all()  # cosine 0.64: kept from 0.6 on
    lost = sensor.scan(slope(63.26), 0)[middle] == 0  # cosine 0.45: halfway
    assert lost.mean() == pytest.approx(0.5, abs=0.06)
    assert (sensor.scan(slope(75.0), 0)[middle] == 0).all()  # cosine 0.26


@pytest.mark.parametrize("correlation", [0.0, 1.5])
def test_noise_grows_with_the_square_of_depth(correlation):
    sensor = StructuredLight.perfect(noise=0.1, correlation=correlation)
    spread = []
    for depth in (1.0, 2.0, 4.0):
        error = sensor.scan(np.full((300, WIDTH), depth), 3) - depth
        assert error.std() == pytest.approx(0.1 * depth**2 / FB, rel=0.05)
        spread.append(error.std())
        beside = np.corrcoef(error[:, 1:].ravel(), error[:, :-1].ravel())[0, 1]
        # smoothed white noise: exp(-1 / (4 sigma^2)) between neighbours
        assert beside == pytest.approx(math.exp(-1 / (4 * correlation**2)) if correlation else 0, abs=0.03)
    assert spread[2] / spread[0] == pytest.approx(16, rel=0.1)


def test_depth_comes_in_steps_of_disparity():
    ramp = np.broadcast_to(np.linspace(1, 4, WIDTH), (4, WIDTH)).copy()
    found = StructuredLight.perfect(step=0.125).scan(ramp, 0)
    counts = FB / found[0] / 0.125
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)
    assert np.abs(FB / found - FB / ramp).max() <= 0.125 / 2 + 1e-4
    levels = np.unique(found)
    assert np.diff(levels)[-1] > 5 * np.diff(levels)[0]


def test_range():
    found = StructuredLight.perfect(near=0.8, far=3.0).scan(np.array([[0.5, 1.0], [2.9, 3.5]]), 0)
    assert found == pytest.approx(np.array([[0, 1.0], [2.9, 0]]))


def test_mistakes():
    for depth in (np.zeros((4, 4), int), np.zeros(4), np.full((4, 4), np.nan), np.full((4, 4), -1.0)):
        with pytest.raises(InputError):
            StructuredLight().scan(depth, 0)
    for wrong in ({"window": 4}, {"border": 2.0}, {"noise": -1.0}, {"near": 5.0}, {"focal": 0.0}):
        with pytest.raises(InputError):
            StructuredLight(**wrong)
