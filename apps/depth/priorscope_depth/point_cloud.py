"""From a depth map to points in space, and to a .ply file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import atomic_path
from priorscope.errors import InputError


@dataclass(frozen=True)
class DepthRange:
    """Distances of the nearest and the farthest value that an affine-invariant map can take."""

    near: float = 1.0
    far: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.near < self.far < math.inf:
            raise InputError(f"the range {self.near:g} to {self.far:g} is not 0 < near < far")


def to_depth(values: NDArray[Any], *, disparity: bool, depth_range: DepthRange | None = None) -> NDArray[np.float32]:
    """Stretch an affine-invariant map over a range of distances, which makes it depth to look at.

    Depth: near + value * (far - near). Disparity: 1 / (1/far + value * (1/near - 1/far)). Where the true
    range is known and the values span [0, 1], this is the alignment that fits it; else only the shape holds.

    Parameters
    ----------
    values : ndarray
        In [0, 1].
    disparity : bool
        Whether larger means nearer.
    depth_range : DepthRange, optional

    Returns
    -------
    ndarray of float32
        Between near and far, in their unit.
    """
    span = depth_range or DepthRange()
    unit = np.clip(np.asarray(values, np.float64), 0, 1)
    if disparity:
        return (1 / (1 / span.far + unit * (1 / span.near - 1 / span.far))).astype(np.float32)
    return (span.near + unit * (span.far - span.near)).astype(np.float32)


def intrinsics_from_fov(height: int, width: int, fov: float) -> NDArray[np.float64]:
    """Pinhole intrinsics [3, 3] with square pixels, the principal point in the centre.

    Parameters
    ----------
    height, width : int
        Pixels.
    fov : float
        Horizontal field of view in degrees, between 0 and 180.
    """
    if not 0 < fov < 180:
        raise InputError(f"the field of view is {fov:g} degrees, between 0 and 180 is needed")
    focal = width / 2 / math.tan(math.radians(fov) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def check_intrinsics(intrinsics: NDArray[Any]) -> None:
    """Raise an :class:`InputError` unless it is a pinhole camera's matrix [3, 3]."""
    if intrinsics.shape != (3, 3) or not np.isfinite(intrinsics).all() or intrinsics[[0, 1], [0, 1]].min() <= 0:
        raise InputError(
            "intrinsics are a finite [3, 3] matrix with positive focal lengths", remedy="Give fx fy cx cy in pixels."
        )


def point_cloud(
    depth: NDArray[Any],
    intrinsics: NDArray[Any],
    rgb: NDArray[np.uint8] | None = None,
    valid: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Back-project a depth map.

    Parameters
    ----------
    depth : ndarray, [H, W]
        Planar depth (z, not the length of the ray).
    intrinsics : ndarray, [3, 3]
        In pixels; the centre of pixel (row, column) is at (column + 0.5, row + 0.5). Skew is honoured.
    rgb : ndarray of uint8, [H, W, 3], optional
        Default: all points grey.
    valid : ndarray of bool, [H, W], optional
        Pixels to use. Those whose depth is not positive and finite are left out in any case.

    Returns
    -------
    points : ndarray of float32, [N, 3]
        In the unit of the depth; x right, y up, z towards the viewer (so z = -depth), the frame of the
        normals, which viewers show upright. Negate y and z for the frame of OpenCV.
    colours : ndarray of uint8, [N, 3]
    """
    depth, intrinsics = np.asarray(depth, np.float64), np.asarray(intrinsics, np.float64)
    if depth.ndim != 2:
        raise InputError(f"a depth map is [H, W], not {list(depth.shape)}")
    check_intrinsics(intrinsics)
    for name, other in (("picture", rgb), ("mask", valid)):
        if other is not None and np.shape(other)[:2] != depth.shape:
            raise InputError(f"the {name} has shape {list(np.shape(other))}, the depth map {list(depth.shape)}")
    shown = np.isfinite(depth) & (depth > 0)
    if valid is not None:
        shown &= np.asarray(valid, bool)
    rows, columns = np.nonzero(shown)
    rays = np.linalg.solve(intrinsics, np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))]))
    z = depth[shown]
    points = np.stack([rays[0] * z, -rays[1] * z, -z], axis=1).astype(np.float32)
    colours = np.full((len(z), 3), 128, np.uint8) if rgb is None else np.asarray(rgb, np.uint8)[shown]
    return points, colours


def write_ply(
    path: str | PathLike[str],
    points: NDArray[Any],
    colours: NDArray[np.uint8],
    *,
    comments: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write coloured points as binary little-endian PLY (float x y z, uchar red green blue), atomically.

    Parameters
    ----------
    path : path-like
        Ends in ``.ply``.
    points : ndarray, [N, 3]
    colours : ndarray of uint8, [N, 3]
    comments : sequence of str
        Lines for the header.
    overwrite : bool
        Whether an existing file may be replaced.
    """
    path, points, colours = Path(path), np.asarray(points), np.asarray(colours)
    if points.ndim != 2 or points.shape[1] != 3 or colours.shape != points.shape or colours.dtype != np.uint8:
        raise InputError(
            f"points are [N, 3] with uint8 colours [N, 3], not {list(points.shape)} and "
            f"{colours.dtype} {list(colours.shape)}",
            path=path,
        )
    vertices = np.empty(len(points), [("xyz", "<f4", 3), ("rgb", "u1", 3)])  # packed: 15 bytes a point
    vertices["xyz"], vertices["rgb"] = points, colours
    said = [" ".join(comment.split()).encode("ascii", "replace").decode() for comment in comments]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        *(f"comment {comment}" for comment in said),
        f"element vertex {len(points)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {channel}" for channel in ("red", "green", "blue")),
        "end_header",
    ]
    with atomic_path(path, overwrite=overwrite) as temporary, open(temporary, "wb") as file:
        file.write(("\n".join(header) + "\n").encode())
        file.write(vertices.tobytes())
    return path
