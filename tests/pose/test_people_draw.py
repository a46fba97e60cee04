"""Drawn people: joints where the limbs are, visibility against a caster of our own, masks, clips, determinism."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("embreex")

from priorscope.errors import InputError
from priorscope.scenes.camera import look_at, pixel_centres
from priorscope.scenes.geometry import box
from priorscope.scenes.materials import Material
from priorscope.scenes.world import Caster, World
from priorscope_pose.people import ACTIONS, draw_clip, draw_people
from priorscope_pose.people.body import Build
from priorscope_pose.people.draw import compose
from priorscope_pose.people.figure import JOINTS, Figure, pose
from priorscope_pose.people.flesh import PARTS, Outfit
from priorscope_pose.people.motion import random_motion
from priorscope_pose.people.posture import Posture
from priorscope_pose.people.truth import _DEPTH, own_parts, project, visibility

SMALL = {"height": 80, "width": 64}
PAINT = Material(0, 1.0, 0.0, (0.0, 0.0), (0.2, 0.2, 0.2), (0.8, 0.8, 0.8))
FACE = ("nose", "left_eye", "right_eye")


def staged(posture, camera, obstacles=(), outfit=None):
    """Which joints of one figure the camera sees; and the part image at 160 x 160."""
    outfit = outfit or Outfit(skirt=0.0, hair="short")
    placed = pose(Build(), outfit, posture)
    figure = Figure(Build(), outfit, random_motion(np.random.default_rng(0)), {}, np.zeros(2))
    world = World()
    for piece in placed.pieces:
        world.add(piece.mesh, PAINT)
    parts = [PARTS.index(piece.part) for piece in placed.pieces]
    for mesh in obstacles:
        world.add(mesh, PAINT)
    ours = np.arange(len(world.meshes)) < len(parts)
    part = np.array(parts + [-1] * len(obstacles))
    caster = Caster(world)
    seen = visibility(caster, camera, placed, figure, ours, part)
    rays = camera.rays(*pixel_centres(160, 160), 160, 160)
    hits = caster.cast(camera.position, rays)
    image = np.full(160 * 160, -1)
    image[hits.ray] = part[hits.part]
    return dict(zip(JOINTS, seen, strict=True)), image.reshape(160, 160), placed


def from_side(x, y, fov=45):
    return look_at(np.array([x, y, 1.0]), np.array([0.0, 0.0, 0.95]), np.radians(fov))


def test_from_the_front_all_is_visible_from_behind_the_face_is_not():
    seen, _, _ = staged(Posture(), from_side(0.0, -3.0))
    assert all(seen.values())
    seen, _, _ = staged(Posture(), from_side(0.0, 3.0))
    assert {name for name, visible in seen.items() if not visible} == set(FACE)


def test_from_the_side_the_far_half_is_hidden():
    # with the arms down a hand would be before the hip
    arms = np.zeros((2, 5))
    arms[:, 0] = np.radians(60)
    seen, _, _ = staged(Posture(arms=arms), from_side(3.0, 0.0))
    hidden = {name for name, visible in seen.items() if not visible}
    assert {"right_eye", "right_ear", "right_shoulder", "right_hip", "right_elbow"} <= hidden
    assert not any(name.startswith("left_") for name in hidden)
    # the far leg lies exactly behind the near one
    assert {"right_knee", "right_ankle"} <= hidden


def test_a_board_in_front_hides_what_lies_behind_it_and_nothing_else():
    # seen from y = -3, z = 1, a board half way from z = 0.6 to 1.1 covers z from 0.2 to 1.2 at the body
    board = box(2.0, 0.02, 0.5).moved((0.0, -1.5, 0.6))
    seen, _, placed = staged(Posture(), from_side(0.0, -3.0), [board])
    height = dict(zip(JOINTS, placed.joints[:, 2], strict=True))
    for name, visible in seen.items():
        assert visible == (not 0.2 < height[name] < 1.2), name
    behind, _, _ = staged(Posture(), from_side(0.0, -3.0), [board.moved((0, 3.0, 0))])
    assert all(behind.values())


def test_a_hand_before_the_face_hides_it():
    arms = np.zeros((2, 5))
    arms[:, 0], arms[:, 3], arms[:, 2] = np.radians(100), np.radians(70), np.radians(40)
    seen, image, placed = staged(Posture(arms=arms), from_side(0.0, -3.0))
    at, _ = project(from_side(0.0, -3.0), placed.joints, 160, 160)
    for name in FACE:
        column, row = np.rint(at[JOINTS.index(name)]).astype(int)
        assert seen[name] == (PARTS[image[row, column]] == "head")


def test_the_mirrored_body_has_the_mirrored_picture_with_left_and_right_swapped():
    camera = from_side(0.0, -3.0)
    swap = {name: name.replace("left", "?").replace("right", "left").replace("?", "right") for name in PARTS}
    numbers = np.array([PARTS.index(swap[name]) for name in PARTS] + [-1])
    joints = [JOINTS.index(name.replace("left", "?").replace("right", "left").replace("?", "right")) for name in JOINTS]
    for number, action in enumerate(("walk", "dance", "sit", "throw")):
        posture = random_motion(np.random.default_rng(number), action).at(0.3)
        posture = Posture(**{**vars(posture), "travel": (0.0, 0.0)})
        seen, image, placed = staged(posture, camera)
        seen2, image2, placed2 = staged(posture.mirrored(), camera)
        at, _ = project(camera, placed.joints, 160, 160)
        at2, _ = project(camera, placed2.joints, 160, 160)
        np.testing.assert_allclose(at2, [159, 0] + at[joints] * [-1, 1], atol=1e-6)
        # ten-sided limbs are not symmetric in every orientation: borders may differ by a pixel
        body = image >= 0
        wrong = (numbers[image[:, ::-1]] != image2).sum() / body.sum()
        assert wrong < 0.06
        same = [seen2[JOINTS[j]] == seen[name] for j, name in zip(joints, JOINTS, strict=True)]
        assert np.mean(same) > 0.9


def first_hits(origin, target, triangles):
    """Shares of the way from origin to target at which triangles, (F, 3, 3), are met (Moeller and Trumbore 1997)."""
    direction = target - origin
    one, two = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    p = np.cross(direction, two)
    det = np.einsum("nk,nk->n", one, p)
    safe = np.where(np.abs(det) < 1e-14, 1.0, det)
    s = origin - triangles[:, 0]
    u = np.einsum("nk,nk->n", s, p) / safe
    q = np.cross(s, one)
    v = q @ direction / safe
    t = np.einsum("nk,nk->n", two, q) / safe
    hit = (np.abs(det) >= 1e-14) & (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 1e-6)
    return np.where(hit, t, np.inf)


@pytest.mark.parametrize("seed", [3, 8, 21])
def test_visibility_agrees_with_casting_by_hand(seed):
    shot = compose(seed, 80, 64, 2, occluders=1.0)
    _, truth = draw_people(seed, **SMALL, people=2, occluders=1.0)
    meshes, owners, parts = [*shot.scenery.meshes], [-1] * len(shot.scenery.meshes), [""] * len(shot.scenery.meshes)
    placed = [figure.at(shot.start) for figure in shot.figures]
    for number, body in enumerate(placed):
        meshes += [piece.mesh for piece in body.pieces]
        owners += [number] * len(body.pieces)
        parts += [piece.part for piece in body.pieces]
    world = World()
    for obstacle in shot.obstacles:
        obstacle.put(world, shot.start)
    meshes += world.meshes
    owners += [-1] * len(world.meshes)
    parts += [""] * len(world.meshes)
    triangles = np.concatenate([mesh.vertices[mesh.faces] for mesh in meshes])
    of = np.repeat(np.arange(len(meshes)), [len(mesh.faces) for mesh in meshes])
    checked = 0
    for person in truth.people:
        figure, body = shot.figures[person.track_id], placed[person.track_id]
        for name, joint, (_, _, v) in zip(JOINTS, body.joints, person.joints, strict=True):
            if v == 0:
                continue
            shares = first_hits(shot.camera.position, joint, triangles)
            mesh = of[shares.argmin()]
            gap = (1 - shares.min()) * np.linalg.norm(joint - shot.camera.position)
            kind = name if name in _DEPTH else name.split("_")[1]
            scale = figure.build.height / 1.75
            stout = max(figure.build.girth / scale, 1)
            reach = _DEPTH[kind] * (figure.build.head if kind == name else scale * stout) + figure.outfit.loose
            if abs(gap + 1e-3) < 1e-4 or abs(gap - reach) < 1e-4:
                continue
            own = owners[mesh] == person.track_id and parts[mesh] in own_parts(name)
            assert (v == 2) == (gap < -1e-3 or (own and gap < reach)), name
            checked += 1
    assert checked > 10


def test_a_visible_joint_lies_on_its_own_part_and_masks_boxes_and_areas_belong_together():
    visible = hidden = on = 0
    for seed in range(18):
        image, truth = draw_people(seed, **SMALL, people=1 + seed % 3)
        assert image.shape == (80, 64, 3)
        assert image.dtype == np.uint8
        assert ((truth.owner >= 0) == (truth.part >= 0)).all()
        for person in truth.people:
            mask = truth.owner == person.track_id
            assert person.area == mask.sum()
            rows, columns = np.nonzero(mask)
            np.testing.assert_array_equal(person.box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            for name, (x, y, v) in zip(JOINTS, person.joints, strict=True):
                inside = -0.5 <= x < 63.5 and -0.5 <= y < 79.5
                assert v in (0, 1, 2)
                assert (v > 0) == inside
                hidden += v == 1
                if v == 2:
                    visible += 1
                    column, row = int(np.rint(x)), int(np.rint(y))
                    near = np.s_[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
                    names = {PARTS[part] for part in truth.part[near][mask[near]]}
                    on += bool(names & set(own_parts(name)))
            assert (person.coco[person.coco[:, 2] == 0] == 0).all()
            assert person.coco.shape == person.posetrack.shape == (17, 3)
            assert not person.posetrack[3:5].any()
            assert set(person.posetrack[:, 2]) <= {0, 1}
            head = person.joints[list(range(5)), :2] + 0.5
            low, high = person.head_box[:2], person.head_box[2:]
            assert (head >= low - 0.5).all()
            assert (head <= high + 0.5).all()
    # through a gap of less than a pixel a joint may be seen and no centre of a pixel with it
    assert on >= 0.995 * visible
    assert hidden > 0.1 * visible
    assert visible > 200


def test_joints_project_along_the_cameras_rays():
    shot = compose(4, 80, 64, 1)
    joints = shot.figures[0].at(shot.start).joints
    at, depth = project(shot.camera, joints, 80, 64)
    rays = shot.camera.rays(at[:, 0] + 0.5, at[:, 1] + 0.5, 80, 64)
    np.testing.assert_allclose(shot.camera.position + rays * depth[:, None], joints, atol=1e-9)
    _, truth = draw_people(4, **SMALL, people=1)
    np.testing.assert_allclose(truth.people[0].joints[:, :2], at, atol=1e-9)


def test_a_seed_fixes_the_picture_whatever_was_drawn_before():
    first, truth = draw_people(5, **SMALL)
    other, _ = draw_people(6, **SMALL)
    again, truth2 = draw_people(5, **SMALL)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(truth.part, truth2.part)
    assert 1 <= len({person.track_id for person in truth.people}) <= 4


def test_a_better_light_changes_the_picture_and_not_the_truth():
    plain, truth = draw_people(9, **SMALL)
    fine, truth2 = draw_people(9, **SMALL, fine=True)
    assert np.array_equal(truth.owner, truth2.owner)
    assert not np.array_equal(plain, fine)


def test_things_in_the_way_hide_joints():
    shares = []
    for occluders in (0.0, 1.0):
        v = [
            person.joints[:, 2]
            for seed in range(12)
            for person in draw_people(seed, 40, 32, 1, occluders=occluders)[1].people
        ]
        v = np.concatenate(v)
        shares.append((v == 1).sum() / (v > 0).sum())
    assert shares[1] > shares[0] + 0.05


def test_in_a_clip_people_keep_their_ids_and_their_limbs():
    images, truths = draw_clip(2, 4, **SMALL, people=2, blur=0.0, action="walk")
    assert images.shape == (4, 80, 64, 3)
    assert all({person.track_id for person in truth.people} <= {0, 1} for truth in truths)
    moved = [
        np.abs(one.joints - two.joints).max()
        for before, after in pairwise(truths)
        for one in before.people
        for two in after.people
        if one.track_id == two.track_id
    ]
    assert max(moved) > 1
    shot = compose(2, 80, 64, 2, action="walk", occluders=0.5, clip=4 / 12)
    for figure in shot.figures:
        steps = np.stack([figure.at(shot.start + number / 12).joints for number in range(4)])
        for side in ("left", "right"):
            for one, two in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")):
                ends = [steps[:, JOINTS.index(f"{side}_{name}")] for name in (one, two)]
                length = np.linalg.norm(ends[0] - ends[1], axis=-1)
                np.testing.assert_allclose(length, length[0], rtol=1e-9)


def test_blur_changes_the_pictures_and_not_the_truth():
    sharp, truths = draw_clip(3, 2, **SMALL, people=1, blur=0.0, action="run", occluders=0.0)
    blurred, truths2 = draw_clip(3, 2, **SMALL, people=1, blur=1.0, action="run", occluders=0.0)
    again, _ = draw_clip(3, 2, **SMALL, people=1, blur=1.0, action="run", occluders=0.0)
    assert np.array_equal(blurred, again)
    for one, two in zip(truths, truths2, strict=True):
        assert np.array_equal(one.owner, two.owner)
        assert np.array_equal(one.people[0].joints, two.people[0].joints)
    # where nobody is near nothing changes but the exposure
    change = np.abs(sharp.astype(int) - blurred).mean(axis=(0, 3))
    person = np.any([truth.owner >= 0 for truth in truths], axis=0)
    assert change[person].mean() > 2 * change[~person].mean()


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_can_be_drawn(action):
    _, truth = draw_people(17, 48, 48, 1, action=action, occluders=0.0)
    (person,) = truth.people
    assert person.action == action
    assert person.area > 60


def test_the_truth_is_an_annotated_image():
    _, truth = draw_people(1, **SMALL, people=2)
    image = truth.annotated(7, Path("a.jpg"))
    assert (image.id, image.width, image.height) == (7, 64, 80)
    assert [person.track_id for person in image.people] == [person.track_id for person in truth.people]
    tracked = truth.annotated(7, Path("a.jpg"), layout="posetrack", video="v", frame=3)
    assert (tracked.video, tracked.frame) == ("v", 3)
    for one, two in zip(tracked.people, truth.people, strict=True):
        assert np.array_equal(one.keypoints, two.posetrack)
        assert one.labelled == (two.posetrack[:, 2] > 0).sum()
    with pytest.raises(InputError, match="layout"):
        truth.annotated(7, Path("a.jpg"), layout="mpii")


@pytest.mark.parametrize(
    "wrong",
    [
        *({"seed": -1}, {"seed": 1.5}, {"seed": True}, {"height": 8}, {"width": 10**6}, {"height": 64.0}),
        *({"people": 0}, {"people": 99}, {"action": "fly"}, {"occluders": 1.5}, {"occluders": float("nan")}),
    ],
)
def test_wrong_requests_are_input_errors(wrong):
    with pytest.raises(InputError):
        draw_people(**{"seed": 0, **SMALL, **wrong})


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"frames": 2.5}, {"blur": 1.2}, {"blur": -0.1}, {"rate": 0.0}])
def test_wrong_clips_are_input_errors(wrong):
    with pytest.raises(InputError):
        draw_clip(0, **{**SMALL, **wrong})
