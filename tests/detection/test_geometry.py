"""Boxes, poses and their published conventions."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorscope.errors import InputError
from priorscope_detection.data.rigid import matrix_pose
from priorscope_detection.fusion.warp import published_affine
from priorscope_detection.geometry import boxes as geometry
from priorscope_detection.geometry import poses as frames
from priorscope_detection.noise import official_pose_noise


@pytest.fixture
def some_boxes():
    draw = torch.Generator().manual_seed(0)
    boxes = torch.rand(200, 7, generator=draw, dtype=torch.float64) * 10 - 5
    boxes[:, 3:6] = boxes[:, 3:6].abs() + 0.1
    return boxes


def test_golden_det_boxes(golden_files, read_json):
    for path in golden_files("robotics_detection", "det_boxes*.safetensors"):
        case, tol = load_file(path), read_json(path.with_suffix(".json"))["tol"]

        def close(ours, theirs, tol=tol):
            torch.testing.assert_close(ours.to(theirs), theirs, **tol)

        for order, ours in (("hwl", geometry.from_hwl(case["boxes_hwl"])), ("lwh", case["boxes_lwh"])):
            close(geometry.corners(ours), case[f"corners_{order}"])
            back = geometry.boxes_from_corners(case[f"corners_{order}"])
            close(geometry.to_hwl(back) if order == "hwl" else back, case[f"back_{order}"])
        points = case["corners_hwl"]
        close(geometry.transform_points(points, case["T"]), case["corners_projected"])
        close(geometry.standup_of_corners(points), case["standup"])
        limits = (-20, -20, -3, 20, 20, 1)
        assert torch.equal(geometry.corners_inside(points, limits), case["in_range_mask"])
        assert torch.equal(geometry.corners_inside(points, limits, axes="xy"), case["in_range_mask_xy"])
        angles = torch.linspace(-10, 10, 41, dtype=torch.float64)
        close(geometry.limit_period(angles), case["limit_period"])
        close(geometry.limit_period(angles, 0, pi), case["limit_period_0_pi"])


def test_golden_det_poses(golden_files, read_json):
    for path in golden_files("robotics_detection", "det_poses*.safetensors"):
        case = {name: value.numpy() for name, value in load_file(path).items()}
        tol = read_json(path.with_suffix(".json"))["tol"]
        poses = case["pose"]
        np.testing.assert_allclose(frames.matrices(poses), case["x_to_world"], **tol)
        np.testing.assert_allclose(frames.matrices(poses), case["pose_to_tfm_6dof"], **tol)
        np.testing.assert_allclose(frames.matrices(poses[:, [0, 1, 4]]), case["pose_to_tfm_3dof"], **tol)
        np.testing.assert_allclose(frames.relative(poses[:, None], poses[None]), case["x1_to_x2"], **tol)
        np.testing.assert_allclose(matrix_pose(frames.matrices(poses)), case["tfm_to_pose"], **tol)
        np.testing.assert_allclose(frames.drop_z(case["x_to_world"]), case["remove_z_axis"], **tol)
        pairwise = frames.pairwise_transforms(poses[:3], 5)
        np.testing.assert_allclose(pairwise, case["pairwise_5"], **tol)
        for height, width, down in ((100, 252, 1), (48, 176, 4)):
            half_y, half_x = (cells * 0.4 * down / 2 for cells in (height, width))
            # the affine of [i, j] is told by what takes j to i
            back = torch.from_numpy(pairwise.swapaxes(0, 1).reshape(25, 4, 4))
            affine = published_affine(back, (-half_x, -half_y, -3, half_x, half_y, 1)).view(5, 5, 2, 3)
            for row in case[f"normalized_affine_H{height}_W{width}_r0.4_d{down}"]:
                np.testing.assert_allclose(affine, row, **tol)
        for kind in ("gaussian", "laplace"):
            draws = official_pose_noise(np.random.RandomState(303), 20, position=0.4, yaw=0.4, distribution=kind)
            np.testing.assert_allclose(draws, case[f"noise303_{kind.removesuffix('ian')}"], **tol)
        draws = official_pose_noise(np.random.RandomState(303), 2, position=0.2, yaw=0.2, distribution="gaussian")
        np.testing.assert_allclose(poses[1:3] + draws, case["noisy_dict_s303_0.2"], **tol)
        moved = geometry.transform_points(
            torch.from_numpy(case["points"]), torch.from_numpy(frames.relative(poses[1], poses[0]))
        )
        np.testing.assert_allclose(moved.numpy(), case["points_proj_T01"], **tol)


def test_corners_and_back(some_boxes):
    back = geometry.boxes_from_corners(geometry.corners(some_boxes))
    torch.testing.assert_close(back[:, :6], some_boxes[:, :6])
    turns = (back[:, 6] - some_boxes[:, 6]) / (2 * pi)
    torch.testing.assert_close(turns, turns.round())
    assert geometry.boxes_from_corners(geometry.corners(some_boxes[:0])).shape == (0, 7)


def test_a_heading_near_pi_survives_rounding():
    """Where the four edges' angles lie on both sides of pi; their plain mean would be off by pi or half of it."""
    box = torch.tensor([[30.0, 10, -1, 4.5, 2, 1.5, pi]])
    points = geometry.corners(box)
    points[0, [0, 4], 1] += 1e-4
    points[0, [1, 5], 1] -= 1e-4
    edges = points[0, [0, 1], :2] - points[0, [3, 2], :2]
    assert len({float(sign) for sign in edges[:, 1].sign()}) == 2
    assert abs(float(geometry.boxes_from_corners(points)[0, 6].cos()) + 1) < 1e-6


def test_corners_go_round_from_the_front_right():
    points = geometry.corners(torch.tensor([1.0, 2, 3, 4, 2, 1, 0]))
    assert points[0].tolist() == [3, 1, 2.5]
    assert points[1].tolist() == [3, 3, 2.5]
    assert points[6].tolist() == [-1, 3, 3.5]
    assert geometry.standup(torch.tensor([1.0, 2, 3, 4, 2, 1, 0])).tolist() == [-1, 1, 3, 3]


def test_a_transform_moves_boxes_as_it_moves_points(some_boxes):
    transform = torch.from_numpy(frames.matrices([3, -2, 1, 0, 130, 0]))
    moved = geometry.transform_boxes(some_boxes, transform)
    torch.testing.assert_close(moved[:, 3:6], some_boxes[:, 3:6])
    torch.testing.assert_close(
        geometry.corners(moved), geometry.transform_points(geometry.corners(some_boxes), transform)
    )
    points = torch.rand(5, 4, dtype=torch.float64)
    assert torch.equal(geometry.transform_points(points, transform)[:, 3], points[:, 3])


def test_there_and_back_is_nothing():
    draw = np.random.default_rng(0)
    poses = draw.uniform(-1, 1, (50, 6)) * [100, 100, 5, 180, 180, 89]
    there, back = frames.relative(poses[:25], poses[25:]), frames.relative(poses[25:], poses[:25])
    np.testing.assert_allclose(there @ back, np.broadcast_to(np.eye(4), (25, 4, 4)), atol=1e-9)
    world = draw.normal(size=(10, 3))
    pairs = frames.pairwise_transforms(poses[:3])
    for i in range(3):
        for j in range(3):
            own, other = (world_to(poses[k], world) for k in (i, j))
            np.testing.assert_allclose(own @ pairs[i, j, :3, :3].T + pairs[i, j, :3, 3], other, atol=1e-9)


def world_to(pose, points):
    back = np.linalg.inv(frames.matrices(pose))
    return points @ back[:3, :3].T + back[:3, 3]


def test_limit_period_is_half_open():
    values = geometry.limit_period(torch.tensor([pi, -pi, 3 * pi, 0.0], dtype=torch.float64))
    assert values.tolist() == [-pi, -pi, -pi, 0]


@pytest.mark.parametrize(
    ("row", "value", "fact"),
    [
        (3, float("nan"), r"boxes\[3\] is not finite"),
        (5, float("inf"), r"boxes\[5\] is not finite"),
        (2, 0.0, r"boxes\[2\] has a size of 0 or less: .* 1 of 200"),
        (2, -1.0, r"boxes\[2\] has a size of 0 or less"),
    ],
)
def test_wrong_boxes_are_named(some_boxes, row, value, fact):
    some_boxes[row, 4] = value
    with pytest.raises(InputError, match=fact):
        geometry.check_boxes(some_boxes)


def test_wrong_shapes_are_told():
    with pytest.raises(InputError, match=r"\(3, 8\).*x, y, z of the centre"):
        geometry.check_boxes(torch.ones(3, 8))
    with pytest.raises(InputError, match=r"poses have shape \(5,\)"):
        frames.matrices([1, 2, 3, 4, 5])
    with pytest.raises(InputError, match="a pose is not finite"):
        frames.matrices([[0, 0, 0, 0, np.nan, 0]])
    with pytest.raises(InputError, match="3 agents do not fit into 2"):
        frames.pairwise_transforms(np.zeros((3, 6)), 2)
