"""PoseTrack's AP against stored cases of poseval, and against frames worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from priorscope_pose.data.posetrack import annolist_points, read_posetrack
from priorscope_pose.evaluation.posetrack import JOINTS, NO_SCORE, posetrack_figures, posetrack_joints
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.skeletons import POSETRACK


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
