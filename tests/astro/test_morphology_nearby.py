"""Sums at an aperture's perimeter and about centres nearby against the exact overlap of every pixel."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")
from priorscope_astro.morphology import overlap
from priorscope_astro.morphology.asymmetry import Rotation
from priorscope_astro.morphology.nearby import Nearby
from priorscope_astro.morphology.perimeter import Sums


@pytest.mark.parametrize("spacing", [None, 0.5, 1e-15])
def test_sums_over_circles_and_ellipses(spacing):
    rng = np.random.default_rng(0)
    count, size = 200, (25, 31)
    images = rng.standard_normal((2, count, *size))
    centre = np.stack([rng.uniform(-3, 34, count), rng.uniform(-3, 28, count)], axis=1)
    a, theta = rng.uniform(0.2, 20, count), rng.uniform(-4, 4, count)
    if spacing is not None:  # corners that lie on apertures, or all but on them
        centre, a = np.round(2 * centre) / 2, np.round(2 * a) / 2
        theta[::2] = np.round(theta[::2] * 2 / np.pi) * np.pi / 2
        centre += spacing * rng.integers(-3, 4, centre.shape) if spacing < 0.5 else 0
    b = a * np.where(np.arange(count) % 5, rng.uniform(0.2, 1, count), 1)
    sums = Sums(images, ellipses=True)
    expected = [
        [overlap.weighted(corners, overlap.differences(kind)) for kind in images]
        for corners in (overlap.circle(centre, a, size), overlap.ellipse(centre, a, b, theta, size))
    ]
    close = 1e-5 if spacing == 1e-15 else 1e-8  # arcsines near 1 lose half their digits
    np.testing.assert_allclose(sums.circle(centre, a), expected[0], atol=close)
    np.testing.assert_allclose(sums.ellipse(centre, a, b, theta), expected[1], atol=close)
    some = np.array([7, 3, 190, 3])
    again = Sums(images, ellipses=False).circle(centre[some], a[some], some)
    np.testing.assert_allclose(again, np.array(expected[0])[:, some], atol=close)


@pytest.mark.parametrize("half", [0.12, 0.002])
@pytest.mark.parametrize("share", [0.0, 0.02])
def test_sums_about_centres_nearby(half, share):
    rng = np.random.default_rng(1)
    count = 24
    y, x = np.mgrid[:50, :50]
    images = rng.normal(0, 5, (count, 50, 50)) + 300 * np.exp(-np.hypot(x - 25, y - 25) / 5)
    masks = rng.uniform(size=images.shape) < share
    images[masks] = 0
    start, radius = rng.uniform(23, 27, (count, 2)), rng.uniform(12, 20, count)
    radius[0] = 30  # reaches over the image's edges
    turning = Rotation(images, masks, start, float(radius.max()), 1)
    middle = start - turning.origin
    near = Nearby(turning, middle, np.full(count, half), radius)
    centre = middle + rng.uniform(-half, half, (count, 2))
    held = near.holds(centre, np.arange(count))
    assert held.sum() > count // 2
    assert not near.holds(middle + 0.3, np.arange(count)).any()
    expected = turning.sums(centre, None, overlap.circle(centre, radius, turning.size))
    for rows in (np.flatnonzero(held), np.flatnonzero(held)[:5]):
        for got, wanted in zip(near.sums(centre[rows], rows), expected, strict=True):
            np.testing.assert_allclose(got, wanted[rows], rtol=1e-12)
