"""Figures of contrast and sharpness against the published code and against distributions that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from safetensors.numpy import load_file

from priorscope.errors import InputError
from priorscope_medical.ultrasound.metrics import (
    brightest,
    cnr,
    flicker,
    gcnr,
    kolmogorov_smirnov,
    speckle_size,
    width_at_half,
)


def test_golden_dehaze_processing(golden_files, read_json):
    close = {"rel": 0, "abs": 1e-6}
    seen = 0
    for path in golden_files("medical", "dehaze_processing*.safetensors"):
        data = load_file(path)
        for case in read_json(path.with_suffix(".json"))["cases"]:
            if "gcnr" not in case:
                continue
            name = f"gcnr{case['i']}"
            x, y = data[f"{name}.x"], data[f"{name}.y"]
            assert gcnr(x, y, bins=case["bins"]) == pytest.approx(case["gcnr"], **close)
            assert kolmogorov_smirnov(x, y) == pytest.approx(tuple(data[f"{name}.ks"]), **close)
            seen += 1
        assert speckle_size(data["fwhm.im"], official=True) == pytest.approx(tuple(data["fwhm.xy"]), **close)
        assert width_at_half(data["fwhm1d.x"], official=True) == pytest.approx(float(data["fwhm1d.val"][0]), **close)
        assert brightest(data["fwhm.im"]) == pytest.approx(tuple(data["ithr"]), **close)
    assert seen == 4


def test_gcnr_of_two_normal_distributions():
    """The overlap of N(0, 1) and N(d, 1) is 2 Phi(-d / 2)."""
    draw = np.random.default_rng(0)
    for distance in (0.0, 1.0, 3.0):
        first, second = draw.normal(size=200_000), draw.normal(distance, size=200_000)
        expected = 1 - math.erfc(distance / 2 / math.sqrt(2))
        assert gcnr(first, second, bins=100) == pytest.approx(expected, abs=0.01)
        assert gcnr(first, second, bins=100) == gcnr(second, first, bins=100)


def test_cnr_in_both_conventions():
    first, second = np.array([1.0, 3.0]), np.array([4.0, 4.0])
    assert cnr(first, second) == pytest.approx(-2.0)
    assert cnr(first, second, decibel=True) == pytest.approx(20 * math.log10(2))
    assert cnr(first, np.array([2.0, 2.0]), decibel=True) == -math.inf


def test_widths_of_a_gaussian():
    x, sigma = np.arange(101.0), 6.3
    expected = 2 * math.sqrt(2 * math.log(2)) * sigma
    profile = np.exp(-((x - 48.7) ** 2) / (2 * sigma**2))
    assert width_at_half(profile) == pytest.approx(expected, abs=0.01)
    assert width_at_half(profile, official=True) == pytest.approx(expected, abs=0.2)
    with pytest.raises(InputError, match="does not fall to half"):
        width_at_half(profile[45:])


def test_speckle_of_smoothed_noise_has_the_filters_size():
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(1).normal(size=(256, 512))
    along, across = speckle_size(gaussian_filter(noise, (2.0, 4.0), mode="wrap"))
    factor = 2 * math.sqrt(2 * math.log(2)) * math.sqrt(2)  # the correlation of a Gaussian is wider by sqrt 2
    assert along == pytest.approx(4 * factor, rel=0.08)
    assert across == pytest.approx(2 * factor, rel=0.08)


def test_flicker_is_what_changes_beyond_the_reference():
    draw = np.random.default_rng(2)
    truth = np.cumsum(draw.normal(size=(50, 40, 40)), 0)
    assert flicker(truth + 3.0, truth) == pytest.approx(0.0, abs=1e-12)
    # independent noise of deviation s changes by sqrt(2) s
    assert flicker(truth + 0.5 * draw.normal(size=truth.shape), truth) == pytest.approx(0.5 * math.sqrt(2), rel=0.02)
    with pytest.raises(InputError, match="stands still"):
        flicker(truth, np.zeros_like(truth))


@pytest.mark.parametrize(
    ("call", "fact"),
    [
        (lambda: gcnr(np.array([]), np.ones(3)), "without pixels"),
        (lambda: gcnr(np.ones(3), np.array([1.0, np.nan])), "1 values are not finite"),
        (lambda: gcnr(np.ones(3), np.ones(3), bins=1), "1 bins"),
        (lambda: cnr(np.ones(3), np.ones(3)), "constant regions"),
        (lambda: speckle_size(np.ones((8, 8))), "no speckle"),
        (lambda: speckle_size(np.ones(8)), r"shape \(8,\)"),
        (lambda: brightest(np.ones(3), 0), "brightest 0"),
        (lambda: flicker(np.ones((1, 3)), np.ones((1, 3))), "two or more frames"),
    ],
)
def test_refusals(call, fact):
    with pytest.raises(InputError, match=fact):
        call()
