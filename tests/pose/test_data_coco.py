"""Readers of COCO's layout and its relatives, on miniatures and on the real samples."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from PIL import Image

from priorscope.errors import InputError
from priorscope_pose.data.boxes import POSETRACK_THRESHOLD, annotated_boxes, read_boxes
from priorscope_pose.data.coco import PART_FIELDS, image_folder, read_coco, read_coco_wholebody
from priorscope_pose.data.crowdpose import read_crowdpose
from priorscope_pose.data.humanart import read_humanart
from priorscope_pose.data.jhmdb import read_jhmdb


def person(number, image, keypoints=17, **changes):
    """A record of a person; ``changes`` replace fields, None takes one out."""
    points = [[10.0 + i, 20.0 + i, 1 + i % 2] for i in range(keypoints)]
    record = {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "bbox": [5.0, 6.0, 40.0, 50.0],
        "keypoints": [value for point in points for value in point],
        "num_keypoints": keypoints,
        "area": 1200.0,
        "iscrowd": 0,
    }
    return {name: value for name, value in (record | changes).items() if value is not None}


def content(*people, **image):
    return {
        "categories": [{"id": 1, "name": "person"}],
        "images": [
            {"id": 7, "file_name": "000000000007.jpg", "width": 64, "height": 80} | image,
            {"id": 3, "file_name": "000000000003.jpg", "width": 64, "height": 80} | image,
        ],
        "annotations": list(people),
    }


@pytest.fixture
def written(tmp_path):
    """``written(content, name)``: a file below tmp_path with pictures where COCO has them."""

    def write(value, name="annotations/person_keypoints_val2017.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write


def test_coco_miniature(written, tmp_path):
    (tmp_path / "val2017").mkdir()
    for name in (3, 7):
        Image.new("RGB", (64, 80)).save(tmp_path / f"val2017/{name:012d}.jpg")
    crowd = person(2, 7, iscrowd=1, num_keypoints=0) | {"keypoints": [0] * 51}
    found = read_coco(written(content(person(1, 7), crowd, person(9, 3, area=None))))
    found.check_images()
    assert [image.id for image in found] == [7, 3]
    assert [[p.id for p in image.people] for image in found] == [[1, 2], [9]]
    first, second, third = found.people()
    np.testing.assert_array_equal(first.box, [5, 6, 45, 56])
    np.testing.assert_array_equal(first.keypoints[3], [13, 23, 2])
    assert (first.area, first.labelled, first.iscrowd) == (1200, 17, False)
    assert second.iscrowd
    assert not second.visible.any()
    assert third.area == pytest.approx(0.53 * 40 * 50)
    assert [p.id for _, p in found.usable_people()] == [1, 9]
    assert found.image(3).path == tmp_path / "val2017/000000000003.jpg"
    assert 5 not in found


def test_coco_ood_is_another_folder_of_pictures(written, tmp_path):
    found = read_coco(written(content(person(1, 7))), tmp_path / "val2017oil")
    assert found.image(7).path == tmp_path / "val2017oil/000000000007.jpg"
    with pytest.raises(InputError, match=r"val2017oil/000000000007.jpg: no such picture; 2 of 2 are missing.*folder"):
        found.check_images()


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("annotations/person_keypoints_val2017.json", "val2017"),
        ("annotations/person_keypoints_val2017.json", "images/val2017"),
        ("annotations/coco_wholebody_val_v1.0.json", "val2017"),
        ("annotations/instances_train.json", "images/train"),
        ("somewhere.json", "."),
    ],
)
def test_where_pictures_lie(tmp_path, file, folder):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "test2017").mkdir()
    assert image_folder(tmp_path / file) == tmp_path / folder


def test_wholebody_joins_its_parts(written):
    sizes = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
    assert list(sizes) == list(PART_FIELDS.values())
    parts = {name: [value for i in range(k) for value in (i, 10 * k, 1)] for name, k in sizes.items()}
    found = read_coco_wholebody(written(content(person(1, 7) | parts)))
    keypoints = next(found.people()).keypoints
    assert keypoints.shape == (133, 3)
    np.testing.assert_array_equal(keypoints[:, 1], 10.0 * np.repeat(list(sizes.values()), list(sizes.values())))
    np.testing.assert_array_equal(keypoints[[17, 23, 91, 112], 0], 0)  # where parts begin
    joined = read_coco_wholebody(written(content(person(1, 7, keypoints=133, num_keypoints=1))))
    assert next(joined.people()).visible.all()
    del parts["face_kpts"]
    with pytest.raises(InputError, match="annotation 1 has no 'face_kpts'"):
        read_coco_wholebody(written(content(person(1, 7) | parts)))


def test_crowdpose_miniature(written, tmp_path):
    (tmp_path / "images").mkdir()
    record = person(1, 7, keypoints=14, num_keypoints=3)
    found = read_crowdpose(written(content(record, crowdIndex=0.25), "json/crowdpose_test.json"))
    (one,) = found.people()
    assert one.area == pytest.approx(0.53 * 2000)  # of the box, although the file states 1200
    assert one.labelled == 3
    assert found.image(7).crowd_index == 0.25
    assert found.image(7).path == tmp_path / "images/000000000007.jpg"


def test_humanart_miniature(written, tmp_path):
    name = "HumanArt/images/real_human/acrobatics/000000000007.jpg"
    value = content(person(1, 7, keypoints_21=[0] * 63, self_contact=[], annotator=1))
    value["images"] = [value["images"][0] | {"file_name": name}]
    found = read_humanart(written(value, "HumanArt/annotations/validation_humanart.json"))
    assert found.image(7).path == tmp_path / name
    assert found.skeleton.name == "humanart"


def test_jhmdb_counts_from_zero(written):
    points = [value for i in range(15) for value in (1.0 + i, 2.0, 2.0)]
    record = person(1, 2280001, num_keypoints=None, area=None, bbox=[1.0, 1.0, 100.0, 50.0], track_id=0)
    value = content(record | {"keypoints": points})
    value["images"] = [{"id": 2280001, "file_name": "CLIP/00001.png", "width": 64, "height": 80}]
    found = read_jhmdb(written(value, "test_sub1.json"))
    (one,) = found.people()
    np.testing.assert_array_equal(one.keypoints[:2], [[0, 1, 2], [1, 1, 2]])
    np.testing.assert_array_equal(one.box, [0, 0, 100, 50])
    assert one.area == pytest.approx(0.53 * 63 * 50)  # cut at the last pixel
    assert (found.image(2280001).video, found.image(2280001).frame) == ("CLIP", 1)


BROKEN = {
    "cut off": ('{"images": [', "not valid JSON"),
    "a list": ("[]", "holds a JSON list, not an object"),
    "no annotations": ({"images": []}, "has no 'annotations'"),
    "no person": (content() | {"categories": [{"id": 1, "name": "dog"}]}, "has no category 'person', but dog"),
    "wrong number of key points": (content(person(4, 7, keypoints=14)), "annotation 4 has 42 numbers .* 17 x 3"),
    "no numbers": (content(person(4, 7) | {"keypoints": ["a"] * 51}), "annotation 4: its key points are no list"),
    "no box": (content(person(4, 7, bbox=None)), "annotation 4 has no 'bbox'"),
    "half a box": (content(person(4, 7, bbox=[1, 2, 3])), "annotation 4: its box is not four numbers"),
    "NaN in a box": (content(person(4, 7, bbox=[1, 2, float("nan"), 3])), "annotation 4: its box is not finite"),
    "NaN key point": (content(person(4, 7) | {"keypoints": [float("nan")] * 51}), "key point that is not finite"),
    "same annotation id": (content(person(4, 7), person(4, 3)), "two annotations have the id 4"),
    "image not listed": (content(person(4, 8)), "annotation 4 belongs to image 8, which is not listed"),
    "no image id": (content(person(4, None)), "annotation 4 has no 'image_id'"),
    "null as an image id": (content(person(4, 7) | {"image_id": None}), "annotation 4: its image_id is None, neither"),
    "NaN area": (content(person(4, 7, area=float("nan"))), "annotation 4: its area is nan"),
    "negative area": (content(person(4, 7, area=-5.0)), "annotation 4: its area is -5"),
    "text as a count": (
        content(person(4, 7, num_keypoints="many")),
        "annotation 4: its num_keypoints is 'many'",
    ),
    "text as a track": (content(person(4, 7, track_id="a")), "annotation 4: its track_id is 'a', no whole"),
    "half a track": (content(person(4, 7, track_id=0.5)), "annotation 4: its track_id is 0.5, no whole"),
    "a category without an id": (content() | {"categories": [{"name": "person"}]}, "category 0 has no 'id'"),
    "a category by name": (content() | {"categories": ["person"]}, "category 0 is no object"),
    "categories by name": (content() | {"categories": {"1": "person"}}, "its 'categories' are no list"),
    "a number as annotation": (content(3), "annotation 0 is no object"),
    "a number as image": ({"images": [3], "annotations": []}, "image 0 is no object"),
    "images by name": ({"images": {}, "annotations": []}, "its 'images' are no list"),
    "width as text": (content(width="wide"), "image 7: its width is 'wide'"),
    "no file name": ({"images": [{"id": 1}], "annotations": []}, "image 1 has no 'file_name'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_annotations(written, name):
    value, message = BROKEN[name]
    path = written(copy.deepcopy(value))
    with pytest.raises(InputError, match=message) as caught:
        read_coco(path)
    assert caught.value.path == str(path)


def test_same_image_id(written):
    value = content(person(1, 7))
    value["images"].append(value["images"][0])
    with pytest.raises(InputError, match="two images have the id 7"):
        read_coco(written(value))


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_coco(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_coco(tmp_path)


def test_people_who_cannot_be_cropped_still_count(written):
    found = read_coco(
        written(
            content(
                person(1, 7) | {"keypoints": []},  # no pose
                person(2, 7, bbox=[5, 6, 0, 10]),  # no area
                person(3, 7, bbox=[64, 10, 20, 20]),  # right of the image
                person(4, 7, bbox=[-10, -10, 20, 20]),  # partly inside
            )
        )
    )
    assert len(list(found.people())) == 4
    assert [p.id for _, p in found.usable_people()] == [4]
    boxes = annotated_boxes(found)
    np.testing.assert_array_equal(boxes.of(7).boxes, [[0, 0, 10, 10]])
    np.testing.assert_array_equal(boxes.of(7).ids, [4])
    assert boxes.left_out == 3


def test_detector_boxes(written):
    annotations = read_coco(written(content(person(1, 7))))
    rows = [
        {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.9},  # not a person
        {"image_id": 7, "category_id": 1, "bbox": [1, 2, 0, 4], "score": 0.8},  # no area
        {"image_id": 3, "category_id": 1, "bbox": [70, 2, 3, 4], "score": 0.7},  # outside
        {"image_id": 3, "category_id": 1, "bbox": [-5, 2, 30, 4], "score": 0.1},  # partly inside
    ]
    path = written(rows, "boxes.json")
    found = read_boxes(path, annotations)
    assert (len(found), found.left_out) == (2, 2)
    np.testing.assert_array_equal(found.of(7).boxes, [[1, 2, 4, 6]])
    np.testing.assert_array_equal(found.of(3).boxes, [[-5, 2, 25, 6]])  # not clipped
    assert (found.of(7).ids.tolist(), found.of(3).ids.tolist()) == ([0], [3])
    assert len(found.of(99)) == 0
    assert len(read_boxes(path)) == 3  # without the images' sizes
    assert len(read_boxes(path, annotations, threshold=POSETRACK_THRESHOLD)) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "holds a JSON dict, not a list"),
        ([1], "box 0 is no object"),
        ([{"image_id": 7, "bbox": [1, 2, 3, 4]}], "box 0 has no 'score'"),
        ([{"image_id": 7, "bbox": [1, 2, 3, 4], "score": float("nan")}], "box 0: its score is nan"),
        ([{"image_id": 7, "bbox": [1, 2, 3, float("inf")], "score": 1}], "box 0: its box is not finite"),
        ([{"image_id": 8, "bbox": [1, 2, 3, 4], "score": 1}], "box 0 belongs to image 8"),
    ],
)
def test_broken_boxes(written, rows, message):
    annotations = read_coco(written(content(person(1, 7))))
    with pytest.raises(InputError, match=message):
        read_boxes(written(rows, "boxes.json"), annotations)


def test_real_samples(shared_data):
    folder = shared_data("pose")
    coco = read_coco(folder / "coco/test_coco.json")
    coco.check_images()
    assert (len(coco), len(list(coco.people())), len(coco.usable_people())) == (4, 14, 12)
    inside = []
    for image, one in coco.usable_people():
        with Image.open(image.path) as picture:
            assert picture.size == (image.width, image.height)
        seen = one.keypoints[one.visible, :2]
        inside.append(((seen >= one.box[:2] - 2) & (seen <= one.box[2:] + 2)).all(1))
        assert one.labelled == one.visible.sum()
    assert np.concatenate(inside).mean() > 0.95  # an ankle may lie below a box
    boxes = read_boxes(folder / "coco/test_coco_det_AP_H_56.json", coco)
    assert len(boxes) + boxes.left_out == 118
    assert boxes.left_out == 0

    joined = read_coco_wholebody(folder / "coco/test_keypoint_partition_metric.json")
    assert next(joined.people()).keypoints.shape == (133, 3)

    crowd = read_crowdpose(folder / "crowdpose/test_crowdpose.json")
    crowd.check_images()
    assert (len(crowd), len(list(crowd.people()))) == (2, 5)
    assert crowd.image(106848).crowd_index == 0.33
    assert len(read_boxes(folder / "crowdpose/test_crowdpose_det_AP_40.json", crowd)) == 6

    jhmdb = read_jhmdb(folder / "jhmdb/test_jhmdb_sub1.json")
    jhmdb.check_images()
    assert [image.frame for image in jhmdb] == [1, 1, 1]
    first = next(jhmdb.people())
    np.testing.assert_allclose(first.keypoints[0], [97.851746, 91.59851, 2])
    np.testing.assert_array_equal(first.box, [78, 61, 132, 220])
