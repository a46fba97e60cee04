"""Measured k-space: fastMRI's files and plain arrays. For research use only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.data.arrays import MAX_GIGABYTES
from priorscope.data.files import atomic_path
from priorscope.errors import InputError
from priorscope.inverse.mri import CartesianMRI
from priorscope_medical.containers import named, open_arrays
from priorscope_medical.placement import read_placement
from priorscope_medical.volumes import RESEARCH_ONLY


@dataclass(frozen=True)
class KSpace:
    """Cartesian k-space, centred and orthonormal (:mod:`priorscope.inverse.mri`).

    Parameters
    ----------
    data : ndarray of complex64 [slices, coils, H, W]
        Zero where nothing was measured; readout along H, phase encoding along W.
    mask : ndarray of bool (W,) or (H, W)
        What was measured.
    size : (int, int)
        Height and width of the images that are delivered: the middle of the reconstructed ones.
    spacing : (float, float, float)
        Distance of slices, rows and columns in mm.
    reference : ndarray of float32 [slices, h, w] or None
        The reconstruction that the file brings along.
    source : Path
    notes : tuple of str
        What had to be assumed while reading.
    place : dict, optional
        Where the slices lie (:mod:`priorscope_medical.placement`), where the file says so.
    """

    data: NDArray[np.complex64]
    mask: NDArray[np.bool_]
    size: tuple[int, int]
    spacing: tuple[float, float, float]
    reference: NDArray[np.float32] | None
    source: Path
    notes: tuple[str, ...] = ()
    place: dict[str, NDArray[Any]] | None = None

    def operator(self, sensitivities: torch.Tensor | None = None) -> CartesianMRI:
        """From complex images to this k-space; several coils need their sensitivities."""
        coils = self.data.shape[1]
        given = 1 if sensitivities is None else sensitivities.shape[-3]
        if given != coils:
            raise InputError(
                f"k-space of {coils} coils and sensitivities of {given}",
                path=self.source,
                remedy="Estimate them from the calibration lines (priorscope.inverse.espirit).",
            )
        return CartesianMRI(self.data.shape[2:], torch.from_numpy(self.mask), sensitivities)

    def without_oversampling(self) -> KSpace:
        """K-space of the middle rows only.

        The readout is fully sampled, so that the image can be cut along it before reconstruction, as fastMRI cuts it
        after; the phase-encoding direction cannot. Where the
        readout is undersampled too there is nothing to cut: InputError.
        """
        rows, wanted = self.data.shape[2], self.size[0]
        if wanted == rows:
            return self
        if self.mask.ndim != 1:
            raise InputError("the readout is undersampled: its oversampling cannot be cut", path=self.source)
        data = np.empty((*self.data.shape[:2], wanted, self.data.shape[3]), np.complex64)
        for number, lines in enumerate(self.data):
            images = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(lines, -2), axis=-2, norm="ortho"), -2)
            images = centre_crop(images, (wanted, lines.shape[-1]))
            data[number] = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(images, -2), axis=-2, norm="ortho"), -2)
        return replace(self, data=data)


def read_kspace(
    path: str | PathLike[str],
    *,
    dataset: str = "kspace",
    mask: str | None = None,
    slices: tuple[int, int] | None = None,
    spacing: tuple[float, float, float] | None = None,
    max_gigabytes: float = MAX_GIGABYTES,
) -> KSpace:
    """Read k-space in fastMRI's layout, or an array of it.

    Parameters
    ----------
    path : path-like
        ``.h5`` with ``kspace`` complex [slices, (coils), H, W], and where present ``mask``, ``ismrmrd_header`` (XML:
        size and spacing of the images) and ``reconstruction_rss`` or ``reconstruction_esc``; or ``.npz`` or ``.npy``.
    dataset, mask : str, optional
        Names of other datasets. Without a mask, what is not zero in any slice or coil was measured.
    slices : (int, int), optional
        Only these: first, and one after the last. The others are not read.
    spacing : (float, float, float), optional
        Distance of slices, rows and columns in mm, where the file has no header; else 1, with a note.
    max_gigabytes : float
        More is refused before its memory is taken.

    Raises
    ------
    InputError
        No such file or dataset, real or not finite values, a mask that does not fit, nothing measured.
    """
    path = Path(path)
    notes: list[str] = []
    with open_arrays(path, dataset, max_gigabytes) as (arrays, attributes):
        name = named(arrays, dataset, (), path, "k-space")
        stored = arrays[name]
        if stored.dtype.kind != "c" or stored.ndim not in (3, 4):
            raise InputError(
                f"{name} has shape {list(stored.shape)}, {stored.dtype}; complex [slices, (coils), H, W] was expected",
                path=path,
            )
        first, last = (0, len(stored)) if slices is None else slices
        if not 0 <= first < last <= len(stored):
            raise InputError(f"slices {first} to {last} of {len(stored)}", path=path)
        gigabytes = 8e-9 * stored.size / len(stored) * (last - first)
        if gigabytes > max_gigabytes:
            raise InputError(
                f"would take {gigabytes:.1f} GB of memory; at most {max_gigabytes:g} are accepted",
                path=path,
                remedy="Read some slices at a time.",
            )
        data = np.asarray(stored[first:last], np.complex64)
        data = data[:, None] if data.ndim == 3 else data
        given = named(arrays, mask, (), path, "mask") if mask is not None else "mask" if "mask" in arrays else None
        measured = None if given is None else np.asarray(arrays[given][:])
        header = arrays["ismrmrd_header"][()] if "ismrmrd_header" in arrays else None
        reference = next((arrays[key] for key in ("reconstruction_rss", "reconstruction_esc") if key in arrays), None)
        delivered = None if reference is None else np.asarray(reference[first:last], np.float32)
        about = attributes.get("", {})
    bad = int((~np.isfinite(data)).sum())
    if bad:
        raise InputError(f"{name} has {bad} values that are not finite", path=path, remedy="Repair them first.")
    height, width = data.shape[2:]
    nonzero = np.abs(data).max((0, 1)) > 0
    if not nonzero.any():
        raise InputError(f"{name} is zero everywhere", path=path)
    if measured is None:
        # A zero in a measured line happens; a line without any value was not measured.
        lines = nonzero.any(0)
        points = nonzero[:, lines].mean() < 0.9
        measured = nonzero if points else lines
    else:
        measured = _checked_mask(measured, (height, width), path)
        # Columns that the scanner padded with zeros are within fastMRI's masks and were not measured.
        measured = measured & nonzero.any(0)
        data = data * measured
    size, steps = (height, width), spacing
    if header is not None:
        size, found = _header(header, path)
        steps = spacing or found
    elif delivered is not None:
        size = (int(delivered.shape[-2]), int(delivered.shape[-1]))
    elif "size" in about:
        size = (int(about["size"][0]), int(about["size"][1]))
    if steps is None and "spacing_mm" in about:
        steps = tuple(float(step) for step in about["spacing_mm"])  # type: ignore[assignment]
    if steps is None:
        steps = (1.0, 1.0, 1.0)
        notes.append("no spacing is given: 1 mm is assumed")
    if not all(0 < step < math.inf for step in steps):
        raise InputError(f"a spacing of {steps} mm", path=path)
    if size[1] > width:  # as fastMRI does: never wider than what was measured
        notes.append(f"images of {size[0]} x {size[1]} are asked for, k-space has {width} columns: it decides both")
        size = (width, width)
    if size[0] > height:
        raise InputError(f"images of {size[0]} rows from k-space of {height}", path=path)
    return KSpace(data, measured, size, steps, delivered, path, tuple(notes), read_placement(about, path))


def centre_crop(images: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """The middle (h, w) of the last two axes, beginning at ``(H - h) // 2`` as fastMRI does."""
    height, width = images.shape[-2:]
    if not (1 <= size[0] <= height and 1 <= size[1] <= width):
        raise InputError(f"the middle {size[0]} x {size[1]} of images of {height} x {width}")
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return images[..., top : top + size[0], left : left + size[1]]


def write_kspace(
    path: str | PathLike[str],
    data: NDArray[np.complex64],
    mask: NDArray[np.bool_],
    *,
    spacing: tuple[float, float, float],
    place: Mapping[str, NDArray[Any]] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write k-space [slices, coils, H, W] and its mask as HDF5 that :func:`read_kspace` reads.

    ``place`` says where the slices lie (:func:`priorscope_medical.placement.placement`).
    """
    import h5py

    if data.ndim != 4 or data.dtype.kind != "c":
        raise InputError(f"k-space of shape {list(data.shape)}, {data.dtype}; complex [slices, coils, H, W] is written")
    mask = _checked_mask(np.asarray(mask), data.shape[2:], Path(path))
    with atomic_path(path, overwrite=overwrite) as temporary, h5py.File(temporary, "w") as file:
        file["kspace"] = data.astype(np.complex64)
        file["mask"] = mask
        file.attrs.update(place or {}, spacing_mm=spacing, size=data.shape[2:], description=RESEARCH_ONLY)
    return Path(path)


def _checked_mask(mask: NDArray[Any], size: tuple[int, ...], path: Path) -> NDArray[np.bool_]:
    """The mask as booleans (W,) or (H, W)."""
    squeezed = mask.reshape(-1) if mask.size == size[1] and mask.shape[-1:] == (size[1],) else mask
    if squeezed.shape not in ((size[1],), tuple(size)):
        raise InputError(f"a mask of shape {list(mask.shape)} for k-space of {size[0]} x {size[1]}", path=path)
    if not np.isin(squeezed, (0, 1)).all() or not squeezed.any():
        raise InputError("a mask that is empty or has values other than 0 and 1", path=path)
    return squeezed.astype(bool)


def _header(text: Any, path: Path) -> tuple[tuple[int, int], tuple[float, float, float]]:
    """Size (rows, columns) and spacing of the images, from an ISMRMRD header; its x runs along the readout."""
    try:
        root = ElementTree.fromstring(text)
        space = root.find("{*}encoding/{*}reconSpace")
        if space is None:
            raise ValueError("no reconSpace")
        counts = [int(space.findtext(f"{{*}}matrixSize/{{*}}{axis}", "")) for axis in "xyz"]
        field = [float(space.findtext(f"{{*}}fieldOfView_mm/{{*}}{axis}", "")) for axis in "xyz"]
    except (ElementTree.ParseError, ValueError, TypeError) as error:
        raise InputError(f"has a broken ismrmrd_header ({error})", path=path) from error
    if min(counts) < 1 or not all(0 < length < math.inf for length in field):
        raise InputError(f"has images of {counts} voxels over {field} mm in its header", path=path)
    return (counts[0], counts[1]), (field[2] / counts[2], field[0] / counts[0], field[1] / counts[1])
