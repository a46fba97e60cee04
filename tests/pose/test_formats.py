"""OpenPose's layouts point by point, ControlNet's colours, COCO's list, arrays; overlays are looked at."""

from __future__ import annotations

import json

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_pose.evaluation.results_file import read_results
from priorscope_pose.formats import (
    BODY_18,
    BODY_25,
    body_points,
    controlnet_image,
    openpose_document,
    read_poses,
    write_coco_results,
    write_openpose,
    write_poses,
)
from priorscope_pose.formats.controlnet import LIMBS, hue
from priorscope_pose.formats.openpose import has_part, names_of, part_points
from priorscope_pose.overlay import COLOURS, draw_poses
from priorscope_pose.poses import Poses
from priorscope_pose.skeletons import COCO, COCO_WHOLEBODY, CROWDPOSE, JHMDB, POSETRACK

RNG = np.random.default_rng(0)
# COCO-WholeBody's places (1-based, as its annotation format lists them) for OpenPose's points, from both documents.
COCO_OF_BODY_18 = [0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]
COCO_OF_BODY_25 = [0, None, 6, 8, 10, 5, 7, 9, None, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, 17, 18, 19, 20, 21, 22]


def poses(skeleton=COCO, people=2, *, scores=0.9, ids=None, size=200):
    """Every keypoint somewhere else."""
    keypoints = RNG.uniform(5, size - 5, (people, len(skeleton), 2))
    values = np.full((people, len(skeleton)), scores, np.float32)
    boxes = np.concatenate([keypoints.min(1), keypoints.max(1)], 1).astype(np.float32)
    return Poses(
        keypoints,
        values,
        boxes,
        np.full(people, 0.5, np.float32),
        skeleton.name,
        "evaluated",
        ids=ids,
        regions=np.full((people, 2), 100, np.float32),
        model="tiny",
    )


@pytest.mark.parametrize("skeleton", [COCO, COCO_WHOLEBODY])
@pytest.mark.parametrize(("body", "sources"), [(18, COCO_OF_BODY_18), (25, COCO_OF_BODY_25)])
def test_every_body_point_is_the_one_that_openpose_means(skeleton, body, sources):
    found = poses(skeleton)
    points = body_points(found, body)
    assert points.shape == (2, body, 3)
    for place, source in enumerate(sources):
        if source is not None and source < len(skeleton):
            np.testing.assert_allclose(points[:, place, :2], found.keypoints[:, source])
            np.testing.assert_allclose(points[:, place, 2], 0.9, rtol=1e-6)
        elif source is not None:
            np.testing.assert_array_equal(points[:, place], 0)  # no feet in COCO's 17


def test_neck_and_mid_hip_are_between_and_as_sure_as_the_less_sure_side():
    found = poses(people=1)
    found.scores[0, [5, 6, 11, 12]] = 0.8, 0.6, 0.3, 0.7
    points = body_points(found, 25)[0]
    np.testing.assert_allclose(points[1], [*found.keypoints[0, 5:7].mean(0), 0.6], rtol=1e-6)
    np.testing.assert_allclose(points[8], [*found.keypoints[0, 11:13].mean(0), 0.3], rtol=1e-6)
    np.testing.assert_array_equal(body_points(found, 25, threshold=0.5)[0, 8], 0)
    found.scores[0, 5] = 0
    np.testing.assert_array_equal(body_points(found, 18)[0, 1], 0)


def test_missing_points_are_zero_and_scores_end_at_one():
    found = poses(people=1)
    found.scores[0, 0], found.scores[0, 1], found.scores[0, 2], found.scores[0, 3] = 1.4, -0.2, 0.0, 0.29
    points = body_points(found, 18, threshold=0.3)[0]
    assert points[BODY_18.index("nose"), 2] == 1
    for name in ("left_eye", "right_eye", "left_ear"):
        np.testing.assert_array_equal(points[BODY_18.index(name)], 0)
    assert body_points(found, 18)[0, BODY_18.index("left_ear"), 2] == pytest.approx(0.29)


def test_wholebody_document_has_every_part_in_its_place(tmp_path):
    """Upstream writes the 133 points without the neck under names of another order."""
    found = poses(COCO_WHOLEBODY, people=1)
    path = write_openpose(tmp_path / "a_keypoints.json", found, 200, 100)
    document = json.loads(path.read_text())
    assert (document["canvas_width"], document["canvas_height"]) == (200, 100)
    (person,) = document["people"]
    assert person["person_id"] == [-1]
    lengths = {"pose": 18, "face": 70, "hand_left": 21, "hand_right": 21, "foot": 6}
    for field, count in lengths.items():
        assert len(person[f"{field}_keypoints_2d"]) == 3 * count
    keypoints = found.keypoints[0]
    for field, rows in {
        "face": [*range(23, 91), 2, 1],
        "hand_left": range(91, 112),
        "hand_right": range(112, 133),
        "foot": range(17, 23),
    }.items():
        written = np.reshape(person[f"{field}_keypoints_2d"], (-1, 3))
        np.testing.assert_allclose(written[:, :2], keypoints[list(rows)], atol=6e-4)
    # with OpenPose's own body the feet are in it
    (person,) = openpose_document(found, 200, 100, body=25)["people"]
    assert "foot_keypoints_2d" not in person
    assert len(person["pose_keypoints_2d"]) == 75
    np.testing.assert_allclose(np.reshape(person["pose_keypoints_2d"], (25, 3))[19:, :2], keypoints[17:23], atol=6e-4)


def test_body_document_has_empty_lists_for_what_the_model_has_not():
    document = openpose_document(poses(ids=np.array([3, 7])), 200, 200)
    assert [person["person_id"] for person in document["people"]] == [[3], [7]]
    for person in document["people"]:
        assert len(person["pose_keypoints_2d"]) == 54
        assert person["face_keypoints_2d"] == person["hand_left_keypoints_2d"] == []
        assert "foot_keypoints_2d" not in person
    assert openpose_document(poses(people=0), 200, 200)["people"] == []


@pytest.mark.parametrize(("skeleton", "lacking"), [(POSETRACK, 2), (CROWDPOSE, 5), (JHMDB, 5)])
def test_other_skeletons_give_what_they_have(skeleton, lacking):
    """CrowdPose and JHMDB have necks of their own and no face; PoseTrack has no eyes."""
    found = poses(skeleton, people=1)
    points = body_points(found)[0]
    assert int((points[:, 2] == 0).sum()) == lacking
    if "neck" in skeleton.keypoints:
        np.testing.assert_allclose(points[1, :2], found.keypoints[0, skeleton.index("neck")])
    assert not has_part(skeleton, "face")
    assert not has_part(skeleton, "left_hand")


def test_layout_names():
    assert BODY_25[8] == "mid_hip"
    assert tuple(name for name in BODY_25[:19] if name != "mid_hip") == BODY_18
    with pytest.raises(InputError, match="no body of 17"):
        names_of("body", 17)


# --- ControlNet ---------------------------------------------------------------------------------------------------


def one_limb(one, other, size=512):
    """A person of whom two points are seen."""
    found = poses(people=1, scores=0.0)
    for name, place in ((one, (100, 256)), (other, (400, 256))):
        found.keypoints[0, COCO.index(name)] = place
        found.scores[0, COCO.index(name)] = 0.9
    return controlnet_image(found, size, size)


def test_controlnet_colours():
    """OpenPose's table begins red, (255, 85, 0), (255, 170, 0), yellow; limbs have 0.6 of it."""
    assert [hue(place / 18) for place in range(4)] == [(255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0)]
    assert hue(6 / 18) == (0, 255, 0)
    assert hue(12 / 18) == (0, 0, 255)
    assert hue(17 / 18) == (255, 0, 85)
    assert len(LIMBS) == 17
    picture = one_limb("right_shoulder", "right_elbow")  # the third limb; points 2 and 3
    assert tuple(picture[256, 250]) == (153, 102, 0)
    assert tuple(picture[256, 100]) == (255, 170, 0)
    assert tuple(picture[256, 400]) == (255, 255, 0)
    # as thick as it was in training at 512 pixels: 4 to each side in the middle
    column = picture[:, 250].any(-1)
    assert 7 <= column.sum() <= 9
    assert one_limb("right_shoulder", "left_elbow").any(-1).sum() < 200  # two dots, no limb between


def test_controlnet_limbs_are_openposes_pairs():
    """Their places as OpenPose lists them, counted from 1."""
    assert [(one + 1, other + 1) for one, other in LIMBS] == [
        *((2, 3), (2, 6), (3, 4), (4, 5), (6, 7), (7, 8), (2, 9), (9, 10), (10, 11), (2, 12), (12, 13), (13, 14)),
        *((2, 1), (1, 15), (15, 17), (1, 16), (16, 18)),
    ]


def test_controlnet_grows_with_the_picture():
    small, large = (one_limb("right_shoulder", "right_elbow", size) for size in (512, 1024))
    assert large[:, 250].any(-1).sum() == pytest.approx(2 * small[:, 250].any(-1).sum(), abs=2)


def test_controlnet_hands_and_face():
    found = poses(COCO_WHOLEBODY, people=1, scores=0.0, size=500)
    found.scores[0, 91:112] = found.scores[0, 23:91] = 0.9
    picture = controlnet_image(found, 512, 512)
    x, y = np.rint(found.keypoints[0, 50]).astype(int)
    assert tuple(picture[y, x]) == (255, 255, 255)  # the face is drawn last
    without = controlnet_image(found, 512, 512, face=False)
    x, y = np.rint(found.keypoints[0, 111]).astype(int)
    assert tuple(without[y, x]) == (0, 0, 255)
    assert not controlnet_image(found, 512, 512, face=False, hands=False).any()
    assert part_points(found, "right_hand")[..., 2].max() == 0


def test_controlnet_of_nobody_and_of_points_outside():
    assert not controlnet_image(poses(people=0), 40, 30).any()
    found = poses(people=1)
    found.keypoints[:] = 1e5
    assert controlnet_image(found, 40, 30).shape == (30, 40, 3)


# --- COCO, arrays -------------------------------------------------------------------------------------------------


def test_coco_results_say_the_poses_again(tmp_path):
    first, second = poses(people=2), poses(people=1, ids=None)
    first.scores[0, :8] = 0.1
    path = write_coco_results(tmp_path / "results.json", [(785, first), ("b/x", second)], COCO)
    rows = json.loads(path.read_text())
    assert [row["image_id"] for row in rows] == [785, 785, "b/x"]
    assert all("bbox" not in row for row in rows)
    # the box's score times the mean of the keypoints above 0.2
    np.testing.assert_allclose([row["score"] for row in rows], 0.5 * 0.9, rtol=1e-6)
    again = read_results(path, COCO)
    np.testing.assert_allclose(again.keypoints, np.concatenate([first.keypoints, second.keypoints]))
    np.testing.assert_allclose(again.keypoint_scores[0], first.scores[0])
    nobody = write_coco_results(tmp_path / "none.json", [(1, poses(people=0))], COCO)
    assert json.loads(nobody.read_text()) == []


def test_arrays_come_back(tmp_path):
    frames = [
        poses(people=2, ids=np.array([1, 2])),
        poses(people=0, ids=np.zeros(0, int)),
        poses(people=1, ids=np.ones(1, int)),
    ]
    path = write_poses(tmp_path / "a.npz", frames, (320, 200), frames=[0, 1, 5])
    archive = read_poses(path)
    assert archive.size == (320, 200)
    np.testing.assert_array_equal(archive.frames, [0, 1, 5])
    for ours, theirs in zip(frames, archive.poses, strict=True):
        for name in ("keypoints", "scores", "boxes", "box_scores", "ids", "regions"):
            np.testing.assert_array_equal(getattr(theirs, name), getattr(ours, name))
        assert (theirs.skeleton, theirs.crop, theirs.model) == ("coco", "evaluated", "tiny")
    with np.load(path) as arrays:
        assert list(arrays["keypoint_names"]) == list(COCO.keypoints)
        np.testing.assert_array_equal(arrays["frame"], [0, 0, 5])
    single = read_poses(write_poses(tmp_path / "b.npz", [poses()], (10, 10)))
    assert single.poses[0].ids is None


def test_arrays_that_cannot_be_written_or_read(tmp_path):
    with pytest.raises(InputError, match="no poses"):
        write_poses(tmp_path / "a.npz", [], (1, 1))
    with pytest.raises(InputError, match="several models"):
        write_poses(tmp_path / "a.npz", [poses(), poses(COCO_WHOLEBODY)], (1, 1))
    with pytest.raises(InputError, match="3 frame numbers for poses of 1"):
        write_poses(tmp_path / "a.npz", [poses()], (1, 1), frames=[1, 2, 3])
    with pytest.raises(InputError, match="no such file"):
        read_poses(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InputError, match="no numpy archive"):
        read_poses(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", x=1)
    with pytest.raises(InputError, match="has no 'keypoints'"):
        read_poses(tmp_path / "other.npz")


# --- overlays -----------------------------------------------------------------------------------------------------


def test_overlay_has_sides_by_colour_and_leaves_the_rest_alone():
    image = RNG.integers(0, 256, (240, 320, 3), dtype=np.uint8)
    found = poses(people=1, scores=0.0)
    for name, place in (("left_hip", (100, 50)), ("left_knee", (100, 150)), ("right_hip", (200, 50))):
        found.keypoints[0, COCO.index(name)] = place
        found.scores[0, COCO.index(name)] = 0.9
    found.boxes[:] = 60, 20, 260, 220
    before = image.copy()
    drawn = draw_poses(image, found, boxes=False)
    np.testing.assert_array_equal(image, before)
    assert tuple(drawn[100, 100]) == COLOURS["left"]  # half way between hip and knee
    assert tuple(drawn[50, 150]) == COLOURS["middle"]  # from hip to hip
    assert tuple(drawn[50, 200]) == COLOURS["right"]
    changed = (drawn != image).any(-1)
    rows, columns = np.nonzero(changed)
    assert rows.min() > 35 and rows.max() < 165 and columns.min() > 85 and columns.max() < 215  # noqa: PT018
    assert changed.mean() < 0.03
    np.testing.assert_array_equal(draw_poses(image, poses(people=0)), image)


def test_overlay_draws_boxes_and_numbers_in_one_colour_a_person():
    image = np.full((240, 320, 3), 128, np.uint8)
    found = poses(people=1, scores=0.0, ids=np.array([4]))
    found.boxes[:] = 60, 60, 200, 200
    drawn = draw_poses(image, found)
    colour = hue(4 * 0.618034 % 1)
    assert tuple(drawn[150, 60]) == colour
    label = drawn[45:60, 60:75].reshape(-1, 3)
    assert (label == colour).all(1).any()
    assert (label < 60).all(1).any()  # the digit
    plain = draw_poses(image, found.select([0]), boxes=False)
    np.testing.assert_array_equal(plain, image)


def test_overlay_of_a_large_picture_and_points_far_outside():
    found = poses(people=1)
    found.keypoints[0, 0] = -1e6, 1e6
    found.keypoints[0, 1] = np.nan, 0
    assert draw_poses(np.zeros((30, 40, 3), np.uint8), found).shape == (30, 40, 3)
