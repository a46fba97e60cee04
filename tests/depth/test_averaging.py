"""Two predictors made into one: exact where they agree, one space for both, and one line where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from priorscope.errors import InputError
from priorscope.predictors.geometry import Geometry
from priorscope_depth.averaging import AveragedPredictor, average_aligned
from priorscope_depth.base import ImagePredictor, Prediction

TRUTH = np.random.default_rng(0).uniform(1, 8, (24, 32))
PICTURE = np.zeros((24, 32, 3), np.uint8)


class Fixed(ImagePredictor):
    """Says the same of every picture."""

    def __init__(self, name, values, space="depth", scale="affine-invariant", bounded=True, task="depth"):
        self.name, self.values, self._space, self.scale, self.bounded = name, values, space, scale, bounded
        self._task, self.device = task, torch.device("cpu")
        self.geometry = self.benchmark_geometry = Geometry(0)

    task = property(lambda self: self._task)
    space = property(lambda self: self._space)

    def predict(self, rgb, *, seed=0, items=(0,), ensemble=1):
        return [Prediction(torch.from_numpy(self.values.astype(np.float32))[None]) for _ in rgb]

    def predict_tiled(self, rgb, *, tile, seed, items):
        return self.predict(rgb)[0]._replace(notes={"tiles": tile})


def unit(values):
    return (values - values.min()) / np.ptp(values)


def test_an_affine_copy_gives_the_first_back():
    first = unit(TRUTH)
    average = average_aligned(first, 3.5 * first - 0.7)
    np.testing.assert_allclose(average.values, first, atol=1e-12)
    np.testing.assert_allclose(average.half_distance, 0, atol=1e-12)
    assert (average.fit.scale, average.fit.shift) == pytest.approx((1 / 3.5, 0.2))


def test_the_mean_lies_half_way_and_a_wrong_region_does_not_pull_the_fit():
    first = unit(TRUTH)
    second = 2 * first + 1
    second[:8] += 5.0  # a third of the picture
    average = average_aligned(first, second)
    np.testing.assert_allclose(average.values[8:], first[8:], atol=1e-9)
    np.testing.assert_allclose(average.values[:8], first[:8] + 1.25, atol=1e-9)
    np.testing.assert_allclose(average.half_distance[:8], 1.25, atol=1e-9)


def test_averaging_halves_independent_errors():
    rng = np.random.default_rng(1)
    truth = unit(TRUTH)
    one, other = (truth + 0.02 * rng.standard_normal(truth.shape) for _ in range(2))
    mean = average_aligned(one, 4 * other - 1).values
    assert np.std(mean - truth) == pytest.approx(0.02 / np.sqrt(2), rel=0.1)


def test_results_name_both_models_and_the_space():
    first = Fixed("a", unit(TRUTH))
    both = AveragedPredictor(first, Fixed("b", 7 * unit(TRUTH) + 2, bounded=False))
    result = both(PICTURE)
    np.testing.assert_allclose(result.values, unit(TRUTH), atol=1e-6)
    assert (result.space, result.scale, result.model) == ("depth", "affine-invariant", "a + b")
    assert result.notes["ensemble"]["models"] == ["a", "b"]
    assert result.notes["ensemble"]["aligned_in"] == "depth"
    assert result.notes["ensemble"]["inliers"] == 1
    assert result.uncertainty.shape == (24, 32)
    np.testing.assert_allclose(result.uncertainty, 0, atol=1e-6)


def test_tiles_of_two_models_say_as_much():
    both = AveragedPredictor(Fixed("a", unit(TRUTH)), Fixed("b", 2 - unit(TRUTH) ** 2, bounded=False))
    with pytest.raises(InputError, match="b contradicts a"):
        both(np.zeros((24, 40, 3), np.uint8), tile=32)
    first = Fixed("a", np.random.default_rng(2).uniform(0, 1, (24, 40)))
    both = AveragedPredictor(first, Fixed("b", first.values**2 + 1, bounded=False))
    whole, tiled = both(np.zeros((24, 40, 3), np.uint8)), both(np.zeros((24, 40, 3), np.uint8), tile=32)
    np.testing.assert_array_equal(tiled.values, whole.values)
    assert tiled.notes == {"tiles": 32, **whole.notes}
    np.testing.assert_array_equal(tiled.uncertainty, whole.uncertainty)


def test_values_beyond_the_unit_range_are_rescaled_not_cut():
    first, second = unit(TRUTH), unit(TRUTH)
    second[0, 0] = 3.0
    values = AveragedPredictor(Fixed("a", first), Fixed("b", second))(PICTURE).values
    assert (values.min(), values.max()) == pytest.approx((0, 1))
    assert np.argmax(values) == 0
    assert np.corrcoef(values.ravel()[1:], first.ravel()[1:])[0, 1] == pytest.approx(1)


def test_a_metric_model_is_inverted_into_the_other_ones_space():
    disparity = Fixed("relative", unit(1 / TRUTH), "disparity")
    metric = Fixed("metres", TRUTH, "depth", "metric")
    result = AveragedPredictor(disparity, metric)(PICTURE)
    np.testing.assert_allclose(result.values, unit(1 / TRUTH), atol=1e-5)
    assert (result.space, result.scale, result.notes["ensemble"]["aligned_in"]) == (
        "disparity", "affine-invariant", "disparity",
    )  # fmt: skip
    result = AveragedPredictor(metric, disparity)(PICTURE)
    np.testing.assert_allclose(result.values, TRUTH, rtol=1e-4)
    assert (result.space, result.scale, result.notes["ensemble"]["aligned_in"]) == ("depth", "metric", "disparity")
    both = AveragedPredictor(metric, Fixed("other", 2 * TRUTH, "depth", "metric"), "disparity")
    np.testing.assert_allclose(both(PICTURE).values, TRUTH, rtol=1e-4)


def test_spaces_that_do_not_go_together():
    depth, disparity = Fixed("d", unit(TRUTH)), Fixed("i", unit(1 / TRUTH), "disparity")
    for first, second in ((depth, disparity), (disparity, depth)):
        with pytest.raises(InputError, match="d predicts depth and i disparity, both up to an unknown scale"):
            AveragedPredictor(first, second)
    with pytest.raises(InputError, match="--ensemble-space depth"):
        AveragedPredictor(depth, Fixed("m", TRUTH, scale="metric"), "disparity")
    with pytest.raises(InputError, match="n predicts normals"):
        AveragedPredictor(depth, Fixed("n", TRUTH, task="normals"))


def test_contradicting_and_constant_models_are_refused():
    first = Fixed("a", unit(TRUTH))
    with pytest.raises(InputError, match="b contradicts a on this picture"):
        AveragedPredictor(first, Fixed("b", 1 - unit(TRUTH)))(PICTURE)
    with pytest.raises(InputError, match="are equal"):
        AveragedPredictor(first, Fixed("b", np.ones_like(TRUTH)))(PICTURE)
    with pytest.raises(InputError, match="b gives NaN"):
        AveragedPredictor(first, Fixed("b", np.full_like(TRUTH, np.nan)))(PICTURE)


def test_evaluation_takes_the_average():
    from priorscope_depth.predictor import NativePredictor

    native = NativePredictor(AveragedPredictor(Fixed("a", unit(TRUTH)), Fixed("b", 2 * unit(TRUTH))))
    values = native(torch.zeros(2, 3, 24, 32))
    assert values.shape == (2, 24, 32)
    np.testing.assert_allclose(values[1], unit(TRUTH), atol=1e-6)
