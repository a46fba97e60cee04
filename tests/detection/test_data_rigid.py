"""Rigid motions, and points counted in boxes."""

import numpy as np
from safetensors.numpy import load_file

from priorscope_detection.data.rigid import (
    box_of_matrix,
    count_in_boxes,
    inverse,
    is_rigid,
    matrix_pose,
    move_boxes,
    move_points,
    pose_matrix,
)


def poses(count=50, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(scale=50, size=(count, 3)), rng.uniform(-80, 80, (count, 3))], axis=1)


def test_pose_matrices_of_the_published_convention(golden_files):
    for path in golden_files("robotics_detection", "det_poses.safetensors"):
        case = load_file(path)
        mine = pose_matrix(case["pose"])
        np.testing.assert_allclose(mine, case["x_to_world"], rtol=1e-6, atol=1e-5)
        pairs = inverse(mine)[None] @ mine[:, None]  # [a, b]: from a's frame to b's
        np.testing.assert_allclose(pairs, case["x1_to_x2"], rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(matrix_pose(mine), case["tfm_to_pose"], rtol=1e-6, atol=1e-5)


def test_there_and_back():
    matrices = pose_matrix(poses())
    np.testing.assert_allclose(matrix_pose(matrices), poses(), atol=1e-9)
    np.testing.assert_allclose(inverse(matrices) @ matrices, np.broadcast_to(np.eye(4), (50, 4, 4)), atol=1e-12)
    assert all(is_rigid(matrix) for matrix in matrices)
    assert not is_rigid(matrices[0] * [1, 1, 1.1, 1])
    assert not is_rigid(np.diag([1.0, 1, -1, 1]))
    assert not is_rigid(np.full((4, 4), np.nan))


def test_boxes_move_with_the_points_in_them(box_surface):
    rng = np.random.default_rng(3)
    for yaw in rng.uniform(-180, 180, 20):
        move = pose_matrix([*rng.normal(scale=30, size=3), 0, yaw, 0])
        box = np.array([*rng.normal(scale=20, size=3), 4.5, 2.0, 1.6, rng.uniform(-3, 3)])
        points = box_surface(box)
        there = move_boxes(move, box[None])
        assert count_in_boxes(move_points(move, points), there)[0] == len(points)
        np.testing.assert_allclose(move_boxes(inverse(move), there)[0, :6], box[:6], atol=1e-9)
    at = box_of_matrix(move @ pose_matrix([1, 2, 3, 0, 40, 0]), [4, 2, 1.5])
    np.testing.assert_allclose(at, move_boxes(move, np.array([[1, 2, 3, 4, 2, 1.5, np.radians(40)]]))[0])


def test_counting_is_that_of_the_definition():
    rng = np.random.default_rng(5)
    points = rng.uniform(-20, 20, (20_000, 4)).astype(np.float32) * [1, 1, 0.1, 1]
    boxes = np.concatenate(
        [
            rng.uniform(-20, 20, (40, 2)),
            rng.normal(size=(40, 1)),
            rng.uniform(0.5, 8, (40, 3)),
            rng.uniform(-4, 4, (40, 1)),
        ],
        axis=1,
    )
    for below in (0.0, 0.5):
        expected = []
        for x, y, z, length, w, h, yaw in boxes:
            turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
            flat = (points[:, :2] - [x, y]) @ turn.T
            up = points[:, 2] - z
            inside = (abs(flat) <= [length / 2, w / 2]).all(axis=1) & (up <= h / 2) & (up >= -h / 2 - below)
            expected.append(inside.sum())
        found = count_in_boxes(points, boxes, below=below)
        np.testing.assert_array_equal(found, expected)
        assert found.sum() > 100
    assert count_in_boxes(points[:0], boxes).sum() == 0
    assert count_in_boxes(points, boxes[:0]).shape == (0,)
