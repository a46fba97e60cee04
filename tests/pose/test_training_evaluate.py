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
from priorscope_pose.data.humanart import read_humanart
from priorscope_pose.data.posetrack import read_posetrack
from priorscope_pose.evaluate import predictions_of, run_evaluation
from priorscope_pose.evaluation.suite import evaluate_poses
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

    def clip(self, frames, boxes, item, *, numbers=None):
        assert numbers == list(range(len(frames)))
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


def boxes_of_everybody(annotations, path):
    """A detector's file with the annotated boxes; its ids have nothing to do with the annotations'."""
    records = []
    for person in reversed(list(annotations.people())):
        left, top, right, bottom = person.box
        box = [left, top, right - left, bottom - top]
        records.append({"image_id": person.image_id, "category_id": 1, "bbox": box, "score": 0.7})
    path.write_text(json.dumps(records))
    return path


@pytest.mark.parametrize("metric", ["pck", "coco"])
def test_people_in_detected_boxes_are_found_by_likeness(people, tmp_path, monkeypatch, metric):
    annotations = read_coco(people)
    told(monkeypatch, Oracle(annotations))
    boxes = boxes_of_everybody(annotations, tmp_path / "boxes.json")
    assert run_evaluation(EvaluateConfig(str(people), metric=metric, boxes=boxes, out=tmp_path / "run")) == 0
    found = figures(tmp_path / "run")
    assert found["PCK" if metric == "pck" else "AP"] == pytest.approx(1)
    assert found.get("missed", 0) == 0
    page = (tmp_path / "run/report.html").read_text()
    assert "OKS 1.00" in page
    assert "nobody found" not in page


def test_annotations_whose_ids_are_text(people, tmp_path, monkeypatch):
    content = json.loads(people.read_text())
    for record in content["annotations"]:
        record["id"] = f"person {record['id']}"
    named = people.with_name("named.json")
    named.write_text(json.dumps(content))
    told(monkeypatch, Oracle(read_coco(named)))
    config = EvaluateConfig(str(named), metric="pck", images=people.parent.parent / "train2017", out=tmp_path / "run")
    assert run_evaluation(config) == 0
    assert (figures(tmp_path / "run")["PCK"], figures(tmp_path / "run")["missed"]) == (1, 0)


def test_a_part_of_the_pictures_with_boxes_of_all(people, tmp_path, monkeypatch):
    """Boxes of other pictures do not matter, and one outside of its picture costs nobody else."""
    annotations = read_coco(people)
    told(monkeypatch, Oracle(annotations))
    boxes = boxes_of_everybody(annotations, tmp_path / "boxes.json")
    outside = {"image_id": annotations.images[0].id, "category_id": 1, "bbox": [900, 900, 5, 5], "score": 1.0}
    boxes.write_text(json.dumps([*json.loads(boxes.read_text()), outside]))
    config = EvaluateConfig(str(people), boxes=boxes, limit=2, out=tmp_path / "run")
    assert run_evaluation(config) == 0
    assert figures(tmp_path / "run")["AP"] == pytest.approx(1)
    assert "1 boxes or people were left out" in (tmp_path / "run/report.html").read_text()


class Renamed(Oracle):
    """The same, of a model whose keypoints are those of another skeleton."""

    def __init__(self, annotations, kind, **more):
        super().__init__(annotations, **more)
        self.skeleton = kind

    def _poses(self, boxes):
        found, kind = super()._poses(boxes), self.skeleton
        keypoints, scores = np.full((len(found), len(kind), 2), 7.0), np.full((len(found), len(kind)), 0.9, np.float32)
        for place, name in enumerate(kind.keypoints):
            if name in self.kind.keypoints:
                keypoints[:, place] = found.keypoints[:, self.kind.index(name)]
                scores[:, place] = found.scores[:, self.kind.index(name)]
        return replace(found, keypoints=keypoints, scores=scores, skeleton=kind.name)


def test_models_that_have_all_keypoints_of_the_data(people, tmp_path, monkeypatch):
    """SDPose's body model is of COCO's keypoints, which are Human-Art's too; its whole bodies begin with them."""
    content = json.loads(people.read_text())
    for record in content["images"]:
        record["file_name"] = f"{people.parent.parent.name}/train2017/{record['file_name']}"
    art = people.with_name("art.json")
    art.write_text(json.dumps(content))
    annotations = read_humanart(art)
    for name in ("coco", "coco_wholebody"):
        told(monkeypatch, Renamed(annotations, skeleton(name)))
        assert run_evaluation(EvaluateConfig(str(art), metric="humanart", out=tmp_path / name)) == 0
        assert figures(tmp_path / name)["AP"] == pytest.approx(1)
        about = json.loads((tmp_path / name / "metrics.json").read_text())
        assert "counted_keypoints" not in about


def test_a_model_that_lacks_keypoints_is_measured_on_those_it_has(people, tmp_path, monkeypatch, capsys):
    annotations = read_coco(people)
    config = EvaluateConfig(str(people), out=tmp_path / "run")
    told(monkeypatch, Renamed(annotations, skeleton("crowdpose")))
    with pytest.raises(InputError, match=r"crowdpose, the data has coco.*count the 12 of 17 that it has with --shared"):
        run_evaluation(config)
    assert not config.out.exists()
    assert run_evaluation(replace(config, shared_keypoints=True)) == 0
    assert figures(config.out)["AP"] == pytest.approx(1)
    assert "only 12 of 17 keypoints count: left_shoulder, " in capsys.readouterr().out
    assert len(json.loads((config.out / "metrics.json").read_text())["counted_keypoints"]) == 12
    assert "not those of the benchmark" in (config.out / "report.html").read_text()
    far = replace(config, shared_keypoints=True, out=tmp_path / "far")
    told(monkeypatch, Renamed(annotations, skeleton("crowdpose"), wrong=300))
    run_evaluation(far)
    assert figures(far.out)["AP"] == 0
    clips = write_posetrack(tmp_path / "clips", range(2), frames=2, height=96, width=80, progress=False)
    told(monkeypatch, Renamed(read_posetrack(clips), skeleton("coco"), reach=1))
    video = EvaluateConfig(str(clips), metric="posetrack", shared_keypoints=True, out=tmp_path / "video")
    assert run_evaluation(video) == 0
    assert "only 13 of 15 keypoints count: nose, " in capsys.readouterr().out
    assert figures(video.out)["Total"] == pytest.approx(1)
    assert np.isnan(figures(video.out)["Head"])  # two of its three joints were not measured


@pytest.mark.parametrize("change", ["no keypoints", "no people", "no pictures", "no area", "no boxes"])
def test_nobody_to_look_at_is_said(people, tmp_path, monkeypatch, change):
    told(monkeypatch, Oracle(read_coco(people)))
    content = json.loads(people.read_text())
    if change in ("no people", "no pictures"):
        content["annotations"] = []
    if change == "no pictures":
        content["images"] = []
    for record in content["annotations"]:
        if change == "no keypoints":
            del record["keypoints"]
        if change == "no area":
            record["bbox"][2:] = [0, 0]
    data = people.with_name("person_keypoints_train2017_.json")
    data.write_text(json.dumps(content))
    boxes = tmp_path / "boxes.json"
    boxes.write_text("[]")
    config = EvaluateConfig(
        str(data),
        images=people.parent.parent / "train2017",
        boxes=boxes if change == "no boxes" else None,
        out=tmp_path / "run",
    )
    words = "holds no usable box" if change == "no boxes" else "nobody in .* pictures has a box and a labelled keypoint"
    with pytest.raises(InputError, match=words):
        run_evaluation(config)
    assert not config.out.exists()


def test_clips_are_asked_as_clips(tmp_path, monkeypatch):
    folder = write_posetrack(tmp_path / "clips", range(2), frames=3, height=96, width=80, progress=False)
    annotations = read_posetrack(folder)
    oracle = told(monkeypatch, Oracle(annotations, reach=1))
    config = EvaluateConfig(str(folder), metric="posetrack", out=tmp_path / "run")
    assert run_evaluation(config) == 0
    assert sorted(oracle.asked) == sorted(annotations.videos())
    assert figures(tmp_path / "run")["Total"] == pytest.approx(1)
    assert figures(tmp_path / "run")["Ankl"] == pytest.approx(1)


def test_posetracks_files_give_the_same_figures(tmp_path, monkeypatch):
    """Also to other tools: joints are written with the scores that ranked them, the box's among them."""
    folder = write_posetrack(tmp_path / "clips", range(3), frames=3, height=96, width=80, people=2, progress=False)
    annotations = read_posetrack(folder)
    told(monkeypatch, Oracle(annotations, reach=1))
    boxes = boxes_of_everybody(annotations, tmp_path / "boxes.json")
    records = json.loads(boxes.read_text())
    for place, record in enumerate(records):
        record["score"] = 0.3 + 0.02 * place
    twice = [{**record, "score": 0.29 + 0.01 * place} for place, record in enumerate(records)]  # all wrong
    boxes.write_text(json.dumps(records + twice))
    config = EvaluateConfig(str(folder), metric="posetrack", boxes=boxes, out=tmp_path / "run")
    assert run_evaluation(config) == 0
    found = figures(config.out)
    assert 0.05 < found["Total"] < 0.95
    # where joints are ranked by themselves, it is another figure
    rows = [json.loads(line) for line in (config.out / "items.jsonl").read_text().splitlines()]
    raw = predictions_of(rows, annotations.skeleton)
    assert evaluate_poses(annotations, raw, "posetrack")["Total"] != pytest.approx(found["Total"])
    again = evaluate_poses(annotations, config.out / "results", "posetrack")
    assert again == pytest.approx(found)
    files = sorted(path.stem for path in (config.out / "results").glob("*.json"))
    assert files == sorted(annotations.videos())


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
        ({"box_threshold": float("nan")}, "--box-threshold nan"),
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
