"""PoseTrack's average precision of joints, counted as poseval counts it (leonid-pishchulin/poseval, evaluateAP)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_pose.data.annotations import AnnotatedImage, Annotations
from priorscope_pose.data.posetrack import ANNOLIST_PLACES
from priorscope_pose.evaluation.coco import check_match
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.skeletons import POSETRACK

Array = NDArray[np.float64]
#: The 15 joints in poseval's order.
JOINTS = tuple(POSETRACK.keypoints[place] for place in ANNOLIST_PLACES)
GROUPS = {
    "Head": ("head_top", "head_bottom", "nose"),
    **{
        name: (f"left_{joint}", f"right_{joint}")
        for name, joint in (
            *(("Shou", "shoulder"), ("Elb", "elbow"), ("Wri", "wrist"), ("Hip", "hip"), ("Knee", "knee")),
            ("Ankl", "ankle"),
        )
    },
}
#: The size of a head is this part of its box's diagonal, and a joint is right within this many sizes.
HEAD_PART, HEAD_SIZES = 0.6, 0.5
#: Score of predicted joints that state none.
NO_SCORE = -9999.0


@dataclass(frozen=True)
class JointPrecision:
    """What :func:`posetrack_joints` counts, for the 15 `JOINTS`; in [0, 1], NaN for a joint that nobody has annotated.

    Parameters
    ----------
    ap, precision, recall : array (15,)
        Area under the curve; precision and recall with every predicted joint counted.
    frames : int
        Frames that were evaluated.
    """

    ap: Array
    precision: Array
    recall: Array
    frames: int


def posetrack_figures(
    annotations: Annotations,
    predictions: Predictions,
    *,
    joint_scores: Literal["keypoint", "keypoint_times_person"] = "keypoint",
) -> dict[str, float]:
    """AP of Head, Shou, Elb, Wri, Hip, Knee and Ankl, and of all 15 joints (Total), in [0, 1].

    Parameters as for :func:`posetrack_joints`. A group is the mean of its joints, Total that of all joints anybody has
    annotated.
    """
    ap = posetrack_joints(annotations, predictions, joint_scores=joint_scores).ap
    figures = {name: float(np.mean([ap[JOINTS.index(joint)] for joint in joints])) for name, joints in GROUPS.items()}
    figures["Total"] = float(np.nanmean(ap)) if np.isfinite(ap).any() else float("nan")
    return figures


def posetrack_joints(
    annotations: Annotations,
    predictions: Predictions,
    *,
    joint_scores: Literal["keypoint", "keypoint_times_person"] = "keypoint",
) -> JointPrecision:
    """Average precision of each joint.

    In every frame in which people are annotated: a predicted joint is right within half a head size of the annotated
    one. A predicted person goes to the annotated one of whom most joints are right, an annotated one to the best such
    prediction; whoever is left over is wrong in every joint. All predicted joints count, also where the annotated
    person has none: those are wrong. Joints inside of ignore regions are taken out on both sides. Frames without
    annotated people are left out.

    Parameters
    ----------
    annotations : Annotations
        With head boxes (:func:`priorscope_pose.data.posetrack.read_posetrack`).
    predictions : Predictions
        Of the skeleton ``posetrack``; ears do not count.
    joint_scores : str
        What ranks a joint: its own score, or that times the person's (DCPose and its descendants).

    Raises
    ------
    InputError
        Another skeleton, predictions for frames that are not listed, an annotated person without a head box.
    """
    check_match(annotations, predictions)
    if annotations.skeleton.name != POSETRACK.name:
        raise InputError(f"PoseTrack's AP of the skeleton {annotations.skeleton.name}", path=annotations.path)
    places = list(ANNOLIST_PLACES)
    scores = predictions.keypoint_scores[:, places]
    if joint_scores == "keypoint_times_person":
        scores = scores * predictions.scores[:, None]
    present = np.ones_like(scores, bool) if predictions.present is None else predictions.present[:, places]
    rows_of = predictions.rows_by_image()
    joints: list[NDArray[np.int64]] = []
    ranks: list[Array] = []
    right: list[NDArray[np.bool_]] = []
    annotated = np.zeros(len(JOINTS), np.int64)
    frames = [image for image in annotations if image.people]
    for image in frames:
        rows = rows_of.get(image.id, np.zeros(0, np.int64))
        points, has, its_scores = predictions.keypoints[rows][:, places], present[rows], scores[rows]
        has = has & ~_ignored(points, image.ignore_regions)
        truth, labelled, heads = _annotated(image, annotations)
        labelled = labelled & ~_ignored(truth, image.ignore_regions)
        someone = labelled.any(1)
        match = _assigned(points, has, truth[someone], labelled[someone], heads[someone])
        annotated += labelled.sum(0)
        who, joint = np.nonzero(has)
        joints.append(joint)
        ranks.append(its_scores[who, joint])
        right.append(match[who, joint])
    if not frames:
        nothing = np.full(len(JOINTS), np.nan)
        return JointPrecision(nothing, nothing, nothing, 0)
    joint, rank, match = np.concatenate(joints), np.concatenate(ranks), np.concatenate(right)
    curves = [_curve(rank[joint == j], match[joint == j], int(annotated[j])) for j in range(len(JOINTS))]
    ap, precision, recall = np.array(curves, np.float64).T
    return JointPrecision(ap, precision, recall, len(frames))


def _annotated(image: AnnotatedImage, annotations: Annotations) -> tuple[Array, NDArray[np.bool_], Array]:
    """Joints (G, 15, 2), whether they are labelled (G, 15), head sizes (G,)."""
    keypoints = np.stack([person.keypoints for person in image.people])[:, list(ANNOLIST_PLACES)]
    labelled = keypoints[..., 2] > 0
    heads = np.ones(len(image.people))
    for place, person in enumerate(image.people):
        if person.head_box is not None:
            heads[place] = HEAD_PART * np.linalg.norm(person.head_box[2:] - person.head_box[:2])
        elif labelled[place].any():
            raise InputError(
                f"annotation {person.id} has no head box, the scale of PoseTrack's AP",
                path=annotations.path,
                remedy="Use PoseTrack's own annotations, or evaluate by OKS.",
            )
    return keypoints[..., :2], labelled, heads


def _assigned(
    points: Array, has: NDArray[np.bool_], truth: Array, labelled: NDArray[np.bool_], heads: Array
) -> NDArray[np.bool_]:
    """Which predicted joints (P, 15) are right."""
    if not len(truth) or not len(points):
        return np.zeros(has.shape, bool)
    distance = np.linalg.norm(points[:, None] - truth[None], axis=-1)
    both = has[:, None] & labelled[None]
    with np.errstate(divide="ignore", invalid="ignore"):  # a head box without area: only an exact joint is nan, wrong
        match = both & (distance / heads[None, :, None] <= HEAD_SIZES)
    share = match.sum(-1) / labelled.sum(1)[None]
    best = share.argmax(1)
    own = np.where(np.arange(len(truth))[None] == best[:, None], share, 0.0)
    taker, value = own.argmax(0), own.max(0)
    result = np.zeros(has.shape, bool)
    for person in np.flatnonzero(value > 0):
        result[taker[person]] = match[taker[person], person]
    return result


def _ignored(points: Array, regions: tuple[Array, ...]) -> NDArray[np.bool_]:
    """Whether points (..., 2) lie inside of any polygon (even-odd rule, its border not counted)."""
    inside = np.zeros(points.shape[:-1], bool)
    for region in regions:
        inside |= _inside_polygon(points.reshape(-1, 2), region).reshape(inside.shape)
    return inside


def _inside_polygon(points: Array, polygon: Array) -> NDArray[np.bool_]:
    start, end = polygon, np.roll(polygon, -1, axis=0)
    x, y = points[:, :1], points[:, 1:]
    side = (end[:, 0] - start[:, 0]) * (y - start[:, 1]) - (x - start[:, 0]) * (end[:, 1] - start[:, 1])
    between = ((points[:, None] - start) * (points[:, None] - end) <= 0).all(-1)
    on_border = ((side == 0) & between).any(1)
    crosses = (start[:, 1] > y) != (end[:, 1] > y)
    to_the_right = (side > 0) == (end[:, 1] < start[:, 1])
    return ((crosses & to_the_right).sum(1) % 2 == 1) & ~on_border


def _curve(scores: Array, right: NDArray[np.bool_], annotated: int) -> tuple[float, float, float]:
    """Area under the precision that only falls with recall, and the last precision and recall."""
    if not annotated:
        return float("nan"), float("nan"), float("nan")
    if not len(scores):
        return 0.0, 0.0, 0.0
    hits = np.cumsum(right[np.argsort(scores, kind="stable")[::-1]])
    recall, precision = hits / annotated, hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope)), float(precision[-1]), float(recall[-1])
