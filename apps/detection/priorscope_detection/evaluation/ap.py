"""Average precision of 3D boxes as collaborative detection counts it, and by range and by visibility.

A frame is measured once (:func:`measure_frame`) into a row that JSON can hold; figures are made of all rows, from one
process or from several (:func:`average_precision`, :func:`summary`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from priorscope.errors import InputError
from priorscope_detection.geometry.boxes import check_boxes
from priorscope_detection.geometry.overlap import bev_iou, iou_3d

Overlap = Literal["bev", "3d"]
Order = Literal["global", "per_frame"]
Row = Mapping[str, Any]

THRESHOLDS = (0.3, 0.5, 0.7)
_OVERLAPS = {"bev": bev_iou, "3d": iou_3d}


@dataclass(frozen=True)
class Part:
    """Some of the true boxes: those with low <= value < high.

    Parameters
    ----------
    by : {"range", "visibility"}
        range: distance of the centre from the origin in bird's-eye view, in metres. Of the detections that match
        nothing, those in the range count as false. visibility: as given with the true boxes, by default points of the
        LiDAR on them; it is unknown for detections that match nothing, so that all of these count as false, and figures
        of parts with few true boxes are low.
    low, high : float
        Limits.
    """

    by: Literal["range", "visibility"]
    low: float
    high: float = inf

    @property
    def name(self) -> str:
        """Such as ``range_30_50``, ``visibility_10_inf``."""
        return f"{self.by}_{self.low:g}_{self.high:g}"


#: In metres from the ego.
RANGES = (Part("range", 0, 30), Part("range", 30, 50), Part("range", 50, 100))
#: In points: not seen at all, hardly, well.
VISIBILITIES = (Part("visibility", 0, 1), Part("visibility", 1, 10), Part("visibility", 10))


@dataclass(frozen=True)
class PrecisionRecall:
    """Average precision and its curve.

    Parameters
    ----------
    ap : float
        0 to 1; nan without true boxes.
    precision, recall : array (D + 2,)
        After the ranked detections, with the ends 0 and 1; precision is the envelope, falling with recall.
    hits : array (D,)
        bool; which of the ranked detections are right.
    scores : array (D,)
        Of the ranked detections.
    truths : int
        True boxes.
    """

    ap: float
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    hits: NDArray[np.bool_]
    scores: NDArray[np.float64]
    truths: int


def match(iou: NDArray[np.floating], scores: NDArray[np.floating], threshold: float) -> NDArray[np.int64]:
    """Which true box each detection of a frame finds.

    From the highest score down, each takes the true box it overlaps most of those that are left, if by ``threshold``.

    Parameters
    ----------
    iou : ndarray
        (D, N).
    scores : ndarray
        (D,).
    threshold : float
        Smallest overlap.

    Returns
    -------
    ndarray
        (D,), index of the true box, or -1.
    """
    found = np.full(len(scores), -1)
    if iou.shape[1] == 0:
        return found
    left = np.array(iou, np.float64)
    for index in np.argsort(-np.asarray(scores), kind="stable"):
        best = int(left[index].argmax())
        if left[index, best] >= threshold:
            found[index] = best
            left[:, best] = -1
    return found


def measure_frame(
    boxes: Tensor,
    scores: Tensor,
    truths: Tensor,
    *,
    visibility: ArrayLike | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, Any]:
    """Compare the detections of a frame with the truth.

    Parameters
    ----------
    boxes : Tensor
        (D, 7), the detections; D may be 0.
    scores : Tensor
        (D,).
    truths : Tensor
        (N, 7), the true boxes; N may be 0.
    visibility : array-like, optional
        (N,), how well each true box can be seen: points of the LiDAR on it.
    thresholds : sequence of float
        Overlaps from which a detection is right.

    Returns
    -------
    dict
        A row for the functions below, of lists and numbers: ``scores`` and ``distances`` of detections, by falling
        score; ``truth_distances``, ``truth_visibility``; ``found``, overlap -> threshold -> index of the true box that
        each detection finds, or -1.

    Raises
    ------
    InputError
        Boxes or scores that are not finite, boxes without size, or numbers that do not fit.
    """
    check_boxes(boxes, "detections")
    check_boxes(truths, "true boxes")
    if scores.shape != boxes.shape[:1] or not bool(scores.isfinite().all()):
        raise InputError(f"{len(boxes)} detections have scores of shape {tuple(scores.shape)}, or some are not finite")
    order = torch.sort(scores, descending=True, stable=True).indices
    boxes, ranked = boxes[order].double().cpu(), scores[order].double().cpu().numpy()
    truths = truths.double().cpu()
    row: dict[str, Any] = {
        "scores": ranked.tolist(),
        "distances": boxes[:, :2].norm(dim=1).tolist(),
        "truth_distances": truths[:, :2].norm(dim=1).tolist(),
        "found": {},
    }
    if visibility is not None:
        seen = np.asarray(visibility, np.float64)
        if seen.shape != (len(truths),):
            raise InputError(f"{len(truths)} true boxes have visibilities of shape {seen.shape}")
        row["truth_visibility"] = seen.tolist()
    for name, overlap in _OVERLAPS.items():
        iou = overlap(boxes, truths).numpy()
        row["found"][name] = {_key(threshold): match(iou, ranked, threshold).tolist() for threshold in thresholds}
    return row


def average_precision(
    rows: Sequence[Row],
    threshold: float = 0.5,
    *,
    overlap: Overlap = "bev",
    order: Order = "global",
    part: Part | None = None,
) -> PrecisionRecall:
    """Average precision over frames: the area under the envelope of precision over recall (PASCAL VOC 2010).

    Parameters
    ----------
    rows : sequence of mappings
        From :func:`measure_frame`.
    threshold : float
        One of those measured.
    overlap : {"bev", "3d"}
        Intersection over union in bird's-eye view, which published figures use, or of volumes.
    order : {"global", "per_frame"}
        global: all detections by falling score. per_frame: frame after frame, each by falling score, as OpenCOOD's
        published tables are made (CoAlign's are global); not an average precision in the usual sense, and the order of
        the frames matters.
    part : Part, optional
        Only these true boxes. A detection that finds another is neither right nor false.

    Returns
    -------
    PrecisionRecall

    Raises
    ------
    InputError
        A threshold that was not measured, or visibility that was not given.
    """
    hits, scores, truths = [], [], 0
    for row in rows:
        try:
            found = np.asarray(row["found"][overlap][_key(threshold)], np.int64)
        except KeyError:
            measured = ", ".join(row["found"].get(overlap, {}))
            raise InputError(
                f"no frame was measured at {overlap} overlap {threshold:g}", remedy=f"Measured were {measured}."
            ) from None
        counted, kept = _of_part(row, found, part)
        truths += int(counted.sum())
        hits.append((found >= 0)[kept])
        scores.append(np.asarray(row["scores"], np.float64)[kept])
    return _curve(_joined(hits, np.bool_), _joined(scores, np.float64), truths, order)


def _joined(pieces: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *pieces])


def _of_part(row: Row, found: NDArray[np.int64], part: Part | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which true boxes count (N,), and which detections (D,)."""
    distances = np.asarray(row["truth_distances"], np.float64)
    if part is None:
        return np.ones(len(distances), bool), np.ones(len(found), bool)
    if part.by == "range":
        values, own = distances, np.asarray(row["distances"], np.float64)
        unmatched = (own >= part.low) & (own < part.high)
    else:
        if "truth_visibility" not in row:
            raise InputError(f"no visibility was given for {part.name}", remedy="Give it to measure_frame.")
        values = np.asarray(row["truth_visibility"], np.float64)
        unmatched = np.ones(len(found), bool)
    counted = (values >= part.low) & (values < part.high)
    # index -1 asks the row appended for it
    return counted, np.where(found >= 0, np.append(counted, False)[found], unmatched)


def _curve(hits: NDArray[np.bool_], scores: NDArray[np.float64], truths: int, order: Order) -> PrecisionRecall:
    if order == "global":
        rank = np.argsort(-scores, kind="stable")
        hits, scores = hits[rank], scores[rank]
    right = hits.cumsum()
    recall = np.concatenate([[0.0], right / max(truths, 1), [1.0]])
    precision = np.concatenate([[0.0], right / np.arange(1, len(hits) + 1), [0.0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    ap = float((np.diff(recall) * precision[1:]).sum()) if truths else float("nan")
    return PrecisionRecall(ap, precision, recall, hits, scores, truths)


def summary(
    rows: Sequence[Row],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    parts: Sequence[Part] = (),
    part_threshold: float = 0.5,
) -> dict[str, float | int | None]:
    """All figures of an evaluation.

    Parameters
    ----------
    rows : sequence of mappings
        From :func:`measure_frame`.
    thresholds : sequence of float
        Of those measured.
    parts : sequence of Part
        Such as :data:`RANGES` and :data:`VISIBILITIES`.
    part_threshold : float
        Overlap at which parts are measured.

    Returns
    -------
    dict
        ``ap_bev_0.5``, ``ap_3d_0.5``, ``ap_bev_0.5_per_frame``, ``recall_bev_0.5`` and so on; for parts
        ``ap_bev_0.5_range_0_30``, the same with recall, and ``truths_range_0_30``; None where there is no true box. And
        ``frames``, ``truths``, ``detections``.
    """
    figures: dict[str, float | int | None] = {
        "frames": len(rows),
        "truths": sum(len(row["truth_distances"]) for row in rows),
        "detections": sum(len(row["scores"]) for row in rows),
    }
    overlaps: tuple[Overlap, ...] = ("bev", "3d")
    for overlap in overlaps:
        for threshold in thresholds:
            name = f"{overlap}_{_key(threshold)}"
            figures |= _figures(average_precision(rows, threshold, overlap=overlap), name)
            legacy = average_precision(rows, threshold, overlap=overlap, order="per_frame")
            figures[f"ap_{name}_per_frame"] = _figures(legacy, name)[f"ap_{name}"]
    for part in parts:
        result = average_precision(rows, part_threshold, part=part)
        figures[f"truths_{part.name}"] = result.truths
        figures |= _figures(result, f"bev_{_key(part_threshold)}_{part.name}")
    return figures


def _figures(result: PrecisionRecall, name: str) -> dict[str, float | int | None]:
    if not result.truths:
        return {f"ap_{name}": None, f"recall_{name}": None}
    return {f"ap_{name}": result.ap, f"recall_{name}": float(result.hits.sum() / result.truths)}


def _key(threshold: float) -> str:
    return f"{threshold:g}"
