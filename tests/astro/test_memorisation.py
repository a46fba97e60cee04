"""Copies of training images are found, however turned; independent images are not called copies."""

from __future__ import annotations

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_astro import memorisation as whole
from priorscope_astro.diffusion.symmetry import COUNT, turned
from priorscope_astro.memorisation import memorisation, nearest_training_image


def images(count, seed, side=16):
    return np.random.default_rng(seed).normal(size=(count, 2, side, side)).astype(np.float32)


def test_a_copy_is_found_however_turned_and_scaled():
    training = images(50, 0)
    for which in range(COUNT):
        copy = 1.3 * turned(training[[7, 31]], which) + 0.2
        found = nearest_training_image(copy, training)
        assert found.index.tolist() == [7, 31]
        assert found.distance.max() < 1e-3
        for row, place in enumerate((7, 31)):
            np.testing.assert_allclose(turned(copy[row], int(found.turn[row])), 1.3 * training[place] + 0.2, atol=1e-5)


@pytest.mark.parametrize("block", [4096, 4])
def test_distance_is_the_root_mean_square_difference(monkeypatch, block):
    """By the definition, over all turns and all training images; blocks and averaging do not change it."""
    monkeypatch.setattr(whole, "_BLOCK", block)
    first, training = images(3, 1, 8), images(10, 2, 8)
    found = nearest_training_image(first, training)

    def normal(image):
        return (image - image.mean()) / image.std()

    for row in range(3):
        distances = [
            (float(np.sqrt(np.mean((normal(turned(first[row], which)) - normal(other)) ** 2))), place, which)
            for place, other in enumerate(training)
            for which in range(COUNT)
        ]
        distance, place, which = min(distances)
        assert found.distance[row] == pytest.approx(distance, abs=1e-5)
        assert (found.index[row], found.turn[row]) == (place, which)
    large = first.repeat(8, -1).repeat(8, -2)
    np.testing.assert_allclose(
        nearest_training_image(large, training.repeat(8, -1).repeat(8, -2), side=8).distance, found.distance, atol=1e-5
    )


@pytest.mark.parametrize("block", [4096, 4])
def test_an_image_is_not_its_own_neighbour(monkeypatch, block):
    monkeypatch.setattr(whole, "_BLOCK", block)
    training = images(10, 3)
    found = nearest_training_image(training, training, same=True)
    assert (found.index != np.arange(10)).all()
    assert found.distance.min() > 1


def test_a_model_that_copies_is_told_from_one_that_does_not():
    training, held_out = images(300, 4, 6), images(200, 5, 6)
    fresh = memorisation(images(200, 6, 6), training, held_out)
    assert not fresh.copied
    assert fresh.interval[0] < 0.05 < fresh.interval[1]
    noisy = training[:200] + 0.3 * images(200, 7, 6)
    noisy[:150] = images(150, 8, 6)  # a quarter of what it draws are copies with noise
    found = memorisation(noisy, training, held_out)
    assert found.copied
    assert found.copies > 0.25
    assert found.generated.index[150:].tolist() == list(range(150, 200))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nearest_training_image(images(2, 0)[:, :1], images(3, 0)), "training images of"),
        (lambda: nearest_training_image(images(0, 0), images(3, 0)), "images of shape"),
        (lambda: nearest_training_image(images(2, 0)[:, :, :5], images(3, 0)), "images of shape"),
        (lambda: nearest_training_image(np.full((1, 2, 16, 16), np.nan), images(3, 0)), "number 0 has values"),
        (lambda: nearest_training_image(np.ones((1, 2, 16, 16)), images(3, 0)), "number 0 is constant"),
        (lambda: nearest_training_image(images(1, 0), images(1, 0), same=True), "no other"),
        (lambda: memorisation(images(2, 0), images(3, 0), images(5, 0)), "5 held-out images"),
        (lambda: memorisation(images(2, 0), images(3, 0), images(5, 0), quantile=1), "quantile of 1"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()
