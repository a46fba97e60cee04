"""The simulator of hazy cines: points, speckle, motion and haze have the properties they are made to have."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_medical.ultrasound.echo_lines import LineScan, iq_lines, iq_of, rf_of
from priorscope_medical.ultrasound.heart_scatterers import BLOOD, WALL, WEAK, HeartScatterers, Ventricle
from priorscope_medical.ultrasound.metrics import width_at_half
from priorscope_medical.ultrasound.multipath_haze import Haze, haze_lines
from priorscope_medical.ultrasound.rf_simulator import SimulatedCine, simulate_cine, wall_amplitude
from priorscope_medical.ultrasound.scan_conversion import Sector

SCAN = LineScan(Sector((10e-3, 60e-3), (-0.5, 0.5)), samples=640, beams=41)
SMALL = Ventricle(centre=(0.0, 35e-3), axes=(9e-3, 16e-3), thickness=5e-3)


def one_point(reach, angle, scan=SCAN):
    x, z = np.array([reach * math.sin(angle)]), np.array([reach * math.cos(angle)])
    return iq_lines(scan, x, z, np.ones(1))


def test_a_point_is_a_pulse_along_and_a_bell_across_the_beams():
    reach, beam = SCAN.depths[300], 20
    iq = one_point(reach, SCAN.angles[beam])
    row, column = np.unravel_index(np.abs(iq).argmax(), iq.shape)
    assert (row, column) == (300, beam)
    assert np.abs(iq).max() == pytest.approx(1.0, abs=0.03)
    along = SCAN.depths - reach
    expected = np.exp(-((along / SCAN.pulse_deviation) ** 2) / 2) * np.cos(
        4 * np.pi * SCAN.carrier * along / SCAN.speed
    )
    np.testing.assert_allclose(rf_of(SCAN, iq)[:, beam], expected, atol=0.03)
    assert width_at_half(np.abs(iq[300]), fine=50) == pytest.approx(SCAN.beam_width, rel=0.03)


def test_the_pulse_has_its_band():
    long = replace(SCAN, samples=6400)
    rf = rf_of(long, one_point(35e-3, 0.0, long))[:, 20]
    power = np.abs(np.fft.rfft(rf, 2**16))
    frequency = np.fft.rfftfreq(2**16, 1 / long.sampling)
    band = frequency[power > power.max() / 2]
    assert band.mean() == pytest.approx(long.carrier, rel=0.01)
    assert np.ptp(band) == pytest.approx(long.bandwidth * long.carrier, rel=0.01)


def test_between_samples_and_outside():
    iq = one_point(0.5 * (SCAN.depths[300] + SCAN.depths[301]), 0.5 * (SCAN.angles[20] + SCAN.angles[21]))
    rows, columns = 0.5 * SCAN.spacing, 0.5 / (SCAN.beam_width / (2 * math.sqrt(2 * math.log(2))))
    expected = math.exp(-((rows / SCAN.pulse_deviation) ** 2) / 2 - columns**2 / 2)
    np.testing.assert_allclose(np.abs(iq[300:302, 20:22]), expected, atol=0.02)
    assert not np.abs(one_point(80e-3, 0.0)).max() > 1e-9
    just_outside = np.abs(one_point(SCAN.depths[-1] + 0.5 * SCAN.spacing, 0.0))
    assert just_outside.max() == pytest.approx(1.0, abs=0.03)


def test_motion_turns_the_phase():
    wavelength = SCAN.speed / SCAN.carrier
    first, second = (
        one_point(reach, 0.0)[300, 20] for reach in (SCAN.depths[300], SCAN.depths[300] + 0.05 * wavelength)
    )
    assert np.angle(second / first) == pytest.approx(-4 * math.pi * 0.05, abs=1e-3)


def test_iq_and_rf_belong_together():
    draw = np.random.default_rng(0)
    x, z = draw.uniform(-0.02, 0.02, 500), draw.uniform(0.02, 0.05, 500)
    iq = iq_lines(SCAN, x, z, draw.normal(size=500))
    inner = slice(60, -60)
    np.testing.assert_allclose(iq_of(SCAN, rf_of(SCAN, iq))[inner], iq[inner], atol=0.02 * np.abs(iq).max())


def test_speckle_is_fully_developed_and_of_amplitude_one():
    draw = np.random.default_rng(1)
    left, right, near, far = SCAN.sector.extent()
    density = 3e7
    count = round((right - left) * (far - near) * density)
    x, z = draw.uniform(left, right, count), draw.uniform(near, far, count)
    iq = iq_lines(SCAN, x, z, draw.normal(size=count)) / wall_amplitude(SCAN, density)[:, None]
    envelope = np.abs(iq)[60:-60, 4:-4]
    assert np.sqrt((envelope**2).mean()) == pytest.approx(1.0, rel=0.06)
    # a Rayleigh distribution has a mean of 1.913 deviations
    assert envelope.mean() / envelope.std() == pytest.approx(1.913, rel=0.05)
    near, far = (np.sqrt((part**2).mean()) for part in (envelope[:200], envelope[-200:]))
    assert near == pytest.approx(far, rel=0.15)


def test_tissue_keeps_its_area_and_its_region():
    ventricle = SMALL
    time = ventricle.period / 2
    step = 5e-5
    x, z = np.meshgrid(np.arange(-0.02, 0.02, step), np.arange(0.01, 0.06, step))
    areas = {
        region: [(ventricle.regions(x, z, when) == region).sum() * step**2 for when in (0.0, time)]
        for region in (WALL, WEAK, BLOOD)
    }
    for region in (WALL, WEAK):
        assert areas[region][1] == pytest.approx(areas[region][0], rel=0.01)
    assert areas[BLOOD][0] == pytest.approx(math.pi * ventricle.axes[0] * ventricle.axes[1], rel=0.01)
    assert areas[BLOOD][1] == pytest.approx(areas[BLOOD][0] * (1 - ventricle.contraction) ** 2, rel=0.01)
    kinds = ventricle.regions(x, z, 0.0)
    tissue = kinds != BLOOD
    moved = ventricle.moved(x[tissue], z[tissue], time)
    same = ventricle.regions(*moved, time) == kinds[tissue]
    assert same.mean() > 0.999


def test_scatterers_echo_as_their_region_does():
    draw = np.random.default_rng(2)
    heart = HeartScatterers(SMALL, (-0.02, 0.02, 0.01, 0.06), density=2e7, draw=draw)
    for time in (0.0, SMALL.period / 2):
        x, z, amplitudes = heart.at(time, draw)
        kinds = SMALL.regions(x, z, time)
        for region, level in enumerate(SMALL.levels):
            size = math.sqrt((amplitudes[kinds == region] ** 2).mean())
            assert 20 * math.log10(size) == pytest.approx(level, abs=0.7)
    again = heart.at(0.0, draw)
    first = heart.at(0.0, draw)
    tissue = len(heart.x)
    assert np.array_equal(again[0][:tissue], first[0][:tissue])
    assert not np.array_equal(again[0][tissue:][:50], first[0][tissue:][:50])  # other blood


def test_haze_has_its_level_memory_and_tone():
    haze = Haze(level=3.0, breath=0.0, memory=0.9, lower=0.1, paths=40)
    # enough of it for averages: many beams
    scan = replace(SCAN, beams=400)
    lines = haze_lines(scan, haze, 3, 50.0, np.random.default_rng(3))
    near = np.abs(lines[:, : scan.samples // 3]) ** 2
    assert 10 * math.log10(near.mean()) == pytest.approx(3.0, abs=1e-6)
    assert (np.abs(lines[:, -100:]) ** 2).mean() < 0.3 * near.mean()

    def correlation(a, b):
        return abs(np.vdot(a, b)) / math.sqrt(np.vdot(a, a).real * np.vdot(b, b).real)

    assert correlation(lines[0], lines[1]) == pytest.approx(0.9, abs=0.03)
    assert correlation(lines[0], lines[2]) == pytest.approx(0.81, abs=0.05)
    # the mean frequency, by the phase from sample to sample, is lower by a tenth of the carrier
    turn = np.angle((lines[:, 1:] * lines[:, :-1].conj()).sum()) / (2 * math.pi) * scan.sampling
    assert turn == pytest.approx(-0.1 * scan.carrier, rel=0.1)
    # and it is wider across the beams than tissue's speckle
    beside = correlation(lines[0, 200:, 3:], lines[0, 200:, :-3])
    assert beside > 2 * math.exp(-((3 / (scan.beam_width / 2.355)) ** 2) / 4)


def test_breath_moves_haze_without_changing_its_envelope():
    haze = Haze(memory=1.0, breath=0.2e-3, breath_period=1.0)
    lines = haze_lines(SCAN, haze, 2, 4.0, np.random.default_rng(4))  # a quarter period apart
    np.testing.assert_allclose(np.abs(lines[0]), np.abs(lines[1]), rtol=1e-9)
    turn = np.angle(np.vdot(lines[0], lines[1]))
    expected = -4 * math.pi * 0.2e-3 * SCAN.carrier / SCAN.speed
    assert math.remainder(turn - expected, 2 * math.pi) == pytest.approx(0, abs=1e-9)


def small_cine(seed=0, **changes) -> SimulatedCine:
    options = {"frames": 2, "scan": SCAN, "ventricle": SMALL, "density": 1e7} | changes
    return simulate_cine(seed, **options)


def test_parts_are_known_apart_and_a_seed_fixes_them():
    cine, again, other = small_cine(), small_cine(), small_cine(1)
    assert cine.tissue.shape == cine.haze.shape == cine.noise.shape == cine.regions.shape == (2, 640, 41)
    assert cine.tissue.dtype == cine.haze.dtype == cine.noise.dtype == np.float32
    for name in ("tissue", "haze", "noise"):
        assert np.array_equal(getattr(cine, name), getattr(again, name))
        assert not np.array_equal(getattr(cine, name), getattr(other, name))
    np.testing.assert_allclose(cine.hazy(0.5), cine.tissue + 0.5 * cine.haze + cine.noise, atol=1e-6)
    np.testing.assert_array_equal(cine.clean, cine.hazy(0.0))
    foggy = small_cine(haze=Haze(level=10.0))
    assert np.array_equal(foggy.tissue, cine.tissue)
    assert not np.array_equal(foggy.haze, cine.haze)


def test_levels_of_a_cine():
    cine = small_cine(noise=-30.0)
    envelope = np.abs(iq_of(SCAN, cine.tissue))
    wall = envelope[cine.regions == WALL]
    assert np.median(wall) == pytest.approx(math.sqrt(math.log(2)), rel=0.2)  # of a Rayleigh distribution of RMS 1
    blood = envelope[cine.regions == BLOOD]
    assert 20 * math.log10(np.median(blood) / np.median(wall)) < -20
    assert 20 * math.log10(cine.noise.std() * math.sqrt(2)) == pytest.approx(-30, abs=0.1)


@pytest.mark.parametrize(
    ("make", "fact"),
    [
        (lambda: LineScan(Sector((0.0, 0.1), (-1, 1)), samples=200, beams=20), "too few"),
        (lambda: LineScan(Sector((0.0, 0.1), (-1, 1)), samples=1, beams=20), "1 samples"),
        (lambda: replace(SCAN, beam_width=0.0), "beam_width is 0"),
        (lambda: Ventricle(thickness=-1.0), "a wall of -1"),
        (lambda: Haze(memory=1.5), "memory of 1.5"),
        (lambda: Haze(reach=0.0), "positive"),
        (lambda: small_cine(frames=0), "0 frames"),
        (lambda: small_cine(density=0.0), "0.0 scatterers"),
    ],
)
def test_refusals(make, fact):
    with pytest.raises(InputError, match=fact):
        make()
