"""PSNR and SSIM of a volume, plane by plane, with a fixed range of values."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.evaluation.image_metrics import over_slices, psnr, ssim
from priorscope_medical.planes import PLANES
from priorscope_medical.volumes import Volume

HOW = (
    "The figures of a plane are means over its slices, which weigh alike however empty they are; the volume's is that "
    "of all voxels at once. Values below 0, which neither attenuation nor intensity can "
    "have, are set to 0 for every method; nothing else is clipped."
)


def plane_scores(estimate: Volume, truth: Volume, data_range: float) -> dict[str, float | None]:
    """``psnr_axial`` ... ``ssim_sagittal``, means over the slices of each plane, and ``psnr_volume`` of all voxels.

    Parameters
    ----------
    estimate, truth : Volume
        On one grid, in one unit.
    data_range : float
        Largest minus smallest value that there can be.

    Returns
    -------
    dict
        PSNR in dB. SSIM is None in planes whose slices are narrower than its window of 7 pixels.
    """
    if estimate.data.shape != truth.data.shape:
        raise InputError(f"volumes of {estimate.data.shape} and {truth.data.shape} voxels")
    values = np.maximum(estimate.data, 0)
    found: dict[str, float | None] = {}
    for name, metric in (("psnr", psnr), ("ssim", ssim)):
        for plane in PLANES:
            if plane not in truth.planes:
                continue
            axis = truth.planes[plane]
            sides = [side for number, side in enumerate(truth.data.shape) if number != axis]
            if name == "ssim" and min(sides) < 7:
                found[f"ssim_{plane}"] = None
                continue
            each = over_slices(partial(metric, data_range=data_range), values, truth.data, axis)
            found[f"{name}_{plane}"] = _mean(each)
    found["psnr_volume"] = _mean(np.array([psnr(values, truth.data, data_range=data_range)]))
    return found


def mean_psnr(scores: dict[str, float | None]) -> float:
    """Mean over the planes."""
    of_planes = [scores.get(f"psnr_{plane}") for plane in PLANES]
    return float(np.mean([value for value in of_planes if value is not None]))


def _mean(values: NDArray[np.float64]) -> float | None:
    """Mean of what is finite: a slice that is met exactly, as an empty one, has no PSNR."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None
