"""Agent-object pose graph: exact where it can be, better than the noise where boxes are noisy, and harmless."""

from dataclasses import replace

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_detection.data.frame import Agent, Frame, Truth
from priorscope_detection.data.rigid import inverse, matrix_pose, move_boxes, pose_matrix
from priorscope_detection.noise import Disturbance, disturb
from priorscope_detection.pose_graph import (
    AgentBoxes,
    PoseGraphSettings,
    _residual,
    correct_frame,
    correct_poses,
)

CLEAN = np.stack([pose_matrix(p) for p in ([0, 0, 2, 0.3, 10, -0.2], [18, 6, 2, 0, -170, 0.4], [-9, 12, 5, 0, 75, 0])])


def world(count=12, seed=0):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(-24, 25, 8.0), np.arange(-24, 25, 8.0)), axis=-1).reshape(-1, 2)
    places = grid[rng.permutation(len(grid))[:count]] + rng.uniform(-1, 1, (count, 2))
    return np.column_stack(
        [
            places,
            np.full(count, 0.8),
            np.full(count, 4.4),
            np.full(count, 1.8),
            np.full(count, 1.5),
            rng.uniform(-3, 3, count),
        ]
    )


def views(boxes, noise=0.0, seed=0, seen=None, flip=False):
    """What each agent finds: exact boxes, with noise, some of them turned round."""
    rng = np.random.default_rng(seed)
    found = []
    for number, pose in enumerate(CLEAN):
        mine = boxes if seen is None else boxes[seen[number]]
        local = move_boxes(inverse(pose), mine)
        local[:, :2] += noise * rng.normal(size=(len(mine), 2))
        local[:, 6] += noise * 0.2 * rng.normal(size=len(mine)) + (np.pi * rng.integers(0, 2, len(mine)) if flip else 0)
        found.append(AgentBoxes(local))
    return found


def told(offsets):
    return np.stack(
        [
            pose_matrix(matrix_pose(pose) + np.array([x, y, 0, 0, yaw, 0]))
            for pose, (x, y, yaw) in zip(CLEAN, offsets, strict=True)
        ]
    )


def errors(poses):
    """Metres and degrees that each agent is off, seen from the ego."""
    right = inverse(CLEAN[0]) @ CLEAN
    found = inverse(poses[0]) @ poses
    away = np.linalg.norm((found - right)[:, :2, 3], axis=1)
    turn = np.arctan2(found[:, 1, 0], found[:, 0, 0]) - np.arctan2(right[:, 1, 0], right[:, 0, 0])
    return away, np.abs(np.degrees(np.angle(np.exp(1j * turn))))


OFF = [(0.0, 0.0, 0.0), (0.5, -0.4, 1.2), (-0.3, 0.6, -0.9)]
WEAK = PoseGraphSettings(prior_position=1e3, prior_yaw=1e3)


@pytest.mark.parametrize("flip", [False, True])
def test_exact_boxes_give_the_exact_poses(flip):
    found = correct_poses(told(OFF), views(world(), flip=flip), WEAK)
    assert found.objects == 12
    assert found.moved.tolist() == [False, True, True]
    np.testing.assert_allclose(found.poses[1:, :2, 3], CLEAN[1:, :2, 3], atol=1e-4)
    away, turn = errors(found.poses)
    assert away.max() < 1e-4
    assert turn.max() < 1e-3


def test_an_ego_that_is_off_takes_the_others_along():
    """Only relative poses can be seen; the ego's is held, and the others come to agree with it."""
    offsets = [(0.4, 0.3, 0.5), *OFF[1:]]
    found = correct_poses(told(offsets), views(world()), WEAK)
    np.testing.assert_array_equal(found.poses[0], told(offsets)[0])
    away, turn = errors(found.poses)
    assert away.max() < 2e-3
    assert turn.max() < 1e-2


def test_derivatives():
    rng = np.random.default_rng(0)
    viewer, thing, box = rng.normal(size=(3, 6, 3))
    residual, by_agent, by_object = _residual(viewer, thing, box)
    for k in range(3):
        step = np.eye(3)[k] * 1e-6
        found = (_residual(viewer + step, thing, box)[0] - residual) / 1e-6
        np.testing.assert_allclose(found, by_agent[:, :, k], atol=1e-4)
        found = (_residual(viewer, thing + step, box)[0] - residual) / 1e-6
        np.testing.assert_allclose(found, by_object[:, :, k], atol=1e-4)


def test_noisy_boxes_still_help_over_many_frames():
    before, after = [], []
    for number in range(30):
        agents = tuple(Agent(str(n), np.zeros((0, 4), np.float32), pose, pose) for n, pose in enumerate(CLEAN))
        frame = disturb(Frame(str(number), agents, Truth.of({})), Disturbance(position=0.4, yaw=0.4), seed=1)
        corrected, _ = correct_frame(frame, views(world(seed=number), noise=0.15, seed=number))
        before.append(errors(np.stack([a.pose for a in frame.agents]))[0][1:].mean())
        after.append(errors(np.stack([a.pose for a in corrected.agents]))[0][1:].mean())
        assert [a.clean_pose is b.clean_pose for a, b in zip(corrected.agents, agents, strict=True)] == [True] * 3
    assert np.mean(after) < 0.35 * np.mean(before)


def test_false_boxes_count_less():
    boxes = world()
    found = views(boxes, noise=0.02)
    wrong = found[1].boxes.copy()
    wrong[0, :2] += [1.6, 0.0]
    result = correct_poses(told(OFF), [found[0], replace(found[1], boxes=wrong), found[2]])
    assert errors(result.poses)[0].max() < 0.15


def test_an_agent_with_too_little_in_common_keeps_its_pose():
    boxes = world()
    seen = [np.arange(0, 9), np.arange(4, 12), np.array([11])]
    poses = told(OFF)
    result = correct_poses(poses, views(boxes, seen=seen))
    assert result.shared.tolist() == [5, 6, 1]
    assert result.moved.tolist() == [False, True, False]
    np.testing.assert_array_equal(result.poses[2], poses[2])


def test_nothing_found_changes_nothing():
    nothing = [AgentBoxes(np.zeros((0, 7)))] * 3
    poses = told(OFF)
    for found in (nothing, [views(world())[0], *nothing[1:]]):
        result = correct_poses(poses, found)
        np.testing.assert_array_equal(result.poses, poses)
        assert result.objects == 0


def test_a_jump_is_taken_for_a_false_match():
    result = correct_poses(told(OFF), views(world()), PoseGraphSettings(limit=0.1))
    np.testing.assert_array_equal(result.poses, told(OFF))


def test_refused():
    with pytest.raises(InputError, match="3 poses and 2 agents"):
        correct_poses(CLEAN, views(world())[:2])
    with pytest.raises(InputError, match="an agent's pose is not finite"):
        correct_poses(CLEAN * [[[1]], [[np.nan]], [[1]]], views(world()))
    broken = AgentBoxes(np.full((1, 7), np.nan))
    with pytest.raises(InputError, match="not finite"):
        correct_poses(CLEAN, [broken] * 3)
    with pytest.raises(InputError, match="spread is not positive"):
        correct_poses(CLEAN, [AgentBoxes(np.ones((1, 7)), np.zeros((1, 3)))] * 3)
