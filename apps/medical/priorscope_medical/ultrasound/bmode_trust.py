"""How far each pixel of a B-mode cine can be trusted to show tissue: the map of the ``semantic`` method.

Published semantic dehazing asks a segmentation network, which cannot be had offline; this map asks three things of the
pictures themselves. Haze adds light, so black is surely no haze. The brightest echoes are walls. What lies between and
hardly changes over the frames may be haze.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

#: Weight of a pixel that is as hazy as can be.
LEAST_TRUST = 0.2


def trust_map(grey: NDArray[np.floating], inside: NDArray[np.bool_], *, least: float = LEAST_TRUST) -> NDArray:
    """Weights from ``least`` to 1, float32 [T, H, W].

    Parameters
    ----------
    grey : ndarray [T, H, W]
        From 0 (black) to 1.
    inside : ndarray of bool [H, W]
        The sector; 1 outside of it.
    least : float
        Weight of what is most like haze.
    """
    smooth = gaussian_filter(grey.astype(np.float64), (0, 1.5, 1.5))
    wall = float(np.percentile(smooth[:, inside], 97)) or 1.0
    level = smooth / wall
    between = np.clip(level / 0.15, 0, 1) * np.clip((1.0 - level) / 0.4, 0, 1)
    hazy = between * _still(grey)
    hazy = gaussian_filter(hazy, (0, 1.5, 1.5))
    return np.where(inside, 1 - (1 - least) * np.clip(hazy, 0, 1), 1.0).astype(np.float32)


def from_mask(mask: NDArray[np.bool_], frames: int, *, least: float = LEAST_TRUST) -> NDArray:
    """Weights from a mask [H, W] of what is surely tissue, or surely black."""
    one = np.where(mask, 1.0, least)
    return np.repeat(gaussian_filter(one, 1.0)[None], frames, 0).astype(np.float32)


def _still(grey: NDArray[np.floating]) -> NDArray[np.float64]:
    """1 where brightness over some frames stays, 0.3 where it changes as much as it is; 0.6 for one picture."""
    if len(grey) < 3:
        return np.full(grey.shape, 0.6)
    values = gaussian_filter(grey.astype(np.float64), (0, 1.0, 1.0))
    mean = gaussian_filter1d(values, 4.0, axis=0, mode="nearest")
    change = gaussian_filter1d((values - mean) ** 2, 4.0, axis=0, mode="nearest")
    relative = np.sqrt(change) / np.maximum(mean, 0.02)
    return np.asarray(1 - 0.7 * np.clip(relative / 0.5, 0, 1))
