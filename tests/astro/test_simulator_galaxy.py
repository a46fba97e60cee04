"""Scenes and observations: light that adds up, structure where the truth says, and GalSim's own drawing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_astro.simulator import features
from priorscope_astro.simulator.config import CLASSES, PREVALENCES, SimulateConfig, shares_of
from priorscope_astro.simulator.galaxy import MARGIN, OVERSAMPLING, Galaxy, random_galaxy, scene
from priorscope_astro.simulator.observation import ELECTRONS, SKY_SIGMA, Camera

galsim = pytest.importorskip("galsim")

SIZE = 64
CAMERA = Camera(SIZE, 0.396, 1.0)


def drawn(kind: str, number: int = 0) -> Galaxy:
    return replace(random_galaxy(kind, np.random.default_rng([5, number]), SIZE), field=())


def magnitudes(light: np.ndarray) -> np.ndarray:
    return 22.5 - 2.5 * np.log10(light.sum((1, 2)))


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind not in ("merger", "dust_lane")])
def test_all_light_of_a_galaxy_is_in_its_scene(kind):
    for number in range(3):
        galaxy = drawn(kind, number)
        light = scene(galaxy, SIZE)
        assert light.dtype == np.float32
        assert light.min() >= 0
        g, r, i = magnitudes(light)
        assert r == pytest.approx(galaxy.magnitude, abs=1e-4)
        assert 0.1 < g - r < 1.0
        assert -0.1 < r - i < 0.6


def test_early_types_are_redder_than_spirals():
    def colour(kind):
        return np.mean([np.subtract(*magnitudes(scene(drawn(kind, n), SIZE))[:2]) for n in range(12)])

    assert colour("round") - colour("spiral") > 0.15


def test_a_merger_has_the_light_of_both():
    galaxy = drawn("merger")
    assert galaxy.partner is not None
    together = scene(galaxy, SIZE)
    np.testing.assert_allclose(
        together, scene(replace(galaxy, partner=None), SIZE) + scene(galaxy.partner, SIZE), rtol=1e-4, atol=1e-6
    )


def test_a_lane_takes_blue_light_along_its_axis_and_none_far_away():
    galaxy = replace(drawn("dust_lane", 3), dust_bend=0.0, dust_offset=0.0)
    lost = scene(galaxy, SIZE) / scene(replace(galaxy, dust=0.0), SIZE)
    g, r, i = lost.reshape(3, -1).min(1)
    assert g < r < i < 0.7
    assert r == pytest.approx(0.12 + 0.88 * np.exp(-galaxy.dust), abs=0.02)
    line = (np.arange(lost.shape[1]) - (lost.shape[1] - 1) / 2) / OVERSAMPLING
    _, across = features.turned(line[None] - galaxy.x, line[:, None] - galaxy.y, galaxy.angle + galaxy.dust_turn)
    assert (lost[1][np.abs(across) > 5 * galaxy.dust_width] > 0.999).all()
    assert lost[1].max() == 1


@pytest.mark.parametrize("arms", [2, 3])
def test_arms_have_their_number_and_pitch(arms):
    # along a circle the arms are a wave of that order; its phase turns by ln(r2 / r1) / tan(pitch)
    pitch, azimuth = np.radians(20), np.linspace(0, 2 * np.pi, 720, endpoint=False)
    phase = []
    for radius in (10.0, 14.0):
        circle = features.spiral_arms(np.full(720, radius), azimuth, arms, pitch, 0.3, 5.0, 3.0)
        waves = np.fft.rfft(circle)
        assert np.argmax(np.abs(waves[1:])) + 1 == arms
        phase.append(-np.angle(waves[arms]) / arms)
    expected = np.log(14 / 10) / np.tan(pitch)
    turned = (phase[1] - phase[0] - expected + np.pi / arms) % (2 * np.pi / arms) - np.pi / arms
    assert turned == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("index", [1.0, 2.5, 4.0])
def test_half_of_a_sersic_profile_lies_inside_its_radius(index):
    line = np.arange(-400, 400) + 0.5
    light = features.sersic(line[None], line[:, None], 12.0, index, 0.6, 0.4)
    along, across = features.turned(line[None], line[:, None], 0.4)
    inside = light[np.hypot(along, across / 0.6) < 12].sum() / light.sum()
    # the softened core, and what an n = 4 profile has beyond 400 pixels
    assert inside == pytest.approx(0.5, abs=0.02)


def test_an_observation_is_what_galsim_draws():
    for kind in ("spiral", "dust_lane", "edge_on"):
        light = scene(drawn(kind, 1), SIZE)
        ours = CAMERA.seen(light)
        for band, factor in enumerate((1.05, 1.0, 0.96)):
            image = galsim.InterpolatedImage(galsim.Image(light[band].astype(float), scale=0.396 / OVERSAMPLING))
            seen = galsim.Convolve(image, galsim.Moffat(beta=3.5, fwhm=factor))
            theirs = seen.drawImage(nx=SIZE, ny=SIZE, scale=0.396).array
            assert np.abs(ours[band] - theirs).max() < 2e-3 * theirs.max()


def test_a_point_is_seen_as_the_psf():
    light = np.zeros(
        (
            3,
            OVERSAMPLING * (SIZE + 2 * MARGIN),
        )
        * 1
        + (OVERSAMPLING * (SIZE + 2 * MARGIN),),
        np.float32,
    )
    # the four cells of the pixel right above the middle
    first = OVERSAMPLING * (MARGIN + SIZE // 2)
    light[:, first : first + OVERSAMPLING, first : first + OVERSAMPLING] = 1 / OVERSAMPLING**2
    seen, psf = CAMERA.seen(light), CAMERA.psf()
    part = seen[:, SIZE // 2 - 12 : SIZE // 2 + 13, SIZE // 2 - 12 : SIZE // 2 + 13]
    for band, factor in enumerate((1.05, 1.0, 0.96)):
        star = galsim.Moffat(beta=3.5, fwhm=factor, gsparams=galsim.GSParams(maxk_threshold=1e-4))

        def image(x, y, star=star):
            return star.drawImage(nx=25, ny=25, scale=0.396, offset=(x, y)).array

        np.testing.assert_allclose(psf[band], image(0, 0), atol=1e-6)
        four = np.mean([image(x, y) for x in (-0.25, 0.25) for y in (-0.25, 0.25)], 0)
        np.testing.assert_allclose(part[band], four, atol=1e-4 * four.max())
    np.testing.assert_allclose(seen.sum((1, 2)), 1, atol=1e-3)


def test_noise_is_that_of_sky_and_photons():
    flux = np.zeros((3, 200, 200), np.float32)
    flux[:, 100:] = 2.0
    noise = Camera(200, 0.396, 1.0, noise=2.0).with_noise(flux, np.random.default_rng(0)) - flux
    for band, sigma in enumerate(SKY_SIGMA):
        assert noise[band, :100].std() == pytest.approx(2 * sigma, rel=0.03)
        assert noise[band, 100:].std() == pytest.approx(2 * np.sqrt(sigma**2 + 2 / ELECTRONS), rel=0.03)
    assert not np.any(
        Camera(8, 0.396, 1.0, noise=0.0).with_noise(np.zeros((3, 8, 8), np.float32), np.random.default_rng())
    )


def test_galaxies_fill_the_same_part_of_a_stamp_of_any_size():
    one, two = (random_galaxy("spiral", np.random.default_rng(4), size) for size in (64, 128))
    assert two.radius == pytest.approx(2 * one.radius)
    assert (two.angle, two.arms, two.magnitude) == (one.angle, one.arms, one.magnitude)


def test_shares_of_classes():
    assert sum(PREVALENCES.values()) == pytest.approx(1)
    assert shares_of(()) == pytest.approx(PREVALENCES)
    shares = shares_of(["dust_lane=0.5", "ring=0"])
    assert (shares["dust_lane"], shares["ring"]) == (0.5, 0)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["round"] / shares["spiral"] == pytest.approx(PREVALENCES["round"] / PREVALENCES["spiral"])
    assert shares_of(["dust_lane=1"])["round"] == 0
    for wrong in (["dust=0.5"], ["ring"], ["ring=x"], ["ring=1.5"], ["ring=0.6", "spiral=0.6"], ["ring=0", "ring=0"]):
        with pytest.raises(InputError, match="prevalence"):
            shares_of(wrong)


@pytest.mark.parametrize(
    "option",
    [
        {"count": 0},
        {"size": 31},
        {"size": 8},
        {"seeing": 0},
        {"seeing": 0.1},
        {"seeing": 30},
        {"noise": -1},
        {"seed": 10**8},
        {"workers": 0},
    ],
)
def test_wrong_options_are_named(option):
    with pytest.raises(InputError, match=f"--{next(iter(option))}"):
        SimulateConfig(**option).check()


def test_an_unknown_class_is_named():
    with pytest.raises(InputError, match="'dusty'"):
        random_galaxy("dusty", np.random.default_rng(0), 64)
