"""Surface normals: their sign conventions, and how to get them from a depth map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def flip_x(normals: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn the first axis of (H, W, 3) normals round: x right, ours and Marigold's, to x left, Lotus', or back."""
    return normals * np.array([-1, 1, 1], dtype=np.float32)


def unit_or_zero(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W, 3) vectors made unit; 0 where they are not finite or shorter than 0.5."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    known = np.isfinite(length) & (length > 0.5)
    return np.where(known, vectors / np.where(known, length, 1), 0).astype(np.float32)


def face_the_camera(normals: NDArray[np.float32], depth: NDArray[np.float32], focal: float) -> NDArray[np.float32]:
    """Turn normals round that point away from the camera.

    Parameters
    ----------
    normals : ndarray, float32, (H, W, 3)
        x right, y up, z towards the viewer.
    depth : ndarray, float32, (H, W)
        Planar, metres; where it is not positive, normals stay as they are.
    focal : float
        Pixels; the principal point is (W / 2, H / 2) and pixels count from 0, as in Lotus' ``align_cam_normal``.
    """
    height, width = depth.shape
    x = (np.arange(width) - width / 2) / focal
    y = (np.arange(height) - height / 2) / focal
    # with the line of sight (x, -y, -1), in the frame of the normals
    away = normals[..., 0] * x - normals[..., 1] * y[:, None] - normals[..., 2]
    return np.where(((away > 0) & (depth > 0))[..., None], -normals, normals)


def normals_from_depth(
    depth: NDArray[np.float32],
    intrinsics: NDArray[np.float64],
    *,
    size: int = 5,
    gamma: float = 0.05,
    fewest: int = 4,
) -> NDArray[np.float32]:
    """Normals of planes fitted to each pixel's neighbourhood by total least squares.

    Parameters
    ----------
    depth : ndarray, float32, (H, W)
        Planar, metres; 0 where there is none.
    intrinsics : ndarray, float64, (3, 3)
        Pixels; the centre of the first pixel lies at (0.5, 0.5).
    size : int
        Side of the neighbourhood, pixels, odd.
    gamma : float
        Neighbours whose depth differs from the pixel's by more than this share of it lie on another surface.
    fewest : int
        Pixels with fewer neighbours get no normal; nor do those whose neighbours lie on one line of the image.

    Returns
    -------
    ndarray, float32, (H, W, 3)
        Unit, x right, y up, z towards the viewer, facing the camera; 0 where unknown.

    Source: the idea of D2N's SVD variant with Lotus' settings for Virtual KITTI (k = 5, d = 1, gamma = 0.05, at
    least 4 neighbours): the smallest eigenvector of the neighbours' scatter is that SVD's last vector.
    """
    height, width = depth.shape
    half = size // 2
    z = np.pad(depth.astype(np.float64), half)
    x = (np.arange(-half, width + half) + 0.5 - intrinsics[0, 2]) / intrinsics[0, 0]
    y = -(np.arange(-half, height + half) + 0.5 - intrinsics[1, 2]) / intrinsics[1, 1]
    points = np.stack([z * x, z * y[:, None], -z])
    result = np.zeros((height, width, 3), dtype=np.float32)
    for top in range(0, height, _BAND):
        band = points[:, top : top + _BAND + 2 * half]
        result[top : top + _BAND] = _fit_planes(band, half, gamma, fewest)
    return result


#: Rows worked on at once: what belongs to them fits a processor's cache.
_BAND = 16


def _fit_planes(points: NDArray[np.float64], half: int, gamma: float, fewest: int) -> NDArray[np.float32]:
    """Normals (H, W, 3) of points (3, H + 2 half, W + 2 half)."""
    height, width = points.shape[1] - 2 * half, points.shape[2] - 2 * half
    centre = points[:, half : half + height, half : half + width]
    z = -centre[2]
    # sums over the neighbours: of 1, of their offsets in space and products of these, and likewise on the image
    products = np.zeros((6, height, width))
    total = np.zeros((3, height, width))
    image = np.zeros((6, height, width))
    for row in range(-half, half + 1):
        for column in range(-half, half + 1):
            there = points[:, half + row : half + row + height, half + column : half + column + width]
            # relative to the pixel's own point, so that far points lose no digits
            offset = there - centre
            near = ((there[2] < 0) & (np.abs(offset[2]) <= gamma * z)).astype(np.float64)
            offset *= near
            total += offset
            for number, (a, b) in enumerate(_PAIRS):
                products[number] += offset[a] * offset[b]
            for number, value in enumerate((1, row, column, row * row, row * column, column * column)):
                if value:
                    image[number] += value * near
    count, rows, columns, rr, rc, cc = image
    many = np.maximum(count, 1)
    spread = (rr - rows**2 / many) * (cc - columns**2 / many) - (rc - rows * columns / many) ** 2
    known = (z > 0) & (count > fewest) & (spread > 1e-6)
    scatter = np.empty((int(known.sum()), 3, 3))
    for number, (a, b) in enumerate(_PAIRS):
        scatter[:, a, b] = scatter[:, b, a] = (products[number] - total[a] * total[b] / many)[known]
    normal = np.linalg.eigh(scatter)[1][..., 0]
    away = (normal * centre[:, known].T).sum(-1) > 0
    result = np.zeros((height, width, 3), dtype=np.float32)
    result[known] = np.where(away[:, None], -normal, normal)
    return result


_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
