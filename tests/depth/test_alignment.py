"""The affine fit: exact recovery, invariance, degenerate predictions, and what must be refused."""

from __future__ import annotations

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_depth.alignment import AffineFit, fit_affine, subsample_indices
from priorscope_depth.baselines import oracle_baseline
from priorscope_depth.metrics import depth_metrics


@pytest.fixture
def scene():
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 9, (20, 30)).astype(np.float32)
    return depth, rng.uniform(size=depth.shape) < 0.8


@pytest.mark.parametrize("space", ["depth", "disparity"])
@pytest.mark.parametrize(("scale", "shift"), [(0.3, 0.1), (-2.0, 5.0), (1e-4, 1e3)])
def test_an_affine_prediction_is_recovered(scene, space, scale, shift):
    depth, mask = scene
    target = depth.astype(np.float64) if space == "depth" else 1 / depth.astype(np.float64)
    fit = fit_affine((target - shift) / scale, depth, mask, space)
    assert (fit.space, fit.pixels) == (space, mask.sum())
    assert (fit.scale, fit.shift) == pytest.approx((scale, shift), rel=1e-6)
    np.testing.assert_allclose(fit.depth((target - shift) / scale), depth, rtol=1e-5)


def test_the_fit_is_the_least_squares_one(scene):
    depth, mask = scene
    prediction = np.random.default_rng(1).normal(size=depth.shape)
    fit = fit_affine(prediction, depth, mask, "depth")
    residual = (fit(prediction) - depth)[mask]
    assert abs(residual.mean()) < 1e-6
    assert abs(np.mean(residual * prediction[mask])) < 1e-6


def test_a_huge_common_offset_does_not_spoil_the_fit(scene):
    depth, mask = scene
    fit = fit_affine(depth.astype(np.float64) + 1e6, depth, mask, "depth")
    assert fit.scale == pytest.approx(1, rel=1e-6)
    assert fit.shift == pytest.approx(-1e6, rel=1e-6)


def test_pixels_outside_the_mask_do_not_count(scene):
    depth, mask = scene
    prediction = depth * 0.5
    wild = np.where(mask, prediction, np.nan)
    assert fit_affine(wild, np.where(mask, depth, np.nan), mask, "depth") == fit_affine(
        prediction, depth, mask, "depth"
    )


def test_disparity_leaves_out_pixels_without_depth(scene):
    depth, mask = scene
    holes = depth.copy()
    holes[0] = 0
    fit = fit_affine(1 / depth, holes, mask, "disparity")
    assert fit.pixels == mask[1:].sum()
    assert (fit.scale, fit.shift) == pytest.approx((1, 0), abs=1e-5)


def test_default_fit_ignores_the_shift_of_the_prediction_and_the_official_does_not(scene):
    depth, mask = scene
    prediction = 1 / depth + np.random.default_rng(2).normal(0, 0.05, depth.shape)

    def aligned(p, **options):
        return fit_affine(p, depth, mask, "disparity", **options)(p)

    lower = prediction - 0.3  # the same affine-invariant prediction
    np.testing.assert_allclose(aligned(lower), aligned(prediction), rtol=1e-9)
    official = aligned(lower, positive_only=True)
    assert np.abs(official - aligned(prediction, positive_only=True)).max() > 1e-3


@pytest.mark.parametrize("space", ["depth", "disparity"])
@pytest.mark.parametrize("value", [0.0, 0.7, -1e6])
def test_a_constant_prediction_gives_the_best_constant(scene, space, value):
    depth, mask = scene
    constant = np.full(depth.shape, value, np.float32)
    fit = fit_affine(constant, depth, mask, space)
    target = depth[mask].astype(float) if space == "depth" else 1 / depth[mask].astype(float)
    assert (fit.scale, fit.shift) == (0.0, pytest.approx(target.mean()))
    official = fit_affine(constant.astype(np.float64), depth, mask, space, solver="lstsq")
    np.testing.assert_allclose(official(constant.astype(np.float64)), fit(constant), rtol=1e-5)
    oracle = oracle_baseline("constant", depth, mask, space, 1e-3, 10)
    np.testing.assert_allclose(fit.depth(constant, 1e-3, 10), oracle, rtol=1e-6)


def test_depth_of_a_disparity_fit_is_bounded_by_1000_metres_and_the_range():
    fit = AffineFit("disparity", 1.0, 0.0, 2)
    assert fit.depth(np.array([-1.0, 0.0, 0.5, 50.0])) == pytest.approx([1000, 1000, 2, 0.02])
    assert fit.depth(np.array([-1.0, 0.5, 50.0]), 1.0, 80.0).tolist() == [80, 2, 1]
    flat = AffineFit("depth", 0.0, -3.0, 2)
    assert flat.depth(np.ones(1)) == pytest.approx([1e-6])


def test_integers_are_taken_as_numbers(scene):
    depth, mask = scene
    prediction = np.arange(depth.size).reshape(depth.shape)
    assert fit_affine(prediction, depth, mask, "depth") == fit_affine(prediction * 1.0, depth, mask, "depth")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(("where", "name"), [(0, "prediction"), (1, "ground truth")])
def test_nan_in_the_mask_is_refused(scene, bad, where, name):
    depth, _ = scene
    arrays = [depth.copy(), depth.copy()]
    arrays[where][3, 4] = bad
    with pytest.raises(InputError, match=f"{name} is NaN or infinite at 1 of 600"):
        fit_affine(*arrays, np.ones(depth.shape, bool), "depth")


def test_refusals(scene):
    depth, mask = scene
    with pytest.raises(InputError, match="0 usable pixels"):
        fit_affine(depth, depth, np.zeros_like(mask), "depth")
    one = np.zeros_like(mask)
    one[0, 0] = True
    with pytest.raises(InputError, match="1 usable pixels"):
        fit_affine(depth, depth, one, "depth")
    with pytest.raises(InputError, match="0 usable pixels"):
        fit_affine(-depth, depth, mask, "disparity", positive_only=True)
    with pytest.raises(InputError, match=r"must be one \[H, W\]"):
        fit_affine(depth[:-1], depth, mask, "depth")
    with pytest.raises(InputError, match=r"must be one \[H, W\]"):
        fit_affine(depth[None], depth[None], mask[None], "depth")
    with pytest.raises(InputError, match="unknown space 'log'"):
        fit_affine(depth, depth, mask, "log")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="real numbers"):
        fit_affine(depth.astype(complex), depth, mask, "depth")
    with pytest.raises(InputError, match="at least 1 pixel"):
        fit_affine(depth, depth, mask, "depth", max_res=0)


@pytest.mark.parametrize(("height", "width", "limit"), [(60, 90, 32), (90, 60, 32), (4032, 6048, 1024), (7, 5, 3)])
def test_subsampling_keeps_the_longer_side_within_the_limit(height, width, limit):
    rows, columns = subsample_indices(height, width, limit)
    assert max(len(rows), len(columns)) <= limit
    assert max(len(rows), len(columns)) >= limit - 1
    for indices, size in ((rows, height), (columns, width)):
        assert indices[0] == 0
        assert indices[-1] < size
        assert np.all(np.diff(indices) >= 1)
    quirk_rows, quirk_columns = subsample_indices(height, width, limit, "width")
    assert len(quirk_rows) == height
    np.testing.assert_array_equal(quirk_columns, columns)


def test_subsampling_edge_cases():
    rows, columns = subsample_indices(10, 20, 20)
    assert (len(rows), len(columns)) == (10, 20)
    rows, columns = subsample_indices(1, 5000, 100)
    assert (len(rows), len(columns)) == (1, 100)


def test_the_fit_uses_the_subsample(scene):
    depth, mask = scene
    rows, columns = subsample_indices(*depth.shape, 10)
    fit = fit_affine(depth**2, depth, mask, "depth", max_res=10)
    chosen = np.ix_(rows, columns)
    assert fit == fit_affine(depth[chosen] ** 2, depth[chosen], mask[chosen], "depth")
    assert fit.pixels < mask.sum()


@pytest.mark.parametrize("space", ["depth", "disparity"])
def test_baselines_are_the_least_squares_constant_and_plane(scene, space):
    depth, mask = scene
    y, x = np.mgrid[: depth.shape[0], : depth.shape[1]]
    target = depth.astype(np.float64) if space == "depth" else 1 / depth.astype(np.float64)
    terms = np.stack([np.ones(mask.sum()), x[mask], y[mask]], axis=1)
    a, b, c = np.linalg.lstsq(terms, target[mask], rcond=None)[0]
    plane, constant = a + b * x + c * y, np.full(depth.shape, target[mask].mean())
    for kind, expected in (("plane", plane), ("constant", constant)):
        expected = expected if space == "depth" else 1 / np.maximum(expected, 1e-3)
        found = oracle_baseline(kind, depth, mask, space, 1e-3, 10.0)
        np.testing.assert_allclose(found, np.clip(expected, 1e-3, 10.0), rtol=1e-5)


def test_a_tilted_plane_in_the_scene_is_found_in_disparity_space_only():
    y, x = np.mgrid[:30, :40]
    depth = 1 / (0.2 + 0.01 * x + 0.02 * y)
    mask = np.ones(depth.shape, bool)
    errors = {
        space: depth_metrics(oracle_baseline("plane", depth, mask, space, 1e-3, 80), depth)["abs_rel"]
        for space in ("depth", "disparity")
    }
    assert errors["disparity"] < 1e-6
    assert errors["depth"] > 0.05


def test_baselines_cope_with_few_pixels_and_refuse_none(scene):
    depth, mask = scene
    row = np.zeros_like(mask)
    row[3, 5] = True
    found = oracle_baseline("plane", depth, row, "depth", 1e-3, 10)
    assert found[3, 5] == pytest.approx(depth[3, 5])
    assert np.isfinite(found).all()
    with pytest.raises(InputError, match="mask is empty"):
        oracle_baseline("plane", depth, np.zeros_like(mask), "depth", 1e-3, 10)
    with pytest.raises(InputError, match="NaN or infinite"):
        oracle_baseline("constant", np.full_like(depth, np.nan), mask, "depth", 1e-3, 10)
    with pytest.raises(InputError, match="unknown baseline"):
        oracle_baseline("sphere", depth, mask, "depth", 1e-3, 10)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="must be one"):
        oracle_baseline("plane", depth, mask[:2], "depth", 1e-3, 10)
