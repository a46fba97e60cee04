"""The flicker measure where its value is known."""

from __future__ import annotations

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_depth.flicker import flicker, read_out

SCENE = np.random.default_rng(0).uniform(size=(60, 80))
RANGE = np.subtract(*np.quantile(SCENE, [0.98, 0.02]))


def test_a_still_scene_does_not_flicker():
    measured = flicker([SCENE] * 4)
    assert (measured.shape, measured.total, measured.pairs) == (pytest.approx(0, abs=1e-12), 0, 3)


def test_a_change_of_scale_and_shift_is_no_change_of_shape():
    measured = flicker([SCENE, 1.1 * SCENE + 0.05])
    assert measured.shape == pytest.approx(0, abs=1e-9)
    assert measured.total == pytest.approx((0.1 * SCENE + 0.05).mean() / RANGE)


def test_white_noise_has_the_value_of_the_docstring():
    rng = np.random.default_rng(1)
    frames = [SCENE + 0.01 * rng.standard_normal(SCENE.shape) for _ in range(6)]
    expected = 2 * 0.01 / np.sqrt(np.pi) / RANGE
    measured = flicker(frames)
    assert measured.total == pytest.approx(expected, rel=0.02)
    assert measured.shape == pytest.approx(expected, rel=0.02)


def test_known_motion_is_taken_out():
    shifted = np.roll(SCENE, 3, axis=1)
    columns, rows = np.meshgrid(np.arange(80.0), np.arange(60.0))
    columns[:, 77:] = np.nan  # leaves the picture
    assert flicker([SCENE, shifted]).total > 0.1
    measured = flicker([SCENE, shifted], motion=[(columns + 3, rows)])
    assert measured.total == pytest.approx(0, abs=1e-12)


def test_only_still_pixels_count():
    moved = SCENE.copy()
    moved[:20] = 5.0
    still = np.ones(SCENE.shape, bool)
    still[:20] = False
    assert flicker([SCENE, moved]).total > 1
    assert flicker([SCENE, moved], still=[still]).total == 0


def test_reading_between_pixels():
    ramp = np.add.outer(np.arange(5.0), 10 * np.arange(6.0))
    values, inside = read_out(ramp, np.array([[0.5, 5.0, 5.1]]), np.array([[1.25, 4.0, 2.0]]))
    np.testing.assert_allclose(values[inside], [5 + 1.25, 54])
    assert list(inside[0]) == [True, True, False]


@pytest.mark.parametrize(
    ("frames", "options", "word"),
    [
        ([SCENE], {}, "two or more"),
        ([SCENE, SCENE[:5]], {}, "shapes"),
        ([SCENE, SCENE], {"still": []}, "0 masks for 1 pairs"),
        ([SCENE, SCENE], {"still": [np.zeros(SCENE.shape, bool)]}, "0 finite pixels"),
        ([SCENE, SCENE * np.nan], {}, "finite"),
        ([np.ones((4, 4)), np.ones((4, 4))], {}, "constant"),
    ],
)
def test_what_cannot_be_measured(frames, options, word):
    with pytest.raises(InputError, match=word):
        flicker(frames, **options)
