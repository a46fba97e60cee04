"""Measurements of a known volume: few views, a limited angle, few k-space lines. For research use only."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_medical.angles import parse_angles
from priorscope_medical.configs import AcquisitionConfig, Task, VolumeConfig
from priorscope_medical.grid import finer_object, slab
from priorscope_medical.problem import Problem, estimated_noise
from priorscope_medical.simulate import Measurement, limited_views, simulate_ct, simulate_mri, sparse_views
from priorscope_medical.volumes import Volume, as_attenuation, intensity_scale, read_volume


def open_volume(path: object, config: VolumeConfig) -> Volume:
    """The volume a command is given, with the slab that it is asked for still to be cut."""
    return read_volume(
        path,  # type: ignore[arg-type]
        unit=config.unit,
        slices=config.slices,
        spacing=config.spacing,
        series=config.series,
    )


def view_angles(task: Task, acquire: AcquisitionConfig) -> NDArray[np.float64]:
    """The views of a task in degrees."""
    if acquire.angles is not None:
        return parse_angles(acquire.angles)
    if task == "sv-ct":
        if acquire.views < 1:
            raise InputError(f"--views {acquire.views}", remedy="Use 1 or more.")
        return sparse_views(acquire.views, 360.0 if acquire.geometry == "fan" else 180.0)
    return limited_views(acquire.span, acquire.step)


def measured_volume(
    volume: Volume,
    task: Task,
    acquire: AcquisitionConfig,
    *,
    size: int,
    slices: tuple[int, int] | None = None,
    seed: int = 0,
) -> Measurement:
    """Measure slices of a volume on a grid finer than the one they shall be reconstructed on.

    Parameters
    ----------
    volume : Volume
        As it was read.
    task : {"sv-ct", "la-ct", "cs-mri"}
    acquire : AcquisitionConfig
    size : int
        Pixels along the side of a reconstructed slice; the truth are means over them.
    slices : (int, int), optional
        Only these. Of CT their noise, of MRI their scale is the same as if all were measured.
    seed : int
    """
    first = 0 if slices is None else slices[0]
    part = slab(volume, slices)
    if task == "cs-mri":
        if part.unit == "HU":
            raise InputError(
                "k-space is asked for, and the volume is of Hounsfield units",
                path=volume.source,
                remedy="Give an MR volume; if the values are an MR scanner's, say --unit intensity.",
            )
        object_, coarsen = finer_object(part, size)
        return simulate_mri(
            object_,
            mask=acquire.mask,
            acceleration=acquire.acceleration,
            centre_fraction=acquire.centre_fraction,
            snr=acquire.snr or None,
            coils=acquire.coils,
            # as priors are trained: by the whole volume, however few of its slices are measured
            scale=intensity_scale(volume.data),
            coarsen=coarsen,
            seed=seed,
            first_slice=first,
        )
    object_, coarsen = finer_object(as_attenuation(part), size)
    return simulate_ct(
        object_,
        view_angles(task, acquire),
        geometry=acquire.geometry,
        photons=acquire.photons or None,
        electronic=acquire.electronic,
        water_per_mm=0.02 if acquire.water_per_mm is None else acquire.water_per_mm,
        source_distance=acquire.source_distance,
        detector_distance=acquire.detector_distance,
        coarsen=coarsen,
        seed=seed,
        first_slice=first,
    )


def simulated_problem(
    volume: Volume,
    task: Task,
    acquire: AcquisitionConfig,
    *,
    size: int,
    slices: tuple[int, int] | None = None,
    seed: int = 0,
    noise: float | None = None,
) -> Problem:
    """:func:`measured_volume` as a problem to solve; ``noise`` overrides what was simulated."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        made = measured_volume(volume, task, acquire, size=size, slices=slices, seed=seed)
    if noise is None:
        noise = _noise(made)
    return Problem(
        made.y,
        made.operator,
        noise,
        made.grid,
        hounsfield=task != "cs-mri" and volume.unit == "HU",
        scale=float(made.settings.get("scale", 1.0)),
        truth=made.truth,
        first=0 if slices is None else slices[0],
        settings={"task": task, **made.settings},
        notes=(*volume.notes, *(str(warning.message) for warning in told)),
    )


def _noise(made: Measurement) -> float:
    """Root mean square of the noise; rays that next to nothing passes (the last thousandth) do not count."""
    if made.weights is None:
        return estimated_noise(made.y, made.settings["modality"])
    if made.settings["modality"] == "MRI":
        return float(made.settings["noise"])
    variance = 1 / made.weights.double().flatten()
    kept = variance.sort().values[: max(1, round(0.999 * len(variance)))]
    return float(kept.mean().sqrt())
