"""Poses of agents: six numbers as published, 4 x 4 matrices, and what takes one agent's frame to another's.

A published pose is [x, y, z, roll, yaw, pitch], metres and degrees, in OpenCOOD's order and CARLA's left-handed sense.
The matrix of a pose takes points from the agent's LiDAR frame to the world.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError

Array = NDArray[np.float64]


def _poses(poses: ArrayLike) -> Array:
    array = np.asarray(poses, np.float64)
    if array.shape[-1:] != (6,):
        raise InputError(f"poses have shape {array.shape}", remedy="Give (..., 6): x, y, z, roll, yaw, pitch.")
    if not np.isfinite(array).all():
        raise InputError(f"{int((~np.isfinite(array)).any(-1).sum())} poses are not finite")
    return array


def pose_to_matrix(poses: ArrayLike) -> Array:
    """Agent-to-world matrices of published poses.

    Parameters
    ----------
    poses : array-like
        (..., 6): x, y, z in metres; roll, yaw, pitch in degrees.

    Returns
    -------
    ndarray
        (..., 4, 4), float64, as OpenCOOD's ``x_to_world``.

    Raises
    ------
    InputError
        Another shape, or numbers that are not finite.
    """
    array = _poses(poses)
    (cr, cy, cp), (sr, sy, sp) = (f(np.radians(np.moveaxis(array[..., 3:], -1, 0))) for f in (np.cos, np.sin))
    matrix = np.zeros((*array.shape[:-1], 4, 4))
    rows = (
        (cp * cy, cy * sp * sr - sy * cr, -cy * sp * cr - sy * sr),
        (cp * sy, sy * sp * sr + cy * cr, -sy * sp * cr + cy * sr),
        (sp, -cp * sr, cp * cr),
    )
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            matrix[..., i, j] = value
    matrix[..., :3, 3] = array[..., :3]
    matrix[..., 3, 3] = 1
    return matrix


def matrix_to_pose(matrix: ArrayLike) -> Array:
    """Published poses of agent-to-world matrices, the inverse of :func:`pose_to_matrix`.

    Parameters
    ----------
    matrix : array-like
        (..., 4, 4).

    Returns
    -------
    ndarray
        (..., 6); angles in degrees, roll and yaw in [-180, 180], pitch in [-90, 90].
    """
    m = np.asarray(matrix, np.float64)
    roll = np.arctan2(-m[..., 2, 1], m[..., 2, 2])
    yaw = np.arctan2(m[..., 1, 0], m[..., 0, 0])
    pitch = np.arctan2(m[..., 2, 0], np.hypot(m[..., 0, 0], m[..., 1, 0]))
    return np.concatenate([m[..., :3, 3], np.degrees(np.stack([roll, yaw, pitch], -1))], -1)


def planar_pose_to_matrix(poses: ArrayLike) -> Array:
    """Agent-to-world matrices of poses on a plane.

    Parameters
    ----------
    poses : array-like
        (..., 3): x, y in metres, yaw in degrees.

    Returns
    -------
    ndarray
        (..., 4, 4); z, roll and pitch are 0.
    """
    array = np.asarray(poses, np.float64)
    if array.shape[-1:] != (3,):
        raise InputError(f"planar poses have shape {array.shape}", remedy="Give (..., 3): x, y, yaw.")
    six = np.zeros((*array.shape[:-1], 6))
    six[..., [0, 1, 4]] = array
    return pose_to_matrix(six)


def drop_z(matrix: ArrayLike) -> Array:
    """Transforms (..., 4, 4) without what they do to and with z, as OpenCOOD's ``remove_z_axis``.

    The entries that mix x and y stay as they are; of a tilted pose they are no rotation any more.
    """
    m = np.array(matrix, np.float64)
    m[..., :2, 2] = 0
    m[..., 2, :2] = 0
    m[..., 2, 2] = 1
    m[..., 2, 3] = 0
    return m


def relative(of: ArrayLike, to: ArrayLike) -> Array:
    """Transforms from one agent's frame to another's.

    Parameters
    ----------
    of, to : array-like
        Poses (..., 6), which broadcast; or matrices (..., 4, 4).

    Returns
    -------
    ndarray
        (..., 4, 4): inverse of the matrix ``to``, times the matrix ``of``.
    """
    first, second = _matrices(of), _matrices(to)
    return np.asarray(np.linalg.solve(second, first), np.float64)


def _matrices(given: ArrayLike) -> Array:
    array = np.asarray(given, np.float64)
    return array if array.shape[-2:] == (4, 4) else pose_to_matrix(array)


def pairwise_transforms(poses: ArrayLike, agents: int | None = None) -> Array:
    """Transforms between all agents of a frame.

    Parameters
    ----------
    poses : array-like
        (A, 6) poses or (A, 4, 4) matrices.
    agents : int, optional
        Size of the result, at least A; the rest are identities.

    Returns
    -------
    ndarray
        (agents, agents, 4, 4); [i, j] takes points of agent i to the frame of agent j.

    Raises
    ------
    InputError
        More poses than agents.
    """
    matrices = _matrices(poses)
    count = len(matrices)
    size = count if agents is None else agents
    if count > size:
        raise InputError(f"{count} agents do not fit into {size}", remedy="Leave agents out, or raise the limit.")
    result = np.broadcast_to(np.eye(4), (size, size, 4, 4)).copy()
    result[:count, :count] = relative(matrices[:, None], matrices[None])
    return result


def published_affine(
    transforms: NDArray[np.floating], size: Sequence[int], resolution: float, downsample: float = 1
) -> NDArray[np.floating]:
    """Transforms as CoAlign gives them to ``affine_grid``: in units of half the map, z left out.

    Right only for maps that are symmetric about the sensor, whose ends are the ends of the range.

    Parameters
    ----------
    transforms : ndarray
        (..., 4, 4), from the ego's frame to the other agent's (what is looked up where), in metres.
    size : (int, int)
        H, W of the map in cells before ``downsample``.
    resolution : float
        Metres a cell before ``downsample``.
    downsample : float
        Cells a cell of the map that is warped.

    Returns
    -------
    ndarray
        (..., 2, 3), for ``torch.nn.functional.affine_grid`` with ``align_corners=False``.
    """
    height, width = size
    affine = transforms[..., :2, :][..., [0, 1, 3]].copy()
    affine[..., 0, 1] *= height / width
    affine[..., 1, 0] *= width / height
    affine[..., 0, 2] *= 2 / (downsample * resolution * width)
    affine[..., 1, 2] *= 2 / (downsample * resolution * height)
    return affine
