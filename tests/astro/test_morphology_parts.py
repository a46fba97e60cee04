"""The parts of the morphology against scipy's and photutils' scalar routines."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, optimize

from priorscope_astro.morphology import overlap
from priorscope_astro.morphology.filters import box_each, gaussian_each, region_at, regions
from priorscope_astro.morphology.lockstep import brent, nelder_mead
from priorscope_astro.morphology.segmenting import middle_source, segment
from priorscope_astro.morphology.stamps import skyboxes

RNG = np.random.default_rng(0)


def test_brent_takes_scipys_path():
    powers, shifts = np.array([1.0, 3.0, 5.0, 0.3]), np.array([0.2, 0.01, 0.5, 0.0])

    def function(x, rows):
        return np.sign(x) * np.abs(x) ** powers[rows] - shifts[rows]

    found = brent(function, np.full(4, -1.0), np.full(4, 2.0), xtol=1e-6)
    for row in range(4):
        one = optimize.brentq(lambda x, row=row: function(np.array([x]), np.array([row]))[0], -1, 2, xtol=1e-6)
        assert found[row] == one


def test_the_simplex_takes_scipys_path():
    centres = np.array([[1.0, 2.0], [-3.0, 0.5], [0.0, 0.0], [10.0, -4.0]])
    start = centres + RNG.normal(0, 1, centres.shape)
    start[2, 0] = 0  # the first simplex is another there

    def function(x, rows):
        away = np.abs(x - centres[rows])
        return away[:, 0] + away[:, 1] ** 2 + 0.3 * np.sin(5 * away.sum(1))

    watched = []
    found = nelder_mead(function, start, xtol=1e-6, ftol=1e-4, watch=lambda best, rows: watched.append(len(rows)))
    assert found.converged.all()
    assert watched[0] == 4 > watched[-1] > 0
    for row in range(4):
        one = optimize.fmin(
            lambda x, row=row: function(np.array([x]), np.array([row]))[0], start[row], xtol=1e-6, disp=False
        )
        np.testing.assert_array_equal(found.x[row], one)


@pytest.mark.parametrize("elongation", [1.0, 3.0])
def test_overlap_is_exact(elongation):
    aperture = pytest.importorskip("photutils.aperture")
    images = RNG.standard_normal((30, 25, 31))
    centre = np.stack([RNG.uniform(-3, 34, 30), RNG.uniform(-3, 28, 30)], axis=1)
    a, theta = RNG.uniform(0.2, 15, 30), RNG.uniform(-4, 4, 30)
    theta[:3] = 0, np.pi / 2, 1e-9
    if elongation == 1:
        corners = overlap.circle(centre, a, (25, 31))
        np.testing.assert_allclose(
            overlap.pixels(corners), overlap.pixels(overlap.ellipse(centre, a, a, theta, (25, 31))), atol=1e-10
        )
    else:
        corners = overlap.ellipse(centre, a, a / elongation, theta, (25, 31))
    expected = []
    for row in range(30):
        shape = aperture.EllipticalAperture(centre[row], a[row], a[row] / elongation, theta=theta[row])
        expected.append(shape.do_photometry(images[row], method="exact")[0][0])
    expected = np.nan_to_num(expected)  # photutils: NaN for apertures that miss the image
    np.testing.assert_allclose(overlap.weighted(corners, overlap.differences(images)), expected, atol=1e-9)
    weights = overlap.pixels(corners)
    assert weights.min() > -1e-10
    assert weights.max() < 1 + 1e-10
    np.testing.assert_allclose((weights * images).sum((1, 2)), expected, atol=1e-9)


def test_each_image_has_its_own_smoothing():
    images = RNG.standard_normal((6, 20, 26))
    sizes = np.array([0, 1, 2, 3, 7, 30])
    for image, size, got in zip(images, sizes, box_each(images, sizes), strict=True):
        np.testing.assert_allclose(got, ndimage.uniform_filter(image, max(size, 1)), atol=1e-12)
    sigma = np.array([0.3, 0.9, 1.5, 2.0, 5.0, 12.0])
    for image, width, got in zip(images, sigma, gaussian_each(images, sigma), strict=True):
        np.testing.assert_allclose(got, ndimage.gaussian_filter(image, width, mode="constant"), atol=1e-12)


def test_regions_do_not_join_images():
    masks = np.zeros((3, 5, 5), dtype=bool)
    masks[:, 1, 1] = masks[:, 2, 2] = masks[1, 4, 0] = True
    labels = regions(masks)
    assert [len(np.unique(one)) - 1 for one in labels] == [1, 2, 1]
    assert labels.max() == 4
    chosen = region_at(masks, np.array([[1, 1], [4, 0], [0, 0]]))
    assert chosen.sum((1, 2)).tolist() == [2, 1, 0]


def test_the_skybox_is_the_first_free_square():
    occupied = np.zeros((3, 48, 48), dtype=bool)
    occupied[0, 0, 10] = True
    occupied[1, 8:40, 8:40] = True
    occupied[2] = True
    corner, side = skyboxes(occupied)
    assert side.tolist() == [32, 8, 0]
    assert corner[0].tolist() == [0, 11]
    assert corner[1].tolist() == [0, 0]


def test_sources_are_found_and_the_middle_one_is_meant():
    y, x = np.mgrid[:60, :60]
    images = RNG.normal(0, 1, (3, 60, 60))
    images[0] += 20 * np.exp(-((x - 30) ** 2 + (y - 30) ** 2) / 30) + 20 * np.exp(-((x - 10) ** 2 + (y - 50) ** 2) / 10)
    images[1] += 20 * np.exp(-((x - 38) ** 2 + (y - 22) ** 2) / 20)
    labels = segment(images)
    target = middle_source(labels)
    assert labels[0, 30, 30] == target[0] != labels[0, 50, 10] > 0
    assert target[1] == labels[1, 22, 38] > 0
    assert min(np.unique(labels[labels > 0], return_counts=True)[1]) >= 5  # no specks
    assert target[2] == 0 or (labels[2] == target[2]).sum() < 30
