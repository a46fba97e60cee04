"""The boxes that a person detector found, in COCO's results layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_pose.data.annotations import Annotations, ImageId, clip_box
from priorscope_pose.data.json_file import read_list
from priorscope_pose.data.records import box_array, field_of, id_of, number_of

#: Boxes of PoseTrack below this score are dropped by DCPose and its descendants.
POSETRACK_THRESHOLD = 0.2


@dataclass(frozen=True, eq=False)
class ImageBoxes:
    """Boxes of one image.

    Parameters
    ----------
    boxes : array (N, 4)
        float64; left, top, right, bottom in pixels, as the detector gave them (perhaps partly outside of the image).
    scores : array (N,)
        float64.
    ids : array (N,)
        int64; place in the file, counting persons only, from 0. Same ids mean the same person in evaluation.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.boxes)


NO_BOXES = ImageBoxes(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))


@dataclass(frozen=True, eq=False)
class DetectedBoxes:
    """Boxes by image.

    Parameters
    ----------
    by_image : mapping of image id to ImageBoxes
    left_out : int
        Boxes without area, wholly outside of their image, or below the threshold.
    """

    by_image: Mapping[ImageId, ImageBoxes]
    left_out: int = 0

    def __len__(self) -> int:
        return sum(len(boxes) for boxes in self.by_image.values())

    def of(self, image_id: ImageId) -> ImageBoxes:
        """Boxes of an image; none, where the detector found nobody."""
        return self.by_image.get(image_id, NO_BOXES)


def read_boxes(
    path: str | PathLike[str],
    annotations: Annotations | None = None,
    *,
    threshold: float = -np.inf,
    part: bool = False,
    unusable: bool = False,
) -> DetectedBoxes:
    """Read a list of ``{"image_id", "category_id", "bbox": [x, y, width, height], "score"}``.

    Only category 1 is taken (records without a category count as that). Boxes are neither clipped nor sorted.

    Parameters
    ----------
    path : path-like
        Such as ``COCO_val2017_detections_AP_H_56_person.json``.
    annotations : Annotations, optional
        Where given, boxes of images that are not in it are an error, and those outside of their image are left out.
    threshold : float
        Boxes with a lower score are left out; :data:`POSETRACK_THRESHOLD` for PoseTrack.
    part : bool
        ``annotations`` are a part of a data set: boxes of other images are no error, and not counted.
    unusable : bool
        Keep boxes without area and outside of their image.

    Raises
    ------
    InputError
        No such layout, numbers that are not finite, boxes of images that are not annotated.
    """
    path = Path(path)
    found: dict[ImageId, list[tuple[NDArray[np.float64], float, int]]] = {}
    left_out = count = 0
    for place, record in enumerate(read_list(path)):
        what = f"box {place}"
        if not isinstance(record, dict):
            raise InputError(f"{what} is no object", path=path, remedy="Each needs image_id, bbox and score.")
        if record.get("category_id", 1) != 1:
            continue
        image_id = id_of(record, "image_id", what, path)
        if part and annotations is not None and image_id not in annotations:
            continue
        box = box_array(field_of(record, "bbox", what, path), what, path)
        score = number_of(record, "score", what, path)
        count += 1
        if score < threshold or not (unusable or _inside(box, image_id, annotations, what, path)):
            left_out += 1
            continue
        found.setdefault(image_id, []).append((box, score, count - 1))
    by_image = {
        image_id: ImageBoxes(
            np.stack([box for box, _, _ in rows]),
            np.array([score for _, score, _ in rows]),
            np.array([place for _, _, place in rows], np.int64),
        )
        for image_id, rows in found.items()
    }
    return DetectedBoxes(by_image, left_out)


def box_ids(annotations: Annotations) -> dict[ImageId, int]:
    """The ids of :func:`annotated_boxes` by those of the annotations: the same; where some are text, all count up."""
    ids = [person.id for _, person in annotations.usable_people()]
    if all(isinstance(number, int) for number in ids):
        return {number: int(number) for number in ids}
    return {number: place for place, number in enumerate(ids)}


def annotated_boxes(annotations: Annotations) -> DetectedBoxes:
    """The annotated people as boxes of score 1: cut at the borders of the image, with the ids of :func:`box_ids`.

    People that :meth:`Annotations.usable_people` leaves out are left out.
    """
    rows: dict[ImageId, list[tuple[NDArray[np.float64], int]]] = {}
    usable, ids = annotations.usable_people(), box_ids(annotations)
    for image, person in usable:
        box = person.clipped_box(image.width, image.height) if image.width and image.height else person.box
        assert box is not None
        rows.setdefault(image.id, []).append((box, ids[person.id]))
    by_image = {
        image_id: ImageBoxes(
            np.stack([box for box, _ in its]), np.ones(len(its)), np.array([i for _, i in its], np.int64)
        )
        for image_id, its in rows.items()
    }
    return DetectedBoxes(by_image, sum(len(image.people) for image in annotations) - len(usable))


def _inside(
    box: NDArray[np.float64], image_id: ImageId, annotations: Annotations | None, what: str, path: Path
) -> bool:
    width = height = 0
    if annotations is not None:
        if image_id not in annotations:
            raise InputError(
                f"{what} belongs to image {image_id}, which {annotations.path or 'the annotations'} does not list",
                path=path,
                remedy="Are the boxes those of another split?",
            )
        image = annotations.image(image_id)
        width, height = image.width, image.height
    if not width or not height:
        return bool(box[2] > box[0] and box[3] > box[1])
    return clip_box(box, width, height) is not None
