"""Galaxies of the Hubble deep field, found by photutils."""

from __future__ import annotations

import numpy as np
import pytest

from priorscope.data.samples import photo
from priorscope.errors import InputError
from priorscope_astro.simulator.hubble import _cut, hubble_cutouts, segmented

pytest.importorskip("photutils")


@pytest.fixture(scope="module")
def cutouts():
    return hubble_cutouts(32)


def test_galaxies_are_found_and_lie_in_the_middle(cutouts):
    assert len(cutouts) > 300
    assert cutouts.pictures.shape == (len(cutouts), 32, 32, 3)
    assert cutouts.pictures.dtype == np.uint8
    assert len(set(cutouts.ids)) == len(cutouts)
    assert (cutouts.area >= 60).all()
    assert ((cutouts.ellipticity >= 0) & (cutouts.ellipticity < 1)).all()
    light = cutouts.pictures.astype(float).mean(-1)
    middle, edge = light[:, 12:20, 12:20].mean((1, 2)), light[:, 0].mean(1)
    assert (middle > edge).mean() > 0.98


def test_a_cut_out_shows_the_place_it_names(cutouts):
    image = photo("hubble_deep_field")
    for place in (0, 5, 20):
        x, y, side = round(cutouts.x[place]), round(cutouts.y[place]), cutouts.field[place]
        reach = round(side / 4)
        native = image[y - reach : y + reach + 1, x - reach : x + reach + 1].mean((0, 1))
        np.testing.assert_allclose(cutouts.pictures[place, 8:24, 8:24].mean((0, 1)), native, rtol=0.12)


def test_a_cut_is_centred_on_the_middle_of_its_pixel():
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    cut = _cut(image, 20.0, 20.0, 24.0, 48).astype(int)
    assert np.abs(cut - cut[::-1, ::-1]).max() <= 1
    assert cut[23:25, 23:25].min() > 150


def test_two_objects_that_overlap_are_taken_apart():
    y, x = np.mgrid[:128, :128]
    light = sum(200 * np.exp(-((x - c) ** 2 + (y - 64) ** 2) / (2 * 4.0**2)) for c in (58, 74))
    noise = np.random.default_rng(0).normal(20, 2, light.shape)
    segments = segmented(np.repeat(np.clip(light + noise, 0, 255).astype(np.uint8)[..., None], 3, -1))
    assert segments.n_labels == 2
    assert segments.data[64, 58] != segments.data[64, 74]
    assert segments.data[64, 58] > 0 < segments.data[64, 74]


def test_what_cannot_be_cut_out_is_said():
    with pytest.raises(InputError, match="size 4"):
        hubble_cutouts(4)
    flat = np.random.default_rng(0).normal(20, 2, (384, 384, 1)).astype(np.uint8).repeat(3, -1)
    with pytest.raises(InputError, match="no object"):
        segmented(flat)
