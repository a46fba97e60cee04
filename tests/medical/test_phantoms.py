"""Random CT slices: what a training may rely on."""

from __future__ import annotations

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_medical.phantom_canvas import Canvas, blob
from priorscope_medical.phantoms import ct_slice, ct_slices


@pytest.fixture(scope="module")
def many():
    return ct_slices(50, 11, size=64, pixel=3.8)


def test_seed_and_index_fix_the_slice():
    again = ct_slices(3, 7, first=4)
    assert again.dtype == np.float32
    assert again.shape == (3, 128, 128)
    np.testing.assert_array_equal(again[1], ct_slice(7, 5))
    assert not np.array_equal(ct_slice(7, 5), ct_slice(8, 5))
    assert not np.array_equal(ct_slice(7, 5), ct_slice(7, 6))


def test_values_are_those_of_ct(many):
    assert np.isfinite(many).all()
    assert many.min() == 0
    assert many.max() < 6.5
    rim = np.concatenate([many[:, 0], many[:, -1], many[:, :, 0], many[:, :, -1]], axis=1)
    assert np.median(rim) < 0.05, "air surrounds the body"
    body = (many > 0.8).mean((1, 2))
    assert np.mean(body > 0.05) > 0.8
    assert 0 < np.mean(body < 0.05) < 0.2, "a few show little or nothing of it"
    assert np.mean((many > 1.3).mean((1, 2)) > 0.01) > 0.6, "most slices show bone"
    assert np.median(many[many > 0.5]) == pytest.approx(1.03, abs=0.03), "soft tissue is what there is most of"


def test_a_kind_can_be_asked_for():
    empty = np.stack([ct_slice(5, index, size=64, pixel=3.8, kind="empty") for index in range(8)])
    heads = np.stack([ct_slice(5, index, size=64, pixel=3.8, kind="brain") for index in range(8)])
    assert (empty > 0.8).mean() < 0.02, "a rest at most"
    assert ((heads > 1.3).mean((1, 2)) > 0.01).all()
    assert ((heads > 0.8).mean((1, 2)) > 0.1).all()
    with pytest.raises(InputError, match="kind 'leg'"):
        ct_slice(5, 0, kind="leg")


def test_slices_differ(many):
    flat = many[(many > 0.8).mean((1, 2)) > 0.05].reshape(-1, 64 * 64)
    closest = np.array(
        [np.sqrt(((flat - one) ** 2).mean(1))[np.arange(len(flat)) != k].min() for k, one in enumerate(flat)]
    )
    assert closest.min() > 0.08


def test_same_body_in_finer_sampling():
    for index in range(8):
        coarse = ct_slice(3, index, size=64, pixel=3.8)
        fine = ct_slice(3, index, size=192, pixel=3.8 / 3).reshape(64, 3, 64, 3).mean((1, 3))
        body = max(float(np.square(coarse).mean()), 0.05)
        assert np.square(coarse - fine).mean() < 0.03 * body, index
        assert abs(float(coarse.mean() - fine.mean())) < 0.012, index


def test_larger_field_shows_more_air():
    near, far = ct_slice(3, 1, size=96, pixel=1.9), ct_slice(3, 1, size=96, pixel=3.8)
    assert (far > 0.8).sum() < 0.6 * (near > 0.8).sum()


def test_ellipse_has_its_area_and_place():
    canvas = Canvas(64, 2.0, np.random.default_rng(0))
    canvas.place((7.3, -4.1), 0.4)
    canvas.fill(blob(canvas.rng, (5.0, 3.0), (20.0, 12.0), rough=0, corners=200), 1.0)
    assert float(canvas.image.sum()) * canvas.step**2 == pytest.approx(np.pi * 20 * 12, rel=0.05)
    weight = canvas.image / canvas.image.sum()
    assert float((weight * canvas.x).sum()) == pytest.approx(5, abs=0.05)
    assert float((weight * canvas.y).sum()) == pytest.approx(3, abs=0.05)
    ruler = np.arange(128) - 63.5
    right = 7.3 + 5 * np.cos(0.4) - 3 * np.sin(0.4)
    down = -4.1 + 5 * np.sin(0.4) + 3 * np.cos(0.4)
    assert float((weight.sum(0) * ruler).sum()) == pytest.approx(right, abs=0.05)
    assert float((weight.sum(1) * ruler).sum()) == pytest.approx(down, abs=0.05)


def test_line_thinner_than_a_pixel_keeps_its_mass():
    masses = []
    for width in (4.0, 0.1):
        canvas = Canvas(64, 2.0, np.random.default_rng(0))
        canvas.band(np.array([[-40.0, -10.0], [0.0, 0.0], [40.0, 10.0]]), width, 1.0)
        masses.append(float(canvas.image.sum()) * canvas.step**2 / width)
    length = 2 * np.hypot(40, 10)
    assert masses[0] == pytest.approx(length, rel=0.2)
    assert masses[1] == pytest.approx(length, rel=0.4)


def test_shapes_outside_the_board_are_left_out():
    canvas = Canvas(32, 2.0, np.random.default_rng(0))
    canvas.fill(blob(canvas.rng, (500.0, 0.0), (20.0, 12.0)), 1.0)
    canvas.fill([], 1.0)
    assert not canvas.image.any()


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ({"size": 8}, "8 pixels"),
        ({"size": 10**6}, "pixels"),
        ({"pixel": 0.0}, "0.0 mm"),
        ({"pixel": float("nan")}, "nan mm"),
        ({"seed": -1}, "seed -1"),
        ({"index": -2}, "index -2"),
    ],
)
def test_impossible_slices_are_refused(arguments, fact):
    with pytest.raises(InputError, match=fact):
        ct_slice(**{"seed": 0, "index": 0} | arguments)


def test_no_slices_are_refused():
    with pytest.raises(InputError, match="0 slices"):
        ct_slices(0, 1)
