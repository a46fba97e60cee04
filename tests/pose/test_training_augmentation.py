"""Augmentation: keypoints move with pixels, and only the input is damaged."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize(("share", "least", "most"), [(0.5, 0.42, 0.58), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)])
def test_so_many_crops_are_mirrored(share, least, most):
    """In pixels: the dot on the left of the picture is on the right of the crop."""
    person = dotted(0, 9)
    how = RegionAugmentation(flip=share, half_body=0.0, shift_share=0.0, scale_share=0.0, rotation_share=0.0)
    left = centroid(person.image)[0] < 80
    crops = [cut_out(person, COCO, SIZE, how, np.random.default_rng([seed, 1])).image for seed in range(400)]
    mirrored = [(centroid(crop)[0] < 47.5) != left for crop in crops]
    assert least <= np.mean(mirrored) <= most


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


def test_so_many_half_bodies_and_upper_ones():
    person = dotted(0, 0)
    only = RegionAugmentation(shift_share=0.0, scale_share=0.0, rotation_share=0.0)
    upper, lower = (half_body_box(person.keypoints, COCO, only, upper=upper)[:2] for upper in (True, False))
    centers = [draw_region(person, COCO, only, np.random.default_rng(seed))[0] for seed in range(2000)]
    shown = np.array([[np.allclose(center, wanted) for wanted in (upper, lower, [80, 100])] for center in centers])
    assert shown.any(1).all()  # each is one of the halves or the whole
    np.testing.assert_allclose(shown.mean(0), [0.3 * 0.7, 0.3 * 0.3, 0.7], atol=0.03)


def test_the_random_box_stays_in_its_bounds():
    person = dotted(0, 0)
    how = RegionAugmentation(half_body=0.0)
    drawn = [draw_region(person, COCO, how, np.random.default_rng(seed)) for seed in range(2000)]
    padded = np.array([80.0, 140.0]) * 1.25
    factor = np.array([size[1] for _, size, _ in drawn]) / padded[1]
    assert 0.5 <= factor.min() < 0.55
    assert 1.45 < factor.max() <= 1.5
    # the normal distribution cut at one deviation deviates by 0.54 of its half range; evenly drawn it were 0.58
    assert abs(factor.std() / 0.5 - 0.54) < 0.02
    shift = np.array([(center - [80, 100]) / padded for center, _, _ in drawn])
    assert (np.abs(shift).max(0) <= 0.16).all()
    assert (np.abs(shift).max(0) > 0.14).all()
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


def test_published_shares_of_damage():
    image = np.random.default_rng(0).integers(1, 255, (40, 30, 3), dtype=np.uint8)
    count, usual = 1500, Damage()
    assert (usual.blur, usual.median, usual.hole) == (0.1, 0.1, 1.0)
    for how, share in (
        (Damage(blur=usual.blur, median=0.0, hole=0.0), 0.1),
        (Damage(blur=0.0, median=usual.median, hole=0.0), 0.1),
        (Damage(blur=0.0, median=0.0, hole=0.3), 0.3),
    ):
        changed = [(damaged(image, how, np.random.default_rng(seed)) != image).any() for seed in range(count)]
        assert abs(np.mean(changed) - share) < 0.03
    plain = Damage(blur=0.0, median=0.0, hole=0.0)
    np.testing.assert_array_equal(damaged(image, plain, np.random.default_rng(0)), image)


def test_damage_moves_nothing_and_holes_have_their_size():
    image = np.full((128, 96, 3), 200, np.uint8)
    extents, corners = [], []
    for seed in range(200):
        hole = (damaged(image, Damage(blur=0.0, median=0.0), np.random.default_rng(seed)) == 0).all(-1)
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert hole.sum() == height * width  # one rectangle
        assert 0.2 * 128 - 1 <= height <= 0.4 * 128
        assert 0.2 * 96 - 1 <= width <= 0.4 * 96
        extents.append([height / 128, width / 96])
        corners.append([rows[0] == 0, rows[-1] == 127, columns[0] == 0, columns[-1] == 95])
    # over the whole range, up to the borders
    assert (np.min(extents, 0) < 0.22).all()
    assert (np.max(extents, 0) > 0.38).all()
    assert np.any(corners, 0).all()
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


def test_brightness_and_hue_by_hand():
    image = np.array([[[200, 100, 100]]], np.uint8)
    off = {"share": 1.0, "contrast": (1.0, 1.0), "saturation": (1.0, 1.0)}
    bright = ColourAugmentation(brightness=32.0, hue=0.0, **off)
    changes = [distort(image, bright, np.random.default_rng(seed)).astype(int) - image for seed in range(300)]
    assert max(np.ptp(change) for change in changes) <= 2  # all channels alike
    levels = [change[0, 0, 0] for change in changes]
    assert -33 <= min(levels) < -28
    assert 28 < max(levels) <= 33
    turned = ColourAugmentation(brightness=0.0, hue=36.0, **off)
    hues = []
    for seed in range(300):
        found = distort(image, turned, np.random.default_rng(seed))
        assert abs(int(found.max()) - 200) <= 2  # value and saturation stay
        assert abs(int(found.min()) - 100) <= 2
        hues.append((colorsys.rgb_to_hsv(*(found[0, 0] / 255))[0] * 360 + 180) % 360 - 180)
    assert -38 <= min(hues) < -32
    assert 32 < max(hues) <= 38


def test_each_change_of_colours_happens_to_half_of_the_crops():
    image = np.array([[[200, 100, 100], [90, 140, 60]]], np.uint8)
    none = {"brightness": 0.0, "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": 0.0}
    for change in ({"brightness": 32.0}, {"contrast": (0.5, 0.6)}, {"saturation": (0.5, 0.6)}, {"hue": 36.0}):
        how = ColourAugmentation(**(none | change))
        # where nothing but the way to HSV and back happens, a level or two
        far = [
            np.abs(distort(image, how, np.random.default_rng(seed)) - image.astype(int)).max() > 2
            for seed in range(1000)
        ]
        assert 0.4 < np.mean(far) < 0.54, change


class Dots:
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return dotted(index, index)


class Bare(Dots):
    def __getitem__(self, index):
        person = dotted(index, index)
        return Person(person.image, person.box, np.zeros((0, 3)), person.key)


def test_batches_follow_from_seed_and_step_alone():
    feed = PoseFeed(Dots(), SETTINGS, 4, seed=3)
    whole = feed.batch(7, range(4))
    halves = [feed.batch(7, range(2)), feed.batch(7, range(2, 4))]
    for name in ("image", "target", "heatmaps", "weights"):
        joined = np.concatenate([np.asarray(half[name]) for half in halves])
        np.testing.assert_array_equal(np.asarray(whole[name]), joined)
    assert whole["key"] == halves[0]["key"] + halves[1]["key"]
    # a pass has everybody once, and the same person of another pass is another example
    passes = [
        [PoseFeed(Dots(), SETTINGS, 1, seed=3).batch(step, range(1)) for step in steps]
        for steps in (range(5), range(5, 10))
    ]
    first, second = ({batch["key"][0]: batch["image"] for batch in its} for its in passes)
    assert first.keys() == second.keys() == {f"person {index}" for index in range(5)}
    assert not any(torch.equal(first[key], second[key]) for key in first)
    again = PoseFeed(Dots(), SETTINGS, 1, seed=3).batch(0, range(1))
    assert torch.equal(again["image"], first[again["key"][0]])
    # and so it is with another seed
    other = [PoseFeed(Dots(), SETTINGS, 1, seed=4).batch(step, range(1)) for step in range(5)]
    assert [batch["key"] for batch in other] != [batch["key"] for batch in passes[0]]
    assert not any(torch.equal(batch["image"], first[batch["key"][0]]) for batch in other)


def test_heatmaps_are_about_the_dots():
    feed = PoseFeed(Dots(), SETTINGS, 5, seed=0, augmentation=NO_AUGMENTATION)
    batch = feed.batch(0, range(5))
    codec = codec_of(SETTINGS)
    points = codec.crop_pixels(codec.decode(batch["heatmaps"])[0]).numpy()
    for row, key in enumerate(batch["key"]):
        joint = int(key.split()[1])
        image = batch["image"][row].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(points[row, joint], centroid(image), atol=0.5)


class Grey:
    """People on light grey, with keypoints."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        person = dotted(index, 0)
        return Person(np.full((200, 160, 3), 200, np.uint8), person.box, person.keypoints, person.key)


def test_a_prior_sees_undamaged_crops_and_no_keypoints():
    still = Augmentation(NO_CHANGE, ColourAugmentation(share=0.0), Damage(blur=1.0, median=1.0, hole=1.0))
    feed = PriorFeed(Grey(), SIZE, (48, 32, 24), 40, augmentation=still)
    batch = feed.batch(2, range(40))
    assert batch.keys() == {"image", "t", "eps", "key"}
    assert batch["image"].shape == (40, 3, 128, 96)
    assert (batch["image"] == 200).all()  # no hole
    damaged_too = PoseFeed(Grey(), SETTINGS, 4, augmentation=still).batch(0, range(4))
    assert (damaged_too["image"] == 0).flatten(1).any(1).all()
    assert (damaged_too["target"] == 200).all()
    # where the keypoints are makes no difference, though half bodies are asked for
    halves = Augmentation(RegionAugmentation(half_body=1.0))
    seen = [
        PriorFeed(people, SIZE, (48, 32, 24), 5, augmentation=halves).batch(0, range(5)) for people in (Dots(), Bare())
    ]
    assert torch.equal(seen[0]["image"], seen[1]["image"])

    assert batch["eps"].shape == (40, 48, 32, 24)
    assert abs(float(batch["eps"].std()) - 1) < 0.01
    assert abs(float(batch["eps"].mean())) < 0.01
    assert len({float(eps[0, 0, 0]) for eps in batch["eps"]}) == 40
    assert 0 <= batch["t"].min() < 150
    assert 850 < batch["t"].max() <= 999
    again = feed.batch(2, range(2, 4))
    assert (again["eps"] == batch["eps"][2:4]).all()
    assert (again["t"] == batch["t"][2:4]).all()
    assert (feed.batch(3, range(40))["t"] != batch["t"]).any()


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
