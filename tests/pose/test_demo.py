"""`priorscope pose demo`, and the trivial pose that it shows beside the model's."""

from __future__ import annotations

import json

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_pose.cli import main
from priorscope_pose.data.annotations import AnnotatedImage, Annotations, PersonAnnotation
from priorscope_pose.evaluation.mean_pose import mean_pose
from priorscope_pose.sdpose.checkpoint import save_network
from priorscope_pose.sdpose.small import new_model
from priorscope_pose.skeletons import COCO, POSETRACK


def person(number, box, shares, visible=2.0):
    box = np.array(box, np.float64)
    points = box[:2] + np.asarray(shares) * (box[2:] - box[:2])
    points = np.concatenate([points, np.full((len(points), 1), visible)], 1)
    return PersonAnnotation(
        image_id=number,
        id=number,
        box=box,
        keypoints=points,
        area=float((box[2:] - box[:2]).prod()),
        labelled=len(points),
    )


def annotated(tmp_path, people, kind=COCO):
    images = [AnnotatedImage(one.image_id, tmp_path / f"{one.image_id}.png", 400, 300, (one,)) for one in people]
    return Annotations(kind, tuple(images))


def test_the_mean_pose_is_the_mean_in_shares_of_the_box(tmp_path):
    random = np.random.default_rng(0)
    one, other = random.uniform(size=(2, len(COCO), 2))
    data = annotated(tmp_path, [person(1, (10, 20, 50, 120), one), person(2, (100, 0, 300, 60), other)])
    found = mean_pose(data)
    np.testing.assert_allclose(found.places, (one + other) / 2, atol=1e-12)
    predicted = found.predictions(data)
    assert list(predicted.image_ids) == [1, 2]
    np.testing.assert_allclose(predicted.keypoints[1], [100, 0] + found.places * [200, 60], atol=1e-9)


def test_unlabelled_joints_do_not_count_for_the_mean_pose(tmp_path):
    shares = np.full((len(COCO), 2), 0.25)
    other = np.full((len(COCO), 2), 0.75)
    people = [person(1, (0, 0, 40, 80), shares), person(2, (0, 0, 40, 80), other)]
    people[1].keypoints[3] = 0
    found = mean_pose(annotated(tmp_path, people))
    np.testing.assert_allclose(found.places[3], [0.25, 0.25])
    np.testing.assert_allclose(found.places[4], [0.5, 0.5])
    people[0].keypoints[3] = 0
    with pytest.raises(InputError, match="labelled left_ear"):
        mean_pose(annotated(tmp_path, people))


def test_the_mean_pose_of_another_skeleton_is_refused(tmp_path):
    data = annotated(tmp_path, [person(1, (0, 0, 40, 80), np.full((len(COCO), 2), 0.5))])
    others = annotated(tmp_path, [person(1, (0, 0, 40, 80), np.full((len(POSETRACK), 2), 0.5))], POSETRACK)
    with pytest.raises(InputError, match="posetrack"):
        mean_pose(data).predictions(others)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_network(new_model("tiny", input_size=(48, 64)).eval(), tmp_path_factory.mktemp("pose") / "model")


def test_the_demo_writes_a_report_a_film_and_its_figures(model, tmp_path, capsys):
    arguments = ["demo", "--model", str(model), "--pictures", "3", "--frames", "3", "--out", str(tmp_path / "demo")]
    assert main([*arguments, "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    metrics = json.loads((tmp_path / "demo/metrics.json").read_text())
    assert [(row["pictures"], row["method"]) for row in metrics["stills"]] == [
        ("as drawn", str(model)),
        ("as drawn", "mean pose"),
        ("oil", str(model)),
        ("oil", "mean pose"),
    ]
    # nothing moves in a style, and the mean pose does not look
    assert metrics["stills"][1]["AP"] == metrics["stills"][3]["AP"]
    assert metrics["clip"]["frames"] == 3
    assert 0 <= metrics["clip"]["PCKh@0.5"] <= 1
    assert (tmp_path / "demo/figures/clip.mp4").stat().st_size > 500
    report = (tmp_path / "demo/report.html").read_text()
    assert report.count("data:image") >= 1 + 2 * 3 + 1
    assert "mean pose" in report
    assert "keypoints above 0.3" in told
    assert "report:" in told


@pytest.mark.parametrize("wrong", [["--pictures", "0"], ["--frames", "-1"], ["--keypoint-threshold", "nan"]])
def test_the_demo_refuses_numbers_that_make_no_sense(wrong, model, tmp_path):
    with pytest.raises(InputError, match=r"--pictures|--keypoint-threshold nan"):
        main(["demo", "--model", str(model), "--out", str(tmp_path / "demo"), *wrong])
    assert not (tmp_path / "demo").exists()


def test_the_demo_refuses_models_of_other_skeletons(tmp_path):
    other = save_network(new_model("tiny", skeleton="jhmdb", input_size=(48, 64)).eval(), tmp_path / "model")
    with pytest.raises(InputError, match="jhmdb"):
        main(["demo", "--model", str(other), "--out", str(tmp_path / "demo")])
