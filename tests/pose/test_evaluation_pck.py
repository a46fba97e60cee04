"""PCK and its kin, and OKS of single poses, against stored results of mmpose's functions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from priorscope.errors import InputError
from priorscope_pose.data.annotations import AnnotatedImage, Annotations, PersonAnnotation
from priorscope_pose.evaluation import pck as measure
from priorscope_pose.evaluation.oks import object_keypoint_similarity
from priorscope_pose.evaluation.people import pck_figures
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.skeletons import COCO, COCO_WHOLEBODY


@pytest.fixture(scope="module")
def stored(golden_files, read_json):
    path = golden_files("pose", "pck_oks.safetensors")[0]
    return load_file(path), read_json(path.with_suffix(".json"))


def agrees(ours, expected, tolerance):
    joints = np.where(np.isnan(ours.joints), -1, ours.joints)
    np.testing.assert_allclose(joints, expected["acc"], atol=tolerance)
    assert ours.mean == pytest.approx(expected["avg"], abs=tolerance)
    assert ours.counted == expected["cnt"]


def test_golden_pck_oks(stored):
    arrays, case = stored
    expected, tolerance = case["expected"], case["tolerance"]
    poses = arrays["pred"], arrays["gt"], arrays["mask"]
    for threshold in (0.05, 0.1, 0.2, 0.5):
        agrees(measure.pck(*poses, threshold, arrays["norm"]), expected[f"pck@{threshold}"], tolerance)
    assert measure.auc(*poses, 30) == pytest.approx(expected["auc_norm30"], abs=tolerance)
    assert measure.epe(*poses) == pytest.approx(expected["epe"], abs=tolerance)
    assert measure.nme(*poses, arrays["norm_nme"]) == pytest.approx(expected["nme_w"], abs=tolerance)
    ours = measure.heatmap_pck(arrays["hm_pred"], arrays["hm_gt"], arrays["hm_mask"], 0.3)
    agrees(ours, expected["pose_pck_heatmap@0.3"], tolerance)


def test_golden_pck_oks_similarity(stored):
    arrays, _ = stored
    source, others = arrays["oks.src"].reshape(1, -1, 3), arrays["oks.dst"].reshape(4, -1, 3)
    areas = ((arrays["oks.src_area"] + arrays["oks.dst_area"]) / 2)[None]
    sigmas = COCO.sigma_array()
    ours = object_keypoint_similarity(source[..., :2], others[..., :2], areas, sigmas)[0]
    for name in ("oks.iou", "oks.iou_default_sigma"):
        np.testing.assert_array_equal(ours.astype(np.float32), arrays[name])
    counted = (source[..., 2] > 0.5)[:, None] & (others[..., 2] > 0.5)[None]
    seen = object_keypoint_similarity(source[..., :2], others[..., :2], areas, sigmas, counted)[0]
    np.testing.assert_array_equal(seen.astype(np.float32), arrays["oks.iou_vis0.5"])


def test_the_threshold_itself():
    """A distance of 3, 4 pixels: 5; at a scale of 10 exactly the threshold 0.5."""
    truth, found, counted = np.zeros((1, 2, 2)), np.array([[[3.0, 4], [0, 0]]]), np.ones((1, 2))
    assert measure.pck(found, truth, counted, 0.5, 10).joints.tolist() == [0, 1]
    assert measure.pck(found, truth, counted, 0.5, 10, inclusive=True).joints.tolist() == [1, 1]
    assert measure.epe(found, truth, counted) == 2.5
    assert measure.nme(found, truth, counted, np.array([10.0])) == 0.25
    # right below the thresholds 0.55 ... 0.95 of twenty, and, at distance 0, below all but the first
    assert measure.auc(found, truth, counted, 10) == pytest.approx((9 / 20 + 19 / 20) / 2)


def test_what_does_not_count():
    truth, found = np.zeros((2, 2, 2)), np.ones((2, 2, 2))
    counted = np.array([[1, 0], [1, 0]])
    result = measure.pck(found, truth, counted, 0.5, np.array([[10.0, 10], [0, 10]]))  # the second has no scale
    np.testing.assert_array_equal(result.joints, [1, np.nan])
    assert (result.mean, result.counted) == (1, 1)
    assert measure.pck(found, truth, 0 * counted, 0.5, 10)[1:] == (0, 0)
    assert measure.epe(found, truth, 0 * counted) == 0
    broken = found.copy()
    broken[0, 1] = np.nan
    assert measure.pck(broken, truth, counted, 0.5, 10).mean == 1
    with pytest.raises(InputError, match="a key point that counts is NaN"):
        measure.pck(broken, truth, np.ones((2, 2)), 0.5, 10)
    with pytest.raises(InputError, match=r"key points \(2, 2, 2\) with annotated \(1, 2, 2\)"):
        measure.pck(found, truth[:1], counted, 0.5, 10)
    with pytest.raises(InputError, match="heatmaps"):
        measure.heatmap_pck(np.zeros((1, 2, 3)), np.zeros((1, 2, 3)), np.ones((1, 2)))


def test_nothing_given_is_changed(stored):
    """mmpose's function writes into the norms it is given."""
    arrays, _ = stored
    before = arrays["norm"].copy()
    measure.pck(arrays["pred"], arrays["gt"], arrays["mask"], 0.2, arrays["norm"])
    np.testing.assert_array_equal(arrays["norm"], before)


def test_head_size_is_part_of_the_diagonal():
    np.testing.assert_allclose(measure.head_sizes([[10, 10, 40, 50]]), 30)


@pytest.fixture
def two_people():
    pose = np.random.default_rng(3).uniform(100, 200, (17, 2))
    people = tuple(
        PersonAnnotation(
            1,
            number,
            np.array([0.0, 0, 100, 50]),
            np.concatenate([pose + 300 * number, np.ones((17, 1))], 1),
            5000.0,
            labelled=17,
            head_box=np.array([0.0, 0, 30, 40]),
        )
        for number in (0, 1)
    )
    annotations = Annotations(COCO, (AnnotatedImage(1, Path("1.jpg"), 640, 480, people),))
    return annotations, np.stack([person.keypoints[:, :2] for person in people])


def predicted(points, **more):
    count = len(points)
    return Predictions(COCO, [1] * count, points, np.ones((count, 17)), np.ones(count), **more)


def test_people_are_found_by_id_or_by_likeness(two_people):
    annotations, truth = two_people
    swapped = truth[::-1]
    assert pck_figures(annotations, predicted(swapped))["PCK"] == 1
    assert pck_figures(annotations, predicted(swapped, ids=np.array([1, 0])))["PCK"] == 1
    assert pck_figures(annotations, predicted(swapped, ids=np.array([0, 1])))["PCK"] == 0
    one = pck_figures(annotations, predicted(truth[:1] + [3, 4]))
    assert (one["PCK"], one["missed"], one["PCK ankle"]) == (0.5, 0.5, 0.5)
    assert one["EPE"] == pytest.approx(5)
    nobody = pck_figures(annotations, predicted(truth[:0]))
    assert (nobody["PCK"], nobody["missed"]) == (0, 1)
    assert np.isnan(nobody["EPE"])


@pytest.fixture
def boxed_people(two_people):
    """Each with a box of its own, round its key points."""
    annotations, truth = two_people
    (image,) = annotations.images
    boxes = np.concatenate([truth.min(1), truth.max(1)], 1)
    people = tuple(replace(person, box=box) for person, box in zip(image.people, boxes, strict=True))
    return replace(annotations, images=(replace(image, people=people),)), truth, boxes


def found_in(boxes, points, scores):
    return replace(predicted(np.asarray(points)), boxes=np.asarray(boxes), scores=np.asarray(scores))


def test_more_boxes_do_not_flatter(boxed_people):
    """All over the place, and one of their poses right by luck: those of the detector's best boxes count."""
    annotations, truth, boxes = boxed_people
    wrong = truth + 90
    few = pck_figures(annotations, found_in(boxes, wrong, [0.9, 0.8]))
    assert few["PCK"] == 0
    many = [np.concatenate(pair) for pair in ((wrong, truth), (boxes, boxes + 2.0), ([0.9, 0.8], [0.7, 0.1]))]
    assert pck_figures(annotations, found_in(many[1], many[0], many[2])) == few
    assert pck_figures(annotations, found_in(many[1], many[0], many[2][::-1]))["PCK"] == 1


def test_people_are_found_by_their_boxes(boxed_people):
    annotations, truth, boxes = boxed_people
    # whoever's pose it is like
    assert pck_figures(annotations, found_in(boxes[::-1], truth, [1, 1]))["PCK"] == 0
    side = (boxes[0, 2:] - boxes[0, :2]) * [1, 0]
    for share, missed in ((0.3, 0.5), (0.36, 1)):  # overlaps of 0.7 / 1.3, and of 0.64 / 1.36
        moved = boxes[:1] + np.tile(share * side, 2)
        assert pck_figures(annotations, found_in(moved, truth[:1], [1]))["missed"] == missed
    # who is found in both has only one of them; the better box is the first to choose
    twice = pck_figures(annotations, found_in(boxes[[0, 0]], [truth[0] + 90, truth[0]], [0.1, 0.2]))
    assert (twice["PCK"], twice["missed"]) == (0.5, 0.5)


def test_poses_without_boxes_choose_by_their_scores(two_people):
    annotations, truth = two_people
    points = np.concatenate([truth[:1] + [3, 4], truth[:1], truth[1:] + 2000])
    best_first = replace(predicted(points), scores=np.array([0.9, 0.5, 1.0]))
    figures = pck_figures(annotations, best_first)
    assert figures["EPE"] == pytest.approx(5)
    assert figures["missed"] == 0.5  # the second is far from the only pose that is left
    assert pck_figures(annotations, replace(best_first, scores=np.array([0.4, 0.5, 1.0])))["EPE"] == 0


def test_scales(two_people):
    annotations, truth = two_people
    moved = predicted(truth + [9, 12])  # 15 pixels: 0.15 of the box's longer side, half a head of 30
    assert pck_figures(annotations, moved)["PCK"] == 1
    assert pck_figures(annotations, moved, threshold=0.149)["PCK"] == 0
    assert pck_figures(annotations, moved, scale="head")["PCKh"] == 1
    assert pck_figures(annotations, moved, scale="head", threshold=0.49)["PCKh"] == 0
    names = COCO.keypoints
    torso = np.linalg.norm(truth[0, names.index("left_shoulder")] - truth[0, names.index("right_hip")])
    assert pck_figures(annotations, moved, scale="torso", threshold=15.01 / torso)["tPCK"] == 1
    assert pck_figures(annotations, moved, scale="torso", threshold=14.99 / torso)["tPCK"] == 0
    with pytest.raises(InputError, match="no scale 'hand'"):
        pck_figures(annotations, moved, scale="hand")


def test_without_head_boxes_or_people(two_people):
    annotations, truth = two_people
    (image,) = annotations.images
    headless = replace(image, people=tuple(replace(person, head_box=None) for person in image.people))
    with pytest.raises(InputError, match="annotation 0 has no head box"):
        pck_figures(replace(annotations, images=(headless,)), predicted(truth), scale="head")
    empty = replace(annotations, images=(replace(image, people=()),))
    with pytest.raises(InputError, match="nobody in it has a labelled key point"):
        pck_figures(empty, predicted(truth))


def test_whole_bodies_by_parts():
    points = np.random.default_rng(0).uniform(0, 100, (133, 2))
    keypoints = np.concatenate([points, np.ones((133, 1))], 1)
    person = PersonAnnotation(1, 1, np.array([0.0, 0, 100, 100]), keypoints, 5000.0, labelled=133)
    annotations = Annotations(COCO_WHOLEBODY, (AnnotatedImage(1, Path("1.jpg"), 640, 480, (person,)),))
    found = points[None].copy()
    found[0, 91:112] += 100
    figures = pck_figures(annotations, Predictions(COCO_WHOLEBODY, [1], found, np.ones((1, 133)), np.ones(1)))
    assert figures["PCK"] == pytest.approx(112 / 133)
    parts = {name: figures[f"PCK {name}"] for name in ("body", "foot", "face", "lefthand", "righthand")}
    assert parts == {"body": 1, "foot": 1, "face": 1, "lefthand": 0, "righthand": 1}


def test_the_scale_is_the_box_inside_of_the_image(two_people):
    annotations, truth = two_people
    (image,) = annotations.images
    narrow = replace(annotations, images=(replace(image, width=51, height=480),))
    assert pck_figures(narrow, predicted(truth + [6, 8]), threshold=0.21)["PCK"] == 1  # 10 of 50 pixels
    assert pck_figures(narrow, predicted(truth + [6, 8]), threshold=0.19)["PCK"] == 0
