"""PoseTrack's two layouts, on miniatures and on the real samples."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from priorscope.errors import InputError
from priorscope_pose.data.boxes import POSETRACK_THRESHOLD, read_boxes
from priorscope_pose.data.posetrack import read_posetrack
from priorscope_pose.skeletons import POSETRACK


def frames(video="000001_test", first=0, **person):
    points = [0.0] * 51
    for joint, place in {"nose": (50, 20), "left_ankle": (40, 90), "right_hip": (60, 55)}.items():
        at = 3 * POSETRACK.index(joint)
        points[at : at + 3] = [*place, 1]
    number = int(video[:6])
    images = [
        {
            "id": 10**10 + number * 10**4 + i,
            "file_name": f"images/val/{video}/{first + i:06d}.jpg",
            "vid_id": video[:6],
            "frame_id": 10**10 + number * 10**4 + i,
            "is_labeled": i != 1,
            "width": 120,
            "height": 100,
            "ignore_regions_x": [[0, 10, 10]],
            "ignore_regions_y": [[0, 0, 10]],
        }
        for i in range(3)
    ]
    annotations = [
        {
            "id": 100 * number + i,
            "image_id": images[2 * i]["id"],
            "category_id": 1,
            "track_id": 5,
            "keypoints": points,
            "bbox_head": [45, 10, 10, 20],
            "bbox": [30.0, 10.0, 40.0, 85.0],
            "scores": [],
        }
        | person
        for i in range(2)
    ]
    return {"categories": [{"id": 1, "name": "person"}], "images": images, "annotations": annotations}


def annolist(**point):
    rect = {
        "x1": [45],
        "y1": [10],
        "x2": [55],
        "y2": [30],
        "track_id": [4],
        "annopoints": [{"point": [{"id": [13], "x": [50.0], "y": [20.0]} | point, {"id": [5], "x": [40], "y": [90]}]}],
    }
    name = "images/bonn_mpii_test_5sec/000342_mpii/00000001.jpg"
    return {
        "annolist": [
            {"image": [{"name": name}], "annorect": [rect], "is_labeled": [1]},
            {"image": [{"name": name.replace("1.jpg", "2.jpg")}], "annorect": []},
        ]
    }


@pytest.fixture
def written(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return path

    return write


def test_a_folder_of_videos(written, tmp_path):
    (tmp_path / "images/val").mkdir(parents=True)
    written("annotations/val/000002_test.json", frames("000002_test"))
    folder = written("annotations/val/000001_test.json", frames()).parent
    found = read_posetrack(folder)
    assert list(found.videos()) == ["000001_test", "000002_test"]
    video = found.videos()["000001_test"]
    assert [image.frame for image in video] == [0, 1, 2]
    assert [image.annotated for image in video] == [True, False, True]
    assert [len(image.people) for image in video] == [1, 0, 1]
    assert video[0].path == tmp_path / "images/val/000001_test/000000.jpg"
    np.testing.assert_array_equal(video[0].ignore_regions[0], [[0, 0], [10, 0], [10, 10]])
    (one,) = video[0].people
    assert one.track_id == 5
    np.testing.assert_array_equal(one.head_box, [45, 10, 55, 30])
    np.testing.assert_array_equal(one.box, [30, 10, 70, 95])
    assert one.labelled == 3


def test_without_a_box_it_is_the_extent(written):
    found = read_posetrack(written("one.json", frames(bbox=None)))
    np.testing.assert_array_equal(next(found.people()).box, [40, 10, 60, 90])  # head box and joints


def test_annolist(written):
    found = read_posetrack(written("annolist.json", annolist()))
    assert found.image("images/bonn_mpii_test_5sec/000342_mpii/00000001.jpg").frame == 1
    (one,) = found.people()
    np.testing.assert_array_equal(one.keypoints[POSETRACK.index("nose")], [50, 20, 1])
    np.testing.assert_array_equal(one.keypoints[POSETRACK.index("left_ankle")], [40, 90, 1])
    assert one.labelled == 2
    assert [image.annotated for image in found] == [True, False]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "is not one of PoseTrack's files"),
        (frames(keypoints=[0] * 45), "annotation 100 has 45 numbers for key points, posetrack needs 17 x 3"),
        (frames(id=1), "two annotations have the id 1"),
        (frames(bbox_head=[1, 2]), "annotation 100: its box is not four numbers"),
        (annolist(id=[15]), "frame 0, person 0 has a joint of id 15"),
        (annolist(x=None), "has an 'annolist' of another form"),
        ({"annolist": [{"annorect": []}]}, "has an 'annolist' of another form .KeyError: 'image'."),
        (annolist(id=["head"]), "has an 'annolist' of another form .ValueError"),
        (annolist(x=["left"]), "has an 'annolist' of another form .ValueError"),
        (frames(track_id="a"), "annotation 100: its track_id is 'a', no whole number"),
        (annolist(x=[float("nan")]), "frame 0, person 0 has a joint that is not finite"),
    ],
)
def test_broken(written, content, message):
    with pytest.raises(InputError, match=message):
        read_posetrack(written("one.json", content))


def test_broken_region(written):
    content = frames()
    content["images"][0]["ignore_regions_y"] = [[1, 2]]
    with pytest.raises(InputError, match="ignore regions with other numbers of x than of y"):
        read_posetrack(written("one.json", content))


def test_an_empty_folder(tmp_path):
    with pytest.raises(InputError, match=r"holds no \.json file"):
        read_posetrack(tmp_path)


def test_real_samples(shared_data):
    folder = shared_data("pose") / "posetrack18"
    merged = read_posetrack(folder / "annotations/test_posetrack18_val.json")
    merged.check_images()
    assert (len(merged), len(list(merged.people()))) == (3, 14)
    apart = read_posetrack(folder / "annotations/val")
    apart.check_images()
    assert {p.id for p in apart.people()} == {p.id for p in merged.people()}
    for image in merged:
        with Image.open(image.path) as picture:
            assert picture.size == (image.width, image.height)
        for one in image.people:
            assert not one.visible[3:5].any()  # ears are never labelled
            assert one.head_box is not None
    boxes = read_boxes(folder / "annotations/test_posetrack18_human_detections.json", merged)
    assert len(boxes) + boxes.left_out == 278
    kept = read_boxes(
        folder / "annotations/test_posetrack18_human_detections.json", merged, threshold=POSETRACK_THRESHOLD
    )
    assert all((kept.of(image.id).scores >= 0.2).all() for image in merged)
    assert len(kept) < len(boxes)
