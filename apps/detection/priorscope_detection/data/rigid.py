"""Rigid motions of points, poses and boxes in numpy, float64: what reading data needs before there is a tensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def pose_matrix(pose: ArrayLike) -> Array:
    """Sensor to world, (..., 4, 4), of poses (..., 6) x, y, z (metres), roll, yaw, pitch (degrees).

    CARLA's convention, which OPV2V and V2XSet store: the axes are left-handed (y to the right), and yaw turns x
    towards y. Within the frame all formulas read as usual; seen from above the street is mirrored.
    """
    pose = np.asarray(pose, dtype=np.float64)
    roll, yaw, pitch = (np.radians(pose[..., k]) for k in (3, 4, 5))
    cr, sr, cy, sy, cp, sp = np.cos(roll), np.sin(roll), np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    matrix = np.zeros((*pose.shape[:-1], 4, 4))
    matrix[..., 0, :3] = np.stack([cp * cy, cy * sp * sr - sy * cr, -cy * sp * cr - sy * sr], axis=-1)
    matrix[..., 1, :3] = np.stack([sy * cp, sy * sp * sr + cy * cr, -sy * sp * cr + cy * sr], axis=-1)
    matrix[..., 2, :3] = np.stack([sp, -cp * sr, cp * cr], axis=-1)
    matrix[..., :3, 3] = pose[..., :3]
    matrix[..., 3, 3] = 1.0
    return matrix


def matrix_pose(matrix: Array) -> Array:
    """The inverse of `pose_matrix`, (..., 6); pitch within +-90 degrees."""
    pitch = np.arcsin(np.clip(matrix[..., 2, 0], -1, 1))
    yaw = np.arctan2(matrix[..., 1, 0], matrix[..., 0, 0])
    roll = np.arctan2(-matrix[..., 2, 1], matrix[..., 2, 2])
    angles = np.degrees(np.stack([roll, yaw, pitch], axis=-1))
    return np.concatenate([matrix[..., :3, 3], angles], axis=-1)


def inverse(matrix: Array) -> Array:
    """Inverse of rigid motions (..., 4, 4)."""
    rotation = np.swapaxes(matrix[..., :3, :3], -1, -2)
    result = np.zeros_like(matrix)
    result[..., :3, :3] = rotation
    result[..., :3, 3] = -np.einsum("...ij,...j->...i", rotation, matrix[..., :3, 3])
    result[..., 3, 3] = 1.0
    return result


def is_rigid(matrix: Array) -> bool:
    """Whether a (4, 4) matrix is finite and a rotation with a shift, to 1e-3 (files hold rounded numbers)."""
    return bool(
        matrix.shape == (4, 4)
        and np.isfinite(matrix).all()
        and np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-3)
        and np.linalg.det(matrix[:3, :3]) > 0
        and np.allclose(matrix[3], [0, 0, 0, 1])
    )


def move_points(matrix: Array, points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Points (N, 3 or more; the first three are x, y, z) moved by (4, 4); float32, the other columns as they were."""
    moved = np.array(points, dtype=np.float32)
    moved[:, :3] = points[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
    return moved


def move_boxes(matrix: Array, boxes: Array) -> Array:
    """Boxes (N, 7) moved by (4, 4): the centre exactly, the yaw as that of the moved heading; sizes stay.

    A tilt that the motion has besides is lost: a box of seven numbers stands upright.
    """
    moved = np.array(boxes, dtype=np.float64).reshape(-1, 7)
    moved[:, :3] = moved[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
    heading = np.stack([np.cos(moved[:, 6]), np.sin(moved[:, 6])], axis=-1) @ matrix[:2, :2].T
    moved[:, 6] = np.arctan2(heading[:, 1], heading[:, 0])
    return moved


def box_of_matrix(matrix: Array, size: ArrayLike) -> Array:
    """The box, (7,), that stands at a pose (4, 4) about its centre, with size l, w, h (metres)."""
    yaw = np.arctan2(matrix[1, 0], matrix[0, 0])
    return np.concatenate([matrix[:3, 3], np.asarray(size, dtype=np.float64), [yaw]])


def half_open(angle: Array, period: float = 2 * np.pi) -> Array:
    """Angles brought to [-period / 2, period / 2)."""
    return (angle + period / 2) % period - period / 2


def count_in_boxes(points: NDArray[np.floating], boxes: Array, *, below: float = 0.0) -> NDArray[np.int64]:
    """How many points lie in each box, faces included, (N,).

    Parameters
    ----------
    points : ndarray, (P, 3 or more)
    boxes : ndarray, (N, 7)
    below : float
        Metres by which each box reaches further down (wheels and feet of drawn boxes often end above the ground).
    """
    counts = np.zeros(len(boxes), np.int64)
    if not len(points):
        return counts
    order = np.argsort(points[:, 0], kind="stable")
    xs = points[order, 0].astype(np.float64)
    reach = np.hypot(boxes[:, 3], boxes[:, 4]) / 2
    first = np.searchsorted(xs, boxes[:, 0] - reach, side="left")
    last = np.searchsorted(xs, boxes[:, 0] + reach, side="right")
    for number, (box, start, stop) in enumerate(zip(boxes, first, last, strict=True)):
        away = points[order[start:stop], :3].astype(np.float64) - box[:3]
        c, s = np.cos(box[6]), np.sin(box[6])
        along, across = away[:, 0] * c + away[:, 1] * s, away[:, 1] * c - away[:, 0] * s
        inside = (np.abs(along) <= box[3] / 2) & (np.abs(across) <= box[4] / 2)
        inside &= (away[:, 2] <= box[5] / 2) & (away[:, 2] >= -box[5] / 2 - below)
        counts[number] = np.count_nonzero(inside)
    return counts
