"""Results files, and whole evaluations from files to figures, also on the real samples."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_pose.data.coco import PART_FIELDS, read_coco
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.evaluation.results_file import read_results, write_results
from priorscope_pose.evaluation.suite import METRICS, evaluate_poses
from priorscope_pose.skeletons import COCO, COCO_WHOLEBODY, POSETRACK, SKELETONS


def some(skeleton, count=3, **more):
    generator = np.random.default_rng(0)
    return Predictions(
        skeleton,
        [7, 7, 9][:count],
        generator.uniform(0, 100, (count, len(skeleton), 2)),
        generator.random((count, len(skeleton))),
        generator.random(count),
        **more,
    )


def as_annotated(annotations):
    """Predictions that are the annotations, of every person whose key points are labelled."""
    people = [person for person in annotations.people() if person.visible.any()]
    return Predictions(
        annotations.skeleton,
        [person.image_id for person in people],
        np.stack([person.keypoints[:, :2] for person in people]),
        np.stack([person.visible.astype(float) for person in people]),
        np.ones(len(people)),
        boxes=np.stack([person.box for person in people]),
        present=np.stack([person.visible for person in people]),
    )


@pytest.mark.parametrize("name", SKELETONS)
def test_results_are_read_as_they_were_written(tmp_path, name):
    given = some(SKELETONS[name], boxes=np.array([[1.0, 2, 30, 40]] * 3), track_ids=np.array([4, 5, 6]))
    found = read_results(write_results(tmp_path / "results.json", given, boxes=True), SKELETONS[name])
    assert list(found.image_ids) == [7, 7, 9]
    for field in ("keypoints", "keypoint_scores", "scores", "boxes", "track_ids"):
        np.testing.assert_array_equal(getattr(found, field), getattr(given, field))
    assert read_results(write_results(tmp_path / "plain.json", given), SKELETONS[name]).boxes is None
    assert len(read_results(write_results(tmp_path / "none.json", some(SKELETONS[name], 0)), SKELETONS[name])) == 0


def test_wholebody_results_have_fields_of_parts(tmp_path):
    given = some(COCO_WHOLEBODY, part_scores={"face": np.array([0.1, 0.2, 0.3])})
    path = write_results(tmp_path / "results.json", given)
    (first, _, _) = json.loads(path.read_text())
    assert [len(first[name]) for name in PART_FIELDS.values()] == [51, 18, 204, 63, 63]
    assert first["lefthand_kpts"][:2] == given.keypoints[0, 91].tolist()
    np.testing.assert_array_equal(read_results(path, COCO_WHOLEBODY).part_scores["face"], [0.1, 0.2, 0.3])


def test_results_are_not_overwritten(tmp_path):
    path = write_results(tmp_path / "results.json", some(COCO))
    with pytest.raises(InputError, match="exists already"):
        write_results(path, some(COCO))
    write_results(path, some(COCO, 1), overwrite=True)
    assert len(read_results(path, COCO)) == 1
    with pytest.raises(InputError, match="no boxes to write"):
        write_results(tmp_path / "other.json", some(COCO), boxes=True)


def test_cocos_own_tool_reads_our_file_alike(tmp_path):
    """pycocotools, from the two files to its figures; with boxes in the file it takes areas from them."""
    from pycocotools.coco import COCO as Dataset
    from pycocotools.cocoeval import COCOeval

    generator = np.random.default_rng(0)
    people, rows = [], []
    for image in range(1, 21):
        for _ in range(3):
            corner, size = generator.uniform(0, 300, 2), generator.uniform(40, 250, 2)
            points = np.concatenate([corner + generator.random((17, 2)) * size, generator.integers(0, 3, (17, 1))], 1)
            people.append(
                {
                    "id": len(people) + 1,
                    "image_id": image,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": [*corner, *size],
                    "area": size.prod() * 0.6,
                    "keypoints": points.ravel().tolist(),
                    # as in the file, also where it says otherwise than the key points themselves: 0 is ignored
                    "num_keypoints": int((points[:, 2] > 0).sum()) if len(people) % 7 else 0,
                }
            )
            rows.append((image, points[:, :2] + generator.normal(0, 8, (17, 2)), [*corner, *(corner + size * 1.3)]))
    images = [{"id": image, "file_name": f"{image}.jpg", "width": 640, "height": 480} for image in range(1, 21)]
    truth = tmp_path / "annotations.json"
    truth.write_text(json.dumps({"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}))
    predictions = Predictions(
        COCO,
        [row[0] for row in rows],
        np.stack([row[1] for row in rows]),
        generator.random((len(rows), 17)),
        generator.random(len(rows)),
        boxes=np.array([row[2] for row in rows]),
    )
    figures = {}
    for boxes, area in ((False, "keypoints"), (True, "box")):
        path = write_results(tmp_path / f"{area}.json", predictions, boxes=boxes)
        dataset = Dataset(str(truth))
        theirs = COCOeval(dataset, dataset.loadRes(str(path)), "keypoints")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
        figures[area] = evaluate_poses(truth, path, detection_area=area)
        np.testing.assert_allclose(list(figures[area].values()), theirs.stats, atol=1e-12)
    assert figures["box"]["AP"] == figures["keypoints"]["AP"]
    assert figures["box"]["AP (M)"] != figures["keypoints"]["AP (M)"]


def record(**changes):
    made = {"image_id": 7, "category_id": 1, "keypoints": [1.0] * 51, "score": 0.5} | changes
    return {name: value for name, value in made.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"annotations": []}, "holds a JSON dict, not a list of people"),
        ([3], "result 0 is no object"),
        ([record(), record(score=None)], "result 1 has no 'score'"),
        ([record(image_id=None)], "result 0 has no 'image_id'"),
        ([record(keypoints=None, bbox=[1, 2, 3, 4])], "result 0 has no key points. These may be the boxes"),
        ([record(keypoints=[1.0] * 42)], "result 0 has 42 numbers for key points, coco needs 17 x 3"),
        ([record(), record(score=float("nan"))], "result 1: its score is nan"),
        ([record(score="high")], "result 0: its score is 'high'"),
        ([record(keypoints=[float("nan")] * 51)], "result 0 has a key point that is not finite"),
        ([record(track_id="a")], "result 0: its track_id is 'a', no whole number"),
        ([record(face_score="high")], "result 0: its face_score is 'high'"),
    ],
)
def test_broken_results(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        read_results(path, COCO)
    assert caught.value.path == str(path)


def test_broken_video_results(tmp_path):
    path = tmp_path / "clip.json"
    path.write_text(json.dumps({"annotations": [record(scores=[0.5])]}))
    with pytest.raises(InputError, match="result 0 has 1 scores, not 17"):
        read_results(path, POSETRACK)
    path.write_text(json.dumps({"annotations": [record(track_id=1.5)]}))
    with pytest.raises(InputError, match=r"result 0: its track_id is 1\.5, no whole"):
        read_results(path, POSETRACK)
    path.write_text(json.dumps({"annolist": []}))
    with pytest.raises(InputError, match="Give the annotations"):
        read_results(path, POSETRACK)
    path.write_text("{}")
    with pytest.raises(InputError, match="holds neither 'annotations' nor an 'annolist'"):
        read_results(path, POSETRACK)
    path.unlink()
    with pytest.raises(InputError, match=r"holds no \.json file"):
        read_results(tmp_path, POSETRACK)


def test_what_a_command_may_ask_for(tmp_path):
    annotations = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 99, "height": 99} for i in (7, 9)],
        "annotations": [record(id=1, bbox=[1, 1, 50, 60], score=None, keypoints=[5.0, 6.0, 2.0] * 17, area=3000)],
    }
    wrong = record(score=0.9, keypoints=[70.0, 70.0, 1.0] * 17)
    truth, results = tmp_path / "annotations.json", tmp_path / "results.json"
    truth.write_text(json.dumps(annotations))
    results.write_text(json.dumps([record(keypoints=[5.0, 6.0, 0.4] * 17), wrong]))
    assert evaluate_poses(truth, results)["AP"] == pytest.approx(1 / 2)
    assert evaluate_poses(truth, results, score="keypoint", nms="oks")["AP"] == pytest.approx(1 / 2)
    # the key points of the right one now score higher
    results.write_text(json.dumps([record(keypoints=[5.0, 6.0, 1.4] * 17), wrong]))
    assert evaluate_poses(truth, results, score="keypoint", nms="oks")["AP"] == 1
    assert evaluate_poses(str(truth), results, "pck")["PCK"] == 1
    for metric in ("coco", "coco-ood"):
        assert set(evaluate_poses(truth, results, metric)) >= {"AP", "AP (M)", "AR"}
    with pytest.raises(InputError, match=r"no metric 'mota'\. There are coco"):
        evaluate_poses(truth, results, "mota")


def test_real_samples_against_themselves(shared_data, tmp_path):
    """Who predicts what is annotated has AP 1; who predicts it shifted has less, and by so much."""
    folder = shared_data("pose")
    for metric, name in (
        ("coco", "coco/test_coco.json"),
        ("coco-ood", "coco/test_coco.json"),
        ("humanart", "coco/test_coco.json"),
        ("coco-wholebody", "coco/test_keypoint_partition_metric.json"),
        ("crowdpose", "crowdpose/test_crowdpose.json"),
        ("posetrack", "posetrack18/annotations/test_posetrack18_val.json"),
        ("posetrack", "posetrack18/annotations/val"),
        ("pck", "coco/test_coco.json"),
        ("pckh", "posetrack18/annotations/val"),
        ("jhmdb", "jhmdb/test_jhmdb_sub1.json"),
    ):
        annotations = METRICS[metric].read(folder / name)
        perfect = as_annotated(annotations)
        figures = evaluate_poses(annotations, perfect, metric)
        main = METRICS[metric].main
        assert figures[main] == pytest.approx(1), (metric, figures)
        if metric != "posetrack":  # files of COCO's kind have no key points that were not predicted
            path = write_results(
                tmp_path / f"{metric}.json", replace(perfect, keypoint_scores=perfect.keypoint_scores + 0.1)
            )
            assert evaluate_poses(folder / name, path, metric)[main] == pytest.approx(1)
        rest = perfect.select(range(1, len(perfect)))
        assert evaluate_poses(annotations, rest, metric)[main] < 1
        moved = replace(perfect, keypoints=perfect.keypoints + 1000)
        assert evaluate_poses(annotations, moved, metric)[main] == 0
    shares = {}
    annotations = read_coco(folder / "coco/test_coco.json")
    perfect = as_annotated(annotations)
    for pixels in (1, 4, 16):
        noise = np.random.default_rng(0).normal(0, pixels, perfect.keypoints.shape)
        shares[pixels] = evaluate_poses(annotations, replace(perfect, keypoints=perfect.keypoints + noise))["AP"]
    assert 1 >= shares[1] > shares[4] > shares[16]
