"""PoseTrack 2017, 2018 and 2021: JSON of COCO's kind with 17 places, and the older ``annolist`` with 15 joints.

Joints are always in the 17 places of :data:`priorscope_pose.skeletons.POSETRACK`, both ears empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.json_file import read_json
from priorscope.errors import InputError
from priorscope_pose.data.annotations import AREA_OF_BOX, AnnotatedImage, Annotations, ImageId, PersonAnnotation
from priorscope_pose.data.coco import collect
from priorscope_pose.data.records import box_array, id_of, keypoint_array, objects_of, whole_number_of
from priorscope_pose.skeletons import POSETRACK

#: The 15 joints of an ``annolist`` by their id, as places among the 17; poseval's order.
ANNOLIST_PLACES = tuple(
    POSETRACK.index(name)
    for name in (
        *(
            "right_ankle",
            "right_knee",
            "right_hip",
            "left_hip",
            "left_knee",
            "left_ankle",
            "right_wrist",
            "right_elbow",
        ),
        *("right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "head_bottom", "nose", "head_top"),
    )
)


def read_posetrack(path: str | PathLike[str], images: str | PathLike[str] | None = None) -> Annotations:
    """Read a file of PoseTrack, or a folder with one file a video.

    Boxes that a file does not state are the extent of head box and labelled joints; areas are `AREA_OF_BOX` of the box.

    Parameters
    ----------
    path : path-like
        ``annotations/val/VIDEO.json``, that folder, or all in one file (``posetrack18_val.json``).
    images : path-like, optional
        The folder that file names start from. Default: the nearest one above the file that has a folder ``images``.

    Raises
    ------
    InputError
        No such layout, another number of joints, ids that occur twice, numbers that are not finite.
    """
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise InputError("holds no .json file", path=path, remedy="PoseTrack has one file a video.")
    found = [image for file in files for image in _read_file(file, images)]
    return Annotations(POSETRACK, tuple(found), path)


def _read_file(path: Path, images: str | PathLike[str] | None) -> tuple[AnnotatedImage, ...]:
    content = read_json(path)
    above = [folder for folder in path.resolve().parents if (folder / "images").is_dir()]
    folder = Path(images) if images is not None else (above[0] if above else path.parent)
    if isinstance(content, dict) and "annolist" in content:
        with annolist_errors(path):
            return _read_annolist(content["annolist"], folder, path)
    if not isinstance(content, dict) or "images" not in content or "annotations" not in content:
        raise InputError(
            "is not one of PoseTrack's files", path=path, remedy="They have 'images' and 'annotations', or 'annolist'."
        )
    people = [_person(record, path) for record in objects_of(content, "annotations", "annotation", path)]
    return collect(
        content,
        people,
        folder,
        POSETRACK,
        path,
        video=lambda record: PurePosixPath(record["file_name"]).parent.name,
        frame=lambda record: frame_number(record["file_name"]),
        ignore_regions=lambda record: _regions(record, path),
        annotated=lambda record: bool(record.get("is_labeled", True)),
    ).images


def frame_number(file_name: str) -> int | None:
    """The number a frame's file is called by: from 0 in PoseTrack18 and 21, from 1 in PoseTrack17."""
    stem = PurePosixPath(file_name).stem
    return int(stem) if stem.isdigit() else None


def _regions(record: dict[str, Any], path: Path) -> tuple[NDArray[np.float64], ...]:
    xs, ys = list(record.get("ignore_regions_x") or []), list(record.get("ignore_regions_y") or [])
    if xs and not isinstance(xs[0], list):  # a single polygon, not in a list of its own
        xs, ys = [xs], [ys]
    if [len(x) for x in xs] != [len(y) for y in ys]:
        raise InputError(f"image {record.get('id')} has ignore regions with other numbers of x than of y", path=path)
    return tuple(np.stack([x, y], 1).astype(np.float64) for x, y in zip(xs, ys, strict=True) if len(x) > 2)


def _person(record: dict[str, Any], path: Path) -> PersonAnnotation:
    what = f"annotation {record.get('id', '?')}"
    values = record.get("keypoints") or np.zeros(51)
    keypoints = keypoint_array(values, POSETRACK, what, path)
    head = record.get("bbox_head")
    head_box = box_array(head, what, path) if head else None
    stated = record.get("bbox")
    box = box_array(stated, what, path) if stated else _extent(keypoints, head_box)
    return PersonAnnotation(
        id_of(record, "image_id", what, path),
        id_of(record, "id", what, path),
        box,
        keypoints,
        float((box[2] - box[0]) * (box[3] - box[1]) * AREA_OF_BOX),
        iscrowd=bool(record.get("iscrowd", False)),
        labelled=int(np.count_nonzero(keypoints[:, 2] > 0)),
        track_id=whole_number_of(record, "track_id", what, path),
        head_box=head_box,
    )


def _extent(keypoints: NDArray[np.float64], head_box: NDArray[np.float64] | None) -> NDArray[np.float64]:
    points = keypoints[keypoints[:, 2] > 0, :2]
    if head_box is not None:
        points = np.concatenate([points, head_box.reshape(2, 2)])
    return np.concatenate([points.min(0), points.max(0)]) if len(points) else np.zeros(4)


def _read_annolist(frames: list[dict[str, Any]], folder: Path, path: Path) -> tuple[AnnotatedImage, ...]:
    found = []
    for place, frame in enumerate(frames):
        name = str(frame["image"][0]["name"])
        image_id: ImageId = name
        people = []
        for row, rect in enumerate(frame.get("annorect") or ()):
            keypoints, _, _ = annolist_points(rect, f"frame {place}, person {row}", path)
            head = [rect[key][0] for key in ("x1", "y1", "x2", "y2")] if "x1" in rect else None
            head_box = None if head is None else np.array(head, np.float64)
            box = _extent(keypoints, head_box)
            people.append(
                PersonAnnotation(
                    image_id,
                    f"{name}#{row}",
                    box,
                    keypoints,
                    float((box[2] - box[0]) * (box[3] - box[1]) * AREA_OF_BOX),
                    labelled=int(np.count_nonzero(keypoints[:, 2] > 0)),
                    track_id=rect["track_id"][0] if "track_id" in rect else None,
                    head_box=head_box,
                )
            )
        regions = tuple(
            np.array([[p["x"][0], p["y"][0]] for p in region["point"]], np.float64)
            for region in frame.get("ignore_regions") or ()
        )
        labelled = frame.get("is_labeled", [bool(people)])
        found.append(
            AnnotatedImage(
                image_id,
                folder / name,
                0,
                0,
                tuple(people),
                PurePosixPath(name).parent.name,
                frame_number(name),
                regions,
                annotated=bool(labelled[0] if isinstance(labelled, list) else labelled),
            )
        )
    return tuple(found)


@contextmanager
def annolist_errors(path: Path) -> Iterator[None]:
    """Turn what a record of another form provokes into an :class:`InputError`; an ``annolist`` nests single values."""
    try:
        yield
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"has an 'annolist' of another form ({type(error).__name__}: {error})",
            path=path,
            remedy="PoseTrack's has image [{name}] and annorect [{annopoints [{point [{id, x, y}]}]}] in every frame.",
        ) from error


def annolist_points(
    rect: dict[str, Any], what: str, path: Path | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Joints of one person of an ``annolist``.

    Returns
    -------
    keypoints : array (17, 3)
        v is 1 for the joints that are there.
    scores : array (17,)
        NaN where the file states none.
    present : array (17,)

    Raises
    ------
    InputError
        A joint id outside of 0 ... 14, or a place that is not finite.
    """
    keypoints, scores = np.zeros((17, 3)), np.full(17, np.nan)
    points = rect.get("annopoints") or [{}]
    for point in points[0].get("point") or ():
        joint = int(point["id"][0])
        if not 0 <= joint < len(ANNOLIST_PLACES):
            raise InputError(f"{what} has a joint of id {joint}", path=path, remedy="PoseTrack's ids run from 0 to 14.")
        place = (float(point["x"][0]), float(point["y"][0]), 1.0)
        if not np.isfinite(place).all():
            raise InputError(f"{what} has a joint that is not finite", path=path)
        keypoints[ANNOLIST_PLACES[joint]] = place
        if "score" in point:
            scores[ANNOLIST_PLACES[joint]] = float(point["score"][0])
    return keypoints, scores, keypoints[:, 2] > 0
