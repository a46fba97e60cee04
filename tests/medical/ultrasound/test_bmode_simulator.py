"""Hearts with four chambers, and the scanner that shows them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_medical.ultrasound.bmode_simulator import random_scanner, simulate_bmode
from priorscope_medical.ultrasound.four_chambers import RIM, ChamberScatterers, FourChambers, random_chambers
from priorscope_medical.ultrasound.heart_scatterers import BLOOD, WALL
from priorscope_medical.ultrasound.multipath_haze import Haze


def test_frames_of_reference_are_each_others_inverse():
    draw = np.random.default_rng(0)
    for mirrored in (False, True):
        heart = replace(random_chambers(draw), mirrored=mirrored)
        u, v = draw.uniform(-0.05, 0.05, (2, 200))
        np.testing.assert_allclose(heart.framed(*heart.placed(u, v)), (u, v), atol=1e-15)


def test_regions_move_with_the_tissue():
    """A point's region at a time is that of the point it was at rest, away from borders of a fifth of a mm."""
    heart = FourChambers(contraction=0.3)
    draw = np.random.default_rng(1)
    u, v = draw.uniform(-0.06, 0.06, 20_000), draw.uniform(-0.01, 0.12, 20_000)
    rest = heart.rest_regions(u, v)
    for time in (0.1, 0.45, 0.7):
        now = heart.regions(*heart.placed(*heart.moved(u, v, time)), time)
        assert (now == rest).mean() > 0.995


def test_contraction_makes_the_chamber_smaller_and_the_valve_close():
    heart = FourChambers(contraction=0.3, right=0.0, atria=0.0)
    x, z = np.meshgrid(np.linspace(-0.06, 0.06, 241), np.linspace(0.0, 0.15, 301))
    relaxed, contracted = (int((heart.regions(x, z, time) == BLOOD).sum()) for time in (0.0, heart.period / 2))
    assert 0.5 < contracted / relaxed < 0.75
    draw = np.random.default_rng(0)
    depths = [heart.leaflets(time, 2e4, draw)[1].min() for time in (0.0, heart.period / 2)]
    assert depths[1] - depths[0] > 5e-3  # open leaflets reach towards the apex


def test_scatterers_have_the_strength_of_their_region():
    heart = FourChambers(levels=(-20.0, 0.0, -40.0, 10.0))
    scatterers = ChamberScatterers(heart, (-0.06, 0.06, 0.0, 0.15), density=4e6, draw=np.random.default_rng(0))
    x, z, amplitudes = scatterers.at(0.0, np.random.default_rng(1))
    regions = heart.regions(x, z, 0.0)
    # the median: leaflets, few and strong, lie in the blood's region
    level = {kind: 20 * np.log10(np.median(np.abs(amplitudes[regions == kind]))) for kind in (WALL, BLOOD, RIM)}
    assert level[BLOOD] - level[WALL] == pytest.approx(-40, abs=2)
    assert level[RIM] - level[WALL] == pytest.approx(10, abs=2)


def test_a_seed_fixes_the_cine_and_haze_only_adds_to_it():
    haze = Haze(level=0.0)
    made = simulate_bmode(5, frames=2, size=64, haze=haze)
    again = simulate_bmode(5, frames=2, size=64, haze=haze)
    np.testing.assert_array_equal(made.hazy, again.hazy)
    clean = simulate_bmode(5, frames=2, size=64, hazy=False)
    np.testing.assert_array_equal(made.clean, clean.hazy)
    near = made.inside.copy()
    near[32:] = False
    assert (made.hazy - made.clean)[:, near].mean() > 0.05
    assert made.clean[:, ~made.inside].max() < 0.7  # at the border half a pixel is inside
    assert 0.0 <= made.hazy.min() <= made.hazy.max() <= 1.0


def test_the_scanner_compresses_decibels():
    scanner, _ = random_scanner(np.random.default_rng(0))
    flat = np.zeros_like(scanner.shading)
    plain = replace(scanner, shading=flat, curve=1.0, smooth=(0.0, 0.0), persistence=0.0, dynamic_range=50.0, white=0.0)
    iq = np.full((1, scanner.lines.samples, scanner.lines.beams), 10 ** (-20 / 20), complex)
    np.testing.assert_allclose(plain.grey(iq), 1 - 20 / 50, atol=1e-6)
    np.testing.assert_allclose(plain.grey(1000 * iq), 1.0)
    lasting = replace(plain, persistence=0.5)
    step = np.concatenate([iq, 10 * iq])
    np.testing.assert_allclose(lasting.grey(step)[1], 0.5 * 0.6 + 0.5 * 1.0, atol=1e-6)


def test_impossible_hearts_and_cines_are_refused():
    with pytest.raises(InputError, match="contraction"):
        FourChambers(contraction=0.7)
    with pytest.raises(InputError, match="positive"):
        FourChambers(width=0.0)
    with pytest.raises(InputError, match="frames"):
        simulate_bmode(0, frames=0)
