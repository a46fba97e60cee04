"""Augmentation: keypoints move with pixels, and only the input is damaged."""

from __future__ import annotations

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_pose.sdpose.settings import PoseSettings
from priorscope_pose.skeletons import COCO
from priorscope_pose.training.colours import ColourAugmentation, distort
from priorscope_pose.training.damage import Damage, damaged
from priorscope_pose.training.feed import NO_AUGMENTATION, Augmentation, PoseFeed, PriorFeed, codec_of, example
from priorscope_pose.training.people import Person
from priorscope_pose.training.region import (
    NO_CHANGE,
    RegionAugmentation,
    cut_out,
    draw_region,
    half_body_box,
)

SIZE = (96, 128)
SETTINGS = PoseSettings("coco", "up_blocks.2", SIZE, (48, 64), 1.5)


def dotted(seed, joint):
    """A person whose picture is black but for a white dot on one joint."""
    random = np.random.default_rng(seed)
    keypoints = np.concatenate([random.uniform([50, 40], [110, 160], (17, 2)), np.full((17, 1), 2.0)], 1)
    yy, xx = np.mgrid[:200, :160]
    x, y = keypoints[joint, :2]
    dot = 255 * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * 3.0**2))
    image = np.repeat(dot.round().astype(np.uint8)[..., None], 3, 2)
    return Person(image, np.array([40.0, 30.0, 120.0, 170.0]), keypoints, f"person {seed}")


def centroid(image):
    grey = image[..., 0].astype(float)
    yy, xx = np.mgrid[: grey.shape[0], : grey.shape[1]]
    return np.array([(grey * xx).sum(), (grey * yy).sum()]) / grey.sum()


@pytest.mark.parametrize("seed", range(12))
def test_keypoints_move_with_their_pixels(seed):
    # no half body: it could leave the dot at the border, where a centroid means nothing
    how = RegionAugmentation(half_body=0.0, scale=(0.9, 1.5))
    cut = cut_out(dotted(seed, 9), COCO, SIZE, how, np.random.default_rng([seed, 1]))
    flips = np.random.default_rng([seed, 1]).random() < how.flip
    joint = COCO.flip_indices[9] if flips else 9  # in a mirrored picture the left wrist is a right one
    x, y = cut.keypoints[joint]
    assert 10 < x < 86
    assert 10 < y < 118
    np.testing.assert_allclose(centroid(cut.image), [x, y], atol=0.15)


def test_both_sides_were_seen():
    flips = {np.random.default_rng([seed, 1]).random() < 0.5 for seed in range(12)}
    assert flips == {True, False}


def test_mirrored_names_change_sides():
    person = dotted(0, 9)
    always = RegionAugmentation(flip=1.0, half_body=0.0, shift_share=0.0, scale_share=0.0, rotation_share=0.0)
    straight = cut_out(person, COCO, SIZE, NO_CHANGE, np.random.default_rng(0))
    flipped = cut_out(person, COCO, SIZE, always, np.random.default_rng(0))
    # the box's centre is that of the picture but for half a pixel, the crop's x runs from 0 to 95
    swapped = straight.keypoints[list(COCO.flip_indices)]
    np.testing.assert_allclose(flipped.keypoints[:, 0], 95 - swapped[:, 0], atol=1e-4)
    np.testing.assert_allclose(flipped.keypoints[:, 1], swapped[:, 1], atol=1e-4)
    np.testing.assert_allclose(flipped.image, straight.image[:, ::-1], atol=2)


def test_without_change_the_crop_is_that_of_evaluation():
    from priorscope_pose.geometry.crop import crop_people

    person = dotted(3, 5)
    cut = cut_out(person, COCO, SIZE, NO_CHANGE, np.random.default_rng(0))
    crops = crop_people(person.image, person.box[None], SIZE)
    np.testing.assert_array_equal(cut.image, crops.images[0])
    # back to the image from decoder units, which are crop pixels times W / (W - 1)
    units = cut.keypoints * np.array(SIZE) / (np.array(SIZE) - 1)
    np.testing.assert_allclose(crops.to_image(units[None])[0], person.keypoints[:, :2], atol=1e-4)


def test_half_bodies():
    keypoints = np.zeros((17, 3))
    keypoints[:, 2] = 2
    keypoints[:11, :2] = np.stack([np.arange(11) * 10.0, np.arange(11) * 2.0], 1)  # upper
    keypoints[11:, :2] = [100.0, 50.0] + np.stack([np.arange(6) * 4.0, np.arange(6) * 6.0], 1)
    how = RegionAugmentation()
    np.testing.assert_allclose(half_body_box(keypoints, COCO, how, upper=True), [50, 10, 150, 30])
    np.testing.assert_allclose(half_body_box(keypoints, COCO, how, upper=False), [110, 65, 30, 45])
    keypoints[13:, 2] = 0  # two are left below, three are needed
    np.testing.assert_allclose(half_body_box(keypoints, COCO, how, upper=False), [50, 10, 150, 30])
    keypoints[8:, 2] = 0
    assert half_body_box(keypoints, COCO, how, upper=True) is None  # eight labelled, nine are needed


def test_the_random_box_stays_in_its_bounds():
    person = dotted(0, 0)
    how = RegionAugmentation(half_body=0.0)
    drawn = [draw_region(person, COCO, how, np.random.default_rng(seed)) for seed in range(2000)]
    padded = np.array([80.0, 140.0]) * 1.25
    factor = np.array([size[1] for _, size, _ in drawn]) / padded[1]
    assert 0.5 <= factor.min() < 0.55
    assert 1.45 < factor.max() <= 1.5
    shift = np.array([(center - [80, 100]) / padded for center, _, _ in drawn])
    assert np.abs(shift).max() <= 0.16
    assert abs((shift != 0).any(1).mean() - 0.3) < 0.04
    turned = np.array([rotation for _, _, rotation in drawn])
    assert 70 < np.abs(turned).max() <= 80
    assert abs((turned != 0).mean() - 0.6) < 0.04


def test_the_target_is_taken_before_the_damage_and_after_the_colours():
    random = np.random.default_rng(0)
    image = random.integers(1, 255, (200, 160, 3), dtype=np.uint8)
    person = Person(image, np.array([20.0, 20.0, 140.0, 180.0]), dotted(0, 0).keypoints, "")
    how = Augmentation(NO_CHANGE, ColourAugmentation(share=1.0), Damage(blur=1.0, median=0.0))
    found = example(person, COCO, SIZE, how, np.random.default_rng(1))
    plain = example(person, COCO, SIZE, NO_AUGMENTATION, np.random.default_rng(1))
    assert np.abs(found.target.astype(int) - plain.target).mean() > 5  # colours
    inside = np.zeros(SIZE[::-1], bool)
    inside[30:90, 30:60] = True
    sharp, blurred = (np.diff(x[inside.any(1)].astype(float), axis=0).std() for x in (found.target, found.image))
    assert blurred < 0.6 * sharp
    holes = (found.image == 0).all(-1) & (found.target > 0).all(-1)
    assert 0.2 * 0.2 * 0.9 < holes.mean() < 0.4 * 0.4 * 1.1


def test_damage_moves_nothing_and_holes_have_their_size():
    image = np.full((128, 96, 3), 200, np.uint8)
    for seed in range(30):
        hole = (damaged(image, Damage(blur=0.0, median=0.0), np.random.default_rng(seed)) == 0).all(-1)
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert hole.sum() == height * width  # one rectangle
        assert 0.2 * 128 - 1 <= height <= 0.4 * 128
        assert 0.2 * 96 - 1 <= width <= 0.4 * 96
    dot = dotted(0, 0).image
    for how in (Damage(blur=1.0, median=0.0, hole=0.0), Damage(blur=0.0, median=1.0, hole=0.0)):
        np.testing.assert_allclose(centroid(damaged(dot, how, np.random.default_rng(0))), centroid(dot), atol=0.05)


def test_colours_by_hand():
    image = np.array([[[200, 100, 100]]], np.uint8)
    random = np.random.default_rng(0)
    assert (distort(image, ColourAugmentation(share=0.0), random) == image).all()
    grey = ColourAugmentation(share=1.0, brightness=0.0, contrast=(1.0, 1.0), saturation=(0.0, 0.0), hue=0.0)
    np.testing.assert_allclose(distort(image, grey, random), 200, atol=1)  # the value of a hue stays
    twice = ColourAugmentation(share=1.0, brightness=0.0, contrast=(0.5, 0.5), saturation=(1.0, 1.0), hue=0.0)
    np.testing.assert_allclose(distort(image, twice, random), image / 2, atol=2)


class Dots:
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return dotted(index, index)


def test_batches_follow_from_seed_and_step_alone():
    feed = PoseFeed(Dots(), SETTINGS, 4, seed=3)
    whole = feed.batch(7, range(4))
    halves = [feed.batch(7, range(2)), feed.batch(7, range(2, 4))]
    for name in ("image", "target", "heatmaps", "weights"):
        joined = np.concatenate([np.asarray(half[name]) for half in halves])
        np.testing.assert_array_equal(np.asarray(whole[name]), joined)
    assert whole["key"] == halves[0]["key"] + halves[1]["key"]
    # the same person of another pass is another example
    first, second = feed.batch(0, range(4)), feed.batch(5, range(4))
    assert first["key"] == second["key"] or set(first["key"]) & set(second["key"])
    assert not np.array_equal(np.asarray(first["image"]), np.asarray(second["image"]))


def test_heatmaps_are_about_the_dots():
    feed = PoseFeed(Dots(), SETTINGS, 5, seed=0, augmentation=NO_AUGMENTATION)
    batch = feed.batch(0, range(5))
    codec = codec_of(SETTINGS)
    points = codec.crop_pixels(codec.decode(batch["heatmaps"])[0]).numpy()
    for row, key in enumerate(batch["key"]):
        joint = int(key.split()[1])
        image = batch["image"][row].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(points[row, joint], centroid(image), atol=0.5)


def test_a_prior_sees_undamaged_crops_and_no_keypoints():
    feed = PriorFeed(Dots(), SIZE, (48, 32, 24), 4)
    batch = feed.batch(2, range(4))
    assert batch["image"].shape == (4, 3, 128, 96)
    assert batch["eps"].shape == (4, 48, 32, 24)
    assert abs(float(batch["eps"].std()) - 1) < 0.02
    assert batch["t"].min() >= 0
    again = feed.batch(2, range(2, 4))
    assert (again["eps"] == batch["eps"][2:]).all()
    assert (again["t"] == batch["t"][2:]).all()


def test_refusals():
    with pytest.raises(InputError, match="flip"):
        RegionAugmentation(flip=2.0).check()
    with pytest.raises(InputError, match="factors"):
        RegionAugmentation(scale=(0.0, 1.0)).check()
    with pytest.raises(InputError, match="hole"):
        Damage(hole=-1.0).check()
    with pytest.raises(InputError, match="contrast"):
        ColourAugmentation(contrast=(2.0, 1.0)).check()

    class Fewer(Dots):
        def __getitem__(self, index):
            person = dotted(index, 0)
            return Person(person.image, person.box, person.keypoints[:14], "short")

    with pytest.raises(InputError, match="short: 14 keypoints, coco has 17"):
        PoseFeed(Fewer(), SETTINGS, 2).batch(0, range(2))
