"""KITTI's left colour camera: its labels are of what it sees, and its benchmark asks for rectangles in its picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorscope_detection.data.rigid import Array

#: Most pictures' width and height, for data without pictures.
USUAL_SIZE = (1242, 375)
#: Metres before the camera from which things are drawn.
_NEAR = 0.1


@dataclass(frozen=True)
class Camera:
    """The camera.

    Attributes
    ----------
    projection : ndarray, (3, 4)
        P2: from the rectified camera frame, metres, to the picture, pixels.
    width, height : int
        Of the picture, pixels.
    """

    projection: Array
    width: int
    height: int

    def pixels(self, points: Array) -> Array:
        """Where points (N, 3) of the rectified camera frame, which have to be in front of it, are, (N, 2)."""
        at = points @ self.projection[:, :3].T + self.projection[:, 3]
        return at[:, :2] / at[:, 2:]

    def sees(self, points: NDArray[np.floating], to_camera: Array) -> NDArray[np.bool_]:
        """Which points, (N, 3 or more) in the LiDAR frame, are in the picture, (N,)."""
        there = points[:, :3].astype(np.float64) @ to_camera[:3, :3].T + to_camera[:3, 3]
        seen = there[:, 2] > _NEAR
        place = self.pixels(there[seen])
        seen[seen] = ((place >= 0) & (place < [self.width, self.height])).all(axis=1)
        return seen

    def rectangle(self, size: Array, bottom: Array, turn: float) -> Array | None:
        """Left, top, right, bottom of a box in the picture, (4,), pixels; None where nothing of it is there.

        Parameters
        ----------
        size, bottom, turn
            As in :class:`~priorscope_detection.data.kitti.KittiLabel`.
        """
        h, w, length = size
        c, s = np.cos(turn), np.sin(turn)
        along, up, across = np.meshgrid([length / 2, -length / 2], [0, -h], [w / 2, -w / 2], indexing="ij")
        corners = np.stack([along * c + across * s, up, across * c - along * s], axis=-1) + bottom
        # the edges along each of the three sides, by their ends
        edges = [np.moveaxis(corners, axis, 0).reshape(2, 4, 3) for axis in range(3)]
        first, second = np.concatenate(edges, axis=1)
        # of an edge that reaches behind the camera only what is before it
        from_, to = first[:, 2], second[:, 2]
        share = np.clip((_NEAR - from_) / np.where(to == from_, 1.0, to - from_), 0, 1)
        middle = first + share[:, None] * (second - first)
        ends = [np.where((end[:, 2] < _NEAR)[:, None], middle, end) for end in (first, second)]
        before = np.maximum(from_, to) >= _NEAR
        if not before.any():
            return None
        place = self.pixels(np.concatenate([end[before] for end in ends]))
        low = np.maximum(place.min(axis=0), 0)
        high = np.minimum(place.max(axis=0), [self.width - 1, self.height - 1])
        return np.concatenate([low, high]) if (low < high).all() else None
