"""OKS, NMS and AP in cases that can be worked out by hand, and the two counting tools against each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_pose.data.annotations import AnnotatedImage, Annotations, PersonAnnotation
from priorscope_pose.evaluation import coco
from priorscope_pose.evaluation.nms import oks_nms, person_scores, postprocess, similarities, soft_oks_nms
from priorscope_pose.evaluation.oks import object_keypoint_similarity, similarity_to_annotated
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.poses import Poses
from priorscope_pose.skeletons import COCO, COCO_WHOLEBODY, CROWDPOSE

SIGMAS = COCO.sigma_array()


def person(image, number, points, *, visible=True, area=10_000.0, **more):
    keypoints = np.concatenate([points, np.full((len(points), 1), 2.0 * visible)], 1)
    box = np.array([*points.min(0), *points.max(0)])
    return PersonAnnotation(image, number, box, keypoints, area, labelled=len(points) * int(visible), **more)


def dataset(people, skeleton=COCO, images=(1, 2, 3), **of_image):
    by_image = {image: tuple(p for p in people if p.image_id == image) for image in images}
    more = {image: {name: values[image] for name, values in of_image.items()} for image in images}
    return Annotations(
        skeleton,
        tuple(AnnotatedImage(i, Path(f"{i}.jpg"), 640, 480, its, **more[i]) for i, its in by_image.items()),
        Path("annotations.json"),
    )


def predicted(rows, skeleton=COCO, **more):
    """Rows of (image, key points, score)."""
    points = np.array([row[1] for row in rows]).reshape(len(rows), len(skeleton), 2)
    scores = np.array([row[2] for row in rows], float)
    return Predictions(skeleton, [row[0] for row in rows], points, np.ones(points.shape[:2]), scores, **more)


@pytest.fixture
def pose():
    return np.random.default_rng(0).uniform(100, 200, (17, 2))


def test_oks_of_known_distances(pose):
    away = pose + 2 * SIGMAS[:, None] * 100 * np.array([0.6, 0.8])  # each key point two sigmas of a person of 100^2
    value = object_keypoint_similarity(pose[None], away[None], np.array([[1e4]]), SIGMAS)
    np.testing.assert_allclose(value, np.exp(-0.5))
    half = np.arange(17) < 8
    mixed = np.where(half[:, None], pose, away)
    value = object_keypoint_similarity(pose[None], mixed[None], np.array([[1e4]]), SIGMAS)
    np.testing.assert_allclose(value, (8 + 9 * np.exp(-0.5)) / 17)
    value = object_keypoint_similarity(pose[None], mixed[None], np.array([[1e4]]), SIGMAS, half[None, None])
    np.testing.assert_allclose(value, 1)
    none = np.zeros((1, 1, 17), bool)
    assert object_keypoint_similarity(pose[None], mixed[None], np.array([[1e4]]), SIGMAS, none) == 0


def test_oks_without_labelled_key_points_is_that_of_the_enlarged_box(pose):
    box = np.array([[100.0, 100.0, 200.0, 220.0]])
    truth, unseen = np.zeros((1, 17, 2)), np.zeros((1, 17), bool)
    inside = np.full((17, 2), [1.0, 339.0])  # just within 0 ... 300, -20 ... 340
    outside = np.full((17, 2), [310.0, 150.0])
    value = similarity_to_annotated(np.stack([inside, outside]), truth, unseen, np.array([1e4]), box, SIGMAS)
    np.testing.assert_allclose(value[0], 1)
    np.testing.assert_allclose(value[1], np.mean(np.exp(-(10**2) / (2 * SIGMAS) ** 2 / 1e4 / 2)))


def test_nms_keeps_the_best_of_those_alike(pose):
    poses = np.stack([pose, pose + 0.5, pose + 80, pose + 80.5])
    similar = similarities(poses, np.full(4, 1e4), SIGMAS)
    np.testing.assert_array_equal(similar, similar.T)
    scores = np.array([0.5, 0.9, 0.8, 0.3])
    assert oks_nms(similar, scores).tolist() == [1, 2]
    assert oks_nms(similar, scores, threshold=1.0).tolist() == [1, 2, 0, 3]
    assert soft_oks_nms(similar, scores).tolist() == [1, 2, 0, 3]
    # lowered by exp(-1/0.1), pose 0 falls behind the others
    assert soft_oks_nms(similar, np.array([0.85, 0.9, 0.8, 0.3]), 0.1).tolist() == [1, 2, 0, 3]
    assert soft_oks_nms(similar, scores, limit=2).tolist() == [1, 2]
    assert oks_nms(np.zeros((0, 0)), np.zeros(0)).tolist() == []
    seen = similarities(poses, np.full(4, 1e4), SIGMAS, np.zeros((4, 17)), 0.1)
    np.testing.assert_array_equal(seen, 0)  # nothing to compare by


def test_person_scores():
    box, points = np.array([0.5, 0.8]), np.array([[0.1, 0.3, 0.5], [0.0, 0.1, 0.2]])
    np.testing.assert_allclose(person_scores(box, points), [0.5 * 0.4, 0])  # 0.2 itself does not count
    np.testing.assert_allclose(person_scores(box, points, "bbox"), box)
    np.testing.assert_allclose(person_scores(box, points, "keypoint"), [0.3, 0.1])
    np.testing.assert_allclose(person_scores(box, points, "bbox_rle"), [0.5 + 0.3 + 0.5, 0.8 + 0.1 + 0.2])
    with pytest.raises(InputError, match="no score mode 'area'"):
        person_scores(box, points, "area")


def test_postprocess_drops_double_ids_and_the_suppressed(pose):
    rows = [(1, pose, 0.9), (1, pose + 90, 0.8), (1, pose + 90, 0.8), (1, pose + 0.1, 0.7), (2, pose, 0.6)]
    raw = predicted(rows, ids=np.array([4, 5, 5, 6, 4]), areas=np.full(5, 1e4))
    kept = postprocess(raw)
    assert list(zip(kept.image_ids, kept.ids, kept.scores, strict=True)) == [(1, 4, 0.9), (1, 5, 0.8), (2, 4, 0.6)]
    assert len(postprocess(raw, nms="none")) == 4
    with pytest.raises(InputError, match="no NMS 'box'"):
        postprocess(raw, nms="box")


def test_ap_of_two_people(pose):
    people = [person(1, 1, pose), person(2, 2, pose)]
    annotations = dataset(people)
    right = [(1, pose, 0.9), (2, pose, 0.8)]
    figures = coco.coco_figures(annotations, predicted(right))
    assert (figures["AP"], figures["AR"], figures["AP (L)"]) == (1, 1, 1)
    assert np.isnan(figures["AP (M)"])  # nobody is of medium size
    # a wrong one of the highest score: precision is 1/2, then 2/3, which holds back to recall 0
    figures = coco.coco_figures(annotations, predicted([(3, pose, 1.0), *right]))
    assert figures["AP"] == pytest.approx(2 / 3)
    assert figures["AR"] == 1
    # one is missed: 51 of the 101 recalls from 0 to 1 are reached
    figures = coco.coco_figures(annotations, predicted(right[:1]))
    assert figures["AP"] == pytest.approx(51 / 101)
    assert figures["AR"] == 0.5
    # OKS exp(-1/2) = 0.607 is enough for 0.5, 0.55 and 0.6 of ten thresholds
    away = pose + 2 * SIGMAS[:, None] * 100 * np.array([0.6, 0.8])
    figures = coco.coco_figures(annotations, predicted([(1, away, 0.9), (2, away, 0.8)]))
    assert (figures["AP"], figures["AP .5"], figures["AP .75"]) == (pytest.approx(0.3), 1, 0)


def test_groups_and_the_unlabelled_count_neither_way(pose):
    people = [
        person(1, 1, pose),
        person(2, 2, pose, iscrowd=True, visible=False),
        person(3, 3, pose, visible=False),
    ]
    rows = [(1, pose, 0.5), *((image, pose, 0.9) for image in (2, 2, 2, 3))]
    assert coco.coco_figures(dataset(people), predicted(rows))["AP"] == 1


def test_only_the_best_twenty_of_an_image_count(pose):
    rows = [(1, pose + 300, 0.9)] * 20 + [(1, pose, 0.8)]
    annotations = dataset([person(1, 1, pose)])
    assert coco.coco_figures(annotations, predicted(rows))["AP"] == 0
    figures = coco.coco_figures(annotations, predicted(rows), max_detections=21)
    assert figures["AP"] == pytest.approx(1 / 21)


def test_nobody_predicted_and_nobody_annotated(pose):
    nobody = predicted([])
    figures = coco.coco_figures(dataset([person(1, 1, pose)]), nobody)
    assert (figures["AP"], figures["AR"]) == (0, 0)
    figures = coco.coco_figures(dataset([]), predicted([(1, pose, 1)]))
    assert all(np.isnan(value) for value in figures.values())
    assert len(postprocess(nobody)) == 0


def test_detection_area_decides_what_is_medium(pose):
    """An unmatched detection whose key points span a medium area, but whose box is large."""
    small = pose[0] + (pose - pose[0]) * 0.5
    people = [person(1, 1, small, area=2000.0)]
    rows = [(2, small, 0.9), (1, small, 0.8)]
    boxes = np.array([[0, 0, 150, 150]] * 2, float)
    predictions = predicted(rows, boxes=boxes)
    assert coco.coco_figures(dataset(people), predictions)["AP (M)"] == pytest.approx(0.5)
    figures = coco.coco_figures(dataset(people), predictions, detection_area="box")
    assert figures["AP (M)"] == 1
    with pytest.raises(InputError, match="have no boxes"):
        coco.coco_figures(dataset(people), predicted(rows), detection_area="box")


@pytest.mark.parametrize("seed", range(3))
def test_both_tools_count_alike(monkeypatch, seed):
    generator = np.random.default_rng(seed)
    people, rows = [], []
    for image in range(1, 31):
        for _ in range(generator.integers(0, 5)):
            points = generator.uniform(0, 300, 2) + generator.uniform(0, 1, (17, 2)) * generator.uniform(30, 200)
            one = person(image, len(people) + 1, points, area=float(np.ptp(points, axis=0).prod() * 0.6))
            one.keypoints[:, 2] = generator.integers(0, 3, 17) * (generator.random() > 0.1)
            people.append(replace(one, iscrowd=bool(generator.random() < 0.1)))
            rows += [(image, points + generator.normal(0, 8, (17, 2)), round(generator.random(), 1)) for _ in range(2)]
    annotations, predictions = dataset(people, images=range(1, 31)), predicted(rows)
    assert coco.ENGINE == "faster-coco-eval"
    fast = coco.coco_figures(annotations, predictions)
    monkeypatch.setattr(coco._run, "__defaults__", ("pycocotools",))
    assert coco.coco_figures(annotations, predictions) == pytest.approx(fast, abs=1e-12, nan_ok=True)
    assert 0 < fast["AP"] < 1


def test_crowdpose_splits_by_crowd_index():
    pose = np.random.default_rng(1).uniform(100, 200, (14, 2))
    indices = {1: 0.1, 2: 0.2, 3: 0.8}
    people = [person(i, i, pose) for i in indices]
    annotations = dataset(people, CROWDPOSE, crowd_index=indices)
    figures = coco.crowdpose_figures(annotations, predicted([(1, pose, 0.9), (3, pose + 500, 0.8)], CROWDPOSE))
    assert list(figures) == list(coco.CROWDPOSE_FIGURES)
    assert (figures["AP (E)"], figures["AP (M)"], figures["AP (H)"]) == (1, 0, 0)
    assert figures["AR"] == pytest.approx(1 / 3)
    moved = coco.crowdpose_figures(annotations, predicted([(1, pose, 0.9)], CROWDPOSE), bounds=(0.05, 0.15))
    assert np.isnan(moved["AP (E)"])  # no image is as easy
    without = dataset(people, CROWDPOSE)
    assert "AP (E)" not in coco.crowdpose_figures(without, predicted([(1, pose, 0.9)], CROWDPOSE))
    # its num_keypoints decides who counts
    ignored = dataset([replace(one, labelled=0) for one in people[:1]] + people[1:], CROWDPOSE)
    assert coco.crowdpose_figures(ignored, predicted([(2, pose, 0.9), (3, pose, 0.8)], CROWDPOSE))["AP"] == 1


@pytest.mark.parametrize("where", ["keypoints", "keypoint_scores", "scores", "boxes"])
def test_predictions_that_are_not_finite_are_refused(pose, where):
    values = {
        "keypoints": np.stack([pose, pose]),
        "keypoint_scores": np.ones((2, 17)),
        "scores": np.ones(2),
        "boxes": np.ones((2, 4)),
    }
    values[where] = values[where].copy()
    values[where][1] = np.nan
    with pytest.raises(InputError, match=rf"results.json: {where} of prediction 1 \(image 8\) are not finite; 1 of 2"):
        Predictions(COCO, [7, 8], **values, path=Path("results.json"))


def test_predictions_of_another_shape_or_image_are_refused(pose):
    with pytest.raises(InputError, match=r"keypoints of predictions have shape \(1, 17, 2\); 1 people of coco_wholeb"):
        Predictions(COCO_WHOLEBODY, [1], pose[None], np.ones((1, 133)), np.ones(1))
    annotations = dataset([person(1, 1, pose)])
    with pytest.raises(InputError, match="1 predicted images are not annotated, the first is 9"):
        coco.coco_figures(annotations, predicted([(9, pose, 1)]))
    other = np.zeros((14, 2))
    with pytest.raises(InputError, match=r"crowdpose \(14 key points\) do not fit annotations of coco \(17\)"):
        coco.coco_figures(annotations, predicted([(1, other, 1)], CROWDPOSE))


def test_predictions_from_poses_and_joined(pose):
    def poses(count, **more):
        return Poses(
            np.stack([pose] * 2)[:count],
            np.full((count, 17), 0.5, np.float32),
            np.ones((count, 4), np.float32),
            np.array([0.5, 0.25], np.float32)[:count],
            "coco",
            "evaluated",
            **more,
        )

    tracked = poses(2, ids=np.array([3, 4]), regions=np.full((2, 2), 10, np.float32))
    nobody = poses(0, ids=np.zeros(0, np.int64), regions=np.zeros((0, 2), np.float32))
    found = Predictions.from_poses(COCO, [("a", tracked), ("b", nobody), ("c", tracked)])
    assert list(found.image_ids) == ["a", "a", "c", "c"]
    assert found.scores.tolist() == [0.5, 0.25, 0.5, 0.25]
    assert found.track_ids.tolist() == [3, 4, 3, 4]
    assert found.areas.tolist() == [100] * 4
    plain = Predictions.from_poses(COCO, [("a", tracked), ("c", poses(1))])
    assert plain.track_ids is None
    assert plain.areas is None
    assert len(Predictions.from_poses(COCO, [])) == 0
    both = Predictions.join([found, predicted([("d", pose, 0.1)])])
    assert len(both) == 5
    assert both.boxes is None  # not all had them
    with pytest.raises(InputError, match="poses of coco, not crowdpose"):
        Predictions.from_poses(CROWDPOSE, [("a", tracked)])
    with pytest.raises(InputError, match="cannot be joined"):
        Predictions.join([found, predicted([], CROWDPOSE)])
    with pytest.raises(InputError, match="no predictions to join"):
        Predictions.join([])
