"""How well a cine was dehazed, in numbers: against the truth where it is known, and by regions."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.signal import hilbert

from priorscope.errors import InputError
from priorscope_medical.ultrasound.display import to_decibel
from priorscope_medical.ultrasound.heart_scatterers import BLOOD, WALL, WEAK
from priorscope_medical.ultrasound.metrics import cnr, flicker, gcnr, kolmogorov_smirnov, speckle_size

Rf = NDArray[np.floating]
#: Bins of gCNR's histograms, over decibels.
BINS = 256
#: Decibels below the loudest echo at which images end.
RANGE = 60.0


def envelope(rf: Rf) -> NDArray[np.float64]:
    """Size of the analytic signal along the lines of RF [frames, samples, beams]."""
    return np.abs(hilbert(rf.astype(np.float64), axis=1))


def decibels(size: NDArray[np.floating], reference: float | None = None) -> NDArray[np.float64]:
    """An envelope in decibels below its largest value (or a reference), in [-RANGE, 0]."""
    top = float(size.max()) if reference is None else reference
    if not top > 0:
        raise InputError("RF without a signal", remedy="Check the file.")
    return to_decibel(torch.from_numpy(size), dynamic_range=RANGE, reference=top).numpy()


def contrast_scores(rf: Rf, regions: NDArray[np.integer], *, bins: int = BINS) -> dict[str, float]:
    """gCNR, CNR in both conventions and KS of wall against blood pool, in decibels of the cine's own range.

    Also the speckle's size in samples and beams (full width at half maximum of the envelope's autocorrelation), in that
    block of the first frame, an eighth by a quarter of it, which holds most wall; left out where it is wider than that.
    """
    size = envelope(rf)
    image = decibels(size)
    wall, blood = image[regions == WALL], image[regions == BLOOD]
    widths: dict[str, float] = {}
    with suppress(InputError):  # wider than the block
        across, along = speckle_size(size[0][_block_of_wall(regions[0])])
        widths = {"fwhm_beams": across, "fwhm_samples": along}
    return {
        "gcnr": gcnr(wall, blood, bins=bins),
        "cnr": cnr(wall, blood),
        "cnr_db": cnr(wall, blood, decibel=True),
        "ks": kolmogorov_smirnov(wall[::7], blood[::7])[0],
    } | widths


def truth_scores(rf: Rf, clean: Rf, regions: NDArray[np.integer] | None = None) -> dict[str, float]:
    """Against the RF without haze.

    Returns
    -------
    dict
        ``psnr`` in dB, with the clean RF's largest size as peak; ``weak_error``: norm of the error over the norm of
        the truth in the weakly echoing wall; ``wall_error``: in the wall; ``flicker``: of the envelope
        (:func:`~.metrics.flicker`), 0 where it changes from frame to frame as the truth does. What the truth gives
        no scale for is left out: regions where it is 0, and flicker where it stands still.

    Raises
    ------
    InputError
        Shapes that differ, or a truth without a signal.
    """
    if rf.shape != clean.shape:
        raise InputError(f"RF of shape {list(rf.shape)} against a truth of {list(clean.shape)}")
    peak = float(np.abs(clean).max())
    if not peak > 0:
        raise InputError("the truth is without a signal", remedy="Check its file.")
    error = rf.astype(np.float64) - clean
    found: dict[str, float] = {"psnr": 20 * math.log10(peak / max(float(np.sqrt(np.mean(error**2))), 1e-30))}
    if regions is not None:
        for name, region in (("weak_error", WEAK), ("wall_error", WALL), ("blood_error", BLOOD)):
            inside = regions == region
            if clean[inside].any():
                found[name] = float(np.linalg.norm(error[inside]) / np.linalg.norm(clean[inside]))
    if np.diff(clean, axis=0).any():
        found["flicker"] = flicker(envelope(rf), envelope(clean))
    return found


def all_scores(rf: Rf, clean: Rf, regions: NDArray[np.integer]) -> dict[str, Any]:
    """Both."""
    return truth_scores(rf, clean, regions) | contrast_scores(rf, regions)


def _block_of_wall(regions: NDArray[np.integer]) -> tuple[slice, slice]:
    height, width = max(4, regions.shape[0] // 8), max(4, regions.shape[1] // 4)
    share = uniform_filter((regions == WALL).astype(np.float64), (height, width), mode="constant")
    row, column = np.unravel_index(int(np.argmax(share)), share.shape)
    top = int(np.clip(row - height // 2, 0, regions.shape[0] - height))
    left = int(np.clip(column - width // 2, 0, regions.shape[1] - width))
    return slice(top, top + height), slice(left, left + width)
