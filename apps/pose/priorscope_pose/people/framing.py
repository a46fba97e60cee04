"""Cameras that look at people: from all sides, near and far, whole or cut off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from priorscope.scenes.camera import Camera, look_at

Array = NDArray[np.float64]


def random_camera(rng: np.random.Generator, joints: Array, height: int, width: int) -> Camera:
    """A camera for which the joints, (N, 19, 3), of all people fill most of a picture of that shape.

    Mostly near eye level; some from above, few from below. One picture in seven is a close-up that cuts people off.
    """
    points = joints.reshape(-1, 3)
    low, high = points.min(axis=0) - 0.08, points.max(axis=0) + 0.08
    middle = 0.5 * (low + high)
    angle = rng.uniform(0, 2 * np.pi)
    kind = rng.uniform()
    rise = np.radians(
        rng.normal() * 8 + 5 if kind < 0.7 else rng.uniform(10, 55) if kind < 0.92 else rng.uniform(-20, 0)
    )
    away = np.array([np.cos(rise) * np.cos(angle), np.cos(rise) * np.sin(angle), np.sin(rise)])
    long_side = np.tan(np.radians(np.exp(rng.uniform(np.log(20), np.log(78)))) / 2)
    tan_w, tan_h = long_side * width / max(height, width), long_side * height / max(height, width)
    closeup = rng.uniform() < 1 / 7
    fill = rng.uniform(1.05, 1.9) if closeup else rng.uniform(0.55, 0.98)
    axes = look_at(middle + away, middle, 1.0).rotation
    local = (points - middle) @ axes.T
    # far enough for every joint, were the picture filled as asked for
    need = np.abs(local[:, :2] / (fill * np.array([tan_w, tan_h]))).max(axis=-1) - local[:, 2]
    distance = max(float(need.max()), 0.9, float(np.abs(local[:, 2]).max()) + 0.35)
    position = middle + distance * away
    position[2] = max(position[2], 0.15)
    target = middle.copy()
    if closeup:
        target = 0.5 * target + 0.5 * points[int(rng.integers(len(points)))]
    slack = max(1 - fill, 0.08) * distance
    target = target + slack * (axes[0] * tan_w * rng.uniform(-0.9, 0.9) + axes[1] * tan_h * rng.uniform(-0.9, 0.9))
    roll = np.radians(rng.normal() * (12 if rng.uniform() < 0.15 else 2))
    return look_at(position, target, 2 * float(np.arctan(tan_w)), float(roll))
