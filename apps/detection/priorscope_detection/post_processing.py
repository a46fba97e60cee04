"""From the heads' maps to boxes: threshold, decoding, filters, suppression, range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from priorscope.errors import InputError
from priorscope_detection.box_coder import DIRECTION_OFFSET, decode, with_direction
from priorscope_detection.geometry.boxes import corners, corners_inside, standup_of_corners, transform_boxes
from priorscope_detection.geometry.nms import rotated_nms
from priorscope_detection.geometry.overlap import bev_iou, iou_3d
from priorscope_detection.losses import by_anchor


@dataclass(frozen=True)
class PostProcessing:
    """How boxes are chosen.

    Parameters
    ----------
    score : float
        Boxes must score more, 0 to 1.
    nms : float
        Of two boxes that overlap more, the better stays.
    nms_limit : int
        So many boxes of a frame, the best, get that far.
    overlap : {"bev", "3d"}
        What ``nms`` means.
    longest : float, optional
        Boxes whose extent along x or y is more, in metres, are left out. None: none are; CoAlign's 6 drops lorries and
        buses.
    z : (float, float), optional
        Boxes must lie between, floor and roof, in metres. None: anywhere.
    smallest : float
        Boxes with a shorter edge, in metres, are left out.
    limits : tuple of float, optional
        x1, y1, z1, x2, y2, z2: boxes must lie inside.
    inside : {"centre", "corners"}
        What of them. CoAlign: all corners.
    """

    score: float = 0.2
    nms: float = 0.15
    nms_limit: int = 1000
    overlap: Literal["bev", "3d"] = "bev"
    longest: float | None = None
    z: tuple[float, float] | None = None
    smallest: float = 0.05
    limits: tuple[float, float, float, float, float, float] | None = None
    inside: Literal["centre", "corners"] = "centre"

    def __post_init__(self) -> None:
        for name in ("score", "nms"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} of post-processing is {getattr(self, name)}", remedy="Give 0 to 1.")
        if self.nms_limit < 1:
            raise InputError(f"nms_limit is {self.nms_limit}", remedy="Give 1 or more.")

    @classmethod
    def published(cls, limits: tuple[float, float, float, float, float, float]) -> PostProcessing:
        """CoAlign's filters: 6 m, z from -3 to 1 m, all corners in the range."""
        return cls(longest=6.0, z=(-3.0, 1.0), limits=limits, inside="corners")


@dataclass(frozen=True)
class Detections:
    """Boxes of one frame.

    Parameters
    ----------
    boxes : Tensor
        (N, 7).
    scores : Tensor
        (N,), 0 to 1; falling where suppression is done.
    """

    boxes: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.boxes)


def candidates(
    classes: Tensor, codes: Tensor, direction: Tensor | None, anchors: Tensor, settings: PostProcessing | None = None
) -> list[Detections]:
    """Boxes above the score, before they are compared.

    Parameters
    ----------
    classes, codes, direction : Tensor
        (B, A, H, W) logits, (B, 7 * A, H, W), (B, 2 * A, H, W) logits or None.
    anchors : Tensor
        (H, W, A, 7) boxes.
    settings : PostProcessing, optional
        Its ``score`` counts.

    Returns
    -------
    list of Detections
        One a frame, in the frame of the anchors.

    Raises
    ------
    InputError
        Maps that are not finite, or do not fit each other or the anchors.
    """
    logits, codes, halves = by_anchor(classes, codes, direction)
    if logits.shape[1:] != anchors.shape[:-1]:
        raise InputError(
            f"heads give {tuple(logits.shape[1:])} (H, W, anchors), the anchors are {tuple(anchors.shape[:-1])}",
            remedy="Choose the range and stride that the model was trained with.",
        )
    found = []
    threshold = (settings or PostProcessing()).score
    for frame in range(len(logits)):
        scores = torch.sigmoid(logits[frame])
        chosen = (scores > threshold) | scores.isnan()
        boxes = decode(codes[frame][chosen], anchors.to(codes.device)[chosen])
        if halves is not None:
            half = halves[frame][chosen].argmax(-1)
            boxes[:, 6] = with_direction(boxes[:, 6], half, DIRECTION_OFFSET)
        if not (boxes.isfinite().all() and scores[chosen].isfinite().all()):
            raise InputError(
                "the network's outputs are not finite",
                remedy="Look for NaN in the points and the weights, or use float32.",
            )
        found.append(Detections(boxes, scores[chosen]))
    return found


def finish(
    found: Sequence[Detections], transforms: Sequence[Tensor] | None = None, settings: PostProcessing | None = None
) -> Detections:
    """Boxes of one frame, from one or several sources: moved, filtered, compared.

    With the candidates of several agents, each in its own frame, this is late fusion.

    Parameters
    ----------
    found : sequence of Detections
        From :func:`candidates`.
    transforms : sequence of Tensor, optional
        (4, 4) each, to the frame of the result. None: they are there.
    settings : PostProcessing, optional
        How to choose.

    Returns
    -------
    Detections
        By falling score.
    """
    chosen = settings or PostProcessing()
    sets = [each.boxes for each in found]
    if transforms is not None:
        sets = [transform_boxes(boxes, transform) for boxes, transform in zip(sets, transforms, strict=True)]
    boxes, scores = torch.cat(sets), torch.cat([each.scores for each in found])
    keep = _fits(boxes, chosen)
    boxes, scores = boxes[keep], scores[keep]
    overlap = {"bev": bev_iou, "3d": iou_3d}[chosen.overlap]
    kept = rotated_nms(boxes, scores, chosen.nms, limit=chosen.nms_limit, overlap=overlap)
    boxes, scores = boxes[kept], scores[kept]
    if chosen.limits is not None:
        points = boxes[:, None, :3] if chosen.inside == "centre" else corners(boxes)
        inside = corners_inside(points, chosen.limits)
        boxes, scores = boxes[inside], scores[inside]
    return Detections(boxes, scores)


def _fits(boxes: Tensor, settings: PostProcessing) -> Tensor:
    keep = (boxes[:, 3:6] >= settings.smallest).all(1)
    points = corners(boxes)
    if settings.longest is not None:
        standing = standup_of_corners(points)
        keep &= ((standing[:, 2:] - standing[:, :2]) <= settings.longest).all(1)
    if settings.z is not None:
        height = points[..., 2]
        keep &= (height.amin(1) >= settings.z[0]) & (height.amax(1) <= settings.z[1])
    return keep
