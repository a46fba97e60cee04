"""Figures of merit, with the range of the data stated."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from safetensors.numpy import load_file

from priorscope.errors import InputError
from priorscope.evaluation.image_metrics import hfen, nrmse, over_slices, psnr, ssim

RNG = np.random.default_rng(0)


def stretched(image):
    return (image - image.min()) / (image.max() - image.min())


def test_golden_image_metrics(golden_files, read_json):
    for path in golden_files("medical", "metrics_skimage*.safetensors"):
        images = load_file(path)
        pairs = {"raw": (images["a"], images["b"])}
        pairs["norm"] = tuple(stretched(image) for image in pairs["raw"])
        for case in read_json(path.with_suffix(".json"))["cases"]:
            truth, estimate = pairs[case["case"]]
            for name, data_range in (("dr1", 1.0), ("dr2", 2.0), ("drmax", float(np.ptp(truth)))):
                assert psnr(estimate, truth, data_range=data_range) == pytest.approx(case[f"psnr_{name}"], rel=1e-10)
                assert ssim(estimate, truth, data_range=data_range) == pytest.approx(case[f"ssim_{name}"], rel=1e-10)
            got = ssim(estimate, truth, data_range=1.0, gaussian=True)
            assert got == pytest.approx(case["ssim_gauss"], rel=1e-10)


def test_psnr_of_a_known_error():
    truth = RNG.random((5, 6), dtype=np.float32)
    assert psnr(truth, truth, data_range=1.0) == math.inf
    assert psnr(truth + np.float32(0.1), truth, data_range=1.0) == pytest.approx(20, abs=1e-4)
    assert psnr((truth + np.float32(0.1)) * 255, truth * 255, data_range=255.0) == pytest.approx(20, abs=1e-4)
    # unsigned integers are not subtracted as such
    assert psnr(np.full((3, 3), 1, np.uint8), np.full((3, 3), 2, np.uint8), data_range=255) > 48


def test_ssim_follows_its_formula_in_one_window():
    x, y = RNG.random((7, 7)), RNG.random((7, 7))
    c1, c2 = 0.01**2, 0.03**2
    covariance = np.cov(x.ravel(), y.ravel())
    expected = (2 * x.mean() * y.mean() + c1) * (2 * covariance[0, 1] + c2)
    expected /= (x.mean() ** 2 + y.mean() ** 2 + c1) * (covariance[0, 0] + covariance[1, 1] + c2)
    assert ssim(x, y, data_range=1.0) == pytest.approx(expected)
    assert ssim(x, x, data_range=1.0) == pytest.approx(1)


def test_hfen_sees_edges_only():
    truth = np.zeros((32, 32))
    truth[8:24, 8:24] = 1
    assert hfen(truth, truth) == 0
    assert hfen(truth + 5, truth) == pytest.approx(0, abs=1e-12)
    assert hfen(np.zeros_like(truth), truth) == pytest.approx(1)
    # an impulse's answer is the filter itself, in 15 x 15 pixels
    impulse = np.zeros((31, 61))
    impulse[15, 15] = 1
    near, apart = (hfen(np.roll(impulse, shift, 1), impulse) for shift in (3, 15))
    assert apart == pytest.approx(2**0.5, abs=1e-12)
    assert near != pytest.approx(2**0.5, abs=1e-2)


def test_nrmse():
    truth = RNG.random((4, 4))
    assert nrmse(1.1 * truth, truth) == pytest.approx(0.1)


def test_over_slices_takes_each_axis():
    truth = RNG.random((3, 8, 9))
    estimate = truth + np.arange(1, 4)[:, None, None] * 0.1
    metric = functools.partial(psnr, data_range=1.0)
    expected = [20 - 20 * math.log10(k) for k in (1, 2, 3)]
    np.testing.assert_allclose(over_slices(metric, estimate, truth, 0), expected)
    for axis, count in ((1, 8), (2, 9), (-1, 9)):
        values = over_slices(metric, estimate, truth, axis)
        assert len(values) == count
        np.testing.assert_allclose(values, psnr(estimate, truth, data_range=1.0))


def test_wrong_input():
    image = RNG.random((8, 8))
    broken = image.copy()
    broken[0, :2] = np.nan
    for metric in (functools.partial(psnr, data_range=1.0), functools.partial(ssim, data_range=1.0), hfen, nrmse):
        with pytest.raises(InputError, match="2 values of the estimate are not finite"):
            metric(broken, image)
        with pytest.raises(InputError, match="shape"):
            metric(image[:4], image)
        with pytest.raises(InputError, match="shape"):
            metric(image[:0], image[:0])
        with pytest.raises(InputError, match="magnitudes"):
            metric(image * 1j, image)
    for data_range in (0, -1, math.nan, math.inf):
        with pytest.raises(InputError, match="data_range"):
            psnr(image, image, data_range=data_range)
    with pytest.raises(InputError, match="11 x 11"):
        ssim(image, image, data_range=1.0, gaussian=True)
    with pytest.raises(InputError, match="window"):
        ssim(image[:6], image[:6], data_range=1.0)
    with pytest.raises(InputError, match="volumes"):
        over_slices(nrmse, image, image, 0)
    with pytest.raises(InputError, match="axis 3"):
        over_slices(nrmse, image[None], image[None], 3)
    with pytest.raises(InputError, match="edges"):
        hfen(image, np.zeros_like(image))
    with pytest.raises(InputError, match="zero everywhere"):
        nrmse(image, np.zeros_like(image))
