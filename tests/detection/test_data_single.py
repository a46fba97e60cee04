"""KITTI and nuScenes: miniatures, the real samples where they are, and one real sweep as two virtual agents."""

import json
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from priorscope.errors import InputError
from priorscope_detection.checkpoints import Detector
from priorscope_detection.data.kitti import (
    Kitti,
    camera_label,
    count_in_label,
    lidar_box,
    read_calibration,
    read_labels,
)
from priorscope_detection.data.nuscenes import NuScenes, NuScenesInfo, quaternion_matrix
from priorscope_detection.data.open import open_frames
from priorscope_detection.data.rigid import count_in_boxes, inverse, move_boxes, move_points, pose_matrix
from priorscope_detection.data.virtual import virtual_agents
from priorscope_detection.messages import messages
from priorscope_detection.network.batch import make_batch
from priorscope_detection.network.detector import CollaborativeDetector
from priorscope_detection.network.spec import SIZES
from priorscope_detection.post_processing import PostProcessing
from priorscope_detection.predictor import Predictor

POINT = np.zeros((1, 5), np.float32)
TO_CAMERA = np.array([[0.0, -1, 0, 0.1], [0, 0, -1, -0.2], [1, 0, 0, -0.3], [0, 0, 0, 1]])
#: 100 pixels a radian, the middle at (200, 50)
P2 = "100 0 200 0 0 100 50 0 0 0 1 0"
BOX = np.array([15.0, -3.0, -0.8, 4.2, 1.7, 1.5, 0.6])


@pytest.fixture
def kitti(tmp_path, box_surface):
    root = tmp_path / "training"
    for name in ("velodyne", "calib", "label_2"):
        (root / name).mkdir(parents=True)
    for stem in ("000003", "000001"):
        box_surface(BOX).tofile(root / f"velodyne/{stem}.bin")
        rows = " ".join(repr(float(v)) for v in TO_CAMERA[:3].ravel())
        eye = " ".join(repr(float(v)) for v in np.eye(3).ravel())
        (root / f"calib/{stem}.txt").write_text(f"P0: 1 0\nP2: {P2}\nR0_rect: {eye}\nTr_velo_to_cam: {rows}\n\n")
        label = camera_label(BOX, TO_CAMERA, "Car")
        numbers = " ".join(repr(float(v)) for v in (*label.size, *label.bottom, label.turn))
        (root / f"label_2/{stem}.txt").write_text(
            f"Car 0.00 1 -1.5 0 0 9 9 {numbers}\nDontCare -1 -1 -10 0 0 1 1 {'-1 ' * 7}\n"
        )
    return root


def test_kitti_in_miniature(kitti):
    frames = open_frames(kitti.parent)
    assert isinstance(frames, Kitti)
    assert [frames.name(i) for i in range(len(frames))] == ["000001", "000003"]
    frame = frames.read(0)
    np.testing.assert_allclose(frame.truth.boxes, [BOX], atol=1e-9)
    assert frame.truth.classes == ("car",)
    assert frame.points_in_boxes().tolist() == [[40]]
    (label,) = read_labels(kitti / "label_2/000001.txt")
    assert (label.occluded, label.truncated) == (1, 0)
    # by hand: camera z is LiDAR x - 0.3, camera y of the underside is -(z - h/2) - 0.2
    np.testing.assert_allclose(label.bottom, [3.0 + 0.1, 0.8 + 0.75 - 0.2, 15 - 0.3], atol=1e-9)
    assert label.turn == pytest.approx(-0.6 - np.pi / 2)


def test_broken_kitti(kitti):
    (kitti / "label_2/000001.txt").write_text("Car 1 2 3\n")
    with pytest.raises(InputError, match=r"000001.txt: line 1 is not a word and 14"):
        open_frames(kitti).read(0)
    for size in ("0 0 0", "1.5 1.6 0", "-1 -1 -1"):
        rows = f"DontCare -1 -1 -10 1 1 2 2 -1 -1 -1 0 0 0 0\nCar 0 0 0 1 1 2 2 {size} 0 5 1 0\n"
        (kitti / "label_2/000001.txt").write_text(rows)
        with pytest.raises(InputError, match=r"000001.txt: line 2: its height, width, length .* are not positive"):
            open_frames(kitti).read(0)
    whole = (kitti / "calib/000001.txt").read_text()
    for key, wrong in (("Tr_velo_to_cam", "0 -1 0 nan 0 0 -1 0 1 0 0 0"), ("R0_rect", "1 0 0 0 1 0 0 0 -1")):
        (kitti / "calib/000001.txt").write_text(re.sub(f"{key}: .*", f"{key}: {wrong}", whole))
        with pytest.raises(InputError, match=rf"000001.txt: its {key} is no rigid motion"):
            open_frames(kitti).read(0)
    (kitti / "calib/000001.txt").write_text("R0_rect: 1 2 3\n")
    with pytest.raises(InputError, match="no Tr_velo_to_cam of 12 numbers"):
        open_frames(kitti).read(0)
    (kitti / "calib/000001.txt").unlink()
    with pytest.raises(InputError, match="no such file"):
        open_frames(kitti).read(0)
    with pytest.raises(InputError, match=r"no velodyne/\*.bin"):
        Kitti(kitti / "calib")


def test_the_cameras_view_of_kitti(kitti):
    """By hand: pixels are 200 + 100 x / z and 50 + 100 y / z of the camera's x, y, z."""
    Image.new("RGB", (400, 100)).save(kitti / "image_2.png")
    (kitti / "image_2").mkdir()
    (kitti / "image_2.png").rename(kitti / "image_2/000001.png")
    frames = Kitti(kitti)
    camera = frames.camera(0)
    assert (camera.width, camera.height) == (400, 100)
    assert frames.camera(1).width == 1242  # no picture there
    box = np.array([2.0, 2.0, 4.0]), np.array([0.0, 1.0, 10.0])  # h, w, l; middle of the underside
    across = camera.rectangle(*box, 0.0)
    np.testing.assert_allclose(across, [200 - 200 / 9, 50 - 100 / 9, 200 + 200 / 9, 50 + 100 / 9])
    np.testing.assert_allclose(camera.rectangle(*box, np.pi / 2), [200 - 100 / 8, 37.5, 212.5, 62.5])
    # beside the camera: what is behind it does not count, the rest is cut at the border
    near = camera.rectangle(box[0], np.array([3.0, 1.0, 0.5]), np.pi / 2)
    assert near is not None
    np.testing.assert_allclose(near, [200 + 100 * 2 / 2.5, 0, 399, 99])
    for away in ([0.0, 1.0, -10.0], [50.0, 1.0, 10.0]):
        assert camera.rectangle(box[0], np.array(away), 0.0) is None
    to_camera = inverse(pose_matrix(np.zeros(6)))
    points = np.array([[0.0, 0, 10], [19.9, 0, 10], [20.1, 0, 10], [0, 4.9, 10], [0, 5.1, 10], [0, 0, -10]])
    assert camera.sees(points, to_camera).tolist() == [True, True, False, True, False, False]


def test_learning_and_measuring_by_kittis_labels_is_in_its_view(kitti, box_surface):
    behind = BOX * [-1, 1, 1, 1, 1, 1, 1]
    np.concatenate([box_surface(BOX), box_surface(behind)]).tofile(kitti / "velodyne/000001.bin")
    assert len(open_frames(kitti).read(0).ego.points) == 80
    seen = open_frames(kitti, labelled=True).read(0)
    assert len(seen.ego.points) == 40
    assert seen.points_in_boxes().tolist() == [[40]]
    calibration = (kitti / "calib/000001.txt").read_text()
    (kitti / "calib/000001.txt").write_text(calibration.replace("P2", "P9"))
    with pytest.raises(InputError, match="no P2 of 12 numbers"):
        open_frames(kitti, labelled=True).read(0)
    (kitti / "calib/000001.txt").write_text(calibration)
    (kitti / "image_2").mkdir()
    (kitti / "image_2/000001.png").write_bytes(b"none")
    with pytest.raises(InputError, match=r"000001.png: is no picture"):
        open_frames(kitti, labelled=True).read(0)


def test_real_kitti_rectangles_are_round_the_boxes(shared_data):
    """The picture's labels were drawn by hand: the edges of the person's box stand out."""
    root = shared_data("detection") / "kitti_full/training"
    frames, compared = Kitti(root), 0
    for index in range(3):
        path = root / f"label_2/{frames.name(index)}.txt"
        rows = [line.split() for line in path.read_text().splitlines() if not line.startswith("DontCare")]
        for label, row in zip(read_labels(path), rows, strict=True):
            found = frames.camera(index).rectangle(label.size, label.bottom, label.turn)
            told = np.array(row[4:8], float)
            assert found is not None
            common = (np.minimum(found[2:], told[2:]) - np.maximum(found[:2], told[:2])).prod()
            assert common / ((found[2:] - found[:2]).prod() + (told[2:] - told[:2]).prod() - common) > 0.85
            assert np.abs(found - told)[[1, 3]].max() < 3
            compared += 1
    assert compared == 6


#: points in each labelled box; below: how far the box is drawn down to the ground for the published counts
COUNTS = {0.1: [412, 70, 9, 18, 1429, 80], 0.0: [376, 70, 9, 18, 1351, 67]}


@pytest.mark.parametrize("below", COUNTS)
def test_points_in_real_kitti_boxes(shared_data, below):
    root = shared_data("detection") / "kitti_full/training"
    frames = Kitti(root)
    found, kinds, near = [], [], []
    for index in range(3):
        frame = frames.read(index)
        to_camera = read_calibration(root / f"calib/{frame.name}.txt")
        for label in read_labels(root / f"label_2/{frame.name}.txt"):
            found.append(count_in_label(frame.ego.points, label, to_camera, below=below))
            kinds.append(label.kind)
        near += count_in_boxes(frame.ego.points, frame.truth.boxes, below=below).tolist()
    assert kinds == ["Pedestrian", "Truck", "Car", "Cyclist", "Misc", "Car"]
    assert found == COUNTS[below]
    # the boxes of seven numbers are upright in the LiDAR frame, not in the camera's
    np.testing.assert_allclose(near, found, rtol=0.03, atol=2)


def test_real_kitti_labels_there_and_back(shared_data):
    root = shared_data("detection") / "kitti_full/training"
    to_camera = read_calibration(root / "calib/000001.txt")
    for label in read_labels(root / "label_2/000001.txt"):
        again = camera_label(lidar_box(label, to_camera), to_camera, label.kind)
        np.testing.assert_allclose(again.bottom, label.bottom, atol=0.03)
        np.testing.assert_allclose(again.size, label.size)
        assert again.turn == pytest.approx(label.turn, abs=1e-3)


def test_real_nuscenes_info(shared_data):
    path = next((shared_data("detection") / "mmdet3d_demo/nuscenes").glob("*.pkl"))
    frames = open_frames(path)
    assert isinstance(frames, NuScenesInfo)
    frame = frames.read(0)
    assert frame.ego.points.shape == (34688, 4)
    assert 0 <= frame.ego.points[:, 3].min() <= frame.ego.points[:, 3].max() <= 1
    assert len(frame.truth) == 69
    assert {"car", "pedestrian", "truck"} <= set(frame.truth.classes)
    from priorscope.data.safe_pickle import safe_loads

    told = np.array([row["num_lidar_pts"] for row in safe_loads(path.read_bytes())["data_list"][0]["instances"]])
    assert (told >= 5).sum() == 28
    counts = frame.points_in_boxes()[0]
    # told counts come from the boxes in the world frame, where they stand upright; a few points at faces differ
    assert np.mean(counts == told) > 0.75
    np.testing.assert_allclose(counts, told, rtol=0.12, atol=2)


@pytest.fixture
def nuscenes(tmp_path, write_json, box_surface):
    mount = pose_matrix([0.9, 0, 1.8, 0, -90, 0])
    place = pose_matrix([400, 1000, 0, 0, 60, 0])
    world = move_boxes(place @ mount, BOX[None])[0]

    def half(yaw):
        return [np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]

    x, y, z, length, w, h, yaw = world
    tables = {
        "scene": [{"token": "S"}],
        "sample": [
            {"token": "s1", "scene_token": "S", "timestamp": 2},
            {"token": "s0", "scene_token": "S", "timestamp": 1},
        ],
        "sensor": [{"token": "L", "channel": "LIDAR_TOP"}, {"token": "C", "channel": "CAM_FRONT"}],
        "calibrated_sensor": [
            {"token": "l", "sensor_token": "L", "translation": [0.9, 0, 1.8], "rotation": half(-np.pi / 2)},
            {"token": "c", "sensor_token": "C", "translation": [0, 0, 0], "rotation": [1, 0, 0, 0]},
        ],
        "ego_pose": [{"token": "e", "translation": [400, 1000, 0], "rotation": half(np.pi / 3)}],
        "category": [{"token": "k", "name": "vehicle.car"}, {"token": "p", "name": "human.pedestrian.adult"}],
        "instance": [{"token": "i", "category_token": "k"}, {"token": "j", "category_token": "p"}],
        "sample_annotation": [
            {
                "token": t,
                "sample_token": "s0",
                "instance_token": i,
                "translation": [x, y, z],
                "size": [w, length, h],
                "rotation": half(yaw),
            }
            for t, i in (("a", "i"), ("b", "j"))
        ],
        "sample_data": [],
    }
    for token, sample, key, mounted in (
        ("d1", "s1", True, "l"),
        ("d0", "s0", True, "l"),
        ("x", "s0", False, "l"),
        ("y", "s0", True, "c"),
    ):
        name = f"samples/LIDAR_TOP/{token}.pcd.bin"
        tables["sample_data"].append(
            {
                "token": token,
                "sample_token": sample,
                "ego_pose_token": "e",
                "calibrated_sensor_token": mounted,
                "timestamp": int(sample[1]),
                "filename": name,
                "is_key_frame": key,
            }
        )
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        points = box_surface(BOX) * np.array([1, 1, 1, 255], np.float32)
        np.concatenate([points, np.zeros((40, 1), np.float32)], axis=1).tofile(path)
    for name, rows in tables.items():
        write_json(tmp_path / f"v1.0-mini/{name}.json", rows)
    return tmp_path


def test_nuscenes_tables(nuscenes):
    frames = open_frames(nuscenes)
    assert isinstance(frames, NuScenes)
    assert [frames.name(i) for i in range(len(frames))] == ["s0", "s1"]
    frame = frames.read(0)
    np.testing.assert_allclose(frame.truth.boxes, [BOX, BOX], atol=1e-6)
    assert frame.truth.classes == ("vehicle.car", "human.pedestrian.adult")
    assert frame.truth.ids == ("i", "j")
    assert frame.points_in_boxes()[0].tolist() == [40, 40]
    np.testing.assert_allclose(frame.ego.points[:, 3], 1)
    assert NuScenes(nuscenes, classes=["vehicle"]).read(0).truth.ids == ("i",)
    assert len(frames.read(1).truth) == 0


def test_broken_nuscenes(nuscenes, write_json, tmp_path):
    with pytest.raises(InputError, match=r"holds no v1\.0-test"):
        NuScenes(nuscenes, version="v1.0-test")
    for table, column, wrong in (
        ("calibrated_sensor", "sensor_token", ["L"]),
        ("sample_data", "calibrated_sensor_token", {}),
        ("sample_data", "ego_pose_token", None),
        ("sample_data", "timestamp", "1"),
        ("sample_data", "filename", 3),
        ("sample_annotation", "sample_token", {}),
        ("sample_annotation", "size", "1 1 1"),
    ):
        other = nuscenes / f"v1.0-mini/{table}.json"
        whole = json.loads(other.read_text())
        write_json(other, [{**whole[0], column: wrong}, *whole[1:]])
        with pytest.raises(InputError, match=rf"{table}.json: row \w+ has a '{column}' that is no"):
            open_frames(nuscenes)
        write_json(other, whole)
    path = nuscenes / "v1.0-mini/sample_annotation.json"
    rows = json.loads(path.read_text())
    write_json(path, [{**rows[0], "size": [1.0, 0.0, 1.0]}])
    with pytest.raises(InputError, match=r"sample_annotation.json: row a: its size .* is not positive"):
        open_frames(nuscenes).read(0)
    write_json(nuscenes / "v1.0-mini/ego_pose.json", [])
    with pytest.raises(InputError, match=r"ego_pose.json: has no row e"):
        open_frames(nuscenes).read(0)
    write_json(path, [{"token": "a", "instance_token": "i", "size": [1, 1, 1]}])
    with pytest.raises(InputError, match=r"sample_annotation.json: row a has no 'sample_token'"):
        open_frames(nuscenes)
    write_json(nuscenes / "v1.0-mini/ego_pose.json", {"a": 1})
    with pytest.raises(InputError, match="no list of rows"):
        open_frames(nuscenes)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(print))
    with pytest.raises(InputError, match="asks for"):
        open_frames(tmp_path / "a.pkl")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(InputError, match="no 'data_list'"):
        open_frames(tmp_path / "b.pkl")


EYE = np.eye(4).tolist()


@pytest.mark.parametrize(
    ("changes", "row", "message"),
    [
        ({"metainfo": 3}, {}, "'metainfo' is no table"),
        ({"metainfo": {"categories": ["car"]}}, {}, "'categories' is no table"),
        ({"metainfo": {"categories": {"car": "x"}}}, {}, "'categories car' is not 1 finite number"),
        ({"data_list": [1]}, {}, r"'data_list\[0\]' is no table"),
        ({"data_list": []}, {}, "names no frame"),
        ({}, {"lidar_points": 3}, "'lidar_points of frame 0' is no table"),
        ({}, {"lidar_points": {"lidar_path": "x.pcd.bin", "num_pts_feats": "five"}}, "'num_pts_feats of frame 0'"),
        ({}, {"ego2global": [1, 2]}, "'ego2global' is not 4 x 4"),
        ({}, {"instances": 5}, "'instances' of frame 0 is no list"),
        ({}, {"instances": [3]}, r"'instances\[0\] of frame 0' is no table"),
        ({}, {"instances": [{"bbox_3d": [0, 0, 0, 0, 1, 1, 0]}]}, r"size \[0.0, 1.0, 1.0\] is not positive"),
        ({}, {"instances": [{"bbox_3d": [0, 0, 0, 1, 1, 1, 0], "bbox_label_3d": None}]}, "'bbox_label_3d of instances"),
    ],
)
def test_broken_infos_of_mmdetection3d(tmp_path, changes, row, message):
    POINT.tofile(tmp_path / "x.pcd.bin")
    lidar = {"lidar_path": "x.pcd.bin", "num_pts_feats": 5, "lidar2ego": EYE}
    whole = {"lidar_points": lidar, "ego2global": EYE, "instances": [{"bbox_3d": [0, 0, 0, 1, 1, 1, 0]}]}
    content = {"metainfo": {"categories": {"car": 0}}, "data_list": [whole | row]} | changes
    path = tmp_path / "infos.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        open_frames(path).read(0)
    assert "infos.pkl" in str(caught.value)
    path.write_bytes(pickle.dumps({"data_list": [whole]}))
    assert open_frames(path).read(0).truth.classes == ("",)


def test_quaternions():
    np.testing.assert_allclose(
        quaternion_matrix(np.array([2.0, 0, 0, 2.0])), [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12
    )
    with pytest.raises(InputError, match="zero quaternion"):
        quaternion_matrix(np.zeros(4))


@pytest.mark.parametrize("how", ["azimuth", "random"])
def test_two_virtual_agents_are_the_sweep_again(kitti, how):
    whole = open_frames(kitti).read(0)
    pair = virtual_agents(whole, how=how)
    assert [agent.name for agent in pair.agents] == ["kitti", "virtual"]
    assert sum(len(agent.points) for agent in pair.agents) == len(whole.ego.points)
    assert min(len(agent.points) for agent in pair.agents) > 0 or how == "azimuth"
    np.testing.assert_allclose(np.sort(pair.merged_points(), axis=0), np.sort(whole.ego.points, axis=0), atol=1e-4)
    np.testing.assert_allclose(pair.to_ego()[1], pose_matrix([12, 4, 0, 0, 30, 0]), atol=1e-9)
    with pytest.raises(InputError, match="has 2 agents"):
        virtual_agents(pair)


def test_a_real_sweep_as_two_virtual_agents(shared_data):
    """An integration check on real points; the cooperation is made up."""
    whole = Kitti(shared_data("detection") / "kitti_full").read(2)
    pair = virtual_agents(whole, how="random", seed=1)
    both = pair.points_in_boxes()
    np.testing.assert_allclose(both.sum(axis=0), whole.points_in_boxes()[0], atol=1)  # float32 at the faces
    assert (both > 0).all()
    wrong = move_points(inverse(pose_matrix([1, 0, 0, 0, 0, 0])), pair.agents[1].points)
    assert count_in_boxes(wrong, whole.truth.boxes).sum() < both[1].sum() / 2
    # joined by the right pose they are the sweep again to a detector, by one that is metres off they are not
    torch.manual_seed(0)
    spec = replace(SIZES["tiny"], fusion="early", max_points=10_000)
    network = CollaborativeDetector(spec).eval()
    nn.init.normal_(network.cls_head.weight, std=0.3)
    shift = pose_matrix([3, 0, 0, 0, 0, 0])
    off = pair.map_agents(lambda a: replace(a, pose=a.pose @ shift) if a.name == "virtual" else a)
    with torch.no_grad():
        one, two, far = (network(make_batch([messages(frame)], spec)).classes for frame in (whole, pair, off))
    scale = float((one - one.mean()).abs().mean())
    assert float(((two - one).abs() < 0.01 * scale).double().mean()) > 0.98
    assert float(((far - one).abs() < 0.01 * scale).double().mean()) < 0.7
    for fusion in ("late", "attention", "codiff"):
        detector = Detector(CollaborativeDetector(replace(spec, fusion=fusion)).eval())
        found = Predictor(detector, PostProcessing(score=0.005))(pair).boxes
        assert len(found) > 0
        assert found.boxes.isfinite().all()
