"""Bodies, postures and motions: conventions, lengths, mirrors, and flesh around the joints."""

from __future__ import annotations

import numpy as np
import pytest

from priorscope_pose.people.body import Build, place, random_build
from priorscope_pose.people.figure import JOINTS, pose
from priorscope_pose.people.flesh import PARTS, Outfit
from priorscope_pose.people.motion import ACTIONS, Motion, random_motion
from priorscope_pose.people.posture import BEND, END, OUT, RAISE, TWIST, Posture
from priorscope_pose.people.truth import _DEPTH, own_parts
from priorscope_pose.people.wardrobe import random_outfit
from priorscope_pose.skeletons import COCO

TIMES = (0.0, 0.21, 0.5, 0.83, 1.7)
LIMBS = {
    "upper_arm": ("shoulder", "elbow"),
    "forearm": ("elbow", "wrist"),
    "thigh": ("hip", "knee"),
    "shin": ("knee", "ankle"),
}


def motions():
    return [random_motion(np.random.default_rng([number, 5]), action) for number, action in enumerate(ACTIONS)]


def swapped(name):
    side = {"left": "right", "right": "left"}
    first, _, rest = name.partition("_")
    return f"{side[first]}_{rest}" if first in side else name


MIRROR = [JOINTS.index(swapped(name)) for name in JOINTS]


def arm(**angles):
    columns = {"raised": RAISE, "out": OUT, "twist": TWIST, "bend": BEND, "end": END}
    limbs = np.zeros((2, 5))
    for name, value in angles.items():
        limbs[:, columns[name]] = np.radians(value)
    return limbs


def test_at_attention_a_body_faces_minus_y_with_its_left_towards_plus_x_and_has_the_height_it_was_given():
    placed = pose(Build(), Outfit(hair="none"), Posture())
    at = dict(zip(JOINTS, placed.joints, strict=True))
    assert at["nose"][1] < at["left_ear"][1] - 0.05
    assert at["left_shoulder"][0] > 0 > at["right_shoulder"][0]
    for side, sign in (("left", 1), ("right", -1)):
        assert sign * at[f"{side}_eye"][0] > 0
        np.testing.assert_allclose(at[f"{side}_wrist"][:2], at[f"{side}_shoulder"][:2], atol=1e-12)
        np.testing.assert_allclose(at[f"{side}_ankle"][:2], at[f"{side}_hip"][:2], atol=1e-12)
    assert min(piece.mesh.vertices[:, 2].min() for piece in placed.pieces) == pytest.approx(0, abs=1e-12)
    assert at["head_top"][2] == pytest.approx(1.75, abs=0.03)
    assert at["nose"][2] < at["left_eye"][2] < at["head_top"][2]
    assert at["head_bottom"][2] < at["nose"][2]


def test_each_angle_turns_the_way_it_says():
    def joints(**posture):
        return dict(zip(JOINTS, pose(Build(), Outfit(), Posture(**posture)).joints, strict=True))

    right = np.radians(90)
    raised = joints(arms=arm(raised=90))
    np.testing.assert_allclose(raised["left_wrist"] - raised["left_shoulder"], [0, -0.555, 0], atol=1e-9)
    out = joints(arms=arm(out=90))
    np.testing.assert_allclose(out["left_wrist"] - out["left_shoulder"], [0.555, 0, 0], atol=1e-9)
    np.testing.assert_allclose(out["right_wrist"] - out["right_shoulder"], [-0.555, 0, 0], atol=1e-9)
    bent = joints(arms=arm(bend=90))
    np.testing.assert_allclose(bent["left_wrist"] - bent["left_elbow"], [0, -0.255, 0], atol=1e-9)
    twisted = joints(arms=arm(bend=90, twist=90))
    np.testing.assert_allclose(twisted["left_wrist"] - twisted["left_elbow"], [-0.255, 0, 0], atol=1e-9)
    np.testing.assert_allclose(twisted["right_wrist"] - twisted["right_elbow"], [0.255, 0, 0], atol=1e-9)
    knees = joints(legs=arm(bend=90))
    np.testing.assert_allclose(knees["left_ankle"] - knees["left_knee"], [0, 0.43, 0], atol=1e-9)
    for name in ("lean", "bend", "nod"):
        assert joints(**{name: 0.5})["nose"][1] < joints()["nose"][1] - 0.03
    for name in ("yaw", "turn", "look", "roll", "side", "tilt"):
        assert joints(**{name: 0.5})["nose"][0] > 0.03
    lifted = place(Build(), Posture(legs=arm(end=90)))
    np.testing.assert_allclose(lifted.turns["left_foot"] @ [0, -1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(joints(yaw=right)["nose"][1], 0, atol=1e-9)


def test_limbs_keep_their_lengths_in_all_that_people_do():
    for number, motion in enumerate(motions()):
        build = random_build(np.random.default_rng(number))
        for t in TIMES:
            at = place(build, motion.at(t)).points
            for name, (one, two) in LIMBS.items():
                for side in ("left", "right"):
                    length = np.linalg.norm(at[f"{side}_{one}"] - at[f"{side}_{two}"])
                    assert length == pytest.approx(getattr(build, name), abs=1e-12)
            assert np.linalg.norm(at["left_hip"] - at["right_hip"]) == pytest.approx(2 * build.hip)
            assert np.linalg.norm(at["left_shoulder"] - at["right_shoulder"]) == pytest.approx(2 * build.shoulder)


def test_a_mirrored_posture_is_the_mirror_image_joint_by_joint_and_part_by_part():
    for number, motion in enumerate(motions()):
        rng = np.random.default_rng(number)
        build, outfit, posture = random_build(rng), random_outfit(rng), motion.at(0.4)
        one, two = pose(build, outfit, posture), pose(build, outfit, posture.mirrored())
        np.testing.assert_allclose(two.joints, one.joints[MIRROR] * [-1, 1, 1], atol=1e-9)
        for part in PARTS:
            corners = []
            for placed, name in ((one, part), (two, swapped(part))):
                meshes = [piece.mesh.vertices for piece in placed.pieces if piece.part == name]
                if meshes:
                    points = np.concatenate(meshes)
                    corners.append((points.min(axis=0), points.max(axis=0)))
            if corners:
                (low, high), (low2, high2) = corners
                # the sides of a round limb do not all mirror onto sides
                np.testing.assert_allclose([-high2[0], -low2[0]], [low[0], high[0]], atol=0.02)
                np.testing.assert_allclose([low2[1:], high2[1:]], [low[1:], high[1:]], atol=0.02)


def test_everybody_stands_on_the_ground_and_nobodys_elbows_or_knees_bend_the_wrong_way():
    for motion in motions():
        for t in TIMES:
            posture = motion.at(t)
            placed = pose(Build(), Outfit(), posture)
            lowest = min(piece.mesh.vertices[:, 2].min() for piece in placed.pieces)
            assert lowest == pytest.approx(posture.lift, abs=1e-9)
            assert posture.lift >= 0
            assert (posture.arms[:, BEND] > 0).all()
            assert (posture.legs[:, BEND] > 0).all()
            assert posture.arms[:, BEND].max() < np.radians(165)
            assert posture.legs[:, BEND].max() < np.radians(165)


def test_motions_are_smooth_and_move():
    for motion in motions():
        steps = np.stack([pose(Build(), Outfit(), motion.at(t)).joints for t in np.arange(0, 1.2, 0.04)])
        speed = np.linalg.norm(np.diff(steps, axis=0), axis=-1) / 0.04
        assert speed.max() < 25
        assert speed.max() > 0.02
    still = random_motion(np.random.default_rng(3), "walk")
    start, end = (np.array(still.at(t).travel) for t in (0.0, 2.0))
    # from 0.7 to 1.7 m a second, towards where the body faces
    assert 1.4 <= np.linalg.norm(end - start) <= 3.4
    heading = np.array([np.sin(still.yaw), -np.cos(still.yaw)])
    np.testing.assert_allclose((end - start) / np.linalg.norm(end - start), heading, atol=1e-9)


def test_every_joint_lies_in_or_on_its_own_parts():
    for number, motion in enumerate(motions()):
        rng = np.random.default_rng([number, 1])
        build, outfit = random_build(rng), random_outfit(rng)
        placed = pose(build, outfit, motion.at(0.3))
        scale = max(build.girth, build.height / 1.75, build.head)
        for name, joint in zip(JOINTS, placed.joints, strict=True):
            parts = own_parts(name)
            assert set(parts) <= set(PARTS)
            vertices = np.concatenate([piece.mesh.vertices for piece in placed.pieces if piece.part in parts])
            kind = name if name in _DEPTH else name.split("_")[1]
            assert np.linalg.norm(vertices - joint, axis=-1).min() < _DEPTH[kind] * scale + outfit.loose


def test_joints_are_cocos_in_its_order_and_two_of_posetracks():
    assert JOINTS[:17] == COCO.keypoints
    assert JOINTS[17:] == ("head_bottom", "head_top")


def test_bodies_and_motions_vary():
    builds = [random_build(np.random.default_rng(seed)) for seed in range(60)]
    heights = np.array([build.height for build in builds])
    assert heights.min() < 1.5 < 1.8 < heights.max()
    assert np.std([build.girth / build.height for build in builds]) > 0.03
    drawn = [random_motion(np.random.default_rng(seed)) for seed in range(200)]
    assert {motion.action for motion in drawn} == set(ACTIONS)
    assert isinstance(drawn[0], Motion)
