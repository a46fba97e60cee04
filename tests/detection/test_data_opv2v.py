"""OPV2V, V2XSet and V2V4Real in miniature."""

import os
from pathlib import Path

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_detection.data import opv2v
from priorscope_detection.data.open import open_frames
from priorscope_detection.data.opv2v import OPV2V
from priorscope_detection.data.opv2v_file import _identity, read_annotation
from priorscope_detection.data.rigid import count_in_boxes, inverse, move_boxes, move_points, pose_matrix

EGO = [100.0, 50.0, 1.9, 0.0, 30.0, 0.0]
OTHER = [120.0, 60.0, 1.9, 0.0, -150.0, 0.0]
#: in the world: x, y, z of the centre, l, w, h, yaw
CARS = {
    7: np.array([110.0, 52.0, 0.8, 4.4, 1.8, 1.5, 0.3]),
    8: np.array([112.0, 70.0, 0.9, 5.0, 2.0, 1.8, -2.0]),
    9: np.array([90.0, 45.0, 0.7, 4.0, 1.7, 1.4, 3.0]),
}


def entry(box, **more):
    return {
        "location": [float(box[0]), float(box[1]), 0.0],
        "center": [0.0, 0.0, float(box[2])],
        "angle": [0.0, float(np.degrees(box[6])), 0.0],
        "extent": [float(side) / 2 for side in box[3:6]],
        "speed": 3.0,
        **more,
    }


def content(pose, ids, **more):
    return {"lidar_pose": pose, "true_ego_pos": pose, "vehicles": {k: entry(CARS[k]) for k in ids}, **more}


@pytest.fixture
def scene(write_opv2v, box_surface):
    """Two cars and a unit, three moments; the other car drives 1 m a frame along x."""

    def points(pose, ids):
        world = np.concatenate([box_surface(CARS[k]) for k in ids])
        return move_points(inverse(pose_matrix(pose)), world)

    def frames(pose, ids, step=0.0):
        found = {}
        for number, stamp in enumerate(("00068", "00070", "00072")):
            at = [pose[0] + step * number, *pose[1:]]
            found[stamp] = (content(at, ids), points(at, ids))
        return found

    def write(**changes):
        agents = {
            "650": frames(OTHER, (8, 9), 1.0),
            "1045": frames(EGO, (7, 8)),
            "-1": frames([105, 55, 5, 0, 0, 0], (7,)),
        }
        return write_opv2v({**agents, **changes})

    return write


def test_frames_poses_and_the_union_of_the_boxes(scene):
    frames = open_frames(scene())
    assert isinstance(frames, OPV2V)
    assert [frames.name(i) for i in range(len(frames))] == [f"2021_08_22_21_41_24/000{n}" for n in (68, 70, 72)]
    frame = frames.read(1)
    assert [agent.name for agent in frame.agents] == ["1045", "650", "-1"]  # sorted as text, units last
    assert [agent.kind for agent in frame.agents] == ["vehicle", "vehicle", "infrastructure"]
    np.testing.assert_allclose(frame.ego.pose, pose_matrix(EGO))
    assert frame.agents[1].pose[0, 3] == OTHER[0] + 1
    assert sorted(frame.truth.ids) == ["7", "8", "9"]
    assert frame.truth.classes == ("vehicle",) * 3
    for identity, box in zip(frame.truth.ids, frame.truth.boxes, strict=True):
        expected = move_boxes(inverse(pose_matrix(EGO)), CARS[int(identity)][None])[0]
        np.testing.assert_allclose(box[:6], expected[:6], atol=1e-9)
        assert abs(np.angle(np.exp(1j * (box[6] - expected[6])))) < 1e-9
    counts = dict(zip(frame.truth.ids, frame.points_in_boxes().T.tolist(), strict=True))
    assert counts == {"7": [40, 0, 40], "8": [40, 40, 0], "9": [0, 40, 0]}
    merged = frame.merged_points()
    assert count_in_boxes(merged, frame.truth.boxes).tolist() == [sum(counts[k]) for k in frame.truth.ids]


def test_a_file_is_parsed_once_until_it_changes(scene, monkeypatch):
    parsed = []
    monkeypatch.setattr(
        opv2v, "read_annotation", lambda path, agent: parsed.append(path) or read_annotation(path, agent)
    )
    folder = scene()
    for frames in (open_frames(folder), open_frames(folder)):
        assert len(frames.read(0).truth.ids) == 3
    assert len(parsed) == 3
    path = next(iter(folder.rglob("1045/00068.yaml")))
    path.write_text(path.read_text() + "\n# another size\n")
    frames.read(0)
    assert len(parsed) == 4
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        frames.read(0)


def test_relative_paths_are_read_where_one_stands(scene, tmp_path, monkeypatch):
    """Two data sets whose files have the same relative paths, sizes and times, as copies that were changed may have."""
    folder = scene()
    for name in ("one", "two"):
        for path in folder.rglob("*.*"):
            here = tmp_path / name / "data" / path.relative_to(folder)
            here.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes()
            if name == "two" and path.suffix == ".yaml":
                content = content.replace(b"- 110.0\n", b"- 111.0\n")
            here.write_bytes(content)
            os.utime(here, ns=(10**18, 10**18))
    boxes = []
    for name in ("one", "two"):
        monkeypatch.chdir(tmp_path / name)
        truth = open_frames(Path("data")).read(0).truth
        boxes.append(truth.boxes[truth.ids.index("7")])
    assert np.linalg.norm(boxes[1][:2] - boxes[0][:2]) == pytest.approx(1.0)


def test_a_delay_ages_all_but_the_ego(scene):
    frames = open_frames(scene())
    frame = frames.read(2, delay=200)
    assert [agent.delay for agent in frame.agents] == [0, 200, 200]
    assert frame.agents[1].pose[0, 3] == OTHER[0]
    assert frames.read(1, delay=500).agents[1].delay == 100  # no earlier frame is there
    assert frames.read(2, delay=200).truth.ids == frames.read(2).truth.ids
    with pytest.raises(InputError, match="150 ms is no whole number of frames"):
        frames.read(2, delay=150)
    with pytest.raises(InputError, match="-100 ms"):
        frames.read(2, delay=-100)


def test_seen_from_another_and_out_of_reach(scene):
    frame = open_frames(scene()).read(0)
    turned = frame.with_ego("650")
    expected = move_boxes(inverse(pose_matrix(OTHER)), CARS[9][None])[0]
    np.testing.assert_allclose(turned.truth.boxes[turned.truth.ids.index("9")][:6], expected[:6], atol=1e-9)
    np.testing.assert_array_equal(turned.points_in_boxes().sum(axis=0), frame.points_in_boxes().sum(axis=0))
    near = frame.within(10)
    assert [agent.name for agent in near.agents] == ["1045", "-1"]
    # 8 is in the ego's list too, 9 in none but that of the agent out of reach
    assert dict(zip(frame.truth.ids, map(sorted, frame.truth.listed_by), strict=True)) == {
        "7": ["-1", "1045"],
        "8": ["1045", "650"],
        "9": ["650"],
    }
    assert (near.truth.ids, len(near.truth.boxes)) == (("7", "8"), 2)
    assert frame.within(100).truth.ids == frame.truth.ids
    with pytest.raises(InputError, match="no agent '3'"):
        frame.with_ego("3")


def test_the_ego_is_no_box_of_its_own(write_opv2v):
    """The others list it; its own LiDAR stands on it."""
    seen = content(OTHER, (8,))
    seen["vehicles"][1] = entry(CARS[7])
    nothing = np.zeros((1, 4))
    folder = write_opv2v({"1": {"00000": (content(EGO, (8,)), nothing)}, "2": {"00000": (seen, nothing)}})
    assert open_frames(folder).read(0).truth.ids == ("8",)


def test_an_agent_that_has_no_such_moment_is_not_in_the_frame(write_opv2v):
    one = (content(EGO, (7,)), np.zeros((1, 4)))
    folder = write_opv2v({"1": {"00000": one, "00001": one}, "2": {"00001": one, "00002": one}})
    frames = open_frames(folder)
    assert [len(frames.read(i).agents) for i in range(len(frames))] == [1, 2]
    assert [agent.name for agent in frames.read(1, delay=100).agents] == ["1"]  # it had sent nothing by then


@pytest.mark.parametrize("common", [float("inf"), float("nan"), "none", None])
def test_an_object_without_a_common_number(common):
    """`ass_id: .inf` is valid YAML."""
    assert _identity("650", 3, {"ass_id": common}) == "650:3"


def test_v2v4real(write_opv2v, box_surface):
    """A matrix for a pose, boxes in each agent's LiDAR frame, and ids common to agents in ass_id."""
    ego, other = pose_matrix(EGO), pose_matrix(OTHER)

    def local(pose, k, common):
        return entry(move_boxes(inverse(pose), CARS[k][None])[0], obj_type="Car" if k < 9 else "Truck", ass_id=common)

    def upright(e):
        e["location"][2], e["center"][2] = e["center"][2], 0.0
        return e

    first = {"lidar_pose": ego.tolist(), "vehicles": {0: upright(local(ego, 7, 4)), 1: upright(local(ego, 8, -1))}}
    second = {
        "lidar_pose": other.tolist(),
        "vehicles": {0: upright(local(other, 7, 4)), 1: upright(local(other, 9, -1))},
    }
    nothing = np.zeros((1, 4))
    folder = write_opv2v({"0": {"000000": (first, nothing)}, "1": {"000000": (second, nothing)}})
    frame = open_frames(folder).read(0)
    assert frame.truth.ids == ("4", "0:1", "1:1")
    assert frame.truth.classes == ("car", "car", "truck")
    expected = np.concatenate([move_boxes(inverse(ego), CARS[k][None]) for k in (7, 8, 9)])
    np.testing.assert_allclose(frame.truth.boxes[:, :6], expected[:, :6], atol=1e-9)
    assert OPV2V(folder, classes=["Truck"]).read(0).truth.ids == ("1:1",)
    for file in (first, second):  # what objects are called has nothing to do with the agents' names
        file["vehicles"][0]["ass_id"] = 0
    write_opv2v({"0": {"000000": (first, nothing)}, "1": {"000000": (second, nothing)}})
    assert open_frames(folder).read(0).truth.ids == ("0", "0:1", "1:1")


def test_splits_scenarios_and_data_sets(write_opv2v):
    one = {"1": {"00000": (content(EGO, (7,)), np.zeros((1, 4)))}}
    write_opv2v(one, split="train", scenario="a")
    write_opv2v(one, split="train", scenario="b")
    root = write_opv2v(one, split="test", scenario="a").parent
    assert [open_frames(root / "train").sequence(i) for i in range(2)] == ["a", "b"]
    assert open_frames(root / "train/a").name(0) == "a/00000"
    assert [open_frames(root).name(i) for i in range(3)] == ["test/a/00000", "train/a/00000", "b/00000"]


def test_a_sweep_without_points(write_opv2v):
    folder = write_opv2v({"1": {"00000": (content(EGO, (7,)), np.zeros((0, 4)))}})
    frame = open_frames(folder).read(0)
    assert frame.points_in_boxes().tolist() == [[0]]
    assert frame.merged_points().shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lidar_pose": None}, "not six finite numbers"),
        ({"lidar_pose": [1, 2, 3]}, "not six finite numbers"),
        ({"lidar_pose": [1, 2, 3, 0, float("nan"), 0]}, "not six finite numbers"),
        ({"lidar_pose": [1, 2, 3, 0, 10**400, 0]}, "not six finite numbers"),
        ({"lidar_pose": [[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "no rigid 4x4 matrix"),
        ({"vehicles": [1]}, "no table by id"),
        ({"vehicles": {3: {"location": [0, 0, 0]}}}, "vehicles 3: its 'angle'"),
        ({"vehicles": {3: entry(np.array([0, 0, 0, 4, 0, 1, 0]))}}, r"vehicles 3: its 'extent' .* is not positive"),
        ({"vehicles": {3: 5}}, "vehicles 3: its 'location'"),
    ],
)
def test_broken_files(write_opv2v, change, message):
    folder = write_opv2v({"1": {"00000": ({**content(EGO, (7,)), **change}, np.zeros((1, 4)))}})
    with pytest.raises(InputError, match=message) as error:
        open_frames(folder).read(0)
    assert "00000.yaml" in str(error.value)


def test_an_agent_without_a_pose(write_opv2v):
    without = {"vehicles": {}}
    folder = write_opv2v(
        {"1": {"00000": (content(EGO, ()), np.zeros((1, 4)))}, "2": {"00000": (without, np.zeros((1, 4)))}}
    )
    with pytest.raises(InputError, match=r"2/00000.yaml: has no 'lidar_pose'"):
        open_frames(folder).read(0)


def test_one_timestamp_twice(write_opv2v):
    folder = write_opv2v({"1": {stamp: (content(EGO, ()), np.zeros((1, 4))) for stamp in ("00068", "000068")}})
    with pytest.raises(InputError, match="timestamp 68 comes twice"):
        open_frames(folder)


def test_no_sweep_and_no_data_set(write_opv2v, tmp_path):
    folder = write_opv2v({"1": {"00000": (content(EGO, ()), np.zeros((1, 4)))}})
    next(folder.rglob("*.pcd")).unlink()
    with pytest.raises(InputError, match=r"00000.pcd: no such file"):
        open_frames(folder).read(0)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="none of the layouts"):
        open_frames(tmp_path / "nothing")
    with pytest.raises(InputError, match="no such file or folder"):
        open_frames(tmp_path / "nowhere")
