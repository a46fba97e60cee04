"""Scale and shift among outliers: exact where the truth is affine, unbiased in a chain, one line for what has none."""

from __future__ import annotations

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_depth.robust_fit import fit_robust


@pytest.mark.parametrize("symmetric", [False, True])
def test_exact_for_an_affine_map_with_outliers(symmetric):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=400)
    y = 3.0 * x + 0.5
    wrong = rng.choice(400, 160, replace=False)
    y[wrong] += rng.uniform(0.2, 5.0, 160)  # on one side only, as occlusions are
    fit = fit_robust(x, y, symmetric=symmetric)
    assert (fit.scale, fit.shift) == pytest.approx((3.0, 0.5), abs=1e-9)
    assert set(np.flatnonzero(~fit.inliers)) == set(wrong)
    assert fit.spread == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(fit(x), 3.0 * x + 0.5)


def test_two_values_give_the_line_through_them():
    fit = fit_robust([0.2, 0.6], [1.0, 3.0])
    assert (fit.scale, fit.shift) == pytest.approx((5.0, 0.0))


@pytest.mark.parametrize("count", [3, 4])
def test_few_values_all_count(count):
    """Nobody can tell which of three or four is wrong: plain least squares."""
    x, y = np.arange(count) / 3, np.array([1.0, 2.1, 2.8, 4.3])[:count]
    fit = fit_robust(x, y)
    assert (fit.scale, fit.shift) == pytest.approx(tuple(np.polyfit(x, y, 1)))
    assert fit.inliers.all()


def test_six_rough_measurements_and_a_blunder():
    x = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 0.5])
    y = 3 * x + 1 + np.array([0.02, -0.03, 0.03, -0.02, 0.01, -0.01, 4.0])
    fit = fit_robust(x, y)
    assert list(fit.inliers) == [True] * 6 + [False]
    assert (fit.scale, fit.shift) == pytest.approx(tuple(np.polyfit(x[:6], y[:6], 1)))


def test_least_squares_where_nothing_is_wrong():
    rng = np.random.default_rng(1)
    x = rng.uniform(size=5000)
    y = -2.0 * x + 1.0 + 0.01 * rng.standard_normal(5000)
    fit = fit_robust(x, y)
    assert (fit.scale, fit.shift) == pytest.approx((-2.0, 1.0), abs=2e-3)


def test_a_symmetric_chain_keeps_the_contrast():
    """Noisy frames, each fitted to the last: regression shrinks them by the correlation each time."""
    rng = np.random.default_rng(2)
    truth = rng.uniform(size=3000)
    spreads = {}
    for symmetric in (False, True):
        last = truth + 0.15 * rng.standard_normal(3000)
        for _ in range(20):
            frame = truth + 0.15 * rng.standard_normal(3000)
            last = fit_robust(frame, last, symmetric=symmetric)(frame)
        spreads[symmetric] = last.std() / truth.std()
    assert spreads[False] < 0.3
    assert spreads[True] == pytest.approx(np.sqrt(1 + 0.15**2 * 12), rel=0.15)


def test_many_values_are_thinned_but_all_are_judged():
    x = np.linspace(0, 1, 50_000)
    y = 2 * x
    y[123] = 9
    fit = fit_robust(x, y)
    assert fit.scale == pytest.approx(2)
    assert list(np.flatnonzero(~fit.inliers)) == [123]


@pytest.mark.parametrize(
    ("x", "y", "word"),
    [
        ([1.0], [2.0], "at least 2"),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "predicted values at these places are equal"),
        ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0], "known values at these places are equal"),
        ([1.0, np.nan], [1.0, 2.0], "NaN"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], "2 values and 3 targets"),
    ],
)
def test_no_fit(x, y, word):
    with pytest.raises(InputError, match=word):
        fit_robust(x, y)
