"""A DICOM series as a volume: one series, in the order of its positions. For research use only."""

from __future__ import annotations

import math
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.arrays import MAX_GIGABYTES
from priorscope.errors import InputError
from priorscope_medical.volumes import Unit, Volume, check_size

#: DICOM counts to the patient's left and back, NIfTI to the right and front.
_TO_RAS = np.diag([-1.0, -1.0, 1.0])
AIR = -1000.0


def read_series(
    path: str | PathLike[str], *, series: str | int | None = None, max_gigabytes: float = MAX_GIGABYTES
) -> Volume:
    """Read the one series of a folder (subfolders included), or one file.

    Slices are sorted along their normal. CT values become Hounsfield units, and pixels that the scanner marked as
    padding become air. A missing RescaleSlope counts as 1, a missing RescaleIntercept as 0, with a note.

    Parameters
    ----------
    path : path-like
        A folder, or a file of one slice.
    series : str or int, optional
        SeriesInstanceUID (or its end) or SeriesNumber, where there are several.
    max_gigabytes : float
        Larger volumes are refused before their memory is taken.

    Returns
    -------
    Volume

    Raises
    ------
    InputError
        No DICOM image, several series (they are listed), slices of several sizes or orientations, two at one place,
        colour, several frames in a file, or pixels that cannot be decoded.

    Warns
    -----
    UserWarning
        Missing slices, uneven distances, a sheared stack (gantry tilt), no positions.
    """
    path = Path(path)
    headers = _chosen(_headers(path), path, series)
    first = headers[0][1]
    _check_alike(headers, path)
    shape = (int(first.Rows), int(first.Columns))
    check_size((len(headers), *shape), path, max_gigabytes)
    notes: list[str] = []
    headers, affine, gap = _placed(headers, path, notes)
    data = np.empty((len(headers), *shape), np.float32)
    unscaled = padding = 0
    for number, (file, header) in enumerate(headers):
        values, marked = _pixels(file, shape)
        slope, intercept = (_scaling(header, name, file) for name in ("RescaleSlope", "RescaleIntercept"))
        unscaled += slope is None
        data[number] = values * (1.0 if slope is None else slope) + (intercept or 0.0)
        if header.get("Modality") == "CT":
            data[number][marked] = AIR
            padding += int(marked.sum())
    if unscaled:
        notes.append(f"{unscaled} of {len(headers)} slices have no RescaleSlope: slope 1 and intercept 0 are used")
    if padding:
        notes.append(f"{padding} pixels are marked as padding: set to {AIR:g} HU")
    modality = str(first.get("Modality", "")) or "none"
    unit: Unit = "HU" if modality == "CT" else "intensity"
    notes.append(f"modality {modality}: values are {unit}")
    rows, columns = (float(step) for step in np.linalg.norm(affine[:3, [1, 0]], axis=0))
    return Volume(data, (gap, rows, columns), affine, (2, 1, 0), unit, path, 1, tuple(notes))


def _headers(path: Path) -> list[tuple[Path, Any]]:
    """Files with an image in them, and what stands before the pixels."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    found = []
    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, NotImplementedError) as error:
            if path.is_file() or file.suffix.lower() in (".dcm", ".ima"):
                raise InputError(
                    f"is no volume file that is read here ({' '.join(str(error).split())[:100].rstrip('. ')})",
                    path=file,
                    remedy="Give NIfTI, DICOM, or .npy.",
                ) from error
            continue
        if "Rows" in header and "Columns" in header:
            found.append((file, header))
    if not found:
        what = "holds no image" if path.is_file() else f"holds no DICOM image and no .npy ({len(files)} files)"
        raise InputError(what, path=path, remedy="Give the folder of one series.")
    return found


def _chosen(headers: list[tuple[Path, Any]], path: Path, series: str | int | None) -> list[tuple[Path, Any]]:
    """The files of the series asked for, or of the only one."""
    groups: dict[str, list[tuple[Path, Any]]] = {}
    for file, header in headers:
        groups.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((file, header))
    listed = "; ".join(
        f"number {group[0][1].get('SeriesNumber', '-')}, {group[0][1].get('Modality', '-')}, "
        f"{group[0][1].get('SeriesDescription', None) or 'no description'}, {len(group)} files, UID {uid}"
        for uid, group in groups.items()
    )
    if series is None:
        if len(groups) > 1:
            raise InputError(f"holds {len(groups)} series: {listed}", path=path, remedy="Choose one by --series.")
        return headers
    named = [group for uid, group in groups.items() if uid == str(series)]
    numbered = [group for group in groups.values() if str(group[0][1].get("SeriesNumber", "")) == str(series)]
    ending = [group for uid, group in groups.items() if uid.endswith(str(series))]
    matches = named or numbered or ending
    if len(matches) != 1:
        fact = "no series" if not matches else f"{len(matches)} series"
        raise InputError(f"{fact} match {series!r}; there are: {listed}", path=path)
    return matches[0]


def _check_alike(headers: list[tuple[Path, Any]], path: Path) -> None:
    first = headers[0][1]
    orientation = first.get("ImageOrientationPatient")
    for file, header in headers:
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise InputError(
                f"holds {header.NumberOfFrames} frames; files of one slice are read",
                path=file,
                remedy="Convert it to NIfTI, for instance by dcm2niix.",
            )
        if int(header.get("SamplesPerPixel") or 1) != 1:
            raise InputError("is a colour image; a slice has one value a pixel", path=file)
        if (header.Rows, header.Columns) != (first.Rows, first.Columns):
            raise InputError(
                f"is {header.Rows} x {header.Columns}, others of the series are {first.Rows} x {first.Columns}",
                path=file,
                remedy="Take the localiser out.",
            )
        steps = [one.get("PixelSpacing") or one.get("ImagerPixelSpacing") for one in (first, header)]
        if (steps[0] is None) != (steps[1] is None) or (
            steps[0] is not None
            and not np.allclose(_numbers(steps[0], 2, path), _numbers(steps[1], 2, file), rtol=1e-3, atol=0)
        ):
            raise InputError(f"has pixels of {steps[1]} mm, others of the series of {steps[0]} mm", path=file)
        other = header.get("ImageOrientationPatient")
        if (orientation is None) != (other is None) or (
            orientation is not None and np.abs(_numbers(other, 6, file) - _numbers(orientation, 6, file)).max() > 1e-3
        ):
            raise InputError("is oriented otherwise than the rest of the series", path=file)


def _scaling(header: Any, name: str, file: Path) -> float | None:
    """A factor or offset of the stored values; None where it is absent or empty."""
    value = header.get(name)
    if value is None or str(value) == "":
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (name == "RescaleSlope" and number == 0):
        raise InputError(f"has a {name} of {value}", path=file, remedy="Repair the header, or convert it by dcm2niix.")
    return number


def _numbers(value: Any, count: int, file: Path) -> NDArray[np.float64]:
    try:
        numbers = np.array([float(part) for part in value])
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise InputError(f"has a broken position, orientation or pixel spacing: {value}", path=file)
    return numbers


def _placed(
    headers: list[tuple[Path, Any]], path: Path, notes: list[str]
) -> tuple[list[tuple[Path, Any]], NDArray[np.float64], float]:
    """Slices sorted along their normal, the affine of (column, row, slice) and their distance in mm."""
    first = headers[0][1]
    steps = first.get("PixelSpacing") or first.get("ImagerPixelSpacing")
    if steps is None:
        notes.append("no PixelSpacing: 1 mm is assumed")
    rows, columns = (1.0, 1.0) if steps is None else _numbers(steps, 2, headers[0][0])
    nominal = abs(float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 0)) or 1.0
    if not (rows > 0 and columns > 0):
        raise InputError(f"a pixel spacing of {rows} x {columns} mm", path=headers[0][0])
    affine = np.eye(4)
    if any("ImagePositionPatient" not in header or "ImageOrientationPatient" not in header for _, header in headers):
        warnings.warn(
            f"{path}: slices without position or orientation are ordered by their InstanceNumber, "
            f"{nominal:g} mm apart, as if axial",
            stacklevel=4,
        )
        headers = sorted(headers, key=lambda pair: (int(pair[1].get("InstanceNumber") or 0), pair[0]))
        affine[:3, :3] = _TO_RAS @ np.diag([columns, rows, nominal])
        return headers, affine, nominal
    along = _numbers(first.ImageOrientationPatient, 6, headers[0][0]).reshape(2, 3)
    normal = np.cross(*along)
    if not np.allclose(along @ along.T, np.eye(2), atol=1e-2):
        raise InputError(f"an orientation of {along.ravel().tolist()}: no two unit vectors", path=headers[0][0])
    places = np.stack([_numbers(header.ImagePositionPatient, 3, file) for file, header in headers])
    order = np.argsort(places @ normal, kind="stable")
    headers, places = [headers[number] for number in order], places[order]
    heights = places @ normal
    step, gap = normal * nominal, nominal
    if len(headers) > 1:
        gaps = np.diff(heights)
        if gaps.min() < 1e-3:
            at = int(gaps.argmin())
            raise InputError(
                f"{headers[at][0].name} and {headers[at + 1][0].name} lie at one place",
                path=path,
                remedy="Leave one time point, echo or reconstruction in the folder.",
            )
        step, gap = (places[-1] - places[0]) / (len(headers) - 1), float((heights[-1] - heights[0]) / len(gaps))
        _warn_of_gaps(gaps, path)
        across = float(np.linalg.norm(step - normal * gap))
        if across > 0.01 * gap:
            warnings.warn(f"{path}: slices are shifted by {across:.3g} mm each (gantry tilt)", stacklevel=4)
    affine[:3, :3] = _TO_RAS @ np.stack([along[0] * columns, along[1] * rows, step], axis=1)
    affine[:3, 3] = _TO_RAS @ places[0]
    return headers, affine, gap


def _warn_of_gaps(gaps: NDArray[np.float64], path: Path) -> None:
    usual = float(np.median(gaps))
    missing = int((np.rint(gaps / usual) - 1).clip(min=0).sum())
    if missing:
        warnings.warn(f"{path}: about {missing} slices are missing between others", stacklevel=5)
    elif np.abs(gaps - usual).max() > 0.02 * usual:
        warnings.warn(
            f"{path}: slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart; their mean is used", stacklevel=5
        )


def _pixels(file: Path, shape: tuple[int, int]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Stored values of a slice, and where they mark padding."""
    import pydicom

    image = pydicom.dcmread(file)
    try:
        values = image.pixel_array
    except Exception as error:  # each decoder raises its own errors for what it cannot read
        syntax = getattr(getattr(image, "file_meta", None), "TransferSyntaxUID", None)
        name = f" (transfer syntax {syntax.name})" if syntax is not None else ""
        raise InputError(
            f"has pixels that cannot be decoded{name}: {' '.join(str(error).split())[:120]}",
            path=file,
            remedy="Copy it again, or decompress it first, for instance by dcmdjpeg or dcm2niix.",
        ) from error
    if values.shape != shape:
        raise InputError(f"has pixels of shape {list(values.shape)}, {list(shape)} were announced", path=file)
    padding = image.get("PixelPaddingValue")
    if padding is None:
        return values, np.zeros(shape, bool)
    other = image.get("PixelPaddingRangeLimit", padding)
    return values, (values >= min(padding, other)) & (values <= max(padding, other))
