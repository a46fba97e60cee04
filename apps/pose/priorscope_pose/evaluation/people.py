"""PCK of a data set: every annotated person against the prediction that is meant for them."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_pose.data.annotations import AnnotatedImage, Annotations, ImageId, PersonAnnotation
from priorscope_pose.data.boxes import box_ids
from priorscope_pose.data.coco import PART_FIELDS
from priorscope_pose.evaluation.coco import check_match
from priorscope_pose.evaluation.oks import similarity_to_annotated
from priorscope_pose.evaluation.pck import auc, epe, head_sizes, pck
from priorscope_pose.evaluation.predictions import Predictions
from priorscope_pose.skeletons import COCO_WHOLEBODY, Skeleton
from priorscope_pose.tracking import box_overlap

Scale = Literal["box", "head", "torso"]
#: From which a prediction may be meant for a person: of boxes as detections are counted; of poses so little that one
#: with most of its key points right is above it.
_LEAST_OVERLAP, _LEAST_OKS = 0.5, 0.1
#: Names and thresholds that go with a scale: PCK@0.2 as JHMDB counts it, PCKh@0.5 as MPII does.
NAMES: dict[str, tuple[str, float]] = {"box": ("PCK", 0.2), "head": ("PCKh", 0.5), "torso": ("tPCK", 0.2)}


def pck_figures(
    annotations: Annotations, predictions: Predictions, *, scale: Scale = "box", threshold: float | None = None
) -> dict[str, float]:
    """Shares of right key points, all over and of each joint (left and right together; whole bodies: part), and
    mean distances.

    A prediction is meant for the person whose annotation has its id (boxes from the annotations, see
    :func:`~priorscope_pose.data.boxes.box_ids`). Predictions without ids (a detector's boxes) are matched as
    detections are: in the order of their scores each takes, in its image, the person whose box it overlaps most (0.5 at
    least, of those that nobody has taken). So more boxes of lower scores can only find who was missed, however well
    their poses fit. Predictions without boxes take the most similar person (OKS 0.1 at least). Groups and people
    without labelled key points do not count.

    Parameters
    ----------
    annotations, predictions
        Of the same skeleton.
    scale : str
        ``box``: the longer side of the annotated box inside of the image; ``head``: 0.6 of the head box's diagonal
        (PCKh: a distance equal to the threshold is right); ``torso``: from the left shoulder to the right hip (JHMDB).
    threshold : float, optional
        Default: as `NAMES` states.

    Returns
    -------
    dict
        ``PCK`` (or ``PCKh``, ``tPCK``), ``PCK ankle`` and so on in [0, 1], where key points of people whom no
        prediction is meant for are wrong; ``EPE`` in pixels and ``AUC`` (30 pixels) of those that have one; ``missed``,
        the share of people who have none.

    Raises
    ------
    InputError
        Another skeleton, predictions for images that are not annotated, nobody to count, no such scale, a person
        without a head box.
    """
    if scale not in get_args(Scale):
        raise InputError(f"no scale {scale!r}", remedy=f"There are {', '.join(get_args(Scale))}.")
    check_match(annotations, predictions)
    counted = [(i, p) for i in annotations for p in i.people if not p.iscrowd and p.visible.any()]
    people = [person for _, person in counted]
    if not people:
        raise InputError("nobody in it has a labelled key point", path=annotations.path)
    rows = matched_rows(annotations, predictions, people)
    truth = np.stack([person.keypoints[:, :2] for person in people])
    visible = np.stack([person.visible for person in people])
    found = np.full_like(truth, np.inf)
    found[rows >= 0] = predictions.keypoints[rows[rows >= 0]]
    name, usual = NAMES[scale]
    sizes = _sizes(counted, truth, found, scale, annotations)
    limit = usual if threshold is None else threshold
    result = pck(found, truth, visible, limit, sizes, inclusive=scale == "head")
    figures = {name: result.mean}
    for group, members in _groups(annotations.skeleton).items():
        shares = result.joints[members][np.isfinite(result.joints[members])]
        if shares.size:
            figures[f"{name} {group}"] = float(shares.mean())
    had = rows >= 0
    figures["EPE"] = epe(found[had], truth[had], visible[had]) if had.any() else float("nan")
    figures["AUC"] = auc(found[had], truth[had], visible[had]) if had.any() else float("nan")
    figures["missed"] = float(1 - had.mean())
    return figures


def matched_rows(
    annotations: Annotations, predictions: Predictions, people: list[PersonAnnotation]
) -> NDArray[np.int64]:
    """The prediction that is meant for each person, by its row; -1 for none."""
    rows_of = predictions.rows_by_image()
    if predictions.ids is not None:
        ids = box_ids(annotations)
        row_of: dict[tuple[object, object], int] = {}
        for image_id, rows in rows_of.items():
            row_of |= {(image_id, int(predictions.ids[row])): int(row) for row in rows[::-1]}
        return np.array(
            [row_of.get((person.image_id, ids.get(person.id, person.id)), -1) for person in people], np.int64
        )
    chosen = np.full(len(people), -1, np.int64)
    places: dict[ImageId, list[int]] = {}
    for place, person in enumerate(people):
        places.setdefault(person.image_id, []).append(place)
    for image_id, its in places.items():
        rows = rows_of.get(image_id, np.zeros(0, np.int64))
        rows = rows[np.argsort(-predictions.scores[rows], kind="stable")]
        similar, least = _likeness(annotations, predictions, rows, [people[place] for place in its])
        for row, values in zip(rows, similar, strict=True):
            best = int(values.argmax())
            if values[best] >= least:
                chosen[its[best]] = row
                similar[:, best] = -1
    return chosen


def _likeness(
    annotations: Annotations, predictions: Predictions, rows: NDArray[np.int64], people: list[PersonAnnotation]
) -> tuple[NDArray[np.float64], float]:
    """Of predictions with people, (D, G), by boxes, else by poses; and the least that makes a pair."""
    boxes = np.stack([person.box for person in people])
    if predictions.boxes is not None:
        return box_overlap(predictions.boxes[rows], boxes), _LEAST_OVERLAP
    similar = similarity_to_annotated(
        predictions.keypoints[rows],
        np.stack([person.keypoints[:, :2] for person in people]),
        np.stack([person.visible for person in people]),
        np.array([person.area for person in people]),
        boxes,
        annotations.skeleton.sigma_array(),
    )
    return similar, _LEAST_OKS


def _sizes(
    counted: list[tuple[AnnotatedImage, PersonAnnotation]],
    truth: NDArray[np.float64],
    found: NDArray[np.float64],
    scale: Scale,
    annotations: Annotations,
) -> NDArray[np.float64]:
    if scale == "box":
        boxes = np.array([_cut(image, person) for image, person in counted])
        return np.asarray((boxes[:, 2:] - boxes[:, :2]).max(1))
    if scale == "head":
        without = [person.id for _, person in counted if person.head_box is None]
        if without:
            raise InputError(
                f"annotation {without[0]} has no head box, the scale of PCKh",
                path=annotations.path,
                remedy="Take the scale 'box'.",
            )
        return head_sizes(np.array([person.head_box for _, person in counted], np.float64))
    ends = [annotations.skeleton.index(name) for name in ("left_shoulder", "right_hip")]
    sizes = np.linalg.norm(truth[:, ends[0]] - truth[:, ends[1]], axis=1)
    small = sizes < 1  # as mmpose: then the predicted one
    with np.errstate(invalid="ignore"):
        guessed = np.linalg.norm(found[:, ends[0]] - found[:, ends[1]], axis=1)
    return np.where(small & np.isfinite(guessed), guessed, sizes)


def _cut(image: AnnotatedImage, person: PersonAnnotation) -> NDArray[np.float64]:
    """The box inside of the image, as mmpose scales by; no box at all makes a scale of 0, which does not count."""
    if not image.width or not image.height:
        return person.box
    cut = person.clipped_box(image.width, image.height)
    return np.zeros(4) if cut is None else cut


def _groups(skeleton: Skeleton) -> dict[str, list[int]]:
    """Key points by their name without a side; of COCO-WholeBody by its parts."""
    if skeleton.name == COCO_WHOLEBODY.name:
        return {part: list(skeleton.parts[part]) for part in PART_FIELDS}
    groups: dict[str, list[int]] = {}
    for place, keypoint in enumerate(skeleton.keypoints):
        groups.setdefault(keypoint.removeprefix("left_").removeprefix("right_"), []).append(place)
    return groups
