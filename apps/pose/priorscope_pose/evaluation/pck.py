"""Shares of key points within a distance (PCK, PCKh), areas under that curve, and mean distances (EPE, NME)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError

Array = NDArray[np.float64]


class PckResult(NamedTuple):
    """Shares of right key points.

    Parameters
    ----------
    joints : array (K,)
        In [0, 1]; NaN where a key point never counts.
    mean : float
        Over the key points that count; 0 where none does.
    counted : int
        How many key points count.
    """

    joints: Array
    mean: float
    counted: int


def normalised_distances(
    predicted: ArrayLike, annotated: ArrayLike, counted: ArrayLike, scale: ArrayLike
) -> NDArray[np.float32]:
    """Distance of every predicted key point from the annotated one, in units of the scale.

    Parameters
    ----------
    predicted, annotated : array (N, K, D)
        Pixels; D is 2 mostly.
    counted : array (N, K)
        bool.
    scale : array (N, D), (N,) or float
        Each coordinate is divided by its own. As in mmpose, a person with a scale of 0 does not count, and in one below
        0 all key points have distance 0 in that coordinate, nearly.

    Returns
    -------
    array (K, N)
        float32; -1 where it does not count.

    Raises
    ------
    InputError
        Shapes that do not fit, or counted key points that are NaN.
    """
    predicted, annotated = np.asarray(predicted, np.float64), np.asarray(annotated, np.float64)
    mask = np.asarray(counted).astype(bool)
    if predicted.ndim != 3 or predicted.shape != annotated.shape or mask.shape != predicted.shape[:2]:
        raise InputError(
            f"key points {predicted.shape} with annotated {annotated.shape} and a mask {mask.shape}",
            remedy="They are (people, key points, 2), twice, and (people, key points).",
        )
    people, _, dimensions = predicted.shape
    scale = np.asarray(scale, np.float64)
    scale = np.broadcast_to(scale[:, None] if scale.ndim == 1 else scale, (people, dimensions))
    mask = mask & (scale != 0).all(1)[:, None]
    difference = (predicted - annotated) / np.where(scale <= 0, 1e6, scale)[:, None]
    distances = np.full(mask.shape, -1, np.float32)
    distances[mask] = np.linalg.norm(difference[mask], axis=-1)
    if np.isnan(distances).any():
        raise InputError("a key point that counts is NaN", remedy="Leave it out of the mask.")
    return distances.T


def pck(
    predicted: ArrayLike,
    annotated: ArrayLike,
    counted: ArrayLike,
    threshold: float,
    scale: ArrayLike,
    *,
    inclusive: bool = False,
) -> PckResult:
    """Percentage of correct key points, as a share: those closer than ``threshold`` times the scale.

    Parameters
    ----------
    predicted, annotated, counted, scale
        As for :func:`normalised_distances`. For PCKh the scale is the head size, the threshold 0.5, and the distance
        itself still right (``inclusive``), as in MPII and PoseTrack.
    threshold : float
    inclusive : bool
        Whether a distance equal to the threshold is right; in mmpose's PCK it is not.
    """
    return _shares(normalised_distances(predicted, annotated, counted, scale), threshold, inclusive)


def _shares(distances: NDArray[np.float32], threshold: float, inclusive: bool) -> PckResult:
    valid = distances != -1
    limit = distances.dtype.type(threshold)
    right = valid & ((distances <= limit) if inclusive else (distances < limit))
    number = valid.sum(1)
    joints = np.where(number > 0, right.sum(1) / np.maximum(number, 1), np.nan)
    some = number > 0
    return PckResult(joints, float(joints[some].mean()) if some.any() else 0.0, int(some.sum()))


def auc(
    predicted: ArrayLike, annotated: ArrayLike, counted: ArrayLike, scale: ArrayLike = 30.0, steps: int = 20
) -> float:
    """Area under PCK over the thresholds 0, 1/steps, ... (steps - 1)/steps, in [0, 1].

    Parameters as for :func:`normalised_distances`; ``scale`` is 30 pixels mostly.
    """
    distances = normalised_distances(predicted, annotated, counted, scale)
    return float(np.mean([_shares(distances, step / steps, False).mean for step in range(steps)]))


def epe(predicted: ArrayLike, annotated: ArrayLike, counted: ArrayLike) -> float:
    """End-point error: the mean distance in pixels over the key points that count; 0 where none does."""
    return nme(predicted, annotated, counted, 1.0)


def nme(predicted: ArrayLike, annotated: ArrayLike, counted: ArrayLike, scale: ArrayLike) -> float:
    """Normalised mean error: the mean of :func:`normalised_distances` over the key points that count."""
    distances = normalised_distances(predicted, annotated, counted, scale)
    valid = distances[distances != -1]
    return float(valid.sum() / max(1, len(valid)))


def heatmap_pck(
    heatmaps: ArrayLike, targets: ArrayLike, counted: ArrayLike, threshold: float = 0.05, scale: ArrayLike | None = None
) -> PckResult:
    """:func:`pck` of the maxima of heatmaps, a cheap figure to watch in training.

    Parameters
    ----------
    heatmaps, targets : array (N, K, h, w)
        A map without a positive value has its maximum at (-1, -1).
    counted : array (N, K)
    threshold : float
    scale : array (N, 2), optional
        Default: (h, w), in that order, as mmpose divides x by the height.
    """
    heatmaps, targets = np.asarray(heatmaps), np.asarray(targets)
    if heatmaps.ndim != 4 or heatmaps.shape != targets.shape:
        raise InputError(f"heatmaps {heatmaps.shape} with targets {targets.shape}", remedy="Both are (N, K, h, w).")
    if scale is None:
        scale = np.tile(np.array([heatmaps.shape[2:]], np.float64), (len(heatmaps), 1))
    return pck(_maxima(heatmaps), _maxima(targets), counted, threshold, scale)


def _maxima(heatmaps: NDArray[np.generic]) -> Array:
    flat = heatmaps.reshape(*heatmaps.shape[:2], -1)
    place = flat.argmax(-1)
    points = np.stack([place % heatmaps.shape[3], place // heatmaps.shape[3]], -1).astype(np.float64)
    points[flat.max(-1) <= 0] = -1
    return points


def head_sizes(head_boxes: ArrayLike) -> Array:
    """Head sizes for PCKh, (N,): 0.6 of the diagonal of head boxes (N, 4), left, top, right, bottom."""
    boxes = np.asarray(head_boxes, np.float64)
    return np.asarray(0.6 * np.linalg.norm(boxes[:, 2:] - boxes[:, :2], axis=1))
