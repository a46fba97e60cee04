"""Drawn data sets in COCO's and PoseTrack's layout, read back by the loaders and judged by the evaluations."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("embreex")

from PIL import Image

from priorscope.errors import InputError
from priorscope_pose.cli import main
from priorscope_pose.data.coco import read_coco
from priorscope_pose.data.posetrack import read_posetrack
from priorscope_pose.evaluation.coco import coco_figures
from priorscope_pose.evaluation.posetrack import posetrack_figures
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.people import draw_clip, draw_people, write_coco, write_posetrack
from priorscope_pose.people.write import run_lengths
from priorscope_pose.skeletons import COCO, POSETRACK

SMALL = {"height": 80, "width": 64}


def perfect(annotations):
    """The annotated people as predictions."""
    people = [person for person in annotations.people() if person.visible.any()]
    return Predictions(
        annotations.skeleton,
        [person.image_id for person in people],
        np.stack([person.keypoints[:, :2] for person in people]),
        np.ones((len(people), len(annotations.skeleton))),
        np.ones(len(people)),
        present=np.stack([person.visible for person in people]),
    )


def test_run_lengths_are_cocos():
    mask_module = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for mask in (rng.uniform(size=(7, 5)) < 0.5, np.zeros((3, 4), bool), np.ones((3, 4), bool), np.eye(4) > 0):
        coded = run_lengths(mask)
        back = mask_module.decode(mask_module.frPyObjects(coded, *mask.shape))
        assert np.array_equal(back.astype(bool), mask)
        assert sum(coded["counts"]) == mask.size


def test_a_coco_folder_holds_what_was_drawn(tmp_path):
    seeds = [4, 1, 1_000_000_000]
    path = write_coco(tmp_path, seeds, **SMALL, people=2, suffix=".png", split="val2017", progress=False)
    assert path == tmp_path / "annotations/person_keypoints_val2017.json"
    data = read_coco(path)
    data.check_images()
    assert [image.id for image in data] == seeds
    for image in data:
        picture, truth = draw_people(int(image.id), **SMALL, people=2)
        assert np.array_equal(np.asarray(Image.open(image.path)), picture)
        expected = truth.annotated(int(image.id), image.path)
        for one, two in zip(image.people, expected.people, strict=True):
            assert one.id == two.id
            np.testing.assert_allclose(one.box, two.box)
            np.testing.assert_allclose(one.keypoints, two.keypoints, atol=5e-4)
            assert (one.area, one.labelled, one.iscrowd) == (two.area, two.labelled, False)
    assert coco_figures(data, perfect(data))["AP"] == pytest.approx(1.0)
    with pytest.raises(InputError, match="exists"):
        write_coco(tmp_path, seeds, **SMALL, split="val2017", progress=False)


def test_pycocotools_reads_the_file_and_finds_area_and_box_in_the_mask(tmp_path):
    coco_module = pytest.importorskip("pycocotools.coco")
    path = write_coco(tmp_path, [2, 3], **SMALL, people=3, progress=False)
    data = coco_module.COCO(str(path))
    assert data.loadCats(1)[0]["keypoints"] == list(COCO.keypoints)
    assert len(data.loadCats(1)[0]["skeleton"]) == len(COCO.edges)
    for annotation in data.anns.values():
        mask = data.annToMask(annotation)
        assert mask.sum() == annotation["area"]
        rows, columns = np.nonzero(mask)
        size = np.ptp(columns) + 1, np.ptp(rows) + 1
        np.testing.assert_allclose(annotation["bbox"], [columns.min(), rows.min(), *size])
        assert annotation["num_keypoints"] == sum(v > 0 for v in annotation["keypoints"][2::3])


def test_a_posetrack_folder_holds_what_was_filmed(tmp_path):
    folder = write_posetrack(tmp_path, [7, 12], split="val", frames=3, **SMALL, people=2, suffix=".png", progress=False)
    assert folder == tmp_path / "annotations/val"
    data = read_posetrack(folder)
    data.check_images()
    videos = data.videos()
    assert list(videos) == ["000007_people", "000012_people"]
    for seed, frames in zip((7, 12), videos.values(), strict=True):
        images, truths = draw_clip(seed, 3, **SMALL, people=2)
        assert [image.frame for image in frames] == [0, 1, 2]
        for image, picture, truth in zip(frames, images, truths, strict=True):
            assert np.array_equal(np.asarray(Image.open(image.path)), picture)
            drawn = [person for person in truth.people if person.posetrack[:, 2].any()]
            assert [person.track_id for person in image.people] == [person.track_id for person in drawn]
            for one, two in zip(image.people, drawn, strict=True):
                np.testing.assert_allclose(one.keypoints, two.posetrack, atol=5e-4)
                np.testing.assert_allclose(one.head_box, two.head_box, atol=1e-3)
                points = one.keypoints[one.visible, :2]
                np.testing.assert_allclose(one.box[2:] - one.box[:2], 1.3 * np.ptp(points, axis=0), atol=5e-3)
                np.testing.assert_allclose(one.box[:2] + one.box[2:], points.min(0) + points.max(0), atol=5e-3)
    assert posetrack_figures(data, perfect(data))["Total"] == pytest.approx(1.0)


def test_posetracks_file_has_the_fields_of_posetrack18(tmp_path):
    folder = write_posetrack(tmp_path, [7], frames=2, **SMALL, people=1, progress=False)
    file = folder / "000007_people.json"
    content = json.loads(file.read_text())
    assert set(content) == {"categories", "images", "annotations"}
    assert content["categories"][0]["keypoints"] == list(POSETRACK.keypoints)
    first = content["images"][0]
    assert first["file_name"] == "images/train/000007_people/000000.jpg"
    assert (first["id"], first["frame_id"], first["vid_id"], first["nframes"]) == (
        10000070000,
        10000070000,
        "000007",
        2,
    )
    assert first["is_labeled"]
    assert (tmp_path / first["file_name"]).is_file()
    for person in content["annotations"]:
        assert {"bbox", "bbox_head", "track_id", "keypoints", "image_id", "id", "category_id", "scores"} <= set(person)
        assert len(person["keypoints"]) == 51
    # what is there is kept, what is missing is drawn
    before = file.stat().st_mtime_ns
    write_posetrack(tmp_path, [7, 8], frames=2, **SMALL, people=1, progress=False)
    assert file.stat().st_mtime_ns == before
    assert (folder / "000008_people.json").is_file()


@pytest.mark.parametrize(
    "wrong",
    [
        {"seeds": []},
        {"seeds": [1, 1]},
        {"seeds": [-1]},
        {"split": "a_b"},
        {"split": ""},
        {"suffix": ".gif"},
        {"workers": 0},
    ],
)
@pytest.mark.parametrize("write", [write_coco, write_posetrack])
def test_wrong_requests_are_input_errors(write, wrong, tmp_path):
    with pytest.raises(InputError):
        write(tmp_path / "none", **{"seeds": [0], "progress": False, **SMALL, **wrong})
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [["--count", "0"], ["--first-seed", "-5"]])
def test_the_command_names_its_own_options(wrong, tmp_path):
    with pytest.raises(InputError, match=r"--count .* --first-seed"):
        main(["people", "--out", str(tmp_path / "out"), *wrong])


def test_two_workers_write_the_same_files_as_one(tmp_path):
    for name, workers in (("one", 1), ("two", 2)):
        write_coco(tmp_path / name, range(6), **SMALL, workers=workers, progress=False)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
