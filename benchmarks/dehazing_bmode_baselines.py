"""What needs no prior: simple ways to take haze off a B-mode cine, with the grid each is tuned over."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

Frames = NDArray[np.float32]


def gamma_curve(y: Frames, exponent: float) -> Frames:
    return y**exponent


def threshold(y: Frames, level: float) -> Frames:
    return np.clip(y - level, 0, None) / (1 - level)


def least_over_time(y: Frames, weight: float, smooth: float) -> Frames:
    """Less the smoothed minimum over the frames."""
    return np.clip(y - weight * gaussian_filter(y.min(0), smooth), 0, 1)


def low_rank(y: Frames, rank: int, weight: float) -> Frames:
    """SVD clutter filter: less the strongest components over the frames."""
    left, values, right = np.linalg.svd(y.reshape(len(y), -1), full_matrices=False)
    background = (left[:, :rank] * values[:rank]) @ right[:rank]
    return np.clip(y - weight * background.reshape(y.shape), 0, 1).astype(np.float32)


def high_pass(y: Frames, frames: float, weight: float) -> Frames:
    """Less what is slow in time."""
    return np.clip(y - weight * gaussian_filter1d(y, frames, axis=0, mode="nearest"), 0, 1)


def non_local_means(y: Frames, h: float) -> Frames:
    from skimage.restoration import denoise_nl_means

    return np.stack([denoise_nl_means(frame, patch_size=5, patch_distance=7, h=h, fast_mode=True) for frame in y])


#: Name -> function, and the values of each of its parameters that are tried on the tuning cines.
BASELINES: dict[str, tuple[Callable[..., Frames], dict[str, tuple[Any, ...]]]] = {
    "gamma curve": (gamma_curve, {"exponent": (1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)}),
    "threshold": (threshold, {"level": (0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.12)}),
    "minimum over time": (
        least_over_time,
        {"weight": (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0), "smooth": (0.0, 1.5, 4.0, 10.0)},
    ),
    "low rank (SVD)": (low_rank, {"rank": (1, 2, 4), "weight": (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)}),
    "high-pass in time": (high_pass, {"frames": (2.0, 5.0, 10.0), "weight": (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)}),
    "non-local means": (non_local_means, {"h": (0.01, 0.02, 0.04, 0.08, 0.12)}),
}


def grid(values: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """All combinations."""
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]
