"""Places in a picture whose distance is known: lidar points from a file, or a few typed by hand."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.data.arrays import read_array
from priorscope.errors import InputError

LIDAR_SUFFIXES = (".npy", ".npz", ".csv", ".png")
_KITTI_STEPS = 256.0
_COLUMNS = "u, v (column and row in pixels, from 0 at the upper left) and depth in metres"


@dataclass(frozen=True)
class KnownPoints:
    """Places with a known distance.

    Attributes
    ----------
    u, v : float array (N,)
        Column and row in pixels, from 0 at the upper left: whole numbers name a pixel, fractions lie inside it.
    depth : float array (N,)
        Planar depth (along the camera's axis), metres.
    source : str
        For messages and the result's side file.
    size : (int, int) or None
        Height and width of the picture they belong to, where the file tells.
    """

    u: NDArray[np.float64]
    v: NDArray[np.float64]
    depth: NDArray[np.float64]
    source: str
    size: tuple[int, int] | None = None

    def pixels(self, height: int, width: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns in a picture; InputError where the points are not of it."""
        if self.size is not None and self.size != (height, width):
            raise InputError(
                f"has {self.size[1]} x {self.size[0]} pixels, the picture {width} x {height}",
                path=self.source,
                remedy="Give the depths of this picture, at its size.",
            )
        outside = (self.u < 0) | (self.u >= width) | (self.v < 0) | (self.v >= height)
        if outside.any():
            first = int(np.flatnonzero(outside)[0])
            raise InputError(
                f"{int(outside.sum())} of {self.u.size} points lie outside the picture of {width} x {height} pixels, "
                f"the first at u = {self.u[first]:g}, v = {self.v[first]:g}",
                path=self.source,
                remedy="u counts columns and v rows, in pixels from 0; leave out points beyond the picture.",
            )
        return self.v.astype(np.intp), self.u.astype(np.intp)


def parse_distances(words: Sequence[str]) -> KnownPoints:
    """Points written as ``u,v,metres``; two are enough."""
    rows = []
    for word in words:
        try:
            u, v, metres = (float(part) for part in word.split(","))
        except ValueError:
            raise InputError(
                f"--distances {word!r} is not u,v,metres", remedy="For example --distances 320,400,1.5 100,80,6"
            ) from None
        rows.append((u, v, metres))
    if len(rows) < 2:
        raise InputError(
            f"{len(rows)} known distance: a scale and a shift need 2", remedy="Add another, nearer or farther."
        )
    return _points(np.array(rows), "--distances")


def read_points(path: Path) -> KnownPoints:
    """Read lidar points in pixels of a picture.

    Parameters
    ----------
    path : Path
        ``.csv`` (three columns, with or without a line of names), ``.npy`` or ``.npz`` (N, 3): u, v, depth in metres;
        an ``.npz`` may hold them as arrays ``u``, ``v`` and ``depth``. ``.png``: sparse depth as KITTI stores it, 16
        bits, metres times 256, 0 where there is none.

    Raises
    ------
    InputError
        Missing, broken or empty files, other shapes, depths that are not positive and finite, fewer than two points.
    """
    suffix = path.suffix.lower()
    if suffix not in LIDAR_SUFFIXES:
        raise InputError(
            f"{suffix or 'a file without suffix'} holds no points that are read here",
            path=path,
            remedy=f"Give one of {', '.join(LIDAR_SUFFIXES)}: {_COLUMNS}; or a sparse depth PNG as KITTI's.",
        )
    if suffix == ".png":
        return _read_kitti(path)
    if suffix == ".csv":
        return _points(_read_csv(path), str(path))
    if suffix == ".npz" and path.is_file():
        try:
            columns = [read_array(path, key=name, ndim=1).astype(np.float64) for name in ("u", "v", "depth")]
        except InputError as error:
            if "no array" not in error.fact:
                raise
            return _points(read_array(path, ndim=2), str(path))
        if len({column.size for column in columns}) > 1:
            raise InputError("u, v and depth have different lengths", path=path)
        return _points(np.stack(columns, axis=1), str(path))
    return _points(read_array(path, ndim=2), str(path))


def points_file(path: Path, stem: str, pictures: int) -> Path:
    """The file of a picture's points: ``path`` itself for one picture, else ``path/STEM.npy`` (or another suffix)."""
    if not path.exists():
        raise InputError("no such file or folder", path=path, remedy="Check --lidar.")
    if not path.is_dir():
        if pictures > 1:
            raise InputError(f"is one file for {pictures} pictures", path=path, remedy="Give a folder.")
        return path
    found = [path / f"{stem}{suffix}" for suffix in LIDAR_SUFFIXES if (path / f"{stem}{suffix}").is_file()]
    if len(found) != 1:
        raise InputError(
            f"holds {len(found) or 'no'} files of points for the picture {stem}",
            path=path,
            remedy=f"One of {', '.join(stem + suffix for suffix in LIDAR_SUFFIXES)} is expected.",
        )
    return found[0]


def _points(rows: NDArray[np.generic], source: str) -> KnownPoints:
    if rows.ndim != 2 or rows.shape[1] != 3 or rows.dtype.kind not in "iuf":
        raise InputError(f"has shape {list(rows.shape)}, (N, 3) was expected: {_COLUMNS}", path=source)
    u, v, depth = rows.astype(np.float64).T
    wrong = ~(np.isfinite(u) & np.isfinite(v) & np.isfinite(depth) & (depth > 0))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{int(wrong.sum())} of {depth.size} points have no positive, finite depth, the first is "
            f"{u[first]:g}, {v[first]:g}, {depth[first]:g}",
            path=source,
            remedy="Leave out points without a measurement.",
        )
    return KnownPoints(u, v, depth, source)


def _read_kitti(path: Path) -> KnownPoints:
    pixels = read_array(path, ndim=2)
    if pixels.dtype != np.uint16:
        raise InputError(
            f"has {pixels.dtype} pixels; KITTI's sparse depth has 16 bits (metres times 256, 0 = none)", path=path
        )
    v, u = np.nonzero(pixels)
    depth = pixels[v, u] / _KITTI_STEPS
    height, width = pixels.shape
    return KnownPoints(u.astype(np.float64), v.astype(np.float64), depth, str(path), (height, width))


def _read_csv(path: Path) -> NDArray[np.float64]:
    if not path.is_file():
        raise InputError("no such file", path=path, remedy="Check the path.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read as CSV ({' '.join(str(error).split())[:100]})", path=path) from None
    numbers: list[list[float]] = []
    for index, row in enumerate(rows):
        try:
            if len(row) != 3:
                raise ValueError
            numbers.append([float(cell) for cell in row])
        except ValueError:
            if index == 0 and not any(_is_number(cell) for cell in row):
                _check_names(row, path)
                continue
            raise InputError(f"row {index + 1} is {','.join(row)[:60]!r}, not {_COLUMNS}", path=path) from None
    if not numbers:
        raise InputError("holds no points", path=path, remedy=f"One a line: {_COLUMNS}.")
    return np.array(numbers)


def _check_names(row: list[str], path: Path) -> None:
    names = [cell.strip().lower() for cell in row]
    if names[:2] != ["u", "v"] or len(names) != 3:
        raise InputError(f"has the columns {', '.join(names)[:60]}; {_COLUMNS} are expected in this order", path=path)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
