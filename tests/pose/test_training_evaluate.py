"""`priorscope pose evaluate` on miniatures: perfect predictions get 1, cut-off runs go on, all models are asked."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import priorscope_pose.evaluate as evaluate
from priorscope.errors import InputError
from priorscope_pose.configs import EvaluateConfig, ModelConfig
from priorscope_pose.conv.network import ConvPoseNetwork
from priorscope_pose.data.coco import read_coco
from priorscope_pose.data.posetrack import read_posetrack
from priorscope_pose.evaluate import run_evaluation
from priorscope_pose.people import write_coco, write_posetrack
from priorscope_pose.poses import Poses
from priorscope_pose.skeletons import skeleton


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stills")
    return write_coco(folder, range(8), height=96, width=80, people=2, progress=False)


class Oracle:
    """Knows the annotations by the boxes; moves every keypoint by ``wrong`` pixels."""

    def __init__(self, annotations, *, wrong=0.0, reach=0, dies_after=None):
        self.known = {person.box.tobytes(): person for person in annotations.people()}
        self.sizes = {image.id: (image.width, image.height) for image in annotations}
        self.kind, self.wrong, self.reach = annotations.skeleton, wrong, reach
        self.asked, self.dies_after = [], dies_after
        for person in annotations.people():
            width, height = self.sizes[person.image_id]
            box = person.clipped_box(width, height)
            if box is not None:
                self.known[box.tobytes()] = person
        self.name, self.skeleton = "oracle", annotations.skeleton

    def about(self):
        return {"crop": "evaluated"}

    def _poses(self, boxes):
        found = [self.known[box.tobytes()].keypoints for box in boxes.boxes]
        keypoints = np.stack(found) if found else np.zeros((0, len(self.kind), 3))
        scores = (keypoints[..., 2] > 0).astype(np.float32)
        return Poses(
            keypoints[..., :2] + self.wrong,
            scores,
            boxes.boxes.astype(np.float32),
            boxes.scores.astype(np.float32),
            self.kind.name,
            "evaluated",
            regions=np.ones((len(keypoints), 2), np.float32) * 40,
        )

    def pictures(self, pictures, boxes, items):
        if self.dies_after is not None and len(self.asked) == self.dies_after:
            raise KeyboardInterrupt
        self.asked += items
        return [self._poses(its) for its in boxes]

    def clip(self, frames, boxes, item):
        self.asked.append(item)
        assert all(frame.ndim == 3 for frame in frames)
        return [self._poses(its) for its in boxes]


def told(monkeypatch, oracle):
    monkeypatch.setattr(evaluate, "load_estimator", lambda settings: oracle)
    return oracle


def figures(out):
    return json.loads((out / "metrics.json").read_text())["figures"]


def test_perfect_predictions_get_one_and_worse_ones_less(people, tmp_path, monkeypatch):
    annotations = read_coco(people)
    config = EvaluateConfig(str(people), out=tmp_path / "perfect")
    told(monkeypatch, Oracle(annotations))
    assert run_evaluation(config) == 0
    assert figures(config.out)["AP"] == pytest.approx(1)
    told(monkeypatch, Oracle(annotations, wrong=1.5))
    assert run_evaluation(replace(config, out=tmp_path / "worse")) == 0
    assert 0.05 < figures(tmp_path / "worse")["AP"] < 0.95
    page = (tmp_path / "worse/report.html").read_text()
    assert "The worst" in page
    results = json.loads((tmp_path / "worse/results.json").read_text())
    assert {"image_id", "keypoints", "score"} <= set(results[0])


def test_a_run_that_was_cut_off_goes_on(people, tmp_path, monkeypatch):
    annotations = read_coco(people)
    told(monkeypatch, Oracle(annotations, wrong=1.0))
    config = EvaluateConfig(str(people), out=tmp_path / "run")
    run_evaluation(replace(config, out=tmp_path / "whole"))
    told(monkeypatch, Oracle(annotations, wrong=1.0, dies_after=4))
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(config)
    with pytest.raises(InputError, match="--resume"):
        run_evaluation(config)
    rest = told(monkeypatch, Oracle(annotations, wrong=1.0))
    run_evaluation(replace(config, resume=True))
    assert len(rest.asked) == len(annotations) - 4
    assert figures(config.out) == figures(tmp_path / "whole")


def test_the_boxes_of_a_detector(people, tmp_path, monkeypatch):
    annotations = read_coco(people)
    first = annotations.images[0]
    person = first.people[0]
    left, top, right, bottom = person.box
    record = {"image_id": first.id, "category_id": 1, "bbox": [left, top, right - left, bottom - top], "score": 0.7}
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([record, {**record, "score": 0.01}]))
    told(monkeypatch, Oracle(annotations))
    config = EvaluateConfig(str(people), boxes=boxes, box_threshold=0.1, out=tmp_path / "run")
    assert run_evaluation(config) == 0
    assert len(json.loads((tmp_path / "run/results.json").read_text())) == 1
    assert 0 < figures(tmp_path / "run")["AR"] < 0.5  # most people were never looked for
    assert "1 boxes or people were left out" in (tmp_path / "run/report.html").read_text()


def test_clips_are_asked_as_clips(tmp_path, monkeypatch):
    folder = write_posetrack(tmp_path / "clips", range(2), frames=3, height=96, width=80, progress=False)
    annotations = read_posetrack(folder)
    oracle = told(monkeypatch, Oracle(annotations, reach=1))
    config = EvaluateConfig(str(folder), metric="posetrack", out=tmp_path / "run")
    assert run_evaluation(config) == 0
    assert sorted(oracle.asked) == sorted(annotations.videos())
    assert figures(tmp_path / "run")["Total"] == pytest.approx(1)
    assert figures(tmp_path / "run")["Ankl"] == pytest.approx(1)


def test_a_conv_model_is_asked_like_sdpose(people, tmp_path):
    model = ConvPoseNetwork.new("tiny", input_size=(32, 48)).save(tmp_path / "model")
    settings = ModelConfig(model=str(model), device="cpu")
    assert run_evaluation(EvaluateConfig(str(people), out=tmp_path / "run", limit=2, settings=settings)) == 0
    about = json.loads((tmp_path / "run/metrics.json").read_text())
    assert about["flip_test"]
    assert about["people"] <= 4
    assert "the first 2 pictures" in (tmp_path / "run/report.html").read_text()


def test_refusals(people, tmp_path, monkeypatch):
    oracle = told(monkeypatch, Oracle(read_coco(people)))
    for changes, words in (
        ({"limit": -1}, "--limit"),
        ({"nms_threshold": 0.0}, "--nms-threshold"),
        ({"detection_area": "box", "metric": "posetrack"}, "--detection-area"),
        ({"data": "people:2", "metric": "crowdpose"}, "drawn people"),
        ({"data": "nowhere.json"}, "no such file"),
    ):
        with pytest.raises(InputError, match=words):
            run_evaluation(EvaluateConfig(**{"data": str(people), "out": tmp_path / "run", **changes}))
    assert not (tmp_path / "run").exists()
    oracle.skeleton = skeleton("crowdpose")
    with pytest.raises(InputError, match="finds keypoints of crowdpose"):
        run_evaluation(EvaluateConfig(str(people), out=tmp_path / "run"))
