"""``priorscope pose convert``: annotated and predicted poses in other layouts, without a model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from priorscope.cli import main
from priorscope.data.images import read_image
from priorscope_pose.formats import controlnet_image, read_poses
from priorscope_pose.overlay import draw_poses
from priorscope_pose.skeletons import COCO

RNG = np.random.default_rng(0)
POINTS = np.dstack([RNG.uniform(5, 95, (2, 17, 2)), np.full((2, 17, 1), 2.0)])
POINTS[0, 3:6, 2] = 0, 1, 0
POINTS[0, [3, 5], :2] = 0


@pytest.fixture
def annotated(tmp_path):
    """One picture with two people and a group, one without anybody."""
    people = [
        {"id": row, "image_id": 7, "category_id": 1, "bbox": [1, 2, 90, 80], "keypoints": POINTS[row].ravel().tolist()}
        for row in range(2)
    ]
    group = {**people[1], "id": 2, "iscrowd": 1}
    images = [{"id": number, "file_name": f"{number:012d}.png", "width": 100, "height": 80} for number in (7, 9)]
    path = tmp_path / "annotations/person_keypoints_val2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"images": images, "annotations": [*people, group]}))
    return path


def convert(out, *words):
    return main(["pose", "convert", *map(str, words), "--out", str(out)])


def test_annotations_become_pose_images_without_the_pictures(annotated, tmp_path, capsys):
    out = tmp_path / "out"
    assert convert(out, annotated, "--formats", "openpose", "controlnet", "npz") == 0
    assert "2 people in 2 images" in capsys.readouterr().out
    poses = read_poses(out / "000000000007_poses.npz").poses[0]
    np.testing.assert_allclose(poses.keypoints, POINTS[..., :2])
    np.testing.assert_array_equal(poses.scores, POINTS[..., 2] > 0)
    drawn = read_image(out / "000000000007_controlnet.png")
    np.testing.assert_array_equal(drawn, controlnet_image(poses, 100, 80))
    assert drawn.any()
    assert not read_image(out / "000000000009_controlnet.png").any()
    first, second = json.loads((out / "000000000007_keypoints.json").read_text())["people"]
    right_ear, left_ear = np.reshape(first["pose_keypoints_2d"], (18, 3))[[16, 17]]
    np.testing.assert_allclose(right_ear, [*POINTS[0, COCO.index("right_ear"), :2], 1], atol=6e-4)
    assert left_ear.tolist() == [0, 0, 0]
    assert len(second["pose_keypoints_2d"]) == 54
    assert json.loads((out / "000000000009_keypoints.json").read_text())["people"] == []
    assert convert(out, annotated) == 2
    assert "exists already" in capsys.readouterr().err
    assert convert(tmp_path / "nan", annotated, "--keypoint-threshold", "nan") == 2
    assert "--keypoint-threshold nan" in capsys.readouterr().err
    assert convert(out, annotated, "--overwrite") == 0


def test_results_with_their_annotations(annotated, tmp_path, capsys):
    row = {"image_id": 9, "category_id": 1, "keypoints": POINTS[1].ravel().tolist(), "score": 0.5, "track_id": 4}
    results = tmp_path / "results.json"
    results.write_text(json.dumps([row]))
    picture = RNG.integers(0, 256, (80, 100, 3), dtype=np.uint8)
    folder = tmp_path / "val2017"
    folder.mkdir()
    for number in (7, 9):
        Image.fromarray(picture).save(folder / f"{number:012d}.png")
    out = tmp_path / "out"
    assert convert(out, results, "--annotations", annotated, "--formats", "overlay", "npz") == 0
    poses = read_poses(out / "000000000009_poses.npz").poses[0]
    np.testing.assert_allclose(poses.keypoints[0], POINTS[1, :, :2])
    assert poses.ids.tolist() == [4]
    np.testing.assert_array_equal(read_image(out / "000000000009_pose.png"), draw_poses(picture, poses))
    np.testing.assert_array_equal(read_image(out / "000000000007_pose.png"), picture)
    assert convert(tmp_path / "b", results) == 2
    assert "Give its --annotations." in capsys.readouterr().err
    results.write_text(json.dumps([row | {"image_id": 8}]))
    assert convert(tmp_path / "b", results, "--annotations", annotated) == 2
    assert "people of image 8" in capsys.readouterr().err


def test_overlays_need_the_pictures(annotated, tmp_path, capsys):
    assert convert(tmp_path / "out", annotated, "--formats", "overlay") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "000000000007.png: no such file" in line
    assert convert(tmp_path / "out", tmp_path / "none.json") == 2
    assert "none.json: no such file" in capsys.readouterr().err
