"""Synthetic terrain: drawn the same whenever asked, with the spectra and the grid of Sentinel-2, and quickly."""

from __future__ import annotations

import time

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_remote_sensing.data.bands import SENTINEL2, ndvi
from priorscope_remote_sensing.data.terrain import SURFACES, terrain_patch, terrain_patches

COUNT = 120


@pytest.fixture(scope="module")
def patches():
    drawn = [terrain_patch(0, index) for index in range(COUNT)]
    return np.stack([patch.image for patch in drawn]), np.stack([patch.surface for patch in drawn])


def test_a_patch_depends_on_its_seed_and_index_alone(patches):
    images, _ = patches
    np.testing.assert_array_equal(terrain_patch(0, 7).image, images[7])
    np.testing.assert_array_equal(terrain_patches(3, 0, first=6), images[6:9])
    assert not np.array_equal(terrain_patch(1, 7).image, images[7])
    distance = np.abs(images[:, None, 7, ::8, ::8] - images[None, :, 7, ::8, ::8]).mean(axis=(2, 3))
    assert distance[~np.eye(COUNT, dtype=bool)].min() > 0.001  # no two are alike


def test_bands_are_chosen_by_name(patches):
    chosen = terrain_patches(2, 0, bands=("B04", "B03", "B02", "B08"))
    order = [SENTINEL2.index(name) for name in ("B04", "B03", "B02", "B08")]
    np.testing.assert_array_equal(chosen, patches[0][:2, order])


def test_values_are_reflectance(patches):
    images, surfaces = patches
    assert images.dtype == np.float32
    assert images.shape == (COUNT, 13, 64, 64)
    assert np.isfinite(images).all()
    assert 0 < images.min() < images.max() <= 1.5
    assert surfaces.dtype == np.uint8
    assert set(np.unique(surfaces)) == set(range(len(SURFACES)))


def test_plants_are_green_and_water_is_dark(patches):
    images, surfaces = patches
    clear = [index for index in range(COUNT) if not (surfaces[index] == SURFACES.index("cloud")).any()]
    bands = dict(zip(SENTINEL2, np.moveaxis(images[clear], 1, 0), strict=True))
    surface = surfaces[clear]
    index = ndvi(bands["B04"], bands["B08"])
    middle = {name: float(np.median(index[surface == n])) for n, name in enumerate(SURFACES) if name != "cloud"}
    assert min(middle[name] for name in ("conifer", "broadleaf", "crop", "grass")) > 0.5
    assert max(middle[name] for name in ("soil", "asphalt", "roof", "bright roof", "rock")) < 0.35
    assert middle["water"] < 0
    assert bands["B10"].max() < 0.03
    near_infrared = [np.median(bands["B08"][surface == SURFACES.index(n)]) for n in ("water", "conifer", "broadleaf")]
    assert near_infrared == sorted(near_infrared)
    assert len(clear) < COUNT


def test_coarse_bands_are_constant_over_their_pixels(patches):
    """20 m and 60 m bands change between 10 m pixels only where their own pixels begin, but for the noise."""
    images, _ = patches
    for name, step in (("B11", 2), ("B09", 6)):
        band = images[:, SENTINEL2.index(name)]
        change = np.abs(np.diff(band, axis=2)).max(axis=1)  # [N, 63]
        for row in change:
            phases = [row[phase::step].max() for phase in range(step)]
            assert sorted(phases)[-2] < 0.006
    fine = np.abs(np.diff(images[:, SENTINEL2.index("B08")], axis=2)).max(axis=1)
    assert (fine > 0.006).mean() > 0.9


def test_borders_do_not_join_up(patches):
    """Noise made by a Fourier transform repeats; a patch that did would teach a model that the world is a torus."""
    band = patches[0][:, SENTINEL2.index("B08")]
    neighbours = np.abs(band[:, :, 0] - band[:, :, 2]).mean()
    across = np.abs(band[:, :, 0] - band[:, :, -1]).mean()
    assert across > 1.5 * neighbours


@pytest.mark.parametrize("size", [16, 33, 100])
def test_other_sizes(size):
    patch = terrain_patch(3, 4, size=size)
    assert patch.image.shape == (13, size, size)
    assert patch.surface.shape == (size, size)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: terrain_patch(0, 0, size=8),
        lambda: terrain_patch(0, 0, bands=("B04", "thermal")),
        lambda: terrain_patches(0, 0),
    ],
)
def test_wrong_requests(wrong):
    with pytest.raises(InputError):
        wrong()


def test_drawing_is_fast():
    """Two hundred a second on an idle core; a busy machine may take thrice as long."""
    spent = []
    for start in range(4):
        begin = time.process_time()
        terrain_patches(15, 5, first=15 * start)
        spent.append(time.process_time() - begin)
    assert min(spent) < 15 * 0.015
