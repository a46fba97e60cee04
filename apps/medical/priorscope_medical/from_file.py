"""Measured projections and k-space as a problem to solve. For research use only."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.data.arrays import MAX_GIGABYTES, read_array
from priorscope.errors import InputError
from priorscope.inverse.mri import AsComplex
from priorscope.inverse.sensitivities import espirit, estimate_sensitivities
from priorscope_medical.angles import parse_angles
from priorscope_medical.configs import AcquisitionConfig, FileConfig, VolumeConfig
from priorscope_medical.containers import open_arrays
from priorscope_medical.kspace import KSpace, read_kspace
from priorscope_medical.measured import Sinogram, read_sinogram
from priorscope_medical.placement import UNKNOWN, placed
from priorscope_medical.problem import Modality, Problem, estimated_noise
from priorscope_medical.rotation_axis import find_axis
from priorscope_medical.volumes import Volume, intensity_scale

#: Sensitivities are smooth: more lines would put the object's edges into them.
MOST_CALIBRATION_LINES = 32


def modality_of(path: Path, dataset: str | None = None) -> Modality:
    """MRI where the file holds complex numbers, else CT."""
    with open_arrays(path, "sinogram", MAX_GIGABYTES) as (arrays, _):
        named = [dataset.strip("/")] if dataset is not None else ["kspace", *arrays]
        found = [arrays[name].dtype.kind for name in named if name in arrays]
    return "MRI" if "c" in found else "CT"


def check_file(file: FileConfig) -> None:
    """Refuse lengths that make no sense, before anything is read."""
    for name in ("pitch", "slice_spacing", "pixel"):
        value = getattr(file, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"--{name.replace('_', '-')} {value}", remedy="Use mm above 0.")
    if file.axis_offset is not None and not math.isfinite(file.axis_offset):
        raise InputError(f"--axis-offset {file.axis_offset}", remedy="Use mm, or --find-axis.")


def measured_problem(
    path: Path,
    file: FileConfig,
    acquire: AcquisitionConfig,
    volume: VolumeConfig,
    *,
    size: int | None = None,
    noise: float | None = None,
) -> Problem:
    """Read projections or k-space.

    Parameters
    ----------
    path : Path
        HDF5, .npz or .npy; complex numbers are k-space.
    file, acquire, volume
        Options of the command; of the last two the angles, the attenuation of water, the spacing and the slab.
    size : int, optional
        CT: pixels along the side of a slice; by default one a detector. The size of MR images is that of k-space.
    noise : float, optional
        Standard deviation of the noise; else estimated.

    Raises
    ------
    InputError
        What the file lacks or has wrong, and options that do not fit.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if modality_of(path, file.dataset) == "MRI":
            problem = _mri(path, file, volume, noise)
        else:
            problem = _ct(path, file, acquire, volume, size, noise)
    # the projector says again what reading has said
    notes = tuple(dict.fromkeys([*problem.notes, *(str(warning.message) for warning in told)]))
    if problem.grid.space == 0:
        notes = (*notes, UNKNOWN)
    if noise is None:
        notes = (*notes, f"noise of {problem.noise:.3g} was estimated from the measurement itself")
    return Problem(**{**vars(problem), "notes": notes})


def _ct(
    path: Path,
    file: FileConfig,
    acquire: AcquisitionConfig,
    volume: VolumeConfig,
    size: int | None,
    noise: float | None,
) -> Problem:
    options: dict[str, Any] = {
        "dataset": file.dataset,
        "angles": file.theta if acquire.angles is None else parse_angles(acquire.angles),
        "white": file.white,
        "dark": file.dark,
        "order": file.order,
        "values": file.values,
        "pitch": file.pitch,
        "slice_spacing": file.slice_spacing,
        "rows": volume.slab,
    }
    read = read_sinogram(path, axis_offset=file.axis_offset, **options)
    notes = read.notes
    if file.find_axis:
        offset = find_axis(read.data, read.angles, read.pitch)
        notes = (*notes, f"the rotation axis was found {offset:.3f} mm from the detector's middle")
        read = Sinogram(**{**vars(read), "axis_offset": offset})
    y = read.relative(acquire.water_per_mm)
    wide = y.shape[2] * read.pitch
    pixel = file.pixel or (wide / size if size else read.pitch)
    operator = read.operator(size, pixel=pixel)
    steps, first = (read.slice_spacing, pixel, pixel), volume.slab[0] if volume.slab else 0
    grid = _grid(len(y), operator.domain[1:], steps, "attenuation", path, read.place, first)
    settings = {
        "modality": "CT",
        "geometry": "parallel",
        "angles": read.angles.tolist(),
        "detectors": y.shape[2],
        "pitch": read.pitch,
        "pixel": pixel,
        "axis_offset": read.axis_offset,
        "clamped": read.clamped,
        "dead": read.dead,
        "water_per_mm": acquire.water_per_mm or read.water_per_mm,
        "source": str(path),
    }
    return Problem(
        y,
        operator,
        estimated_noise(y, "CT") if noise is None else noise,
        grid,
        hounsfield=True,
        first=first,
        settings={"task": "measured", **settings},
        notes=notes,
    )


def _mri(path: Path, file: FileConfig, volume: VolumeConfig, noise: float | None) -> Problem:
    read = read_kspace(
        path,
        dataset=file.dataset or "kspace",
        mask=file.mask_dataset,
        slices=volume.slab,
        spacing=volume.spacing,
    )
    if read.mask.ndim == 1:
        read = read.without_oversampling()
    y = torch.from_numpy(read.data)
    maps, how = _sensitivities(read, y, file)
    acquisition = read.operator(maps)
    back = acquisition.adjoint(y).abs()
    scale = intensity_scale(back.numpy())
    y = y / scale
    operator = acquisition @ AsComplex(acquisition.domain)
    height, width = acquisition.domain[1:]
    crop = (min(read.size[0], height), min(read.size[1], width))
    first = volume.slab[0] if volume.slab else 0
    grid = _grid(len(y), crop, read.spacing, "intensity", path, read.place, first)
    settings = {
        "modality": "MRI",
        "coils": y.shape[1],
        "sensitivities": how,
        "measured_lines": float(np.mean(read.mask)),
        "scale": scale,
        "source": str(path),
    }
    return Problem(
        y,
        operator,
        estimated_noise(y, "MRI") if noise is None else noise,
        grid,
        scale=scale,
        first=first,
        crop=crop,
        settings={"task": "measured", **settings},
        notes=read.notes,
    )


def _sensitivities(read: KSpace, y: torch.Tensor, file: FileConfig) -> tuple[torch.Tensor, str]:
    """Maps of every slice, given or estimated; with one coil they hold the phase of the object alone."""
    if file.sensitivities is not None:
        maps = np.asarray(read_array(file.sensitivities, ndim=(3, 4), allow_nonfinite=False))
        if not np.iscomplexobj(maps):
            raise InputError("sensitivities are complex", path=file.sensitivities)
        return torch.from_numpy(maps.astype(np.complex64)), str(file.sensitivities)
    lines = min(calibration_block(read.mask), y.shape[-2], MOST_CALIBRATION_LINES)
    if lines < 4:
        raise InputError(
            f"the middle of k-space is measured over {lines} lines: too few to tell sensitivities",
            path=read.source,
            remedy="Give them with --sensitivities.",
        )
    if file.espirit and y.shape[1] > 1:
        return espirit(y, lines, rows=lines, kernel=min(6, lines)), f"ESPIRiT from {lines} lines"
    return estimate_sensitivities(y, lines, rows=lines), f"low-resolution images from {lines} lines"


def calibration_block(mask: np.ndarray) -> int:
    """Side of the largest square around the middle of k-space that a mask (W,) or (H, W) measures fully."""
    square = np.broadcast_to(mask, (len(mask), len(mask))) if mask.ndim == 1 else mask
    row, column = square.shape[0] // 2, square.shape[1] // 2
    reach = 0
    while (
        reach < min(row, column)
        and square[row - reach - 1 : row + reach + 1, column - reach - 1 : column + reach + 1].all()
    ):
        reach += 1
    return 2 * reach


def _grid(
    slices: int,
    size: tuple[int, ...],
    spacing: tuple[float, float, float],
    unit: Any,
    path: Path,
    place: dict[str, NDArray[Any]] | None,
    first: int,
) -> Volume:
    """An empty volume in its place; as an array without orientation would be read, where the file does not tell it."""
    z, y, x = spacing
    empty = np.zeros((slices, *size), np.float32)
    grid = Volume(empty, (z, y, x), np.diag([-x, -y, z, 1.0]), (2, 1, 0), unit, path, 0)
    return grid if place is None else placed(grid, place, first)
