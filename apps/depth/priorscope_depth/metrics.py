"""Metrics of depth and of surface normals, as the evaluation protocols of the field define them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError

#: The ten depth metrics, in the order of the official tables. delta1..3: higher is better; others: lower is.
DEPTH_METRICS = (
    "abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "delta1", "delta2", "delta3", "i_rmse", "silog",
)  # fmt: skip

#: Metrics of normals: angles in degrees, and the percentage of pixels strictly below an angle.
NORMAL_THRESHOLDS = {"below_5": 5.0, "below_7.5": 7.5, "below_11.25": 11.25, "below_22.5": 22.5, "below_30": 30.0}
NORMAL_METRICS = ("mean", "median", "rmse", *NORMAL_THRESHOLDS)

# Metrics are sums, so an image of any size needs the memory of one piece: ETH3D's 24 megapixels at once would take
# 0.2 GB for every temporary.
_PIECE = 1 << 20


def depth_metrics(prediction: ArrayLike, depth: ArrayLike, mask: ArrayLike | None = None) -> dict[str, float]:
    """Return the ten depth metrics of one image.

    Parameters
    ----------
    prediction, depth : array, same shape
        Aligned prediction p and ground truth g, in metres, positive and finite within the mask.
    mask : bool array, same shape, optional
        Pixels that count; all by default.

    Returns
    -------
    dict
        ``abs_rel`` = mean |p-g|/g; ``sq_rel`` = mean (p-g)^2/g (m); ``rmse`` (m); ``rmse_log`` (of ln);
        ``log10`` = mean |log10 p - log10 g|; ``delta1..3`` = fraction with max(p/g, g/p) strictly below 1.25^k;
        ``i_rmse`` = rmse of 1/p - 1/g (1/m); ``silog`` = 100 sqrt(mean d^2 - (mean d)^2), d = ln p - ln g.

    Raises
    ------
    InputError
        Shapes differ, no pixel counts, or a counted value is not positive and finite.

    Notes
    -----
    Sums are float64. The ratio of ``delta`` is formed in the dtype of the inputs, as the official code does
    (EnVision-Research/Lotus evaluation/util/metric.py): 1/0.8 is 1.25 in float32 and just below it in float64.
    """
    p, g = np.asarray(prediction), np.asarray(depth)
    if p.shape != g.shape or (mask is not None and np.shape(mask) != g.shape):
        raise InputError(f"prediction {list(p.shape)}, depth {list(g.shape)} and mask must have one shape")
    keep = slice(None) if mask is None else np.asarray(mask, dtype=bool)
    p, g = p[keep].ravel(), g[keep].ravel()
    if p.size == 0:
        raise InputError("no pixel counts: the mask is empty")
    for name, values in (("prediction", p), ("ground truth", g)):
        bad = int(np.count_nonzero(~(np.isfinite(values) & (values > 0))))
        if bad:
            raise InputError(f"the {name} is not a positive finite depth at {bad} of {values.size} pixels of the mask")
    total = np.zeros(10)
    for start in range(0, p.size, _PIECE):
        total += _sums(p[start : start + _PIECE], g[start : start + _PIECE])
    abs_rel, sq_rel, squared, log, log_abs, log_squared, inverse, *below = (float(v) for v in total / p.size)
    return {
        "abs_rel": abs_rel,
        "sq_rel": sq_rel,
        "rmse": squared**0.5,
        "rmse_log": log_squared**0.5,
        "log10": log_abs / float(np.log(10)),
        **{f"delta{k}": value for k, value in enumerate(below, 1)},
        "i_rmse": inverse**0.5,
        "silog": 100 * max(log_squared - log**2, 0.0) ** 0.5,
    }


def _sums(p: NDArray[np.floating], g: NDArray[np.floating]) -> NDArray[np.float64]:
    ratio = np.maximum(p / g, g / p)
    below = [np.count_nonzero(ratio < 1.25**k) for k in (1, 2, 3)]
    p, g = p.astype(np.float64), g.astype(np.float64)
    difference, log = p - g, np.log(p) - np.log(g)
    return np.array(
        [
            np.sum(np.abs(difference) / g),
            np.sum(difference**2 / g),
            np.sum(difference**2),
            np.sum(log),
            np.sum(np.abs(log)),
            np.sum(log**2),
            np.sum((1 / p - 1 / g) ** 2),
            *below,
        ],
        dtype=np.float64,
    )


def mean_over_images(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the unweighted mean of every metric: an image with few valid pixels counts as much as any."""
    if not rows:
        raise InputError("no image to average over")
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def angular_errors(
    prediction: ArrayLike,
    normals: ArrayLike,
    mask: ArrayLike,
    *,
    precision: Literal["float64", "float32"] = "float64",
) -> NDArray[np.float32]:
    """Return the angle between predicted and true normals at the pixels of the mask.

    Parameters
    ----------
    prediction, normals : array, [3, H, W]
        Need not be of unit length; a vector of zero length counts as 90 degrees. Both in one frame.
    mask : bool array, [H, W]
    precision : {"float64", "float32"}
        "float32" reproduces the official code; it resolves angles near zero to 0.02 degrees only.

    Returns
    -------
    float32 array, [N]
        Degrees in [0, 180], in row-major order of the mask.

    Raises
    ------
    InputError
        Wrong shapes, or NaN or infinity in a counted pixel.

    Notes
    -----
    arccos of the clamped cosine similarity (baegwangbin/DSINE, through EnVision-Research/Lotus
    evaluation/util/normal_utils.py).
    """
    import torch
    import torch.nn.functional as F

    p, n, m = np.asarray(prediction), np.asarray(normals), np.asarray(mask, dtype=bool)
    if p.shape != n.shape or p.ndim != 3 or p.shape[0] != 3 or m.shape != p.shape[1:]:
        raise InputError(
            f"normals are [3, H, W] with a mask [H, W]; got {list(p.shape)}, {list(n.shape)}, {list(m.shape)}"
        )
    for name, values in (("prediction", p), ("ground truth", n)):
        bad = int(np.count_nonzero(~np.isfinite(values).all(axis=0) & m))
        if bad:
            raise InputError(f"the {name} is NaN or infinite at {bad} of {int(m.sum())} pixels of the mask")
    # of whole images, as officially: the order in which torch sums three float32 products depends on the layout
    dtype = torch.float64 if precision == "float64" else torch.float32
    a, b = (torch.from_numpy(np.ascontiguousarray(v)).to(dtype) for v in (p, n))
    cosine = F.cosine_similarity(a[None], b[None], dim=1)[0].clamp(-1.0, 1.0)
    return (torch.acos(cosine) * 180.0 / np.pi).to(torch.float32).numpy()[m]


def normal_metrics(
    errors: NDArray[np.floating] | Iterable[NDArray[np.floating]], *, digits: int | None = None
) -> dict[str, float]:
    """Return mean, median and rmse (degrees) and the percentage of errors strictly below 5, 7.5, 11.25, 22.5, 30.

    Parameters
    ----------
    errors : array, or a re-iterable collection of arrays
        Degrees in [0, 180]. A collection (a list of one array an image, say) is pooled over all its pixels,
        as DSINE and Lotus do; it is read three times and never joined, so it may load its arrays from disk.
    digits : int, optional
        Round each figure: Marigold rounds the figures of an image to 4 digits before it averages over images.

    Notes
    -----
    The median is exact: the bit patterns of non-negative float32 are ordered as the numbers are, so a histogram
    over the upper 16 bits and one over the lower 16 find the middle values without sorting.
    """
    pieces: Iterable[NDArray[np.floating]] = [errors] if isinstance(errors, np.ndarray) else errors
    if iter(pieces) is pieces:
        raise InputError("errors are read several times: give a list or another re-iterable collection")

    def arrays() -> Iterable[NDArray[np.float32]]:
        return (np.asarray(piece, dtype=np.float32).ravel() for piece in pieces)

    count, total, squares = 0, 0.0, 0.0
    below = dict.fromkeys(NORMAL_THRESHOLDS, 0)
    for array in arrays():
        if not np.all((array >= 0) & (array <= 180.001)):
            raise InputError("angular errors must lie in 0..180 degrees and not be NaN")
        wide = array.astype(np.float64)
        count, total, squares = count + array.size, total + float(wide.sum()), squares + float(np.dot(wide, wide))
        for name, threshold in NORMAL_THRESHOLDS.items():
            below[name] += int(np.count_nonzero(array < threshold))
    if count == 0:
        raise InputError("no pixel counts: there is no angular error to summarise")
    middle = [_kth_smallest(arrays, k) for k in sorted({(count - 1) // 2, count // 2})]
    result = {
        "mean": total / count,
        "median": float(np.mean(middle)),
        "rmse": (squares / count) ** 0.5,
        **{name: 100.0 * number / count for name, number in below.items()},
    }
    return result if digits is None else {name: round(value, digits) for name, value in result.items()}


def _kth_smallest(arrays: Callable[[], Iterable[NDArray[np.float32]]], k: int) -> float:
    """Return the k-th smallest (from 0) of non-negative float32 numbers in several arrays, in two passes."""

    def histogram(upper: int | None) -> NDArray[np.int64]:
        counts = np.zeros(1 << 16, dtype=np.int64)
        for array in arrays():
            bits = (array + np.float32(0)).view(np.uint32)  # + 0 turns -0.0 into 0.0
            part = bits >> 16 if upper is None else bits[bits >> 16 == upper] & 0xFFFF
            counts += np.bincount(part, minlength=1 << 16)
        return counts

    cumulative = np.cumsum(histogram(None))
    upper = int(np.searchsorted(cumulative, k, side="right"))
    rest = k - (int(cumulative[upper - 1]) if upper else 0)
    lower = int(np.searchsorted(np.cumsum(histogram(upper)), rest, side="right"))
    return float(np.array([(upper << 16) | lower], dtype=np.uint32).view(np.float32)[0])
