"""A LiDAR sweep of any of the public file formats as (N, 4) float32: x, y, z in metres and intensity."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_detection.data.pcd import MAX_POINTS, read_pcd

Points = NDArray[np.float32]
_INTENSITY = ("intensity", "i", "reflectance", "reflectivity")
_BYTE = 255.0


@dataclass(frozen=True)
class Sweep:
    """Points, (N, 4) float32, and how many of the file were left out because a value was not finite."""

    points: Points
    dropped: int


def read_points(path: str | PathLike[str], *, columns: int | None = None, full_scale: float | None = 1.0) -> Sweep:
    """Read one sweep.

    Parameters
    ----------
    path : path-like
        ``.pcd``; ``.bin`` of float32 rows (KITTI: x, y, z, intensity; nuScenes' ``.pcd.bin`` has the ring besides).
    columns : int, optional
        Numbers a row of a ``.bin``. Default: 5 for ``.pcd.bin``, else 4.
    full_scale : float or None
        The file's intensities are divided by this: 255 for nuScenes and DAIR-V2X, whose values are bytes. None, for a
        sweep of which nothing more is known: 255 if any of them is above 1.

    Returns
    -------
    Sweep
        A point with a value that is not finite is left out and counted: drivers mark missing returns so. A file
        that announces no point at all gives (0, 4). Without an intensity field it is 0; of ``rgb`` (as Open3D
        stores OPV2V's) it is red / 255.

    Raises
    ------
    InputError
        Missing, empty, cut short or too large file, another format, or points none of which is finite.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError("is a folder, a sweep is a file", path=path, remedy="Give a .pcd or a .bin.")
    if not path.is_file():
        raise InputError("no such file", path=path, remedy="Check the path.")
    if path.stat().st_size == 0:
        raise InputError("is empty (0 bytes)", path=path, remedy="Copy or download it again.")
    suffix = path.suffix.lower()
    if suffix == ".bin":
        raw = _read_bin(path, columns or (5 if path.name.lower().endswith(".pcd.bin") else 4))
    elif suffix == ".pcd":
        raw = _from_fields(read_pcd(path), path)
    else:
        raise InputError(
            f"{suffix or 'a file without suffix'} is no LiDAR sweep that is read here",
            path=path,
            remedy="Give a .pcd or a .bin.",
        )
    finite = np.isfinite(raw).all(axis=1)
    kept = raw if finite.all() else raw[finite]
    if len(raw) and not len(kept):
        raise InputError(f"none of its {len(raw)} points is finite", path=path, remedy="Was it converted wrongly?")
    if full_scale is None:
        full_scale = _BYTE if (kept[:, 3] > 1).any() else 1.0
    if full_scale != 1.0:
        kept = kept * np.array([1, 1, 1, 1 / full_scale], dtype=np.float32)
    return Sweep(np.ascontiguousarray(kept, dtype=np.float32), len(raw) - len(kept))


def _read_bin(path: Path, columns: int) -> Points:
    if columns < 4:
        raise InputError(f"rows of {columns} numbers hold no x, y, z, intensity", path=path)
    size, row = path.stat().st_size, 4 * columns
    if size % row:
        raise InputError(
            f"has {size} bytes, no multiple of {row} (rows of {columns} float32)",
            path=path,
            remedy="Is it cut short, or are its rows of another length?",
        )
    if size // row > MAX_POINTS:
        raise InputError(f"holds {size // row} points; at most {MAX_POINTS} are read", path=path)
    return np.fromfile(path, "<f4").reshape(-1, columns)[:, :4]


def _from_fields(points: NDArray[np.void], path: Path) -> Points:
    have = points.dtype.names or ()
    names = {name.lower(): name for name in have} | {name: name for name in have}
    missing = [axis for axis in "xyz" if axis not in names]
    if missing:
        raise InputError(f"has no field {', '.join(missing)}", path=path, remedy=f"Its fields: {', '.join(names)}.")
    for name in ("x", "y", "z", *_INTENSITY):
        if name in names and points.dtype[names[name]].shape:
            count = points.dtype[names[name]].shape[0]
            raise InputError(
                f"its field {names[name]} has {count} values a point", path=path, remedy="One is expected."
            )
    out = np.zeros((len(points), 4), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for axis, name in enumerate("xyz"):
            out[:, axis] = points[names[name]]
        for name in _INTENSITY:
            if name in names:
                out[:, 3] = points[names[name]]
                return out
    for name in ("rgb", "rgba"):
        if name in names and points.dtype[names[name]].itemsize == 4:
            packed = np.ascontiguousarray(points[names[name]]).view("<u4")
            out[:, 3] = ((packed >> 16) & 255) / np.float32(255)
    return out
