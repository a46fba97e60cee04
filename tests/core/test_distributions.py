"""Distances between sets of features: golden values, closed forms, and what the intervals cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from priorscope.errors import InputError
from priorscope.evaluation import distributions
from priorscope.evaluation.distributions import bootstrap, fid, kid, prdc, wasserstein


def rng(seed=0):
    return np.random.default_rng(seed)


def test_golden_morphology_distributions(golden_files, read_json):
    for path in golden_files("astro_accel", "astro*.safetensors"):
        stored = load_file(path)
        real, generated = stored["fid.A"], stored["fid.B"]
        expected = read_json(path.with_suffix(".json"))["fid"]
        assert fid(real, generated) == pytest.approx(expected["fid_AB"], rel=1e-10)
        assert fid(real, real) == pytest.approx(expected["fid_AA"], abs=1e-10)
        assert kid(real, generated) == pytest.approx(expected["kid_AB"], rel=1e-10)
        assert kid(real[:100], real[100:]) == pytest.approx(expected["kid_AA_half"], rel=1e-10)
        for k in (3, 5):
            assert prdc(real, generated, k=k) == pytest.approx(expected[f"prdc_k{k}"], rel=1e-10)


def test_fid_of_gaussians_in_closed_form():
    # diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2; features with exactly these moments
    base = rng().standard_normal((50, 3))
    base -= base.mean(0)
    base = base @ np.linalg.inv(np.linalg.cholesky(np.cov(base, rowvar=False))).T
    found = fid(base * [1, 2, 3], base * [2, 2, 1] + [1, 0, 0])
    assert found == pytest.approx(1 + 1 + 4)
    assert fid(base[:, :1], base[:, :1] * 3) == pytest.approx(4)  # one feature: np.cov gives no matrix


def test_fid_where_features_depend_on_each_other():
    base = rng().standard_normal((30, 4))
    singular = np.concatenate([base, base], axis=1)
    assert fid(singular, singular + 1) == pytest.approx(8)
    few = rng(1).standard_normal((5, 40))  # fewer samples than features
    assert fid(few, few) == pytest.approx(0, abs=1e-10)


def test_kid_is_unbiased_and_by_subsets():
    draws = [kid(rng(seed).standard_normal((20, 4)), rng(seed + 1000).standard_normal((30, 4))) for seed in range(200)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / math.sqrt(200)
    assert min(draws) < 0
    real, generated = rng(0).standard_normal((40, 4)), rng(1).standard_normal((30, 4)) + 1
    assert kid(real, generated, subsets=1, subset_size=30) != kid(real, generated)
    many = kid(real, generated, subsets=300, subset_size=15)
    assert many == pytest.approx(kid(real, generated), rel=0.1)
    assert many == kid(real, generated, subsets=300, subset_size=15)
    assert many != kid(real, generated, subsets=300, subset_size=15, seed=1)


def test_prdc_against_its_definition_and_in_blocks(monkeypatch):
    real, generated = rng(0).standard_normal((23, 3)) + 50, rng(1).standard_normal((31, 3)) * 1.3 + 50
    radius = [np.sort(cdist(one, one), axis=1)[:, 4] for one in (real, generated)]
    apart = cdist(real, generated)
    inside = apart < radius[0][:, None]
    expected = {
        "precision": inside.any(0).mean(),
        "recall": (apart < radius[1]).any(1).mean(),
        "density": inside.sum(0).mean() / 4,
        "coverage": inside.any(1).mean(),
    }
    assert prdc(real, generated, k=4) == pytest.approx(expected)
    whole = kid(real, generated)
    monkeypatch.setattr(distributions, "_BLOCK", 7)
    assert prdc(real, generated, k=4) == pytest.approx(expected)
    assert kid(real, generated) == pytest.approx(whole)


def test_prdc_of_what_collapsed():
    real = rng(0).standard_normal((100, 2))
    one_mode = np.repeat(real[:1], 50, axis=0) + 1e-9 * rng(1).standard_normal((50, 2))
    found = prdc(real, one_mode)
    assert found["precision"] == 1
    assert found["coverage"] < 0.2
    assert found["recall"] <= 0.01
    assert prdc(real, real + 100) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_wasserstein_by_feature():
    real, generated = rng(0).standard_normal((40, 3)), rng(1).standard_normal((25, 3)) * [1, 2, 3]
    expected = [wasserstein_distance(real[:, i], generated[:, i]) for i in range(3)]
    np.testing.assert_allclose(wasserstein(real, generated), expected, rtol=1e-12)
    np.testing.assert_allclose(wasserstein(real, real + [1, -2, 0.5]), [1, 2, 0.5])
    assert (wasserstein(real, rng(2).permutation(real)) == 0).all()


def test_bootstrap_of_a_mean():
    values = rng(0).standard_normal(400) + 5
    interval = bootstrap(np.mean, values, repeats=2000)
    error = values.std() / 20
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    halves = bootstrap(np.mean, values, repeats=2000, replace=False)
    assert halves.low == pytest.approx(interval.low, abs=0.15 * error)
    assert halves.high == pytest.approx(interval.high, abs=0.15 * error)
    assert str(halves).startswith("5.") or str(halves).startswith("4.9")


def test_paired_rows_stay_together():
    labels = rng(0).random(200) < 0.5
    agree = bootstrap(lambda a, b: float((a == b).mean()), labels, labels, paired=True, repeats=50)
    assert (agree.low, agree.high) == (1, 1)
    apart = bootstrap(lambda a, b: float((a == b).mean()), labels, labels, repeats=50)
    assert apart.high < 0.7


def test_halves_do_not_take_copies_for_neighbours():
    real, generated = rng(0).standard_normal((80, 4)), rng(1).standard_normal((80, 4))
    halves = bootstrap(kid, real, generated, replace=False, repeats=100)
    assert halves.low < halves.estimate < halves.high
    covered = bootstrap(lambda a, b: prdc(a, b)["coverage"], real, generated, replace=False, repeats=50)
    assert covered.low < covered.estimate < covered.high
    # with replacement, copies shrink the balls: the whole interval lies below the estimate
    copies = bootstrap(lambda a, b: prdc(a, b)["coverage"], real, generated, repeats=50)
    assert copies.high < copies.estimate


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: fid(x, x[:, :2]), "3 features of the real and 2"),
        (lambda x: fid(x[:1], x), "1 real samples"),
        (lambda x: fid(x[0], x), r"shape \(3,\)"),
        (lambda x: kid(x, np.where(x > 1, np.nan, x)), "not finite"),
        (lambda x: prdc(x, x[:5]), "5 generated samples"),
        (lambda x: prdc(x, x, k=0), "0 neighbours"),
        (lambda x: kid(x, x, subsets=3), "subsets of 1000"),
        (lambda x: wasserstein(x, x[:0]), "0 generated samples"),
        (lambda x: bootstrap(np.mean), "sets of"),
        (lambda x: bootstrap(np.mean, x[:3], replace=False), "at least 4"),
        (lambda x: bootstrap(np.mean, x, level=1.5), "level 1.5"),
        (lambda x: bootstrap(fid, x, x[:5], paired=True), "paired sets"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call(rng().standard_normal((30, 3)))


def test_the_bootstrap_agrees_with_the_normal_interval():
    sample = rng(1).normal(3, 2, 400)
    interval = bootstrap(np.mean, sample, repeats=4000)
    half = 1.96 * sample.std() / 20
    assert interval.estimate == sample.mean()
    assert interval.low == pytest.approx(sample.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(sample.mean() + half, abs=0.02)


def test_strata_keep_their_sizes():
    truth = np.arange(100) < 10
    interval = bootstrap(np.mean, truth, strata=truth, paired=True, repeats=50)
    assert (interval.low, interval.estimate, interval.high) == (0.1, 0.1, 0.1)
    assert bootstrap(np.mean, truth, repeats=50).low < 0.1
    with pytest.raises(InputError, match="strata"):
        bootstrap(np.mean, [1.0, 2.0], strata=[0], paired=True)
    with pytest.raises(InputError, match="strata"):
        bootstrap(np.mean, [1.0, 2.0], strata=[0, 1])


def test_draws_without_a_value_are_left_out():
    def mean_of_ones(values):
        return float(values[values > 0].mean()) if (values > 0).any() else math.nan

    assert bootstrap(mean_of_ones, np.array([0, 0, 1.0]), repeats=50).low == 1
    nothing = bootstrap(mean_of_ones, np.zeros(3), repeats=5)
    assert math.isnan(nothing.low)
    assert math.isnan(nothing.estimate)
