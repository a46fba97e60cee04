"""PoseTrack's AP against stored cases of poseval, and against frames worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_pose.data.annotations import AnnotatedImage, Annotations, PersonAnnotation
from priorscope_pose.data.posetrack import annolist_points, read_posetrack
from priorscope_pose.evaluation.posetrack import (
    JOINTS,
    NO_SCORE,
    _inside_polygon,
    posetrack_figures,
    posetrack_joints,
)
from priorscope_pose.evaluation.posetrack_file import write_posetrack_results
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.evaluation.results_file import read_results
from priorscope_pose.evaluation.suite import evaluate_poses
from priorscope_pose.skeletons import COCO, POSETRACK


def folder_of(tmp_path, videos):
    for name, content in videos.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def predictions_of(videos):
    ids, points, scores, present, persons = [], [], [], [], []
    for content in videos.values():
        for frame in content["annolist"]:
            for rect in frame["annorect"]:
                keypoints, its, has = annolist_points(rect, "prediction", None)
                ids.append(frame["image"][0]["name"])
                points.append(keypoints[:, :2])
                scores.append(np.where(np.isnan(its), NO_SCORE, its))
                present.append(has)
                persons.append(rect["score"][0])
    return Predictions(POSETRACK, ids, np.array(points), np.array(scores), np.array(persons), present=np.array(present))


def test_golden_posetrack_ap(golden_files, read_json, tmp_path):
    for path in golden_files("pose", "posetrack_ap_*.json"):
        case = read_json(path)
        folder = tmp_path / path.stem
        folder.mkdir()
        annotations = read_posetrack(folder_of(folder, case["gt"]))
        predictions = predictions_of(case["pred"])
        stored, tolerance = case["expected"], case["tolerance"]
        joints = posetrack_joints(annotations, predictions)
        names = ["neck" if name == "head_bottom" else name for name in JOINTS]
        assert names == case["joint_names"]
        assert joints.frames == stored["n_frames_after_cleanup"]
        for ours, name in ((joints.ap, "ap"), (joints.precision, "pre"), (joints.recall, "rec")):
            np.testing.assert_allclose(100 * np.append(ours, ours.mean()), np.ravel(stored[name]), atol=tolerance)
        figures = posetrack_figures(annotations, predictions)
        assert list(figures) == list(stored["groups"])
        for name, value in figures.items():
            assert 100 * value == pytest.approx(stored["groups"][name], abs=tolerance), name


def person(image, number, points, labelled=range(17), head=(0, 0, 30, 40)):
    """A head box of diagonal 50: right is what lies within 0.5 * 0.6 * 50 = 15 pixels."""
    keypoints = np.zeros((17, 3))
    keypoints[list(labelled)] = np.concatenate([points, np.ones((17, 1))], 1)[list(labelled)]
    keypoints[3:5] = 0
    head_box = None if head is None else np.array(head, np.float64)
    return PersonAnnotation(image, number, np.array([0.0, 0, 100, 100]), keypoints, 5000.0, head_box=head_box)


def dataset(*people, regions=()):
    frames = {image: [p for p in people if p.image_id == image] for image in (1, 2)}
    return Annotations(
        POSETRACK,
        tuple(
            AnnotatedImage(i, Path(f"images/val/clip/{i:06d}.jpg"), 640, 480, tuple(its), "clip", i, regions)
            for i, its in frames.items()
        ),
    )


def predicted(*rows, **more):
    points = np.array([row[1] for row in rows]).reshape(len(rows), 17, 2)
    scores = np.array([row[2] for row in rows], float)
    return Predictions(
        POSETRACK, [row[0] for row in rows], points, np.tile(scores[:, None], (1, 17)), np.ones(len(rows)), **more
    )


@pytest.fixture
def pose():
    return np.random.default_rng(0).uniform(200, 400, (17, 2))


def test_half_a_head_is_just_right(pose):
    for shift, share in ((15.0, 1.0), (15.001, 0.0)):
        exact = pose.round() + np.array([shift, 0])
        annotations = dataset(person(1, 1, pose.round()))
        assert posetrack_figures(annotations, predicted((1, exact, 1)))["Total"] == share


def test_each_person_is_taken_once_by_the_better_prediction(pose):
    annotations = dataset(person(1, 1, pose))
    worse = pose.copy()
    worse[:11] += 100
    joints = posetrack_joints(annotations, predicted((1, pose, 0.5), (1, worse, 0.9)))
    np.testing.assert_allclose(joints.recall, 1)
    np.testing.assert_allclose(joints.ap, 0.5)  # the worse one scores higher, and is wrong even where it is near
    np.testing.assert_allclose(joints.precision, 0.5)


def test_a_joint_predicted_where_none_is_labelled_is_wrong(pose):
    wrist = POSETRACK.index("left_wrist")
    people = person(1, 1, pose, labelled=[i for i in range(17) if i != wrist]), person(2, 2, pose)
    joints = posetrack_joints(dataset(*people), predicted((1, pose, 0.9), (2, pose, 0.5)))
    expected = np.ones(15)
    expected[JOINTS.index("left_wrist")] = 0.5
    np.testing.assert_allclose(joints.ap, expected)
    present = np.ones((2, 17), bool)
    present[0, wrist] = False
    joints = posetrack_joints(dataset(*people), predicted((1, pose, 0.9), (2, pose, 0.5), present=present))
    np.testing.assert_allclose(joints.ap, 1)


def test_frames_without_annotated_people_do_not_count(pose):
    joints = posetrack_joints(dataset(person(1, 1, pose)), predicted((1, pose, 0.5), (2, pose, 0.9)))
    assert joints.frames == 1
    np.testing.assert_allclose(joints.ap, 1)


def test_ignored_regions_are_taken_out_of_both(pose):
    pose = pose.copy()
    pose[POSETRACK.index("nose")] = 50, 50
    triangle = np.array([[0.0, 0], [120, 0], [0, 120]])
    joints = posetrack_joints(dataset(person(1, 1, pose), regions=(triangle,)), predicted((1, pose, 0.5)))
    nose = JOINTS.index("nose")
    assert np.isnan(joints.ap[nose])  # nobody has one that counts
    np.testing.assert_allclose(np.delete(joints.ap, nose), 1)
    pose[POSETRACK.index("nose")] = 60, 60  # on its border: counts
    joints = posetrack_joints(dataset(person(1, 1, pose), regions=(triangle,)), predicted((1, pose, 0.5)))
    np.testing.assert_allclose(joints.ap, 1)


def test_scores_of_the_person_may_rank_its_joints(pose):
    annotations = dataset(person(1, 1, pose))
    both = predicted((1, pose, 0.5), (1, pose + 100, 0.9))
    both = replace(both, scores=np.array([1.0, 0.1]))
    assert posetrack_figures(annotations, both)["Total"] == 0.5
    assert posetrack_figures(annotations, both, joint_scores="keypoint_times_person")["Total"] == 1


def test_what_cannot_be_counted_is_refused(pose):
    with pytest.raises(InputError, match="annotation 1 has no head box"):
        posetrack_figures(dataset(person(1, 1, pose, head=None)), predicted((1, pose, 1)))
    with pytest.raises(InputError, match="PoseTrack's AP of the skeleton coco"):
        posetrack_figures(replace(dataset(), skeleton=COCO), replace(predicted(), skeleton=COCO))
    assert np.isnan(posetrack_figures(dataset(), predicted())["Total"])


def test_polygons_by_the_even_odd_rule():
    star = np.array([[0.0, 0], [10, 0], [10, 10], [0, 10], [0, 3], [7, 3], [7, 7], [3, 7], [3, 0]])
    points = np.random.default_rng(0).uniform(-2, 12, (2000, 2))
    from matplotlib.path import Path as Outline

    closed = Outline(np.concatenate([star, star[:1]]))
    np.testing.assert_array_equal(_inside_polygon(points, star), closed.contains_points(points))


def test_golden_results_files_give_the_same_ap(golden_files, read_json, tmp_path):
    """poseval's own files, read as a folder of results, and what we write of them, read again."""
    for path in golden_files("pose", "posetrack_ap_*.json"):
        case = read_json(path)
        truth, found, ours = (tmp_path / path.stem / name for name in ("truth", "found", "ours"))
        truth.mkdir(parents=True)
        found.mkdir()
        annotations = read_posetrack(folder_of(truth, case["gt"]))
        predictions = read_results(folder_of(found, case["pred"]), annotations)
        figures = evaluate_poses(annotations, predictions, "posetrack")
        for name, value in figures.items():
            assert 100 * value == pytest.approx(case["expected"]["groups"][name], abs=case["tolerance"])
        files = write_posetrack_results(ours, replace(predictions, present=None), annotations)
        assert [file.name for file in files] == [f"{video}.json" for video in annotations.videos()]
        again = read_results(ours, annotations)
        np.testing.assert_array_equal(again.keypoints, predictions.keypoints)
        np.testing.assert_array_equal(again.keypoint_scores, predictions.keypoint_scores)
        np.testing.assert_array_equal(again.track_ids, predictions.track_ids)
        with pytest.raises(InputError, match="exists already"):
            write_posetrack_results(ours, predictions, annotations)
