"""DAIR-V2X-C in miniature."""

import json

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_detection.data.dair import DairV2X, box_of_corners
from priorscope_detection.data.open import open_frames
from priorscope_detection.data.pcd import write_pcd
from priorscope_detection.data.rigid import inverse, move_boxes, move_points, pose_matrix

NOVATEL = pose_matrix([300.0, 200.0, 20.0, 0, 40, 0])
MOUNT = pose_matrix([1.2, 0.1, 1.5, 0, 2, 0])
ROAD = pose_matrix([320.0, 210.0, 25.0, 0, -120, 0])
BOXES = np.array([[310.0, 205, 21.0, 4.4, 1.8, 1.5, 0.7], [330.0, 200, 21.5, 8.0, 2.5, 3.0, -2.5]])
# front before rear, in both of the orders that occur around the box
ORDERS = ([(1, -1), (1, 1), (-1, 1), (-1, -1)], [(1, 1), (1, -1), (-1, -1), (-1, 1)])


def corners(box, order=ORDERS[0]):
    x, y, z, length, w, h, yaw = box
    c, s = np.cos(yaw), np.sin(yaw)
    flat = [(a * length / 2, b * w / 2) for a, b in order]
    return [[x + c * a - s * b, y + s * a + c * b, z + up * h / 2] for up in (-1, 1) for a, b in flat]


def motion(matrix):
    return {"rotation": matrix[:3, :3].tolist(), "translation": matrix[:3, 3:].tolist()}


@pytest.fixture
def written(tmp_path, write_json, box_surface):
    """Two cooperative frames; the unit's recording starts at 000010 and lacks 000012."""
    root = tmp_path / "cooperative-vehicle-infrastructure"

    def cloud(path, pose, box):
        points = move_points(inverse(pose), box_surface(box))
        points[:, 3] = 51
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pcd(path, points)

    rows = []
    for car, road in (("000100", "000013"), ("000101", "000014")):
        rows.append(
            {
                "vehicle_image_path": f"vehicle-side/image/{car}.jpg",
                "vehicle_pointcloud_path": f"vehicle-side/velodyne/{car}.pcd",
                "infrastructure_image_path": f"infrastructure-side/image/{road}.jpg",
                "infrastructure_pointcloud_path": f"infrastructure-side/velodyne/{road}.pcd",
                "cooperative_label_path": f"cooperative/label_world/{car}.json",
                "system_error_offset": {"delta_x": 0.5, "delta_y": -0.25},
            }
        )
        cloud(root / f"vehicle-side/velodyne/{car}.pcd", NOVATEL @ MOUNT, BOXES[0])
        write_json(root / f"vehicle-side/calib/lidar_to_novatel/{car}.json", {"transform": motion(MOUNT)})
        write_json(root / f"vehicle-side/calib/novatel_to_world/{car}.json", motion(NOVATEL))
        labels = [
            {"type": kind, "world_8_points": corners(box, order), "occluded_state": 0}
            for kind, box, order in zip(
                ("Car", "Truck", "Pedestrian"), [*BOXES, BOXES[0]], [*ORDERS, ORDERS[0]], strict=True
            )
        ]
        write_json(root / f"cooperative/label_world/{car}.json", labels)
    write_json(root / "cooperative/data_info.json", rows)
    stems = ("000009", "000010", "000011", "000013", "000014")
    for stem in stems:
        shifted = np.array(ROAD)
        shifted[0, 3] += int(stem)
        cloud(root / f"infrastructure-side/velodyne/{stem}.pcd", ROAD, BOXES[1])
        write_json(root / f"infrastructure-side/calib/virtuallidar_to_world/{stem}.json", motion(shifted))
    info = [{"pointcloud_path": f"velodyne/{stem}.pcd", "batch_id": "1", "batch_start_id": "000010"} for stem in stems]
    write_json(root / "infrastructure-side/data_info.json", info)
    info = [{"pointcloud_path": f"velodyne/{stem}.pcd", "batch_id": "7"} for stem in ("000100", "000101")]
    write_json(root / "vehicle-side/data_info.json", info)
    return root


def test_car_and_unit(written):
    frames = open_frames(written.parent)
    assert isinstance(frames, DairV2X)
    assert [frames.name(i) for i in range(len(frames))] == ["000100", "000101"]
    assert frames.sequence(0) == "7"
    frame = frames.read(0)
    assert [(agent.name, agent.kind) for agent in frame.agents] == [
        ("vehicle", "vehicle"),
        ("infrastructure", "infrastructure"),
    ]
    pose = NOVATEL @ MOUNT
    np.testing.assert_allclose(frame.ego.pose, pose, atol=1e-9)
    np.testing.assert_allclose(frame.agents[1].pose[:3, 3], ROAD[:3, 3] + [13.5, -0.25, 0])
    assert frame.truth.classes == ("car", "truck")
    np.testing.assert_allclose(frame.truth.boxes, move_boxes(inverse(pose), BOXES), atol=1e-6)
    assert frame.points_in_boxes()[0].tolist() == [40, 0]
    np.testing.assert_allclose(frame.ego.points[:, 3], 0.2)


@pytest.mark.parametrize(
    ("delay", "stem", "age"), [(0, 14, 0), (100, 13, 100), (200, 11, 300), (400, 10, 400), (500, 10, 400)]
)
def test_a_delay_stays_within_the_recording(written, delay, stem, age):
    frame = DairV2X(written).read(1, delay=delay)
    assert frame.agents[1].delay == age
    assert frame.agents[1].pose[0, 3] == pytest.approx(ROAD[0, 3] + stem + 0.5)
    assert frame.ego.delay == 0


def test_a_recording_that_says_it_begins_later_has_no_past(written, write_json):
    path = written / "infrastructure-side/data_info.json"
    write_json(path, [{**row, "batch_start_id": "999999"} for row in json.loads(path.read_text())])
    assert DairV2X(written).read(1, delay=200.0).agents[1].delay == 0


def test_splits_and_other_labels(written, write_json):
    assert [DairV2X(written, split=write_json(written / "val.json", ["000101"])).name(0)] == ["000101"]
    write_json(written.parent / "cooperative-split-data.json", {"cooperative_split": {"train": ["000100"]}})
    assert DairV2X(written, split="train").name(0) == "000100"
    with pytest.raises(InputError, match="no list of frame ids for val"):
        DairV2X(written, split="val")
    whole = (written.parent / "cooperative-split-data.json").read_text()
    for wrong in ([], {"cooperative_split": []}):
        write_json(written.parent / "cooperative-split-data.json", wrong)
        with pytest.raises(InputError, match="holds no table of splits"):
            DairV2X(written, split="train")
    (written.parent / "cooperative-split-data.json").write_text(whole)
    with pytest.raises(InputError, match="names none of its 2 frames"):
        DairV2X(written, split=write_json(written / "none.json", ["5"]))
    write_json(written / "cooperative/label_new/000100.json", [{"type": "van", "world_8_points": corners(BOXES[0])}])
    assert DairV2X(written, labels="label_new").read(0).truth.classes == ("van",)


def test_a_command_names_a_split_by_its_path(written, write_json):
    """Train and validation frames lie in one folder: who learns from the folder has seen what she measures by."""
    splits = {"cooperative_split": {"train": ["000100"], "val": ["000101"]}}
    write_json(written / "cooperative-split-data.json", splits)
    write_json(written / "mine.json", ["000101"])
    for data, name in (
        (written / "train", "000100"),
        (written / "val", "000101"),
        (written.parent / "val", "000101"),
        (written / "mine.json", "000101"),
    ):
        frames = open_frames(data)
        assert [frames.name(i) for i in range(len(frames))] == [name]
        assert frames.title == f"{written.name}/{data.name}"
    whole = open_frames(written)
    assert (len(whole), whole.splits) == (2, ("train", "val"))
    assert open_frames(written / "val").splits == ("val",)
    with pytest.raises(InputError, match="no list of frame ids for test"):
        open_frames(written / "test")
    with pytest.raises(InputError, match=r"other\.json: no such file"):
        open_frames(written / "other.json")
    with pytest.raises(InputError, match="no such file or folder"):
        open_frames(written / "validation")


def test_boxes_of_corners():
    for order in ORDERS:
        for box in BOXES:
            np.testing.assert_allclose(box_of_corners(np.array(corners(box, order))), box, atol=1e-9)


def test_broken(written, write_json):
    def refuses(message, index=0, **how):
        with pytest.raises(InputError, match=message):
            DairV2X(written).read(index, **how)

    path = written / "cooperative/label_world/000100.json"
    for wrong in ([[1, 2, 3]], [[1, 2, 10**400]] * 8):
        write_json(path, [{"type": "Car", "world_8_points": wrong}])
        refuses(r"\[0\] world_8_points' is not 8 x 3 finite numbers")
    for flat in (BOXES[0] * [1, 1, 1, 0, 1, 1, 1], BOXES[0] * [1, 1, 1, 1, 1, 0, 1]):
        write_json(path, [{"type": "Car", "world_8_points": corners(flat)}])
        refuses(r"000100.json: \[0\] world_8_points is a box of size .*0\.0")
    path.write_text("[{")
    refuses("is not valid JSON")
    info = written / "cooperative/data_info.json"
    whole = json.loads(info.read_text())
    for wrong in ("1", [1, 2]):
        write_json(info, [{**whole[0], "system_error_offset": wrong}, whole[1]])
        refuses("data_info.json: a 'system_error_offset' is no table")
    write_json(info, whole)
    path = written / "vehicle-side/calib/novatel_to_world/000101.json"
    write_json(path, {"rotation": np.ones((3, 3)).tolist(), "translation": [0, 0, 0]})
    refuses("is no rotation", 1)
    write_json(path, {"rotation": np.eye(3).tolist()})
    refuses("the agent has no pose", 1)
    path.unlink()
    refuses("no such file", 1)
    rows = [{"pointcloud_path": "velodyne/000009.pcd"}]
    write_json(written / "infrastructure-side/data_info.json", rows)
    write_json(written / "cooperative/label_world/000100.json", [])
    refuses("does not list the frame 000013", delay=100)
    info = written / "cooperative/data_info.json"
    content = DairV2X(written)._rows
    write_json(info, [content[0], content[0]])
    with pytest.raises(InputError, match="the vehicle frame 000100 is listed twice"):
        DairV2X(written)
    write_json(info, [{}])
    with pytest.raises(InputError, match="no 'vehicle_pointcloud_path'"):
        DairV2X(written)
    info.unlink()
    with pytest.raises(InputError, match=r"no cooperative/data_info\.json"):
        DairV2X(written)
