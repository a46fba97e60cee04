"""The affine maps from the image to a crop, a matrix [2, 3] each: (x, y) of the image -> matrix @ (x, y, 1).

Pixels are points with integer coordinates. Two conventions are in use. In the unbiased one (UDP, Huang et al., CVPR
2020) a region of ``scale`` pixels spans the ``size - 1`` intervals between the crop's pixels; SDPose, ViTPose and
today's mmpose models use it. In the classic one (MSRA's simple baselines, HRNet, DCPose, FAMI-Pose) it spans ``size``.
A crop in one convention read in the other is wrong by up to a pixel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def udp_matrix(
    center: ArrayLike, scale: ArrayLike, size: tuple[int, int], rotation: ArrayLike = 0.0
) -> NDArray[np.float32]:
    """Unbiased map of regions to a crop.

    Parameters
    ----------
    center, scale : array_like, [N, 2]
        Middle (x, y) and size (width, height) of each region, in pixels of the image.
    size : (width, height)
        Of the crop, in pixels.
    rotation : float or [N]
        Degrees; positive turns x towards y, which looks clockwise in an image. (:func:`classic_matrix` turns the
        other way: both as published.)

    Returns
    -------
    ndarray, float32, [N, 2, 3]
        As mmpose's ``get_udp_warp_matrix``. Width and height are scaled each on its own.
    """
    center, scale, cos, sin = _regions(center, scale, rotation)
    factor = (np.asarray(size, np.float64) - 1) / scale
    turn = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1)
    offset = scale / 2 - np.einsum("nij,nj->ni", turn, center)
    return (np.concatenate([turn, offset[..., None]], 2) * factor[..., None]).astype(np.float32)


def classic_matrix(
    center: ArrayLike, scale: ArrayLike, size: tuple[int, int], rotation: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """Classic map of regions to a crop: one factor, crop width over region width, for both directions.

    Parameters as in :func:`udp_matrix`, but that a positive rotation turns y towards x, and that the region's height
    plays no part.

    Returns
    -------
    ndarray, float64, [N, 2, 3]
        As ``get_warp_matrix`` of mmpose 1.0: the map that takes three points of the region (its middle, the middle of
        its upper edge, and that point turned by a quarter about the first) to those of the crop. The points are rounded
        to float32, which the published crops depend on. mmpose 1.3.2 takes the left edge; its maps differ by rounding,
        below 1e-4 pixels.
    """
    center, scale, cos, sin = _regions(center, scale, rotation)
    half = scale[:, :1] / 2
    source = _three_points(center, half * np.stack([sin, -cos], 1))
    target = _three_points(np.asarray(size, np.float64)[None] / 2, np.array([[0.0, -size[0] / 2]]))
    homogeneous = np.concatenate([source, np.ones_like(source[..., :1])], 2)
    return np.swapaxes(np.linalg.solve(homogeneous, np.broadcast_to(target, source.shape)), 1, 2)


def invert(matrix: ArrayLike) -> NDArray[np.float64]:
    """The maps back, [..., 2, 3]; zeros where a map has no inverse."""
    m = np.asarray(matrix, np.float64)
    (a, b, c), (d, e, f) = np.moveaxis(m, (-2, -1), (0, 1))
    determinant = a * e - b * d
    with np.errstate(divide="ignore"):
        inverse = np.where(determinant != 0, 1 / determinant, 0.0)
    # In this order, and one product at a time, cv2 computes them: its warp rounds what comes out.
    a, b, d, e = e * inverse, b * -inverse, d * -inverse, a * inverse
    rows = [[a, b, -a * c - b * f], [d, e, -d * c - e * f]]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def apply(matrix: ArrayLike, points: ArrayLike) -> NDArray[np.float64]:
    """Points [N, K, 2] through matrices [N, 2, 3] (or one [2, 3])."""
    m = np.asarray(matrix, np.float64)
    return np.asarray(points, np.float64) @ np.swapaxes(m[..., :2], -1, -2) + m[..., None, :, 2]


def _regions(center: ArrayLike, scale: ArrayLike, rotation: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    center = np.asarray(center, np.float64).reshape(-1, 2)
    scale = np.asarray(scale, np.float64).reshape(-1, 2)
    angle = np.deg2rad(np.broadcast_to(np.asarray(rotation, np.float64), len(center)))
    return center, scale, np.cos(angle), np.sin(angle)


def _three_points(middle: NDArray[np.float64], upwards: NDArray[np.float64]) -> NDArray[np.float64]:
    first, second = middle.astype(np.float32), (middle + upwards).astype(np.float32)
    back = first - second
    third = second + np.stack([-back[:, 1], back[:, 0]], 1)
    return np.stack([first, second, third], 1).astype(np.float64)
