"""COCO's ``person_keypoints_*.json``, COCO-WholeBody's ``coco_wholebody_*_v1.0.json``, and sets in the same layout.

COCO-OOD (SDPose) is stylised images under COCO's names with COCO's own annotation file: read it with another folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_pose.data.annotations import AREA_OF_BOX, AnnotatedImage, Annotations, ImageId, PersonAnnotation
from priorscope_pose.data.json_file import read_object
from priorscope_pose.data.records import (
    box_array,
    field_of,
    id_of,
    keypoint_array,
    number_of,
    objects_of,
    whole_number_of,
)
from priorscope_pose.skeletons import COCO, COCO_WHOLEBODY, Skeleton

#: Names of the key points of COCO-WholeBody's parts in a record, in the order of its skeleton.
PART_FIELDS: Mapping[str, str] = {
    "body": "keypoints",
    "foot": "foot_kpts",
    "face": "face_kpts",
    "lefthand": "lefthand_kpts",
    "righthand": "righthand_kpts",
}


def read_coco(
    path: str | PathLike[str],
    images: str | PathLike[str] | None = None,
    *,
    skeleton: Skeleton = COCO,
    area_of_box: bool = False,
) -> Annotations:
    """Read annotations in COCO's layout.

    Only category 1 (person, or the one that is called so) is taken. Annotations without key points are kept with none
    labelled: evaluation ignores them, as COCO's does. Boxes stay as they are.

    Parameters
    ----------
    path : path-like
    images : path-like, optional
        The folder that ``file_name`` starts from. Default: the folder of the file, or the one beside ``annotations``
        that bears the name of the split (``root/val2017``).
    skeleton : Skeleton
        Of 133 key points: the parts lie in fields of their own (``foot_kpts`` and so on) or all in ``keypoints``.
    area_of_box : bool
        The data set's protocol takes `AREA_OF_BOX` of the box, even where an area is stated.

    Raises
    ------
    InputError
        No such layout, another number of key points, ids that occur twice or that no image has, numbers that are not
        finite.
    """
    path = Path(path)
    content = read_object(path, "images", "annotations")
    folder = Path(images) if images is not None else image_folder(path)
    person_ids = person_categories(content, path)
    people = [
        _person(record, skeleton, path, area_of_box)
        for record in objects_of(content, "annotations", "annotation", path)
        if record.get("category_id", 1) in person_ids
    ]
    return collect(content, people, folder, skeleton, path)


def collect(
    content: Mapping[str, Any],
    people: list[PersonAnnotation],
    folder: Path,
    skeleton: Skeleton,
    path: Path,
    **more: Any,
) -> Annotations:
    """Put people into their images; ``more(name=function of the image's record)`` fills further fields."""
    by_image: dict[ImageId, list[PersonAnnotation]] = {}
    for person in people:
        by_image.setdefault(person.image_id, []).append(person)
    images = []
    for place, record in enumerate(objects_of(content, "images", "image", path)):
        what = f"image {record.get('id', place)}"
        image_id = id_of(record, "id", what, path)
        file_name = str(field_of(record, "file_name", what, path))
        images.append(
            AnnotatedImage(
                image_id,
                folder / file_name,
                int(number_of(record, "width", what, path)) if record.get("width") else 0,
                int(number_of(record, "height", what, path)) if record.get("height") else 0,
                tuple(by_image.pop(image_id, ())),
                crowd_index=number_of(record, "crowdIndex", what, path) if "crowdIndex" in record else None,
                **{name: make(record) for name, make in more.items()},
            )
        )
    result = Annotations(skeleton, tuple(images), path)
    if by_image:
        lost, first = next(iter(by_image.items()))
        if lost not in result:
            raise InputError(
                f"annotation {first[0].id} belongs to image {lost}, which is not listed",
                path=path,
                remedy="Add that image to 'images', or take the annotation out.",
            )
    return result


def image_folder(path: Path) -> Path:
    """Where COCO keeps the pictures of ``root/annotations/..._SPLIT.json``: ``root/SPLIT``; else the file's folder.

    Also found: ``root/images/SPLIT``, and ``val2017`` for a split that the file calls ``val``.
    """
    if path.parent.name == "annotations":
        root = path.parent.parent
        for word in reversed(path.stem.split("_")):
            for candidate in (root / word, root / f"{word}2017", root / "images" / word, root / f"images/{word}2017"):
                if candidate.is_dir():
                    return candidate
    return path.parent


def person_categories(content: Mapping[str, Any], path: Path) -> set[Any]:
    """Ids of the categories called person; {1} where there are no categories.

    Raises
    ------
    InputError
        There are categories, and none is a person; or they are no list of objects with ids.
    """
    if not content.get("categories"):
        return {1}
    categories = objects_of(content, "categories", "category", path)
    ids = {
        field_of(category, "id", f"category {place}", path)
        for place, category in enumerate(categories)
        if category.get("name") == "person"
    }
    if not ids:
        names = ", ".join(str(category.get("name")) for category in categories[:10])
        raise InputError(f"has no category 'person', but {names}", path=path)
    return ids


def _person(record: dict[str, Any], skeleton: Skeleton, path: Path, area_of_box: bool) -> PersonAnnotation:
    what = f"annotation {record.get('id', '?')}"
    values = field_of(record, "bbox", what, path)
    box = box_array(values, what, path)
    keypoints = keypoints_of(record, skeleton, what, path)
    if area_of_box or record.get("area") is None:
        area = float(values[2]) * float(values[3]) * AREA_OF_BOX  # type: ignore[index]
    else:
        area = number_of(record, "area", what, path)
        if area < 0:
            raise InputError(f"{what}: its area is {area:g}", path=path, remedy="Areas are square pixels, 0 or more.")
    counted = whole_number_of(record, "num_keypoints", what, path)
    return PersonAnnotation(
        id_of(record, "image_id", what, path),
        id_of(record, "id", what, path),
        box,
        keypoints,
        area,
        iscrowd=bool(record.get("iscrowd", False)),
        labelled=int(np.count_nonzero(keypoints[:, 2] > 0)) if counted is None else counted,
        track_id=whole_number_of(record, "track_id", what, path),
    )


def keypoints_of(record: dict[str, Any], skeleton: Skeleton, what: str, path: Path | None) -> NDArray[np.float64]:
    """Key points (K, 3) of an annotation or a result, all zero where it has none; COCO-WholeBody's parts are joined."""
    values = record.get("keypoints")
    if not values:  # an object without a pose: COCO's instances, or a far-off figure
        return np.zeros((len(skeleton), 3))
    if skeleton.name == COCO_WHOLEBODY.name and len(values) != 3 * len(skeleton):
        parts = [field_of(record, part, what, path) for part in PART_FIELDS.values()]
        values = [value for part in parts for value in part]  # type: ignore[attr-defined]
    return keypoint_array(values, skeleton, what, path)


def read_coco_wholebody(path: str | PathLike[str], images: str | PathLike[str] | None = None) -> Annotations:
    """:func:`read_coco` with the 133 key points of COCO-WholeBody."""
    return read_coco(path, images, skeleton=COCO_WHOLEBODY)
