"""How much predictions of successive frames change where the scene does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_depth.robust_fit import fit_robust

#: Column and row, in pixel centres from 0, at which each pixel of a frame is found in the next; NaN where it is not.
Motion = tuple[NDArray[np.floating], NDArray[np.floating]]


@dataclass(frozen=True)
class Flicker:
    """Means over all pairs of successive frames.

    Attributes
    ----------
    shape : float
        Change that is left after the best scale and shift, relative to the range of values.
    total : float
        Change as it is, scale and shift included, relative to the same range.
    pairs : int
    """

    shape: float
    total: float
    pairs: int


def flicker(
    frames: Sequence[NDArray[np.floating]],
    *,
    still: Sequence[NDArray[np.bool_]] | None = None,
    motion: Sequence[Motion] | None = None,
) -> Flicker:
    """Measure the flicker of predictions.

    For frames p_t and p_{t+1} and the pixels x that count::

        q(x)  = p_{t+1}(x + motion(x))
        total = mean |q - p_t| / range(p_t)
        shape = mean |a q + b - p_t| / range(p_t),  (a, b) fitted robustly over these pixels

    where range(p_t) is the distance from the 2 % to the 98 % quantile of p_t over them.

    Parameters
    ----------
    frames : sequence of float array (H, W)
        Two or more predictions, in one space: relative depth or disparity.
    still : sequence of bool array (H, W), optional
        For every pair: pixels of the earlier frame that show the same surface at the same depth in the later one.
        Default: all.
    motion : sequence of (columns, rows), optional
        For every pair: where each pixel of the earlier frame lies in the later one; read out bilinearly. Default: at
        the same place. A camera that moves sideways keeps depths as they are; one that moves forward does not, and
        the change of the truth counts as flicker.

    Returns
    -------
    Flicker

    Raises
    ------
    InputError
        Fewer than two frames, sizes or numbers that differ, a pair without two pixels that count, NaN.

    Notes
    -----
    White noise of standard deviation s on a constant scene gives 2 s / sqrt(pi) over the range. The definition is ours.
    """
    count = len(frames) - 1
    if count < 1:
        raise InputError(f"{len(frames)} frames: flicker needs two or more")
    for name, given in (("masks", still), ("motions", motion)):
        if given is not None and len(given) != count:
            raise InputError(f"{len(given)} {name} for {count} pairs of frames")
    shapes, totals = [], []
    for index in range(count):
        now, later = (np.asarray(frames[i], dtype=np.float64) for i in (index, index + 1))
        if now.shape != later.shape or now.ndim != 2:
            raise InputError(f"frames {index} and {index + 1} have shapes {list(now.shape)} and {list(later.shape)}")
        counts = np.ones(now.shape, bool) if still is None else np.asarray(still[index], bool)
        if motion is not None:
            moved, found = read_out(later, *motion[index])
            counts = counts & found
            p, q = now[counts], moved[counts]
        else:
            p, q = now[counts], later[counts]
        if p.size < 2 or not (np.isfinite(p).all() and np.isfinite(q).all()):
            raise InputError(f"frames {index} and {index + 1} have {p.size} finite pixels in common")
        span = float(np.subtract(*np.quantile(p, [0.98, 0.02])))
        if span <= 0:
            raise InputError(f"frame {index} is constant: its flicker has no scale")
        totals.append(np.abs(q - p).mean() / span)
        # of a frame without contrast only the constant is left to fit
        fitted = fit_robust(q, p)(q) if np.ptp(q) > 1e-8 * np.abs(q).max() else np.full_like(q, np.median(p))
        shapes.append(np.abs(fitted - p).mean() / span)
    return Flicker(float(np.mean(shapes)), float(np.mean(totals)), count)


def read_out(
    image: NDArray[np.floating], columns: NDArray[np.floating], rows: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Values of ``image`` (H, W) at fractional pixel centres, bilinearly, and where they lie inside it."""
    height, width = image.shape
    inside = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)  # NaN is not
    x, y = np.where(inside, columns, 0.0), np.where(inside, rows, 0.0)
    left, top = (np.minimum(np.floor(a).astype(np.intp), max(n - 2, 0)) for a, n in ((x, width), (y, height)))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    fx, fy = x - left, y - top
    upper = image[top, left] * (1 - fx) + image[top, right] * fx
    lower = image[bottom, left] * (1 - fx) + image[bottom, right] * fx
    return upper * (1 - fy) + lower * fy, inside
