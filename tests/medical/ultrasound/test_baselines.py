"""Classical haze filters do what they say on signals where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_medical.ultrasound.baselines import MeanSpectra, high_pass, non_local_means, scaled, svd_filter

DRAW = np.random.default_rng(0)


def band(frames, samples=320, beams=16, period=4.0, width=0.0):
    """Speckle about a carrier: random frames, or the same in each; wide across the beams on demand."""
    from scipy.ndimage import gaussian_filter1d

    noise = DRAW.normal(size=(frames, 2, samples, beams))
    noise = gaussian_filter1d(noise, 3, axis=2)
    if width:
        noise = gaussian_filter1d(noise, width, axis=3)
    phase = 2 * np.pi * np.arange(samples)[:, None] / period
    rf = noise[:, 0] * np.cos(phase) + noise[:, 1] * np.sin(phase)
    return (rf / rf.std()).astype(np.float32)


STILL = np.repeat(band(1), 8, axis=0)
MOVING = band(8)


def test_what_stands_still_is_taken_away():
    for filtered in (high_pass(STILL, frames=math.inf), high_pass(STILL, frames=2.0), svd_filter(STILL, rank=1)):
        assert np.abs(filtered).max() < 1e-4
    np.testing.assert_allclose(high_pass(STILL, frames=math.inf, amount=0.25), 0.75 * STILL, atol=1e-5)
    blocks = svd_filter(STILL, rank=1, block=(64, 8), amount=0.5)
    np.testing.assert_allclose(blocks, 0.5 * STILL, atol=1e-4)


def test_what_moves_stays():
    left = high_pass(MOVING, frames=math.inf)
    assert float(np.var(left)) == pytest.approx(7 / 8, rel=0.03)
    assert float(np.var(svd_filter(3 * STILL + MOVING, rank=1))) == pytest.approx(7 / 8, rel=0.05)


def test_scaled():
    np.testing.assert_array_equal(scaled(MOVING, gain=0.5), 0.5 * MOVING)


@pytest.mark.parametrize("by_depth", [False, True])
def test_wiener_takes_apart_what_differs_in_spectrum(by_depth):
    tissue, haze = band(6), np.repeat(band(1, period=4.4, width=4.0), 6, axis=0)
    spectra = MeanSpectra([band(6)], [np.repeat(band(1, period=4.4, width=4.0), 6, axis=0)], by_depth=by_depth)
    before = np.mean((tissue + haze - tissue) ** 2)
    assert np.mean((spectra.wiener(tissue + haze) - tissue) ** 2) < 0.25 * before
    assert np.mean((spectra.subtracted(tissue + haze) - tissue) ** 2) < 0.5 * before


def test_spectra_without_haze_leave_all_as_it_is():
    spectra = MeanSpectra([MOVING[:6]], [np.zeros_like(MOVING[:6])], by_depth=False)
    np.testing.assert_allclose(spectra.wiener(MOVING[:6]), MOVING[:6], atol=1e-5)
    np.testing.assert_allclose(spectra.subtracted(MOVING[:6]), MOVING[:6], atol=1e-5)


def test_non_local_means_never_brighten_and_darken_what_is_weak():
    rf = MOVING[:1].copy()
    rf[:, :, 8:] *= 0.01
    found = non_local_means(rf, h=3.0, floor=-30.0)
    assert found.shape == rf.shape
    assert (np.abs(found) <= np.abs(rf) + 1e-9).all()
    weak, strong = (float(np.std(found[..., part]) / np.std(rf[..., part])) for part in (slice(10, 16), slice(0, 6)))
    assert weak < 0.5 * strong


def test_refusals():
    with pytest.raises(InputError, match="two or more frames"):
        high_pass(MOVING[:1], frames=1.0)
    with pytest.raises(InputError, match="8 components"):
        svd_filter(MOVING, rank=8)
    with pytest.raises(InputError, match="a reference of 0"):
        non_local_means(0 * MOVING, h=3.0, floor=-30.0)
