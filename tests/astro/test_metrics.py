"""Completeness and purity against the arithmetic of two Gaussians, whose curve is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from priorscope.errors import InputError
from priorscope_astro.metrics import (
    completeness_at_purity,
    found,
    found_above,
    mean_interval,
    prevalence_weights,
    purity_at,
    purity_curve,
    share_interval,
    threshold_at_purity,
)

APART = 2.5
"""The class scores N(APART, 1), everything else N(0, 1)."""


def quantiles(count: int) -> np.ndarray:
    """A sample of N(0, 1) without chance in it."""
    return norm.ppf((np.arange(count) + 0.5) / count)


@pytest.fixture(scope="module")
def two_gaussians():
    """An enriched sample, and how to weigh it so that 2 % are of the class."""
    scores = np.concatenate([quantiles(20000) + APART, quantiles(80000)])
    truth = np.arange(100000) < 20000
    return scores, truth, prevalence_weights(truth, {True: 0.02, False: 0.98})


def theory(threshold: float, prevalence: float) -> tuple[float, float]:
    completeness = norm.sf(threshold - APART)
    right, wrong = prevalence * completeness, (1 - prevalence) * norm.sf(threshold)
    return completeness, right / (right + wrong)


@pytest.mark.parametrize("threshold", [0.0, 1.0, 2.0, 3.0])
def test_figures_above_a_threshold_are_those_of_theory(two_gaussians, threshold):
    scores, truth, weights = two_gaussians
    natural, enriched = found_above(scores, truth, threshold, weights), found_above(scores, truth, threshold)
    for figures, prevalence in ((natural, 0.02), (enriched, 0.2)):
        completeness, purity = theory(threshold, prevalence)
        assert figures.completeness == pytest.approx(completeness, abs=1e-4)
        assert figures.purity == pytest.approx(purity, abs=2e-3)
        assert figures.f1 == pytest.approx(2 / (1 / completeness + 1 / purity), abs=2e-3)
    assert natural.selected == enriched.selected == np.sum(scores >= threshold)


def test_the_threshold_of_a_purity_is_that_of_theory(two_gaussians):
    scores, truth, weights = two_gaussians
    for purity in (0.5, 0.8, 0.9):
        expected = brentq(lambda t, purity=purity: theory(t, 0.02)[1] - purity, 0, 6)
        threshold = threshold_at_purity(scores, truth, purity, weights)
        assert threshold == pytest.approx(expected, abs=0.02)
        assert found_above(scores, truth, threshold, weights).purity >= purity - 1e-9
    # forgetting the prevalence would flatter the classifier
    assert threshold_at_purity(scores, truth, 0.9) < threshold_at_purity(scores, truth, 0.9, weights) - 0.5


def test_the_threshold_comes_from_the_validation_sample():
    test = ([0.9, 0.8, 0.2], [True, False, True], None)
    strict = completeness_at_purity(([0.85, 0.1], [True, False], None), test)
    assert (strict.threshold, strict.completeness, strict.purity, strict.selected) == (0.85, 0.5, 1.0, 1)
    never = completeness_at_purity(([0.85, 0.1], [False, True], None), test)
    assert (never.completeness, never.selected, never.f1) == (0.0, 0, 0.0)
    assert np.isnan(never.purity)
    assert never.threshold == np.inf


def test_the_curve_has_one_point_a_distinct_score():
    curve = purity_curve([3, 2, 2, 1], [True, True, False, False])
    np.testing.assert_array_equal(curve.thresholds, [3, 2, 1])
    np.testing.assert_allclose(curve.completeness, [0.5, 1, 1])
    np.testing.assert_allclose(curve.purity, [1, 2 / 3, 0.5])
    # the loosest threshold that is pure enough, though a stricter one was not
    assert threshold_at_purity([4, 3, 2, 1], [False, True, True, True], 0.7) == 1


def test_a_selection_by_hand():
    figures = found([1, 1, 0, 0, 0], [1, 0, 1, 1, 0])
    assert (figures.completeness, figures.purity, figures.selected) == (0.5, pytest.approx(1 / 3), 3)
    assert figures.f1 == pytest.approx(0.4)
    weighted = found([1, 1, 0, 0, 0], [1, 0, 1, 1, 0], [3, 1, 0.5, 0.5, 9])
    assert (weighted.completeness, weighted.purity) == (0.75, 0.75)
    assert np.isnan(found([0, 0], [1, 0]).completeness)


def test_purity_of_the_best(two_gaussians):
    assert purity_at([5, 4, 3, 2], [True, False, True, True], 1) == 1
    assert purity_at([5, 4, 3, 2], [True, False, True, True], 3) == pytest.approx(2 / 3)
    # two of three that tie have room: two thirds of the two that are right
    assert purity_at([5, 4, 4, 4], [True, True, True, False], 3) == pytest.approx((1 + 2 * 2 / 3) / 3)
    scores, truth, weights = two_gaussians
    threshold = 2.7
    completeness, purity = theory(threshold, 0.02)
    best = round(len(scores) * (0.02 * completeness + 0.98 * norm.sf(threshold)))
    assert purity_at(scores, truth, best, weights) == pytest.approx(purity, abs=2e-3)


def test_weights_restore_the_prevalence():
    labels = np.array(["a"] * 5 + ["b"] * 3 + ["c"] * 2)
    weights = prevalence_weights(labels, {"a": 0.9, "b": 0.08, "c": 0.02, "d": 0})
    assert [weights[labels == name].sum() for name in "abc"] == pytest.approx([9, 0.8, 0.2])
    with pytest.raises(InputError, match=r"add up to 0\.98"):
        prevalence_weights(labels, {"a": 0.9, "b": 0.08})
    with pytest.raises(InputError, match="'c' has no prevalence"):
        prevalence_weights(labels, {"a": 0.9, "b": 0.1})
    with pytest.raises(InputError, match="'d' has a prevalence and no object"):
        prevalence_weights(labels, {"a": 0.9, "b": 0.05, "c": 0.03, "d": 0.02})


def test_a_share_has_wilsons_interval():
    interval = share_interval(3, 10)  # by the formula: (p + z^2/2n +- z sqrt(p q / n + z^2/4n^2)) / (1 + z^2/n)
    assert interval.estimate == 0.3
    assert (interval.low, interval.high) == pytest.approx((0.10779127, 0.60322186), abs=1e-7)
    assert share_interval(0, 10).low == 0
    assert np.isnan(share_interval(0, 0).estimate)
    with pytest.raises(InputError, match="11 of 10"):
        share_interval(11, 10)


def test_a_mean_of_seeds_has_students_interval():
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.estimate == 2
    assert interval.high - 2 == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)  # t(0.975, 2) = 4.302653
    assert mean_interval([1.0]).high == np.inf


def test_wrong_input_is_named():
    with pytest.raises(InputError, match="not finite"):
        found_above([np.nan, 1], [True, False], 0.5)
    with pytest.raises(InputError, match="one of each"):
        found_above([1, 2, 3], [True, False], 0.5)
    with pytest.raises(InputError, match="below 0"):
        found([True], [True], [-1])
    with pytest.raises(InputError, match="no object"):
        purity_curve([1, 2], [False, False])
    with pytest.raises(InputError, match=r"purity of 1\.5"):
        threshold_at_purity([1, 2], [False, True], 1.5)
    with pytest.raises(InputError, match="the best 3 of 2"):
        purity_at([1, 2], [False, True], 3)
