"""The scene generator: exact depth and normals, same seed same scene, sane statistics, shards that resume."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope.scenes.camera import look_at, pixel_centres
from priorscope.scenes.geometry import (
    box,
    boxes,
    cylinder,
    ellipsoid,
    extrude,
    joined,
    quad,
    revolve,
    rods,
    rotation_x,
    sheet,
    torus,
    tube,
)
from priorscope.scenes.materials import Look, Material
from priorscope.scenes.photo import develop
from priorscope.scenes.shading import shade
from priorscope.scenes.textures import PHOTOGRAPHS, texture_bank
from priorscope.scenes.thin import THIN_INDOORS, THIN_OUTDOORS
from priorscope.scenes.things import extent
from priorscope.scenes.world import Caster, Gate, Light, Stage, World
from priorscope_depth.scenes import (
    HELD_OUT_SEED,
    KINDS,
    StoredScenes,
    choose_kind,
    iterate_scenes,
    kept,
    render_scene,
    write_scenes,
)
from priorscope_depth.scenes.generate import photograph

PAINT = Material(0, 1.0, 0.0, (0.0, 0.0), (0.2, 0.2, 0.2), (0.8, 0.8, 0.8))
SHAPE = (48, 64)


def scene_of(meshes, camera, shape=SHAPE, supersample=1, lights=()):
    world = World(lights=list(lights))
    for mesh in meshes:
        world.add(mesh, PAINT)
    stage = Stage(world, lambda rng: camera)
    return photograph(stage, Caster(world), camera, np.random.default_rng(0), shape=shape, supersample=supersample)


def back_projected(scene):
    """Points (H, W, 3) in the camera frame right, down, forward, from depth and intrinsics alone."""
    height, width = scene.depth.shape
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(scene.intrinsics).T
    return rays * scene.depth[..., None].astype(np.float64)


def big_quad(z):
    return quad(np.array([-500.0, -500.0, z]), np.array([1000.0, 0, 0]), np.array([0, 1000.0, 0]))


def test_depth_of_a_wall_that_is_faced_is_constant_and_not_the_distance_along_the_ray():
    wall = quad(np.array([-50.0, 3.0, -50.0]), np.array([100.0, 0, 0]), np.array([0, 0, 100.0]))
    scene = scene_of([wall], look_at(np.zeros(3), np.array([0.0, 1.0, 0.0]), np.radians(80)))
    assert scene.valid.all()
    np.testing.assert_allclose(scene.depth, 3.0, atol=1e-5)
    np.testing.assert_allclose(scene.normals, np.broadcast_to([0.0, 0.0, 1.0], scene.normals.shape), atol=1e-6)


def test_depth_of_the_ground_is_that_of_the_plane_equation():
    height, pitch = 1.5, np.radians(20)
    target = np.array([0.0, np.cos(pitch), height - np.sin(pitch)])
    scene = scene_of([big_quad(0.0)], look_at(np.array([0.0, 0.0, height]), target, np.radians(60)))
    rows = np.arange(SHAPE[0]) + 0.5
    down = (rows - scene.intrinsics[1, 2]) / scene.intrinsics[1, 1]
    # a ray (x, down, 1) sinks by sin(pitch) + down * cos(pitch) for each metre of depth
    sink = np.sin(pitch) + down * np.cos(pitch)
    seen = sink > 0.01
    expected = height / sink[seen]
    np.testing.assert_allclose(scene.depth[seen], np.broadcast_to(expected[:, None], (seen.sum(), SHAPE[1])), rtol=1e-4)
    up = np.array([0.0, np.cos(pitch), np.sin(pitch)])
    np.testing.assert_allclose(scene.normals[seen], np.broadcast_to(up, scene.normals[seen].shape), atol=1e-5)
    assert not scene.valid[sink < 0].any()
    assert (scene.depth[sink < 0] == 0).all()
    assert (scene.normals[sink < 0] == 0).all()


def test_back_projected_box_lies_on_its_sides_and_normals_are_theirs():
    position = np.array([1.2, -2.5, 1.7])
    camera = look_at(position, np.array([0.0, 0.0, 0.4]), np.radians(45), roll=0.1)
    scene = scene_of([box(1.0, 0.6, 0.8)], camera)
    world_points = back_projected(scene)[scene.valid] @ camera.rotation + position
    assert 200 < len(world_points) < scene.valid.size
    sides = np.stack(
        [
            np.abs(np.abs(world_points[:, 0]) - 0.5),
            np.abs(np.abs(world_points[:, 1]) - 0.3),
            np.abs(world_points[:, 2] - 0.8),
        ]
    )
    assert sides.min(axis=0).max() < 1e-5
    world_normals = (scene.normals[scene.valid] * [1, -1, -1]) @ camera.rotation
    own = np.sign(world_points) * np.eye(3)[sides.argmin(axis=0)]
    own[sides.argmin(axis=0) == 2] = [0, 0, 1]
    # on an edge two sides are equally near
    clear = np.sort(sides, axis=0)[1] > 1e-3
    np.testing.assert_allclose(world_normals[clear], own[clear], atol=1e-5)


def test_a_sphere_of_triangles_is_within_its_sagitta_of_the_sphere():
    camera = look_at(np.array([0.0, -3.0, 1.0]), np.array([0.0, 0.0, 1.0]), np.radians(40))
    scene = scene_of([ellipsoid(1.0, 1.0, 1.0, 64)], camera)
    points = back_projected(scene)[scene.valid] - [0, 0, 3.0]
    radius = np.linalg.norm(points, axis=-1)
    assert radius.max() < 1 + 1e-6
    assert radius.min() > np.cos(np.pi / 64) ** 2 - 1e-4


@pytest.mark.parametrize("kind", list(KINDS))
def test_normals_agree_with_differences_of_back_projected_depth(kind):
    scene = render_scene(5, height=96, width=128, kind=kind)
    points = back_projected(scene) * [1, -1, -1]
    difference = np.cross(points[1:-1, 2:] - points[1:-1, :-2], points[:-2, 1:-1] - points[2:, 1:-1])
    difference /= np.linalg.norm(difference, axis=-1, keepdims=True) + 1e-12
    centre = scene.normals[1:-1, 1:-1]
    flat = np.ones(centre.shape[:2], dtype=bool)
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        height, width = scene.valid.shape
        window = np.s_[1 + dy : height - 1 + dy, 1 + dx : width - 1 + dx]
        flat &= np.linalg.norm(scene.normals[window] - centre, axis=-1) < 1e-5
        flat &= scene.valid[window] & scene.valid[1:-1, 1:-1]
        # one plane: the depth of neighbours that face alike may still jump, as on the steps of a stair
        offset = np.einsum("hwk,hwk->hw", points[window] - points[1:-1, 1:-1], centre)
        flat &= np.abs(offset) < 1e-4 * scene.depth[1:-1, 1:-1]
    assert flat.mean() > 0.05
    assert np.einsum("hwk,hwk->hw", difference, centre)[flat].min() > 0.999


@pytest.mark.parametrize("kind", list(KINDS))
def test_statistics_are_those_of_photographs(kind):
    scenes = list(iterate_scenes(20, 8, height=48, width=64, kind=kind))
    for scene in scenes:
        assert scene.rgb.shape == (48, 64, 3)
        assert scene.rgb.dtype == np.uint8
        assert scene.depth.dtype == np.float32
        assert scene.kind == kind
        assert np.isfinite(scene.depth).all()
        assert np.isfinite(scene.normals).all()
        assert ((scene.depth > 0) == scene.valid).all()
        assert scene.valid.mean() > 0.25
        assert scene.depth[scene.valid].min() > 0.15
        assert scene.depth.max() < 400
        length = np.linalg.norm(scene.normals, axis=-1)
        np.testing.assert_allclose(length[scene.valid], 1, atol=1e-5)
        assert (length[~scene.valid] == 0).all()
        # towards the camera: against the ray through each pixel
        rays = back_projected(scene)[scene.valid] * [1, -1, -1]
        assert (np.einsum("nk,nk->n", rays, scene.normals[scene.valid]) <= 1e-6).all()
    brightness = np.array([scene.rgb.mean() for scene in scenes])
    assert 50 < np.median(brightness) < 200
    middle = np.array([np.median(scene.depth[scene.valid]) for scene in scenes])
    low, high = {"room": (1, 8), "clutter": (0.5, 6), "street": (2, 60), "terrain": (1, 60)}[kind]
    assert low < np.median(middle) < high
    spread = np.array([np.quantile(s.depth[s.valid], 0.95) / np.quantile(s.depth[s.valid], 0.05) for s in scenes])
    assert np.median(spread) > 1.5
    if kind in ("room", "clutter"):
        assert all(scene.valid.all() for scene in scenes)


def test_same_seed_same_scene_in_any_order():
    first = [render_scene(seed, height=48, width=64, supersample=2) for seed in (3, 8)]
    again = [render_scene(seed, height=48, width=64, supersample=2) for seed in (8, 3)][::-1]
    for one, two in zip(first, again, strict=True):
        for name in ("rgb", "depth", "normals", "intrinsics"):
            assert np.array_equal(getattr(one, name), getattr(two, name)), name
        assert (one.kind, one.seed) == (two.kind, two.seed)
    assert not np.array_equal(first[0].depth, first[1].depth)


def test_seed_chooses_the_kind_and_naming_it_changes_nothing():
    chosen = render_scene(11, height=32, width=48)
    named = render_scene(11, height=32, width=48, kind=choose_kind(11))
    assert np.array_equal(chosen.rgb, named.rgb)
    assert {choose_kind(seed) for seed in range(40)} == set(KINDS)


def test_geometry_does_not_depend_on_the_size():
    small = render_scene(4, height=32, width=48, kind="room")
    large = render_scene(4, height=96, width=144, kind="room")
    # the centre of a pixel is that of the middle one of its 3 x 3
    np.testing.assert_allclose(large.depth[1::3, 1::3], small.depth, rtol=1e-4)


def test_supersampling_smooths_borders_and_leaves_the_truth_alone():
    camera = look_at(np.array([0.3, -3.0, 1.0]), np.array([0.0, 0.0, 0.5]), np.radians(50), roll=0.2)
    meshes = [big_quad(0.0), box(0.5, 0.5, 1.0)]
    plain, smooth = (scene_of(meshes, camera, supersample=n) for n in (1, 3))
    assert np.array_equal(plain.depth, smooth.depth)
    assert np.array_equal(plain.normals, smooth.normals)
    assert not np.array_equal(plain.rgb, smooth.rgb)


def test_a_lamp_casts_a_shadow():
    lamp = Light(np.array([0.0, 0.0, 4.0]), np.ones(3), 0.01)
    plate = box(1.0, 1.0, 0.02).moved((0.0, 0.0, 1.5))
    world = World(lights=[lamp])
    for mesh in (big_quad(0.0), plate):
        world.add(mesh, PAINT)
    caster = Caster(world)
    points = np.array([[0.0, 0.0, 1e-3], [0.5, 0.3, 1e-3], [2.0, 0.0, 1e-3]])
    offset = lamp.toward - points
    distance = np.linalg.norm(offset, axis=-1)
    assert caster.is_lit(points, offset / distance[:, None], distance).tolist() == [False, False, True]
    assert caster.is_lit(points, offset / distance[:, None], 1.0).all()


def test_a_mirror_shows_what_is_behind_the_camera_and_keeps_its_own_depth():
    mirror = Material(0, 1.0, 0.0, (0.0, 0.0), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), metal=1.0)
    red = Material(0, 1.0, 0.0, (0.0, 0.0), (0.9, 0.0, 0.0), (0.9, 0.0, 0.0), glow=1.0)
    camera = look_at(np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]), np.radians(40))
    world = World()
    world.add(quad(np.array([-5.0, 2.0, -5.0]), np.array([10.0, 0, 0]), np.array([0, 0, 10.0])), mirror)
    world.add(box(1.0, 0.1, 1.0).moved((0.0, -3.0, 0.5)), red)
    caster = Caster(world)
    height, width = SHAPE
    rays = camera.rays(*pixel_centres(height, width), height, width)
    hits = caster.cast(camera.position, rays)
    assert np.allclose(hits.distance, 2.0)
    light = shade(world, caster, hits, rays, camera.position, SHAPE, 0.01, np.random.default_rng(0))
    light = light.reshape(height, width, 3)
    is_red = (light[..., 0] > 0.5) & (light[..., 1] < 0.1)
    # the box, 1 m wide, is seen over 2 m to the mirror and 2 + 2.95 m back: 1 / 6.95 of the focal length
    focal = camera.intrinsics(height, width)[0, 0]
    assert is_red[height // 2].sum() == pytest.approx(focal / 6.95, abs=1)
    assert is_red[height // 2, width // 2]
    assert not is_red[:, 0].any()


def test_glass_mirrors_at_a_glancing_angle_and_hardly_where_it_is_faced():
    glass = Material(0, 1.0, 0.0, (0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), polish=1.0)
    lit = Material(0, 1.0, 0.0, (0.0, 0.0), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), glow=1.0)
    dark = np.zeros(3)
    world = World(above=dark, below=dark)
    world.add(big_quad(0.0), glass)
    world.add(quad(np.array([-500.0, 50.0, 0.0]), np.array([1000.0, 0, 0]), np.array([0, 0, 500.0])), lit)
    world.add(quad(np.array([-500.0, -500.0, 400.0]), np.array([0, 1000.0, 0]), np.array([1000.0, 0, 0])), lit)
    caster = Caster(world)
    eye = np.array([0.0, 0.0, 2.0])
    rays = np.array([[0.0, 0.02, -1.0], [0.0, 1.0, -0.08]])
    hits = caster.cast(eye, rays)
    assert hits.part.tolist() == [0, 0]
    light = shade(world, caster, hits, rays, eye, (1, 2), 0.001, np.random.default_rng(0))[:, 0]
    assert light[0] < 0.06
    assert 0.4 < light[1] <= 1.0


def test_the_sun_falls_through_windows_only():
    gate = Gate(np.array([-0.5, 0.0, 1.0]), np.array([1.0, 0, 0]), np.array([0, 0, 1.0]), np.array([0.0, 1.0, 0.0]))
    toward = np.array([0.0, -1.0, 1.0]) / np.sqrt(2)
    sun = Light(toward, np.ones(3), 1e-6, is_sun=True, gates=(gate,))
    dark = np.zeros(3)
    world = World(above=dark, below=dark, lights=[sun])
    world.add(big_quad(0.0), PAINT)
    caster = Caster(world)
    # at 45 degrees the window from 1 to 2 m lights the floor from 1 to 2 m, but for the bar in its middle
    spots = np.array([[0.25, 1.5, 0], [0.0, 1.5, 0], [0.25, 0.8, 0], [0.25, 2.2, 0], [0.7, 1.5, 0], [0.25, -1.5, 0]])
    eye = np.array([0.0, 0.5, 3.0])
    hits = caster.cast(eye, spots - eye)
    light = shade(world, caster, hits, spots - eye, eye, (1, 6), 1e-3, np.random.default_rng(0))
    # each ray is smoothed with its neighbours in the row, so ask for them one at a time
    alone = [
        shade(world, caster, caster.cast(eye, ray[None]), ray[None], eye, (1, 1), 1e-3, np.random.default_rng(0)).sum()
        for ray in spots - eye
    ]
    assert light.shape == (6, 3)
    assert [value > 0 for value in alone] == [True, False, False, False, False, False]


def test_a_flat_lamp_shines_to_its_side_and_a_shade_does_not_darken_the_room():
    dark = np.zeros(3)
    shade_mesh = ellipsoid(0.1, 0.1, 0.1).moved((0.0, 0.0, 1.9))
    at = np.array([0.0, 0.0, 2.0])
    ray = np.array([[1.0, 0.0, -3.0]])
    eye = np.array([0.0, 0.0, 3.0])

    def arriving(lamp):
        world = World(above=dark, below=dark, lights=[lamp])
        world.add(big_quad(0.0), PAINT)
        world.add(shade_mesh, PAINT)
        caster = Caster(world)
        return shade(world, caster, caster.cast(eye, ray), ray, eye, (1, 1), 1e-3, np.random.default_rng(0)).sum()

    assert arriving(Light(at, np.ones(3), 0.01)) == 0
    assert arriving(Light(at, np.ones(3), 0.01, clear=0.15)) > 0
    assert arriving(Light(at, np.ones(3), 0.01, clear=0.15, facing=np.array([0, 0, -1.0]))) > 0
    assert arriving(Light(at, np.ones(3), 0.01, clear=0.15, facing=np.array([0, 0, 1.0]))) == 0


@pytest.mark.parametrize("maker", sorted({*THIN_INDOORS, *THIN_OUTDOORS}, key=lambda maker: maker.__name__))
def test_thin_things_are_thin_stand_on_the_ground_and_can_be_cast_at(maker):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        thing = maker(rng, Look(rng))
        low, high = extent(thing)
        # a shrub is a tree sunk into the ground up to its first fork
        assert -0.7 < low[2] < 0.3
        assert 0.02 < (high - low).max() < 12
        world = World()
        world.put(thing, 0.0, 0.0)
        for mesh in world.meshes:
            assert np.isfinite(mesh.vertices).all()
            assert np.isfinite(mesh.uv).all()
            assert len(mesh.uv) == len(mesh.vertices) == len(mesh.weld)
        # from 10 m the box around it is hit by some rays and missed by others
        caster = Caster(world)
        target = 0.5 * (low + high) + np.random.default_rng(seed).uniform(-0.5, 0.5, (2000, 3)) * (high - low)
        eye = np.array([0.0, -10.0, 1.0])
        share = len(caster.cast(eye, target - eye).ray) / 2000
        assert 0.001 < share < 0.9


def test_a_picture_of_nothing_and_of_the_dark_is_still_a_picture():
    for light, depth in ((np.zeros((48, 64, 3)), np.ones((48, 64))), (np.full((48, 64, 3), 0.5), np.zeros((48, 64)))):
        for seed in range(12):
            picture = develop(light, depth, np.random.default_rng(seed))
            assert picture.dtype == np.uint8
            assert picture.shape == (48, 64, 3)
            # the grain of the sensor only: no artefact of a division by a level of zero
            assert picture.std() < 40


def outward(mesh):
    """Share of the area whose face points away from the centre of the mesh."""
    corners = mesh.vertices[mesh.faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=-1)
    side = np.einsum("nk,nk->n", cross, corners.mean(axis=1) - mesh.vertices.mean(axis=0))
    return area[side > 0].sum() / area.sum()


@pytest.mark.parametrize(
    ("mesh", "low", "high"),
    [
        (box(1, 2, 3), (-0.5, -1, 0), (0.5, 1, 3)),
        (cylinder(0.5, 2), (-0.5, -0.5, 0), (0.5, 0.5, 2)),
        (ellipsoid(1, 2, 3), (-1, -2, 0), (1, 2, 6)),
        (torus(1, 0.25), (-1.25, -1.25, -0.25), (1.25, 1.25, 0.25)),
        (rods([(0, 0, 0), (1, 0, 0)], [(0, 0, 2), (1, 0, 2)], 0.1, 16), (-0.1, -0.1, 0), (1.1, 0.1, 2)),
        (boxes([[1, 1, 1], [2, 2, 2]], [(0, 0, 0), (5, 0, 1)]), (-0.5, -1, 0), (6, 1, 3)),
        (joined([box(1, 1, 1), cylinder(0.5, 2).moved((3, 0, 0))]), (-0.5, -0.5, 0), (3.5, 0.5, 2)),
        (tube([(0, 0, 0), (0, 0, 2)], 0.1), (-0.1, -0.1, 0), (0.1, 0.1, 2)),
        (extrude([(-1, 0), (1, 0), (1, 2), (-1, 2)], 0.4), (-1, -0.2, 0), (1, 0.2, 2)),
        (revolve([(0, 0), (1, 0.5), (0, 1)]), (-1, -1, 0), (1, 1, 1)),
    ],
)
def test_primitives_have_the_size_that_was_asked_for(mesh, low, high):
    np.testing.assert_allclose(mesh.vertices.min(axis=0), low, atol=0.03)
    np.testing.assert_allclose(mesh.vertices.max(axis=0), high, atol=0.03)
    assert len(mesh.uv) == len(mesh.vertices) == len(mesh.weld)
    assert mesh.faces.max() < len(mesh.vertices)


def test_a_cylinder_has_flat_caps_and_a_round_side():
    caster_world = World()
    caster_world.add(cylinder(0.5, 1.0, segments=24), PAINT)
    caster = Caster(caster_world)
    hits = caster.cast(np.array([0.2, 0.1, 3.0]), np.array([[0.0, 0.0, -1.0]]))
    np.testing.assert_allclose(caster.interpolate(caster.vertex_normals, hits)[0] / 1.0, [0, 0, 1], atol=1e-6)
    hits = caster.cast(np.array([3.0, 0.0, 0.5]), np.array([[-1.0, 0.03, 0.0]]))
    normal = caster.interpolate(caster.vertex_normals, hits)[0]
    point = np.array([3.0, 0.0]) + hits.distance[0] * np.array([-1.0, 0.03])
    np.testing.assert_allclose(normal[:2] / np.linalg.norm(normal), point / np.linalg.norm(point), atol=5e-3)


def test_sheet_faces_up_and_rotation_keeps_lengths():
    x, y = np.meshgrid(np.linspace(0, 1, 5), np.linspace(0, 2, 7))
    mesh = sheet(np.stack([x, y, 0 * x], axis=-1))
    corners = mesh.vertices[mesh.faces]
    assert (np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] > 0).all()
    np.testing.assert_allclose(mesh.uv.max(axis=0), [1, 2])
    turned = mesh.moved((1, 2, 3), rotation_x(0.7))
    np.testing.assert_allclose(np.linalg.norm(turned.vertices[0] - turned.vertices[-1]), np.hypot(1, 2), atol=1e-12)
    assert outward(box(1, 1, 1)) == 1.0


def test_cameras_project_what_they_cast():
    camera = look_at(np.array([1.0, 2.0, 3.0]), np.array([4.0, 7.0, 1.0]), np.radians(70), roll=0.3)
    np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(camera.rotation) == pytest.approx(1.0)
    columns, rows = pixel_centres(30, 40)
    rays = camera.rays(columns, rows, 30, 40) @ camera.rotation.T
    np.testing.assert_allclose(rays[:, 2], 1.0)
    projected = rays @ camera.intrinsics(30, 40).T
    np.testing.assert_allclose(projected[:, :2], np.stack([columns, rows], axis=-1), atol=1e-9)
    half_width = np.arctan(20 / camera.intrinsics(30, 40)[0, 0])
    assert 2 * half_width == pytest.approx(np.radians(70))


def test_textures_leave_the_test_picture_out_and_sample_between_texels():
    assert not any("motorcycle" in name for name in PHOTOGRAPHS)
    bank = texture_bank()
    assert {name.split(".")[0] for name in PHOTOGRAPHS} <= set(bank.names)
    everything = bank.colours(np.arange(0, len(bank.texels), 97))
    assert 0 <= everything.min() < 0.05
    assert 0.95 < everything.max() <= 1
    size = int(bank.sizes[0])
    number = bank.names["bricks"][1]
    at = np.array([[(10 + 0.5) / size, (20 + 0.5) / size], [(10 + 1.0) / size, (20 + 0.5) / size]])
    got = bank.sample(np.full(2, number), at, np.zeros(2))
    row = (number * size + 20) * size
    np.testing.assert_allclose(got[0], bank.colours(row + np.array(10)), atol=1e-4)
    np.testing.assert_allclose(
        got[1], (bank.colours(row + np.array(10)) + bank.colours(row + np.array(11))) / 2, atol=1e-4
    )
    # a pattern repeats, and from far away only its mean is left
    np.testing.assert_allclose(bank.sample(np.full(2, number), at + 3, np.zeros(2)), got, atol=1e-4)
    far = bank.sample(np.full(2, number), at, np.full(2, 1.0))
    mean = bank.colours(np.arange(number * size**2, (number + 1) * size**2)).mean(axis=0)
    assert np.abs(far - mean).max() < 0.01


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"seed": 1.5},
        {"seed": True},
        {"kind": "kitchen"},
        {"height": 8},
        {"width": 10**6},
        {"height": 64.0},
        {"supersample": 0},
        {"supersample": 99},
    ],
)
def test_wrong_requests_are_input_errors(wrong):
    with pytest.raises(InputError):
        render_scene(**{"seed": 0, "height": 32, "width": 32, **wrong})


SMALL = {"height": 24, "width": 32, "shard_size": 2, "supersample": 1, "progress": False}


def test_stored_scenes_are_the_rendered_ones_within_the_stated_precision(tmp_path):
    seeds = [7, 3, HELD_OUT_SEED]
    write_scenes(tmp_path, seeds, **SMALL)
    stored = StoredScenes(tmp_path)
    assert stored.seeds == seeds
    assert len(stored) == 3
    for index, seed in enumerate(seeds):
        scene, back = render_scene(seed, height=24, width=32), stored[index]
        assert np.array_equal(scene.rgb, back.rgb)
        np.testing.assert_allclose(back.depth, scene.depth, rtol=2**-11)
        assert np.array_equal(scene.valid, back.valid)
        cosine = np.einsum("hwk,hwk->hw", scene.normals, back.normals)[scene.valid]
        assert cosine.min() > np.cos(np.radians(0.4))
        assert np.array_equal(scene.intrinsics, back.intrinsics)
        assert (back.kind, back.seed) == (scene.kind, seed)
    assert np.array_equal(stored[-1].rgb, stored[2].rgb)
    batch = stored.read("depth", [2, 0])
    assert batch.dtype == np.float16
    assert np.array_equal(batch[1], stored[0].depth.astype(np.float16))
    assert pickle.loads(pickle.dumps(stored)).seeds == seeds
    with pytest.raises(IndexError):
        stored[3]
    with pytest.raises(InputError, match="no array"):
        stored.read("colour", [0])


def test_writing_resumes_and_keeps_what_is_there(tmp_path):
    write_scenes(tmp_path / "whole", range(4), **SMALL)
    partial = tmp_path / "cut"
    write_scenes(partial, range(4), **SMALL)
    first = partial / "shard-00000/rgb.npy"
    before = first.stat().st_mtime_ns
    # killed in the second shard: it lies aside, unfinished
    (partial / "shard-00001").rename(partial / "shard-00001.partial")
    (partial / "shard-00001.partial/shard.json").unlink()
    assert len(StoredScenes(partial)) == 2
    write_scenes(partial, range(4), **SMALL)
    assert first.stat().st_mtime_ns == before
    for name in ("rgb", "depth", "normals", "intrinsics"):
        one, two = (tmp_path / f / f"shard-00001/{name}.npy" for f in ("whole", "cut"))
        assert one.read_bytes() == two.read_bytes()
    assert not list(partial.glob("*.partial"))


def test_writing_refuses_a_folder_of_other_scenes(tmp_path):
    write_scenes(tmp_path, [0, 1], **SMALL)
    for seeds, change in (([0, 2], {}), ([0, 1], {"width": 48}), ([0, 1], {"kind": "room"}), ([0], {"shard_size": 1})):
        with pytest.raises(InputError):
            write_scenes(tmp_path, seeds, **{**SMALL, **change})
    assert StoredScenes(tmp_path).seeds == [0, 1]


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1]])
def test_writing_refuses_wrong_seeds(tmp_path, seeds):
    with pytest.raises(InputError):
        write_scenes(tmp_path / "none", seeds, **SMALL)
    assert not (tmp_path / "none").exists()


def test_reading_names_what_is_damaged(tmp_path):
    with pytest.raises(InputError, match=r"no scenes here.*priorscope depth scenes"):
        StoredScenes(tmp_path)
    write_scenes(tmp_path, [0, 1], **SMALL)
    file = tmp_path / "shard-00000/depth.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"depth\.npy"):
        StoredScenes(tmp_path)
    file.write_bytes(whole)
    about = tmp_path / "shard-00000/shard.json"
    text = json.loads(about.read_text())
    about.write_text(json.dumps({**text, "seeds": [0]}))
    with pytest.raises(InputError, match="instead of"):
        StoredScenes(tmp_path)
    about.write_text("{")
    with pytest.raises(InputError, match=r"shard\.json"):
        StoredScenes(tmp_path)


def test_two_workers_write_the_same_files_as_one(tmp_path):
    write_scenes(tmp_path / "one", range(4), **SMALL)
    write_scenes(tmp_path / "two", range(4), **SMALL, workers=2)
    for file in sorted((tmp_path / "one").rglob("*.npy")):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()


def test_held_out_seeds_are_apart_from_training_seeds():
    assert HELD_OUT_SEED == 1_000_000_000
    held_out = render_scene(HELD_OUT_SEED, height=32, width=48, kind="room")
    assert not np.array_equal(held_out.depth, render_scene(0, height=32, width=48, kind="room").depth)


def test_kept_scenes_are_drawn_once_and_by_each_process_its_share(tmp_path, monkeypatch):
    drawn, titles, whole = [], [], kept.run_items

    def watched(items, evaluate, *, progress, **options):
        titles.append(progress)
        return whole(items, evaluate, progress=False, **options)

    def write(path, scene):
        drawn.append((scene.seed, scene.kind))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def keep(seeds, write=write):
        return kept.kept_scenes(tmp_path, seeds, ".npy", write, height=16, width=24)

    monkeypatch.setattr(kept, "run_items", watched)
    paths = keep(range(3))
    assert [path.stem for path in paths] == ["0", "1", "2"]
    assert drawn == [(0, "clutter"), (1, "room"), (2, "clutter")]
    assert keep(range(3)) == paths
    assert len(drawn) == 3
    assert titles == ["drawing scenes", False]  # a bar where there is something to wait for
    drawn.clear()
    monkeypatch.setattr("priorscope.evaluation.suite.process_index_and_count", lambda: (1, 2))
    keep(range(3, 7))
    assert [seed for seed, _ in drawn] == [4, 6]

    def full(path, scene):
        tried.append(scene.seed)
        raise InputError("no space is left", path=path)

    tried = []
    with pytest.raises(InputError, match=r"scene 8 cannot be drawn: .*no space"):
        keep(range(7, 13), full)
    assert tried == [8]  # the others, 10 and 12, would fail alike
