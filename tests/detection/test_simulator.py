"""The simulator: the sensor against geometry that can be computed, streets, traffic, and files that read back."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_detection.data.open import open_frames
from priorscope_detection.data.rigid import count_in_boxes, inverse, move_points, pose_matrix
from priorscope_detection.simulator.bodies import SIZES, VEHICLES, Bodies, shape
from priorscope_detection.simulator.lidar import Triangles, sweep
from priorscope_detection.simulator.roads import Road, draw_layout
from priorscope_detection.simulator.scenario import Scenario, Streets
from priorscope_detection.simulator.settings import STEP, LidarSettings, StreetSettings
from priorscope_detection.simulator.traffic import drive
from priorscope_detection.simulator.write import write_opv2v

SMALL = StreetSettings(frames=4, lidar=LidarSettings(beams=16, columns=360, reach=70))


@pytest.fixture(scope="module")
def scenario():
    return Scenario(0, SMALL)


def square(half, z=0.0, shine=1.0):
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32) * half
    vertices = np.concatenate([corners, np.full((4, 1), z, np.float32)], axis=1)
    return Triangles(vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32), np.full(2, shine))


def wall(x, shine=1.0):
    vertices = np.array([[x, -50, -50], [x, 50, -50], [x, 50, 50], [x, -50, 50]], np.float32)
    return Triangles(vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32), np.full(2, shine))


IDEAL = LidarSettings(beams=8, columns=90, lowest=-20, highest=-6, reach=80, range_noise=0, dropout=0)


def test_rings_on_flat_ground():
    found = sweep([square(200)], pose_matrix([5, -3, 2.0, 0, 40, 0]), IDEAL, np.random.default_rng(0)).points
    np.testing.assert_allclose(found[:, 2], -2, atol=1e-4)
    radius = np.hypot(found[:, 0], found[:, 1])
    rings = 2 / np.tan(np.radians(np.linspace(6, 20, 8)))
    assert np.abs(radius[:, None] - rings).min(axis=1).max() < 1e-3
    assert len(found) > 0.9 * 8 * 90


def test_range_noise_lies_along_the_ray_and_dropout_is_a_share():
    settings = replace(IDEAL, columns=2000, range_noise=0.05, dropout=0.25)
    found = sweep([square(200)], pose_matrix([0, 0, 2.0, 0, 0, 0]), settings, np.random.default_rng(0)).points
    distance = np.linalg.norm(found[:, :3], axis=1)
    elevation = np.arcsin(found[:, 2] / distance)
    laser = np.radians(np.linspace(-20, -6, 8))[
        np.abs(elevation[:, None] - np.radians(np.linspace(-20, -6, 8))).argmin(axis=1)
    ]
    np.testing.assert_allclose(elevation, laser, atol=1e-5)
    assert np.std(distance - 2 / np.sin(-laser)) == pytest.approx(0.05, rel=0.03)
    assert len(found) / (8 * 2000) == pytest.approx(0.75, abs=0.03)


def test_dark_and_glancing_surfaces_return_less():
    pose, ahead = pose_matrix([0, 0, 0, 0, 0, 0]), replace(IDEAL, lowest=0, highest=0, beams=1, columns=3600)
    counts = [len(sweep([wall(60, s)], pose, ahead, np.random.default_rng(0)).points) for s in (0.9, 0.1, 0.02)]
    assert counts[0] > counts[1] > counts[2] > 0
    bright = sweep([wall(10, 0.8)], pose, ahead, np.random.default_rng(0)).points
    facing = 10 / np.linalg.norm(bright[:, :3], axis=1)
    assert np.corrcoef(facing, bright[:, 3])[0, 1] > 0.8
    assert bright[:, 3].max() <= 1


def test_nothing_beyond_the_reach_and_the_nearer_layer_hides_the_other():
    pose, rng = pose_matrix([0, 0, 0, 0, 0, 0]), np.random.default_rng(0)
    level = replace(IDEAL, lowest=0, highest=0, beams=1)
    assert len(sweep([wall(81)], pose, level, rng).points) == 0
    both = sweep([wall(30), wall(12)], pose, level, rng).points
    np.testing.assert_allclose(both[:, 0], 12, atol=1e-3)
    empty = Triangles(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros(0))
    assert sweep([empty], pose, level, rng).points.shape == (0, 4)


def test_the_sensors_motion_is_taken_out_or_left_in():
    """It drives towards a wall at 20 m/s: what it measured earlier in the turn was further off."""
    level = replace(IDEAL, lowest=0, highest=0, beams=1, columns=720)
    pose, velocity = pose_matrix([0, 0, 0, 0, 0, 0]), np.array([20.0, 0, 0])
    clean = sweep([wall(30)], pose, level, np.random.default_rng(0), velocity=velocity).points
    np.testing.assert_allclose(clean[:, 0], 30, atol=1e-3)
    raw = sweep([wall(30)], pose, replace(level, compensated=False), np.random.default_rng(0), velocity=velocity).points
    azimuth = np.arctan2(raw[:, 1], raw[:, 0])
    ago = STEP * (1 - (azimuth + np.pi) / (2 * np.pi))
    np.testing.assert_allclose(raw[:, 0], 30 + 20 * ago, atol=0.01)


def test_a_turning_sensor_sees_the_wall_where_it_is():
    level = replace(IDEAL, lowest=0, highest=0, beams=1, columns=720)
    found = sweep([wall(30)], pose_matrix([0, 0, 0, 0, 0, 0]), level, np.random.default_rng(0), turning=0.5).points
    np.testing.assert_allclose(found[:, 0], 30, atol=1e-3)


@pytest.mark.parametrize("kind", SIZES)
def test_bodies_fill_their_boxes(kind):
    vertices = shape(kind).vertices
    np.testing.assert_allclose(vertices.min(axis=0), [-0.5, -0.5, 0], atol=1e-12)
    np.testing.assert_allclose(vertices.max(axis=0), [0.5, 0.5, 1], atol=1e-12)
    box = np.array([[10.0, -4, 0.8, 4.4, 1.8, 1.6, 0.7], [3.0, 20, 1.2, 6, 2, 2.4, -2]])
    points, faces, shine, owner = Bodies((kind, kind), box, np.array([0.3, 0.6])).triangles()
    assert faces.max() < len(points)
    assert set(owner) == {0, 1}
    assert 0 < shine.min() <= shine.max() <= 1
    for row in (0, 1):
        mine = points[np.unique(faces[owner == row])]
        slack = box[row : row + 1] + np.array([0, 0, 0, 1e-4, 1e-4, 1e-4, 0])
        assert count_in_boxes(mine, slack)[0] == len(mine)


@pytest.mark.parametrize("bend", [0.0, 1 / 80, -1 / 120])
def test_places_on_roads(bend):
    road = Road((3.0, -7.0), 0.6, 150.0, bend, 1, 2.3)
    rng = np.random.default_rng(0)
    s, d = rng.uniform(0, 150, 200), rng.uniform(-20, 20, 200)
    points, yaw = road.at(s, d)
    back = road.place(points)
    np.testing.assert_allclose(back[0], s, atol=1e-6)
    np.testing.assert_allclose(back[1], d, atol=1e-6)
    step = road.at(s + 1e-4, 0 * d)[0] - road.at(s, 0 * d)[0]
    np.testing.assert_allclose(np.arctan2(step[:, 1], step[:, 0]), np.arctan2(np.sin(yaw), np.cos(yaw)), atol=1e-3)


def overlaps(boxes):
    """Pairs of boxes that share more than 2 cm2 of ground."""
    import shapely

    c, s = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    corners = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) / 2
    x = boxes[:, None, 0] + c[:, None] * corners[:, 0] * boxes[:, 3:4] - s[:, None] * corners[:, 1] * boxes[:, 4:5]
    y = boxes[:, None, 1] + s[:, None] * corners[:, 0] * boxes[:, 3:4] + c[:, None] * corners[:, 1] * boxes[:, 4:5]
    shapes = shapely.polygons(np.stack([x, y], axis=-1))
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    area = shapely.area(shapely.intersection(shapes[first], shapes[second]))
    return int(np.count_nonzero((first < second) & (area > 2e-4)))


@pytest.mark.parametrize("kind", ["crossing", "bend", "street"])
def test_vehicles_do_not_drive_through_each_other(kind):
    for seed in range(6):
        made = Scenario(seed, replace(SMALL, kind=kind, frames=60, traffic=1.5))
        vehicles = np.array([name in VEHICLES for name in made.kinds])
        for moment in range(0, 60, 12):
            assert overlaps(made.bodies(moment).boxes[vehicles]) == 0


def test_vehicles_move_by_their_speed_and_some_wait():
    settings = replace(SMALL, kind="crossing", frames=80)
    layout = draw_layout(np.random.default_rng(1), settings)
    traffic = drive(np.random.default_rng(1), layout, settings)
    steps = np.linalg.norm(np.diff(traffic.places[:, ~traffic.jumps, :2], axis=0), axis=-1)
    mean = (traffic.speeds[1:, ~traffic.jumps] + traffic.speeds[:-1, ~traffic.jumps]) / 2
    np.testing.assert_allclose(steps, mean * 0.1, atol=1e-6)
    assert traffic.speeds.min() >= 0
    assert (traffic.speeds[40] < 0.3).any()
    assert (traffic.speeds[40] > 5).any()


def test_a_moment_is_the_same_alone_and_among_others(scenario):
    later = scenario.frame(2)
    alone = Scenario(0, SMALL).frame(2)
    for one, other in zip(later.agents, alone.agents, strict=True):
        np.testing.assert_array_equal(one.points, other.points)
        np.testing.assert_array_equal(one.pose, other.pose)
    assert later.truth.ids == alone.truth.ids
    np.testing.assert_array_equal(later.truth.boxes, alone.truth.boxes)
    assert not np.array_equal(later.ego.points[:50], scenario.frame(1).ego.points[:50])
    assert not np.array_equal(later.truth.boxes[:3], Scenario(1, SMALL).frame(2).truth.boxes[:3])


def test_what_hit_a_vehicle_lies_in_its_box(scenario):
    moment = 2
    boxes = scenario.bodies(moment).boxes
    counted = 0
    for seen in scenario.seen(moment):
        world = move_points(pose_matrix(seen.pose), seen.returns.points)
        slack = boxes + np.array([0, 0, 0, 0.15, 0.15, 0.15, 0])
        for row in seen.listed:
            mine = world[seen.returns.owner == row]
            assert len(mine) == seen.hits[row] >= 1
            assert count_in_boxes(mine, slack[row : row + 1])[0] == len(mine)
            counted += len(mine)
    assert counted > 500


def test_agents_and_truth(scenario):
    frame = scenario.frame(0)
    assert [agent.kind for agent in frame.agents] == ["vehicle"] * 3 + ["infrastructure"]
    assert frame.agents[3].name == "-1"
    assert frame.ego.name == min(scenario.agents[:3])
    names = [agent.name for agent in frame.agents]
    assert frame.ego.name not in frame.truth.ids
    assert set(frame.truth.classes) <= set(VEHICLES)
    places = np.array([agent.pose[:2, 3] for agent in frame.agents[:3]])
    assert np.linalg.norm(places - places[0], axis=1).max() < SMALL.spread + 5
    # no agent's own body is in its sweep
    for agent in frame.agents[:3]:
        own = list(scenario.ids.astype(str)).index(agent.name)
        box = scenario.bodies(0).boxes[own : own + 1]
        assert count_in_boxes(move_points(agent.pose, agent.points), box)[0] == 0
    # the others see the connected cars, as they see any
    seen_by_others = frame.points_in_boxes()[:, [frame.truth.ids.index(n) for n in names[1:3] if n in frame.truth.ids]]
    assert seen_by_others.sum() > 0
    everything = Scenario(0, replace(SMALL, listed_hits=0)).frame(0)
    assert set(frame.truth.ids) <= set(everything.truth.ids)
    assert (everything.points_in_boxes().sum(axis=0) == 0).any()


def test_together_they_see_more(scenario):
    counts = scenario.frame(1).points_in_boxes()
    assert (counts.sum(axis=0) >= 5).sum() > 1.2 * (counts[0] >= 5).sum()


def test_files_read_back_as_the_frames_that_were_simulated(tmp_path):
    streets = Streets([3, 5], SMALL, keep=1)
    folder = write_opv2v(tmp_path, [3, 5], SMALL, progress=False)
    frames = open_frames(folder)
    assert [frames.name(i) for i in range(len(frames))] == [streets.name(i) for i in range(len(streets))]
    assert [frames.sequence(i) for i in range(8)] == [streets.sequence(i) for i in range(8)]
    for index, delay in ((1, 0.0), (7, 200.0), (4, 300.0)):
        read, made = frames.read(index, delay=delay), streets.read(index, delay=delay)
        assert read.name == made.name
        for one, other in zip(read.agents, made.agents, strict=True):
            assert (one.name, one.kind, one.delay) == (other.name, other.kind, other.delay)
            np.testing.assert_array_equal(one.points, other.points)
            np.testing.assert_allclose(one.pose, other.pose, atol=1e-9)
        assert dict(zip(read.truth.ids, read.truth.classes, strict=True)) == dict(
            zip(made.truth.ids, made.truth.classes, strict=True)
        )
        order = [made.truth.ids.index(one) for one in read.truth.ids]
        assert read.truth.listed_by == tuple(made.truth.listed_by[place] for place in order)
        np.testing.assert_allclose(read.truth.boxes, made.truth.boxes[order], atol=1e-6)


def test_a_run_that_was_cut_short_goes_on_and_other_settings_are_refused(tmp_path):
    one = replace(SMALL, frames=1, cars=1, road_side_unit=False)
    folder = write_opv2v(tmp_path, [1], one, progress=False)
    sweep_file = next(folder.rglob("*.pcd"))
    content, stamp = sweep_file.read_bytes(), sweep_file.stat().st_mtime_ns
    write_opv2v(tmp_path, [1], one, progress=False)
    assert sweep_file.stat().st_mtime_ns == stamp
    (folder / "street_000001/data_protocol.yaml").unlink()
    sweep_file.write_bytes(b"half")
    write_opv2v(tmp_path, [1], one, progress=False)
    assert sweep_file.read_bytes() == content
    with pytest.raises(InputError, match="other settings"):
        write_opv2v(tmp_path, [1], replace(one, parked=0.1), progress=False)
    with pytest.raises(InputError, match="workers is 0"):
        write_opv2v(tmp_path, [1], one, workers=0)


@pytest.mark.slow
def test_two_processes_write_the_same_files(tmp_path):
    one = replace(SMALL, frames=1)
    alone = write_opv2v(tmp_path / "alone", [1, 2], one, progress=False)
    both = write_opv2v(tmp_path / "both", [1, 2], one, progress=False, workers=2)
    names = sorted(path.relative_to(alone) for path in alone.rglob("*.*"))
    assert names == sorted(path.relative_to(both) for path in both.rglob("*.*"))
    assert len(names) == 2 * (1 + 4 * 2)
    assert all((alone / name).read_bytes() == (both / name).read_bytes() for name in names)


def test_poses_of_delayed_agents_are_those_of_their_sweep(scenario):
    late = scenario.frame(3, delay=200)
    early = scenario.frame(1)
    np.testing.assert_array_equal(late.agents[1].points, early.agents[1].points)
    np.testing.assert_array_equal(late.agents[1].pose, early.agents[1].pose)
    np.testing.assert_array_equal(late.ego.points, scenario.frame(3).ego.points)
    still = late.agents[-1]  # the unit does not move: what stands still is where it was
    world = inverse(still.pose) @ scenario.frame(3).agents[-1].pose
    np.testing.assert_allclose(world, np.eye(4), atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "motorway"}, "of the kind 'motorway'"),
        ({"cars": 0}, "0 connected cars"),
        ({"frames": 0}, "0 frames"),
        ({"traffic": -1.0}, "traffic of a scenario is -1, which is not a number of 0 or more and 3 at most"),
        ({"parked": float("nan")}, "parked of a scenario is nan"),
        ({"spread": float("inf")}, "spread of a scenario is inf"),
        ({"tilt": -0.1}, r"tilt of a scenario is -0\.1, .*Mend --streets\.tilt"),
        ({"extent": 10.0}, "half length 10 m"),
    ],
)
def test_settings_that_cannot_be(change, message):
    with pytest.raises(InputError, match=message):
        replace(SMALL, **change)


def test_lidars_that_cannot_be():
    for change in ({"beams": 0}, {"columns": 10**7}, {"lowest": 5.0}, {"dropout": 1.0}, {"reach": 0.0}):
        with pytest.raises(InputError, match=r"LiDAR.*Use "):
            replace(SMALL.lidar, **change)
    for change in ({"range_noise": float("inf")}, {"reach": float("inf")}, {"reach": float("nan")}):
        with pytest.raises(InputError, match="a LiDAR of reach"):
            replace(SMALL.lidar, **change)


def test_too_few_cars_and_wrong_moments(scenario):
    with pytest.raises(InputError, match="has 0 cars, 3 are to be connected"):
        Scenario(0, replace(SMALL, traffic=0.0, parked=0.0))
    with pytest.raises(InputError, match="moment 4 of a scenario of 4"):
        scenario.seen(4)
    with pytest.raises(InputError, match="2 seeds, 1 of them different"):
        Streets([1, 1])


def test_settings_need_no_torch():
    code = (
        "import sys, priorscope_detection.simulator.settings as s; s.StreetSettings(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
