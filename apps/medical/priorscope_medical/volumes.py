"""Volumes: slices with a spacing in mm, a place in the patient, and a unit. For research use only."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from priorscope.data.arrays import MAX_GIGABYTES, read_array
from priorscope.data.files import atomic_path, writing
from priorscope.errors import InputError
from priorscope_medical.containers import HDF5_SUFFIXES

Unit = Literal["HU", "attenuation", "intensity"]
Plane = Literal["axial", "coronal", "sagittal"]
RESEARCH_ONLY = "for research use only"
_GUESS = "are taken for"
#: The plane that slices lie in, by the letter of the direction in which they are counted.
_PLANES: dict[str, Plane] = {
    "S": "axial",
    "I": "axial",
    "A": "coronal",
    "P": "coronal",
    "L": "sagittal",
    "R": "sagittal",
}


@dataclass(frozen=True)
class Volume:
    """A stack of slices and where it lies.

    Parameters
    ----------
    data : ndarray of float32 [slices, H, W]
        In `unit`, finite.
    spacing : (float, float, float)
        Distance of voxels between slices, rows and columns, in mm.
    affine : ndarray (4, 4)
        From a voxel (i, j, k), in the order of the FILE's axes, to mm: right, anterior, superior.
    axes : (int, int, int)
        The file's axes that became slices, rows and columns.
    unit : {"HU", "attenuation", "intensity"}
        Hounsfield units; attenuation relative to water (air 0, water 1); or a scanner's own numbers.
    source : Path
        The file or folder.
    space : int
        NIfTI's code of the space that `affine` leads to: 1 scanner, 2 aligned, 3 Talairach, 4 MNI 152, 0 unknown.
    notes : tuple of str
        What had to be assumed while reading.
    """

    data: NDArray[np.float32]
    spacing: tuple[float, float, float]
    affine: NDArray[np.float64]
    axes: tuple[int, int, int]
    unit: Unit
    source: Path
    space: int = 1
    notes: tuple[str, ...] = ()

    def with_data(self, data: NDArray[Any], unit: Unit | None = None) -> Volume:
        """Other values on the same grid; InputError if their shape differs."""
        if data.shape != self.data.shape:
            raise InputError(f"values of shape {list(data.shape)} for a volume of {list(self.data.shape)}")
        return replace(self, data=np.asarray(data, np.float32), unit=unit or self.unit)

    @property
    def planes(self) -> dict[Plane, int]:
        """Axis of `data` along which the slices of a plane are counted; for an oblique stack the nearest plane's."""
        codes = self._codes()
        return {_PLANES[codes[axis]]: axis for axis in range(3)}

    @property
    def slice_plane(self) -> Plane:
        """The plane that the slices ``data[k]`` lie in, or are nearest to."""
        return _PLANES[self._codes()[0]]

    def picture(self, plane: Plane, index: int) -> tuple[NDArray[np.float32], tuple[float, float]]:
        """One slice as radiologists look at it, and the height and width of its pixels in mm.

        Front or head is up; the patient's right is on the left of axial and coronal pictures, the front on the left
        of sagittal ones. ``index`` counts along ``planes[plane]``.
        """
        axis = self.planes[plane]
        codes = [code for number, code in enumerate(self._codes()) if number != axis]
        spacing = [step for number, step in enumerate(self.spacing) if number != axis]
        image = np.take(self.data, index, axis=axis)
        down, right = {"axial": ("AP", "RL"), "coronal": ("SI", "RL"), "sagittal": ("SI", "AP")}[plane]
        if codes[0] not in down:
            image, codes, spacing = image.T, codes[::-1], spacing[::-1]
        if codes[0] != down[1]:
            image = image[::-1]
        if codes[1] != right[1]:
            image = image[:, ::-1]
        return image, (spacing[0], spacing[1])

    def _codes(self) -> tuple[str, str, str]:
        """Letters of the directions in which slices, rows and columns count."""
        codes = axis_letters(self.affine)
        return codes[self.axes[0]], codes[self.axes[1]], codes[self.axes[2]]


def read_volume(
    path: str | PathLike[str],
    *,
    unit: Unit | None = None,
    slices: Plane | int | None = None,
    spacing: tuple[float, float, float] | None = None,
    series: str | int | None = None,
    key: str | None = None,
    max_gigabytes: float = MAX_GIGABYTES,
) -> Volume:
    """Read a volume with its spacing and orientation.

    Parameters
    ----------
    path : path-like
        ``.nii`` or ``.nii.gz`` (three dimensions, or four with one frame); a DICOM file or a folder with one series;
        ``.npy`` or ``.npz`` [slices, H, W]; a folder of ``.npy`` [H, W] whose names are numbers (DiffusionMBIR's
        layout), in the order of these numbers.
    unit : str, optional
        What the values are; otherwise DICOM's modality tells, or they are guessed by their range, with a note.
    slices : str or int, optional
        The plane of the slices, or the file's axis along which they are counted. By default as DICOM and arrays count
        them; for NIfTI the axis with the largest spacing, and axial slices where spacings are equal within 1 %.
    spacing : (float, float, float), optional
        Arrays only, others have their own: mm between slices, rows and columns; 1 mm where not given, with a note.
    series : str or int, optional
        DICOM: UID (or its end) or number of the series, where the folder holds several.
    key : str, optional
        Array of an .npz.
    max_gigabytes : float
        Larger volumes are refused before their memory is taken.

    Returns
    -------
    Volume

    Raises
    ------
    InputError
        No such file, an empty folder, a format that is not read, a truncated file, a 2D image, several frames or
        series, voxels that are not finite, a spacing for a file with its own, or more than `max_gigabytes`.
    """
    path = Path(path)
    if unit is not None and unit not in get_args(Unit):
        raise InputError(f"a unit named {unit!r}", remedy=f"Use {', '.join(get_args(Unit))}.")
    if not path.exists():
        raise InputError("no such file or folder", path=path, remedy="Check the path.")
    of_arrays = bool(_array_files(path)) if path.is_dir() else path.suffix.lower() in (".npy", ".npz")
    if spacing is not None and not of_arrays:
        raise InputError("has a spacing of its own", path=path, remedy="Leave --spacing out: it is for arrays.")
    if path.is_file() and path.name.lower().endswith((".nii", ".nii.gz")):
        volume = _guessed(_read_nifti(path, max_gigabytes))
    elif of_arrays:
        volume = _guessed(_read_arrays(path, spacing, key, max_gigabytes))
    elif path.is_file() and path.suffix.lower() in HDF5_SUFFIXES:
        raise InputError(
            "HDF5 is not read as a volume", path=path, remedy="If it holds measurements, say --task measured."
        )
    else:
        from priorscope_medical.dicom import read_series

        volume = read_series(path, series=series, max_gigabytes=max_gigabytes)
    bad = int((~np.isfinite(volume.data)).sum())
    if bad:
        raise InputError(f"holds {bad} voxels that are NaN or infinite", path=path, remedy="Repair or fill them first.")
    if slices is not None:
        volume = across(volume, slices)
    if unit is None:
        return volume
    return replace(volume, unit=unit, notes=tuple(note for note in volume.notes if _GUESS not in note))


def across(volume: Volume, plane: Plane | int) -> Volume:
    """The same volume with its slices in another plane, or along another axis of its file."""
    if plane not in ((0, 1, 2) if isinstance(plane, int) else get_args(Plane)):
        raise InputError(f"slices along {plane!r}", remedy="Use axial, coronal or sagittal, or an axis: 0, 1 or 2.")
    first = volume.axes.index(plane) if isinstance(plane, int) else volume.planes[plane]
    if first == 0:
        return volume
    # rows along the later axis of the file, as the slices of a NIfTI file are read
    rows, columns = sorted((axis for axis in range(3) if axis != first), key=lambda axis: -volume.axes[axis])
    data = np.ascontiguousarray(volume.data.transpose(first, rows, columns))
    spacing, axes = (tuple(one[axis] for axis in (first, rows, columns)) for one in (volume.spacing, volume.axes))
    return replace(volume, data=data, spacing=spacing, axes=axes)  # type: ignore[arg-type]


def _array_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() == ".npy" and not file.name.startswith("."))


def _guessed(volume: Volume) -> Volume:
    """The volume with the unit that the range of its values suggests."""
    low, high = float(volume.data.min()), float(volume.data.max())
    unit: Unit = "intensity"
    if low <= -500:
        unit = "HU"
    elif low >= 0 and 0.5 <= high <= 10:
        unit = "attenuation"
    note = f"values from {low:.4g} to {high:.4g} {_GUESS} {unit}: a guess by their range"
    return replace(volume, unit=unit, notes=(*volume.notes, note))


def _read_nifti(path: Path, max_gigabytes: float) -> Volume:
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    if path.stat().st_size == 0:
        raise InputError("is empty (0 bytes)", path=path, remedy="Copy or write it again.")
    try:
        image: Any = nibabel.load(path)
        shape, dtype = tuple(int(n) for n in image.shape), image.get_data_dtype()
        if dtype.kind not in "iufb":
            raise InputError(f"holds {dtype} voxels, real numbers were expected", path=path)
        if len(shape) > 3 and set(shape[3:]) == {1}:
            shape = shape[:3]
        if len(shape) != 3:
            what = f"{shape[3]} frames" if len(shape) == 4 else f"shape {list(shape)}"
            raise InputError(f"has {what}; a volume has three dimensions", path=path, remedy="Extract one frame.")
        check_size(shape, path, max_gigabytes)
        values = image.get_fdata(dtype=np.float32, caching="unchanged").reshape(shape)
    except InputError:
        raise
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error, gzip.BadGzipFile) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"is truncated or no NIfTI file ({reason})", path=path, remedy="Copy it again.") from error
    affine = np.asarray(image.affine, np.float64)
    notes = []
    try:
        measure = {"micron": 1e-3, "meter": 1e3}.get(image.header.get_xyzt_units()[0], 1.0)
    except KeyError:
        measure = 1.0
    if measure != 1.0:
        affine = np.diag([measure] * 3 + [1.0]) @ affine
        notes.append(f"lengths were converted to mm (factor {measure:g})")
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-9 * float(np.prod(steps)) > 0):
        raise InputError("has an affine that is singular or not finite", path=path, remedy="Repair its header.")
    axis = _slice_axis(affine, steps)
    columns, rows = (number for number in range(3) if number != axis)
    axes = (axis, rows, columns)
    space = int(image.header["sform_code"]) or int(image.header["qform_code"])
    return Volume(
        np.ascontiguousarray(values.transpose(axes)),
        (float(steps[axis]), float(steps[rows]), float(steps[columns])),
        affine,
        axes,
        "intensity",
        path,
        space,
        tuple(notes),
    )


def _slice_axis(affine: NDArray[np.float64], steps: NDArray[np.float64]) -> int:
    """The axis with the largest spacing; the axial slices' where spacings are equal within 1 %."""
    planes = [_PLANES[letter] for letter in axis_letters(affine)]
    widest = int(steps.argmax())
    axial = planes.index("axial")
    return axial if steps[axial] >= 0.99 * steps[widest] else widest


def axis_letters(affine: NDArray[np.float64]) -> tuple[str, str, str]:
    """L or R, A or P, S or I: where the voxels of each axis of the file count to, or nearly."""
    from nibabel.orientations import aff2axcodes

    letters = aff2axcodes(affine)
    return str(letters[0]), str(letters[1]), str(letters[2])


def check_size(shape: tuple[int, ...], path: Path, max_gigabytes: float) -> None:
    """InputError unless a float32 volume of this shape has voxels and fits the limit."""
    size = 4e-9 * math.prod(int(n) for n in shape)
    if min(shape) < 1:
        raise InputError(f"holds no voxels (shape {list(shape)})", path=path)
    if size > max_gigabytes:
        raise InputError(
            f"{' x '.join(map(str, shape))} voxels take {size:.1f} GB; at most {max_gigabytes:g} are accepted",
            path=path,
            remedy="Crop or coarsen it first.",
        )


def _read_arrays(
    path: Path, spacing: tuple[float, float, float] | None, key: str | None, max_gigabytes: float
) -> Volume:
    if path.is_dir():
        files = _array_files(path)
        try:
            files = sorted(files, key=lambda file: float(file.stem))
        except ValueError as error:
            raise InputError(
                f"slices are ordered by their names, which should be numbers ({error})", path=path
            ) from error
        first = read_array(files[0], ndim=2, max_gigabytes=max_gigabytes)
        check_size((len(files), *first.shape), path, max_gigabytes)
        values = np.empty((len(files), *first.shape), np.float32)
        for number, file in enumerate(files):
            part = read_array(file, ndim=2)
            if part.shape != first.shape:
                raise InputError(f"is {list(part.shape)}, {files[0].name} is {list(first.shape)}", path=file)
            values[number] = _real(part, file)
    else:
        array = read_array(path, key=key, ndim=3, max_gigabytes=max_gigabytes)
        check_size(array.shape, path, max_gigabytes)
        values = _real(array, path)
    notes = ["an array says nothing about orientation: rows run to the back, columns to the left"]
    if spacing is None:
        spacing = (1.0, 1.0, 1.0)
        notes.append("an array has no spacing: 1 mm is assumed")
    if len(spacing) != 3 or not all(0 < step < math.inf for step in spacing):
        raise InputError(f"a spacing of {spacing} mm", remedy="Give three positive lengths: slices, rows, columns.")
    z, y, x = (float(step) for step in spacing)
    return Volume(values, (z, y, x), np.diag([-x, -y, z, 1.0]), (2, 1, 0), "intensity", path, 0, tuple(notes))


def _real(array: NDArray[Any], path: Path) -> NDArray[np.float32]:
    if array.dtype.kind == "c":
        raise InputError("holds complex numbers; a volume is real", path=path)
    return np.asarray(array, np.float32)


def write_nifti(volume: Volume, path: str | PathLike[str], *, overwrite: bool = False) -> Path:
    """Write float32 NIfTI with the source's axes and affine, and "for research use only" in its description.

    Parameters
    ----------
    volume : Volume
    path : path-like
        Ends in ``.nii`` or ``.nii.gz``.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    InputError
        The file exists, cannot be written or has another suffix, or the volume has values that are not finite.
    """
    import nibabel

    path = Path(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise InputError("the name should end in .nii or .nii.gz", path=path)
    if not np.isfinite(volume.data).all():
        raise InputError("a volume with values that are not finite is not written", path=path)
    values = volume.data.transpose(np.argsort(volume.axes)).astype(np.float32, copy=False)
    image = nibabel.Nifti1Image(values, volume.affine)
    image.header["descrip"] = f"priorscope: {RESEARCH_ONLY} ({volume.unit})".encode()
    image.header.set_xyzt_units("mm")
    image.set_qform(volume.affine, code=volume.space, strip_shears=True)
    # Code 0 would let readers ignore the affine.
    image.set_sform(volume.affine, code=volume.space or 2)
    with atomic_path(path, overwrite=overwrite) as temporary, writing(path), open(temporary, "wb") as file:
        if path.suffix.lower() == ".gz":
            with gzip.GzipFile(filename="", mode="wb", compresslevel=5, fileobj=file, mtime=0) as packed:
                image.to_stream(packed)
        else:
            image.to_stream(file)
    return path


def as_attenuation(volume: Volume) -> Volume:
    """Attenuation relative to water, ``1 + HU / 1000``, negative values set to 0.

    Raises
    ------
    InputError
        The volume is of ``intensity``.
    """
    if volume.unit == "attenuation":
        return volume.with_data(np.maximum(volume.data, 0))
    if volume.unit != "HU":
        raise InputError(
            "X-ray attenuation is asked for, and the volume is of unknown intensities",
            path=volume.source,
            remedy="If they are Hounsfield units or relative attenuation, say so: --unit HU, or attenuation.",
        )
    return volume.with_data(np.maximum(1 + volume.data / 1000, 0), "attenuation")


def as_hounsfield(volume: Volume) -> Volume:
    """Hounsfield units of a volume of relative attenuation; one of HU is returned as it is."""
    if volume.unit == "intensity":
        raise InputError("intensities are not Hounsfield units", path=volume.source)
    return volume if volume.unit == "HU" else volume.with_data((volume.data - 1) * 1000, "HU")


def intensity_scale(data: NDArray[np.float32]) -> float:
    """99.9 % quantile of the magnitudes: what MR intensities are divided by.

    Raises
    ------
    InputError
        The quantile is 0: there is nothing in the volume.
    """
    scale = float(np.quantile(np.abs(data), 0.999))
    if not scale > 0:
        raise InputError("99.9 % of the volume are 0", remedy="Check that it is the right file.")
    return scale


def padded(volume: Volume, size: tuple[int, int], value: float | None = None) -> Volume:
    """Slices in the middle of larger ones of ``size``, filled with ``value`` (by default air: the smallest value).

    Cut where they are larger. The affine follows, so that voxels stay in their place.
    """
    if min(size) < 1:
        raise InputError(f"slices of {size[0]} x {size[1]}")
    air = {"HU": -1000.0, "attenuation": 0.0}.get(volume.unit, float(volume.data.min()))
    data, starts = volume.data, [0, 0, 0]
    for axis, wanted in zip((1, 2), size, strict=True):
        extra = wanted - data.shape[axis]
        before = int(extra / 2)  # towards 0, so that cutting undoes padding
        if extra < 0:
            data = np.take(data, range(-before, -before + wanted), axis=axis)
        else:
            widths = [(before, extra - before) if number == axis else (0, 0) for number in range(3)]
            data = np.pad(data, widths, constant_values=air if value is None else value)
        starts[axis] = before
    affine = volume.affine.copy()
    for axis, before in enumerate(starts):
        affine[:3, 3] -= before * volume.affine[:3, volume.axes[axis]]
    return replace(volume, data=np.ascontiguousarray(data), affine=affine)


def coarsened(volume: Volume, factor: int) -> Volume:
    """Slices of pixels ``factor`` times as wide: means of blocks; the number of slices stays.

    Raises
    ------
    InputError
        Height or width is no multiple of ``factor`` (:func:`padded` helps).
    """
    slices, height, width = volume.data.shape
    if factor < 1 or height % factor or width % factor:
        raise InputError(
            f"slices of {height} x {width} cannot be coarsened by {factor}",
            path=volume.source,
            remedy="Pad them to a multiple first.",
        )
    blocks = volume.data.reshape(slices, height // factor, factor, width // factor, factor)
    affine = volume.affine.copy()
    for axis in volume.axes[1:]:
        affine[:3, 3] += (factor - 1) / 2 * volume.affine[:3, axis]
        affine[:3, axis] *= factor
    z, y, x = volume.spacing
    data = blocks.mean((2, 4), dtype=np.float64).astype(np.float32)
    return replace(volume, data=data, affine=affine, spacing=(z, y * factor, x * factor))
