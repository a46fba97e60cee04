"""What turns boxes with poses into a ranked list: one score a person, and no person twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_pose.evaluation.oks import object_keypoint_similarity
from priorscope_pose.evaluation.predictions import Predictions

Array = NDArray[np.float64]
ScoreMode = Literal["bbox_keypoint", "bbox", "keypoint", "bbox_rle", "as_given"]
NmsMode = Literal["oks", "soft_oks", "none"]
#: The most people of one image that soft NMS keeps, which is also what COCO counts.
SOFT_LIMIT = 20


def similarities(
    keypoints: Array,
    areas: Array,
    sigmas: Array,
    keypoint_scores: Array | None = None,
    score_threshold: float | None = None,
) -> Array:
    """OKS of N predicted people with each other, (N, N); the area of a pair is the mean of both.

    Parameters
    ----------
    keypoints : array (N, K, 2)
    areas : array (N,)
    sigmas : array (K,)
    keypoint_scores : array (N, K), optional
    score_threshold : float, optional
        Count only key points of a pair that both score above it. Default: all.
    """
    counted = None
    if score_threshold is not None and keypoint_scores is not None:
        good = keypoint_scores > score_threshold
        counted = good[:, None] & good[None]
    return object_keypoint_similarity(keypoints, keypoints, (areas[:, None] + areas[None]) / 2, sigmas, counted)


def oks_nms(similar: Array, scores: Array, threshold: float = 0.9) -> NDArray[np.int64]:
    """Keep the best, drop all that are more similar to it than ``threshold``, and so on.

    Parameters
    ----------
    similar : array (N, N)
        As :func:`similarities` gives it.
    scores : array (N,)
    threshold : float

    Returns
    -------
    array
        Indices that stay, best first; of equal scores the later comes first, as in mmpose.
    """
    order = np.argsort(scores, kind="stable")[::-1]
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        order = rest[similar[best, rest] <= threshold]
    return np.array(kept, np.int64)


def soft_oks_nms(similar: Array, scores: Array, threshold: float = 0.9, limit: int = SOFT_LIMIT) -> NDArray[np.int64]:
    """Keep the best, lower the others' scores by exp(-similarity^2 / threshold), and so on until ``limit`` are kept.

    As in mmpose, the lowered scores decide only the order and who stays.

    Parameters and result as for :func:`oks_nms`.
    """
    order = np.argsort(scores, kind="stable")[::-1]
    lowered = np.asarray(scores, np.float64)[order]
    kept: list[int] = []
    while len(order) and len(kept) < limit:
        best, order = order[0], order[1:]
        kept.append(int(best))
        lowered = lowered[1:] * np.exp(-np.square(similar[best, order]) / threshold)
        again = np.argsort(lowered, kind="stable")[::-1]
        order, lowered = order[again], lowered[again]
    return np.array(kept, np.int64)


def person_scores(
    box_scores: Array, keypoint_scores: Array, mode: ScoreMode = "bbox_keypoint", keypoint_threshold: float = 0.2
) -> Array:
    """One score a person, (N,), by mmpose's names.

    Parameters
    ----------
    box_scores : array (N,)
    keypoint_scores : array (N, K)
    mode : str
        ``bbox_keypoint``: box times the mean of the key points above the threshold (0 if there are none); ``bbox``;
        ``keypoint``: their mean; ``bbox_rle``: box + mean + maximum; ``as_given``: unchanged.
    keypoint_threshold : float

    Raises
    ------
    InputError
        No such mode.
    """
    if mode in ("bbox", "as_given"):
        return box_scores
    if mode == "keypoint":
        return keypoint_scores.mean(1)
    if mode == "bbox_rle":
        return box_scores + keypoint_scores.mean(1) + keypoint_scores.max(1)
    if mode != "bbox_keypoint":
        raise InputError(f"no score mode {mode!r}", remedy=f"There are {', '.join(get_args(ScoreMode))}.")
    good = keypoint_scores > keypoint_threshold
    return box_scores * (keypoint_scores * good).sum(1) / np.maximum(good.sum(1), 1)


def postprocess(
    predictions: Predictions,
    *,
    score: ScoreMode = "bbox_keypoint",
    nms: NmsMode = "oks",
    nms_threshold: float = 0.9,
    keypoint_threshold: float = 0.2,
) -> Predictions:
    """What mmpose's ``CocoMetric`` does before it counts: drop double ids, score, suppress.

    Parameters
    ----------
    predictions : Predictions
        Whose ``scores`` are those of the boxes.
    score : str
        As for :func:`person_scores`.
    nms : str
        ``oks``, ``soft_oks`` or ``none``.
    nms_threshold, keypoint_threshold : float

    Returns
    -------
    Predictions
        Image by image, with the new scores.

    Raises
    ------
    InputError
        No such score mode or NMS.
    """
    if nms not in get_args(NmsMode):
        raise InputError(f"no NMS {nms!r}", remedy=f"There are {', '.join(get_args(NmsMode))}.")
    sigmas = predictions.skeleton.sigma_array()
    scores = person_scores(predictions.scores, predictions.keypoint_scores, score, keypoint_threshold)
    areas = predictions.areas
    if areas is None:
        low, high = predictions.keypoints.min(1), predictions.keypoints.max(1)
        areas = np.prod(high - low, axis=-1)
    kept: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for rows in predictions.rows_by_image().values():
        if predictions.ids is not None:
            rows = rows[np.unique(predictions.ids[rows], return_index=True)[1]]
        if nms != "none":
            similar = similarities(predictions.keypoints[rows], areas[rows], sigmas)
            suppress = oks_nms if nms == "oks" else soft_oks_nms
            rows = rows[suppress(similar, scores[rows], nms_threshold)]
        kept.append(rows)
    chosen = np.concatenate(kept)
    return replace(predictions.select(chosen), scores=scores[chosen])
