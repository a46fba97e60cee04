"""What takes one agent's frame to another's: matrices of pairs of agents, in numpy, float64.

Poses are published as [x, y, z, roll, yaw, pitch], metres and degrees (:mod:`priorscope_detection.data.rigid`); their
matrices take points from the agent's LiDAR frame to the world.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from priorscope.errors import InputError
from priorscope_detection.data.rigid import Array, inverse, pose_matrix


def matrices(poses: ArrayLike) -> Array:
    """Agent-to-world matrices of poses.

    Parameters
    ----------
    poses : array-like
        (..., 6): x, y, z, roll, yaw, pitch; (..., 3): x, y, yaw, the rest being 0; or (..., 4, 4), which stay.

    Returns
    -------
    ndarray
        (..., 4, 4).

    Raises
    ------
    InputError
        Another shape, or numbers that are not finite.
    """
    array = np.asarray(poses, np.float64)
    if not np.isfinite(array).all():
        raise InputError("a pose is not finite", remedy="Leave out agents without a pose.")
    if array.shape[-2:] == (4, 4):
        return array
    if array.shape[-1:] == (6,):
        return pose_matrix(array)
    if array.shape[-1:] != (3,):
        raise InputError(
            f"poses have shape {array.shape}",
            remedy="Give (..., 6): x, y, z, roll, yaw, pitch; (..., 3): x, y, yaw; or matrices (..., 4, 4).",
        )
    six = np.zeros((*array.shape[:-1], 6))
    six[..., [0, 1, 4]] = array
    return pose_matrix(six)


def relative(of: ArrayLike, to: ArrayLike) -> Array:
    """Transforms (..., 4, 4) from the frames of agents to those of others; poses as in :func:`matrices`, broadcast."""
    return np.asarray(inverse(matrices(to)) @ matrices(of), np.float64)


def pairwise_transforms(poses: ArrayLike, agents: int | None = None) -> Array:
    """Transforms between all agents of a frame.

    Parameters
    ----------
    poses : array-like
        Of A agents, as in :func:`matrices`.
    agents : int, optional
        Size of the result, at least A; the rest are identities, as in OpenCOOD's ``pairwise_t_matrix``.

    Returns
    -------
    ndarray
        (agents, agents, 4, 4); [i, j] takes points of agent i to the frame of agent j.

    Raises
    ------
    InputError
        More poses than agents.
    """
    known = matrices(poses)
    count, size = len(known), len(known) if agents is None else agents
    if count > size:
        raise InputError(f"{count} agents do not fit into {size}", remedy="Leave agents out, or raise the limit.")
    result = np.broadcast_to(np.eye(4), (size, size, 4, 4)).copy()
    result[:count, :count] = relative(known[:, None], known[None])
    return result


def drop_z(transforms: ArrayLike) -> Array:
    """Transforms (..., 4, 4) without what they do to and with z, as OpenCOOD's ``remove_z_axis``.

    The entries that mix x and y stay as they are; of a tilted pose they are no rotation any more.
    """
    flat = np.array(transforms, np.float64)
    flat[..., :2, 2] = 0
    flat[..., 2, :2] = 0
    flat[..., 2, 2:] = [1, 0]
    return flat
