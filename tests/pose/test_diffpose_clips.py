"""Windows of frames, regions and examples for DiffPose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from priorscope.data.images import write_png
from priorscope.errors import InputError
from priorscope_pose.data.annotations import AnnotatedImage, Annotations, PersonAnnotation
from priorscope_pose.diffpose.augmentation import NONE, Augmentation, draw_region, half_body, region_matrix
from priorscope_pose.diffpose.clips import ClipPerson, Video, VideoClips, frame_window, videos_of
from priorscope_pose.diffpose.codec import codec_of, policy_of
from priorscope_pose.diffpose.feed import DiffPoseFeed, example, held_out
from priorscope_pose.diffpose.spec import DiffPoseSpec
from priorscope_pose.geometry.affine import apply
from priorscope_pose.geometry.crop import crop_people
from priorscope_pose.skeletons import CROWDPOSE

SPEC = DiffPoseSpec(skeleton="crowdpose", distance=1, input_size=(32, 48), codec="udp", sigma=1.0, backbone="conv")
BOX = np.array([20.0, 10.0, 44.0, 58.0])


def person(box=BOX, ident=1, keypoints=None, **changes):
    points = np.stack([np.linspace(22, 42, 14), np.linspace(12, 56, 14), np.ones(14)], 1)
    return PersonAnnotation(0, ident, box, points if keypoints is None else keypoints, 100.0, **changes)


def frames(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 70, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("place", "wanted"),
    [(0, [0, 0, 0, 1, 2]), (1, [1, 0, 1, 2, 3]), (3, [1, 2, 3, 4, 5]), (4, [2, 3, 4, 5, 4]), (5, [3, 4, 5, 5, 5])],
)
def test_neighbours_that_do_not_exist_are_the_key_frame(place, wanted):
    assert frame_window(place, 6, 2) == wanted


def test_gaps_count_as_missing():
    assert frame_window(1, 4, 2, [7, 8, 10, 11]) == [1, 0, 1, 1, 2]
    assert frame_window(1, 4, 1, [None] * 4) == [0, 1, 2]
    with pytest.raises(InputError, match="frame 4 of a video of 4"):
        frame_window(4, 4, 1)


def test_people_of_videos():
    crowd, nobody = person(iscrowd=True, ident=2), person(keypoints=np.zeros((14, 3)), ident=3)
    flat = person(box=np.array([3.0, 3.0, 3.0, 9.0]), ident=4)
    shown = frames(3)
    video = Video("walk", shown, [[person()], [], [crowd, nobody, flat, person(ident=5)]])
    clips = VideoClips([video], 1)
    assert len(clips) == 2
    first, last = clips[0], clips[1]
    assert [int(frame[0, 0, 0]) for frame in first.frames] == [int(shown[k, 0, 0, 0]) for k in (0, 0, 1)]
    assert first.frames[0] is first.frames[1]
    assert last.key == "walk, frame 2, person 5"
    assert np.array_equal(last.frames[0], shown[1])
    with pytest.raises(InputError, match="nobody"):
        VideoClips([Video("empty", shown, [[], [], []])], 1)
    with pytest.raises(InputError, match="3 frames and people on 1"):
        Video("short", shown, [[]])


def test_videos_in_files(tmp_path):
    shown = frames(3)
    images = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        write_png(path, shown[number])
        people = (replace(person(ident=number), image_id=number),) if number != 1 else ()
        images.append(AnnotatedImage(number, path, 64, 70, people, "walk", number + 4, annotated=number != 1))
    clips = VideoClips(videos_of(Annotations(CROWDPOSE, tuple(reversed(images)))), 1)
    assert len(clips) == 2
    np.testing.assert_array_equal(np.stack(clips[1].frames), shown[[1, 2, 2]])
    with pytest.raises(InputError, match="no frame names its video"):
        videos_of(Annotations(CROWDPOSE, (replace(images[0], video=None),)))


@pytest.mark.parametrize("codec", ["udp", "msra", "dark"])
def test_an_example_without_augmentation_is_the_crop(codec):
    spec = replace(SPEC, codec=codec, input_size=(96, 128))
    shown = frames(3)
    points = np.stack([np.linspace(24, 41, 14), np.linspace(20, 49, 14), np.ones(14)], 1)
    found = example(ClipPerson(list(shown), BOX, points), spec, NONE, np.random.default_rng(0))
    for frame, crop in zip(shown, found.frames, strict=True):
        wanted = crop_people(frame, BOX[None], spec.input_size, policy_of(spec), padding=1.25)
        np.testing.assert_array_equal(crop.transpose(1, 2, 0), wanted.images[0])
    # and heatmaps lead back to the image
    heatmaps, _ = codec_of(spec).encode(torch.from_numpy(found.keypoints[None]), torch.from_numpy(found.visible[None]))
    decoded, _ = codec_of(spec).decode(heatmaps)
    error = np.abs(wanted.to_image(decoded)[0] - points[:, :2]).max()
    cell = 1.25 * 48 / 32  # pixels of the image a heatmap pixel
    # an even neighbourhood of a whole pixel tells no side: half a pixel is the most that msra errs
    assert error < {"udp": 0.05, "dark": 0.05, "msra": 0.51}[codec] * cell


@pytest.mark.parametrize("codec", ["udp", "msra"])
def test_a_mirrored_clip_is_the_mirror_image(codec):
    spec = replace(SPEC, codec=codec)
    shown = list(frames(3))
    points = person().keypoints
    given = Augmentation(scale=0.2, half_body=0.0, rotation_share=1.0, flip=1.0)
    found = example(ClipPerson(shown, BOX, points), spec, given, np.random.default_rng(3))
    # the same of an image mirrored beforehand: the box and the keypoints' names too
    box = np.array([63 - BOX[2], BOX[1], 63 - BOX[0], BOX[3]])
    other = points[list(CROWDPOSE.flip_indices)] * [-1, 1, 1] + [63, 0, 0]
    plain = replace(given, flip=0.0)
    flipped = [np.ascontiguousarray(frame[:, ::-1]) for frame in shown]
    wanted = example(ClipPerson(flipped, box, other), spec, plain, np.random.default_rng(3))
    np.testing.assert_allclose(found.keypoints, wanted.keypoints, atol=1e-4)
    np.testing.assert_array_equal(found.visible, wanted.visible)
    difference = np.abs(found.frames.astype(int) - wanted.frames.astype(int))
    # positions are rounded to 1/32 pixel, from the other side
    assert difference.mean() < 3


def test_keypoints_move_with_the_picture():
    """A bright spot stays under its keypoint whatever the region is."""
    frame = np.zeros((70, 64, 3), np.uint8)
    points = np.zeros((14, 3))
    points[8] = (30, 30, 1)  # right_knee and left_knee swap in a mirror
    yy, xx = np.mgrid[:70, :64]
    frame[:] = (255 * np.exp(-((xx - 30) ** 2 + (yy - 30) ** 2) / 8))[..., None].astype(np.uint8)
    for seed in range(12):
        shown = example(ClipPerson([frame] * 3, BOX, points), SPEC, Augmentation(), np.random.default_rng(seed))
        (place,) = np.flatnonzero(shown.visible) if shown.visible.any() else (None,)
        if place is None:
            continue
        weight = shown.frames[1, 0].astype(float)
        rows, columns = np.mgrid[:48, :32]
        middle = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
        if np.all((shown.keypoints[place] > 6) & (shown.keypoints[place] < [25, 41])):  # the whole spot is inside
            np.testing.assert_allclose(middle, shown.keypoints[place], atol=0.35)
        assert place in (8, CROWDPOSE.flip_indices[8])


def test_the_published_distribution_of_regions():
    random = np.random.default_rng(0)
    box, points = np.array([0.0, 0.0, 40.0, 60.0]), person().keypoints
    drawn = [draw_region(box, points, SPEC, CROWDPOSE, Augmentation(half_body=0.0), random) for _ in range(4000)]
    scale = np.array([region.scale[1] for region in drawn]) / 75
    angle = np.array([region.rotation for region in drawn])
    assert scale.min() == pytest.approx(0.65)
    assert scale.max() == pytest.approx(1.35)
    # a normal number beyond one deviation is cut: 15.87 % on each side
    assert np.mean(scale > 1.3499) == pytest.approx(0.1587, abs=0.02)
    assert np.mean(angle != 0) == pytest.approx(0.6, abs=0.03)
    assert np.abs(angle).max() == 90
    assert np.mean(np.abs(angle[angle != 0]) < 45) == pytest.approx(0.6827, abs=0.03)
    assert np.mean([region.mirrored for region in drawn]) == pytest.approx(0.5, abs=0.03)


def test_half_bodies():
    points = person().keypoints
    above = half_body(points, CROWDPOSE, upper=True)
    assert len(above) == 8
    assert len(half_body(points, CROWDPOSE, upper=False)) == 6
    few = points.copy()
    few[[0, 1, 2, 3, 4, 5], 2] = 0  # two labelled above: the lower half is shown
    assert len(half_body(few, CROWDPOSE, upper=True)) == 6
    few[6:12, 2] = 0
    assert len(half_body(few, CROWDPOSE, upper=True)) == 2
    few[12, 2] = 0
    assert half_body(few, CROWDPOSE, upper=True) is None
    always = Augmentation(scale=0.0, rotation_share=0.0, half_body=1.0, upper_share=1.0, flip=0.0)
    region = draw_region(BOX, points, SPEC, CROWDPOSE, always, np.random.default_rng(0))
    np.testing.assert_allclose(region.center, above.mean(0))
    extent = np.ptp(above, 0) * 1.5
    assert region.scale == pytest.approx([max(extent[0], extent[1] * 2 / 3), max(extent[1], extent[0] * 1.5)])


def test_a_region_s_middle_is_the_crop_s_middle():
    region = draw_region(
        BOX, person().keypoints, SPEC, CROWDPOSE, Augmentation(half_body=0.0), np.random.default_rng(1)
    )
    matrix = region_matrix(region, SPEC, 64)
    np.testing.assert_allclose(apply(matrix, region.center[None, None])[0, 0], [15.5, 23.5], atol=1e-4)


def test_keypoints_outside_of_the_crop_do_not_count():
    points = person().keypoints
    points[0, :2] = (-200, 30)
    points[1, 2] = 0
    found = example(ClipPerson(list(frames(3)), BOX, points), SPEC, NONE, np.random.default_rng(0))
    assert found.visible.tolist() == [0.0, 0.0] + [1.0] * 12


def test_batches_are_fixed_by_seed_and_step_and_may_be_cut():
    clips = VideoClips([Video("walk", frames(4), [[person(ident=k)] for k in range(4)])], 1)
    feed = DiffPoseFeed(clips, SPEC, batch_size=4, seed=2)
    whole, again = feed.batch(3, range(4)), feed.batch(3, range(4))
    part = feed.batch(3, range(2, 4))
    for name, value in whole.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, again[name]), name
            assert torch.equal(value[2:], part[name]), name
    assert whole["frames"].shape == (4, 3, 3, 48, 32)
    assert whole["eps"].shape == whole["heatmaps"].shape == (4, 14, 12, 8)
    assert not torch.equal(whole["t"], DiffPoseFeed(clips, SPEC, batch_size=4, seed=3).batch(3, range(4))["t"])


def test_held_out_clips_are_spread_evenly():
    clips = VideoClips([Video("walk", frames(9), [[person(ident=k)] for k in range(9)])], 1)
    assert len(held_out(clips, SPEC, 4)["frames"]) == 4
    assert len(held_out(clips, SPEC, 40)["frames"]) == 9


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: ClipPerson(list(frames(2)), BOX, person().keypoints, "a"), "a: 2 frames for a model of 3"),
        (lambda: ClipPerson(list(frames(3)), BOX, np.zeros((17, 3)), "b"), "b: keypoints of shape"),
        (
            lambda: ClipPerson([*frames(2), np.zeros((9, 9, 3), np.uint8)], BOX, person().keypoints, "c"),
            "c: frames of different sizes",
        ),
    ],
)
def test_clips_that_do_not_fit(given, message):
    with pytest.raises(InputError, match=message):
        example(given(), SPEC, NONE, np.random.default_rng(0))


@pytest.mark.parametrize("change", [{"flip": 1.5}, {"scale": 1.0}, {"half_body_padding": 0.0}])
def test_augmentation_that_makes_no_sense(change):
    with pytest.raises(InputError):
        Augmentation(**change).check()
