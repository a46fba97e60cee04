"""Lines of RF as pictures: the envelope in decibels, on square pixels. For research use only."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import binary_dilation

from priorscope.errors import InputError
from priorscope_medical.ultrasound.cine_scores import envelope
from priorscope_medical.ultrasound.display import to_decibel

#: Of a pixel, over which the envelope is averaged along the lines.
_A_ROW = 0.5


def rf_pictures(
    rf: NDArray[np.floating],
    points: NDArray[np.floating],
    *,
    reference: float | None = None,
    dynamic_range: float = 60.0,
    size: int = 384,
) -> tuple[NDArray[np.uint8], float]:
    """Pictures of lines, wherever they lie in the plane.

    Parameters
    ----------
    rf : array [frames, samples, beams]
    points : array [samples, beams, 3]
        Of the samples in m; x along the probe, z away from it.
    reference : float, optional
        Envelope that is white; default: the largest of all frames. Give the same for pictures that are compared.
    dynamic_range : float
        In dB, from black to white.
    size : int
        Pixels of the longer side.

    Returns
    -------
    (ndarray of uint8 [frames, height, width], float)
        Black outside of the lines; and the side of a pixel in mm.

    Raises
    ------
    InputError
        Shapes that do not belong together, no signal, lines all in one place.
    """
    if rf.ndim != 3 or points.shape != (*rf.shape[1:], 3):
        raise InputError(f"RF of shape {list(rf.shape)} at points of shape {list(points.shape)}")
    if size < 32 or not 0 < dynamic_range < math.inf:
        raise InputError(f"pictures of {size} pixels and {dynamic_range} dB", remedy="Use 32 or more, and above 0.")
    sizes = envelope(rf)
    top = float(sizes.max()) if reference is None else float(reference)
    if not 0 < top < math.inf:
        raise InputError("RF without a signal")
    x, z = points[..., 0], points[..., 2]
    if not np.ptp(x) > 0 < np.ptp(z):
        raise InputError("lines that lie in one place")
    pixel = max(np.ptp(x), np.ptp(z)) / (size - 1)
    apart = float(np.median(np.linalg.norm(np.diff(points, axis=0), axis=-1)))
    step = max(1, math.floor(_A_ROW * pixel / apart))
    # the mean over a row's samples, so that none is left out
    kept = len(x) // step
    rows = sizes[:, : kept * step].reshape(len(sizes), kept, step, -1).mean(2)
    places = points[: kept * step, :, ::2].reshape(kept, step, -1, 2).mean(1)
    decibel = to_decibel(torch.from_numpy(rows), dynamic_range=dynamic_range, reference=top).numpy()
    grey = 255 * (1 + decibel / dynamic_range)
    columns, heights = (np.arange(values.min(), values.max() + pixel / 2, pixel) for values in (x, z))
    across, down = np.meshgrid(columns, heights)
    between = LinearNDInterpolator(places.reshape(-1, 2), grey.reshape(len(grey), -1).T, fill_value=0.0)
    found = between(across, down) * _between_lines(x, z, columns, heights)[..., None]
    return np.rint(np.moveaxis(found, -1, 0)).astype(np.uint8), 1e3 * float(pixel)


def _between_lines(
    x: NDArray[np.floating], z: NDArray[np.floating], columns: NDArray[np.floating], heights: NDArray[np.floating]
) -> NDArray[np.bool_]:
    """Which pixels lie among the lines, or a pixel beside them: not before the first samples of a sector, say."""
    from skimage.draw import polygon2mask

    rim = [np.concatenate([v[:, 0], v[-1], v[::-1, -1], v[0, ::-1]]) for v in (z, x)]
    pixel = columns[1] - columns[0]
    corners = np.stack([(rim[0] - heights[0]) / pixel, (rim[1] - columns[0]) / pixel], -1)
    inside = polygon2mask((len(heights), len(columns)), corners)
    return np.asarray(binary_dilation(inside, np.ones((3, 3))))
