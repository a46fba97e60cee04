"""The Point Cloud Library's ``.pcd``, versions 0.6 and 0.7: ascii, binary, binary_compressed."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import atomic_path
from priorscope.errors import InputError
from priorscope_detection.data.lzf import lzf_decompress

#: A file that announces more points than this is refused before memory is taken (a rotating LiDAR gives some 1e5).
MAX_POINTS = 50_000_000
_LONGEST_HEADER = 16_384
#: Characters of a number in text, with the space behind it.
_LONGEST_NUMBER = 64
_AGAIN = "Copy or download it again."


@dataclass(frozen=True)
class PcdHeader:
    """What a .pcd says of itself.

    Attributes
    ----------
    dtype : numpy dtype
        One point: a field a name; fields of several values have a shape.
    points : int
    encoding : str
        ascii, binary or binary_compressed.
    start : int
        Where the data begin, bytes.
    """

    dtype: np.dtype
    points: int
    encoding: str
    start: int


def read_pcd(path: str | PathLike[str]) -> NDArray[np.void]:
    """The points of a .pcd, (N,) with the fields that the file names.

    Raises
    ------
    InputError
        No such file, no PCD header, an encoding that does not exist, fewer data than announced, or text that is no
        number.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            header = parse_header(file.read(_LONGEST_HEADER), path)
            file.seek(header.start)
            # a file may be far longer than what it announces
            body = file.read(_longest_body(header))
    except FileNotFoundError:
        raise InputError("no such file", path=path, remedy="Check the path.") from None
    except OSError as error:
        raise InputError(f"cannot be read ({error})", path=path) from None
    if header.encoding == "ascii":
        return _ascii(body, header, path)
    wanted = header.points * header.dtype.itemsize
    if header.encoding == "binary":
        if len(body) < wanted:
            raise _short(path, len(body), wanted)
        return np.frombuffer(body, header.dtype).copy()
    return _compressed(memoryview(body), header, path)


def _longest_body(header: PcdHeader) -> int:
    """Bytes of data that can be of use."""
    if header.encoding == "ascii":
        return header.points * _columns(header) * _LONGEST_NUMBER
    # what LZF cannot make shorter it makes longer by a byte in 32; before it stand two lengths
    packed = header.encoding == "binary_compressed"
    wanted = header.points * header.dtype.itemsize
    return wanted + wanted // 32 + 9 if packed else wanted


def parse_header(data: bytes, path: Path) -> PcdHeader:
    """The header at the start of a file's bytes; see `read_pcd` for the errors."""
    entries: dict[str, list[str]] = {}
    start = 0
    while "DATA" not in entries:
        end = data.find(b"\n", start)
        if end < 0:
            raise InputError("has no PCD header that ends with a DATA line", path=path, remedy=_AGAIN)
        words = data[start:end].decode("ascii", "replace").split()
        start = end + 1
        if words and not words[0].startswith("#"):
            entries[words[0].upper()] = words[1:]
    missing = [key for key in ("FIELDS", "SIZE", "TYPE") if not entries.get(key)]
    if missing or not ("POINTS" in entries or {"WIDTH", "HEIGHT"} <= set(entries)):
        raise InputError(f"its PCD header has no {', '.join(missing) or 'POINTS'}", path=path)
    fields = entries["FIELDS"]
    try:
        counts = [int(word) for word in entries.get("COUNT", ["1"] * len(fields))]
        sizes = [int(word) for word in entries["SIZE"]]
        shape = int(entries["WIDTH"][0]) * int(entries["HEIGHT"][0]) if {"WIDTH", "HEIGHT"} <= set(entries) else None
        points = int(entries["POINTS"][0]) if entries.get("POINTS") else shape
    except (ValueError, IndexError):
        raise InputError("its PCD header holds a count that is no whole number", path=path) from None
    kinds = entries["TYPE"]
    if not len(fields) == len(sizes) == len(kinds) == len(counts):
        raise InputError(
            f"its PCD header names {len(fields)} fields, {len(sizes)} sizes, {len(kinds)} types, {len(counts)} counts",
            path=path,
        )
    if points is None or points < 0 or (shape is not None and shape != points):
        raise InputError(f"its PCD header announces {points} points, width x height is {shape}", path=path)
    if points > MAX_POINTS:
        raise InputError(f"announces {points} points; at most {MAX_POINTS} are read", path=path)
    encoding = entries["DATA"][0].lower() if entries["DATA"] else ""
    if encoding not in ("ascii", "binary", "binary_compressed"):
        raise InputError(
            f"has DATA {encoding or '(nothing)'}", path=path, remedy="ascii, binary and binary_compressed are read."
        )
    return PcdHeader(_dtype(fields, sizes, kinds, counts, path), points, encoding, start)


def _dtype(fields: list[str], sizes: list[int], kinds: list[str], counts: list[int], path: Path) -> np.dtype:
    parts: list[tuple[str, str, tuple[int, ...]]] = []
    for number, (name, size, kind, count) in enumerate(zip(fields, sizes, kinds, counts, strict=True)):
        letter = {"F": "f", "I": "i", "U": "u"}.get(kind.upper())
        if letter is None or size not in ((4, 8) if letter == "f" else (1, 2, 4, 8)) or not 1 <= count <= 4096:
            raise InputError(f"its PCD field {name} has TYPE {kind}, SIZE {size}, COUNT {count}", path=path)
        # "_" is padding and may come several times
        unique = name
        while unique == "_" or fields.count(unique) > (unique == name):
            unique = f"_{number}" if unique == name else f"_{unique}"
        parts.append((unique, f"<{letter}{size}", () if count == 1 else (count,)))
    return np.dtype([part if part[2] else part[:2] for part in parts])


def _short(path: Path, have: int, wanted: int) -> InputError:
    return InputError(f"is cut short: {have} bytes of data, {wanted} were announced", path=path, remedy=_AGAIN)


def _columns(header: PcdHeader) -> int:
    return sum(int(np.prod(header.dtype[name].shape)) for name in header.dtype.names or ())


def _ascii(body: bytes, header: PcdHeader, path: Path) -> NDArray[np.void]:
    columns = _columns(header)
    words = body.split()
    if len(words) < header.points * columns:
        raise InputError(
            f"is cut short: {len(words)} numbers, {header.points * columns} were announced", path=path, remedy=_AGAIN
        )
    try:
        table = np.array(words[: header.points * columns], dtype=np.float64).reshape(header.points, columns)
    except ValueError as error:
        raise InputError(f"holds something that is no number ({error})", path=path) from None
    out = np.zeros(header.points, header.dtype)
    at = 0
    for name in header.dtype.names or ():
        width = int(np.prod(header.dtype[name].shape))
        column = table[:, at : at + width]
        if header.dtype[name].base.kind != "f" and not np.isfinite(column).all():
            raise InputError(f"its whole-number field {name} holds nan or inf", path=path)
        with np.errstate(invalid="ignore"):
            out[name] = column.reshape(out[name].shape).astype(header.dtype[name].base)
        at += width
    return out


def _compressed(body: memoryview, header: PcdHeader, path: Path) -> NDArray[np.void]:
    wanted = header.points * header.dtype.itemsize
    if header.points == 0:
        return np.zeros(0, header.dtype)
    if len(body) < 8:
        raise _short(path, len(body), 8)
    packed, size = (int(value) for value in np.frombuffer(body[:8], "<u4"))
    if size != wanted:
        raise InputError(f"unpacks to {size} bytes, its header announces {wanted}", path=path, remedy=_AGAIN)
    if len(body) - 8 < packed:
        raise _short(path, len(body) - 8, packed)
    try:
        flat = lzf_decompress(bytes(body[8 : 8 + packed]), size)
    except ValueError as error:
        raise InputError(f"its compressed data are broken: {error}", path=path, remedy=_AGAIN) from None
    out = np.zeros(header.points, header.dtype)
    at = 0
    for name in header.dtype.names or ():  # field by field, not point by point
        width = header.dtype[name].itemsize
        stop = at + width * header.points
        out[name] = np.frombuffer(flat[at:stop], header.dtype[name].base).reshape(out[name].shape)
        at = stop
    return out


def write_pcd(path: str | PathLike[str], points: NDArray[np.floating], *, overwrite: bool = False) -> Path:
    """Write points, (N, 4) x, y, z, intensity, as binary PCD 0.7 with float32 fields.

    Raises
    ------
    InputError
        The shape is another, or the file exists and `overwrite` is false.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 4:
        raise InputError(f"points of shape {points.shape} cannot be written, (N, 4) is wanted", path=path)
    header = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z intensity\nSIZE 4 4 4 4\n"
        f"TYPE F F F F\nCOUNT 1 1 1 1\nWIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\n"
        f"POINTS {len(points)}\nDATA binary\n"
    )
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(header.encode() + np.ascontiguousarray(points, dtype="<f4").tobytes())
    return Path(path)
