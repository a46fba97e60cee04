"""Object key point similarity: 1 for the same pose, 0 for another, in units of how well people agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def object_keypoint_similarity(
    first: Array, second: Array, areas: Array, sigmas: Array, counted: NDArray[np.bool_] | None = None
) -> Array:
    """OKS of every pose with every other: the mean over key points of exp(-d^2 / (2 area (2 sigma)^2)).

    COCO's key point evaluation (cocodataset.org/#keypoints-eval).

    Parameters
    ----------
    first : array (N, K, 2)
        Pixels.
    second : array (M, K, 2)
    areas : array broadcastable to (N, M)
        Square pixels: of the annotated person, or the mean of both where predictions are compared with each other.
    sigmas : array (K,)
    counted : array broadcastable to (N, M, K), optional
        bool; which key points count. Default: all. A pair with none has similarity 0.

    Returns
    -------
    array (N, M)
        float64 in [0, 1].
    """
    away = first[:, None] - second[None]
    squared = away[..., 0] ** 2 + away[..., 1] ** 2
    areas = np.asarray(areas, np.float64)[..., None] if np.ndim(areas) else areas
    error = squared / np.square(2 * sigmas) / (areas + np.spacing(1)) / 2
    similar = np.exp(-error)
    if counted is None:
        return similar.mean(-1)
    counted = np.broadcast_to(counted, similar.shape)
    number = counted.sum(-1)
    return np.where(number > 0, (similar * counted).sum(-1) / np.maximum(number, 1), 0.0)


def similarity_to_annotated(
    predicted: Array, annotated: Array, visible: NDArray[np.bool_], areas: Array, boxes: Array, sigmas: Array
) -> Array:
    """OKS of D predicted with G annotated poses as COCO counts it, (D, G).

    Key points that are not labelled do not count. Where a person has none labelled (groups, mostly), distance is
    measured to the annotated box enlarged to three times its sides: inside of it, it is 0.

    Parameters
    ----------
    predicted : array (D, K, 2)
    annotated : array (G, K, 2)
    visible : array (G, K)
    areas : array (G,)
    boxes : array (G, 4)
        Left, top, right, bottom.
    sigmas : array (K,)
    """
    similar = object_keypoint_similarity(predicted, annotated, areas[None], sigmas, visible[None])
    unlabelled = np.flatnonzero(~visible.any(1))
    if len(unlabelled):
        low, high = boxes[unlabelled, :2], boxes[unlabelled, 2:]
        side = high - low
        below = np.maximum(0, (low - side)[None, :, None] - predicted[:, None])
        above = np.maximum(0, predicted[:, None] - (high + side)[None, :, None])
        error = np.square(below + above).sum(-1) / np.square(2 * sigmas)
        error = error / (areas[unlabelled][None, :, None] + np.spacing(1)) / 2
        similar[:, unlabelled] = np.exp(-error).mean(-1)
    return similar
