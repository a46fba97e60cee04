"""Boxes from a file, whoever found them: COCO's layouts, a plain JSON, a CSV.

COCO's annotations
    Images by their ``file_name``; the annotated people, groups left out, with score 1.
COCO's results list
    ``[{"image_id", "bbox": [x, y, width, height], "score"}]``. An image is found by the number its name ends in
    (``000000000785.jpg`` is image 785), or where ``image_id`` is its name. In a list for a video, ``image_id`` is the
    frame's number.
JSON
    ``{"photo.jpg": [[x1, y1, x2, y2], [x1, y1, x2, y2, score]], "clip.mp4": {"0": [...], "1": [...]}}``.
CSV
    A row a box under the header ``file,x1,y1,x2,y2`` and perhaps ``score`` and ``frame`` (number in a video).

Names may be paths: the longest one that ends an input's path is taken. An image that is not named has nobody in it.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.images import is_video
from priorscope.data.json_file import read_json
from priorscope.errors import InputError
from priorscope_pose.data.annotations import ImageId
from priorscope_pose.data.boxes import NO_BOXES, ImageBoxes, read_boxes
from priorscope_pose.data.coco import person_categories
from priorscope_pose.data.records import box_array, field_of, id_of, objects_of
from priorscope_pose.detectors.base import Shown, image_boxes

_COLUMNS = ("file", "x1", "y1", "x2", "y2")
_Key = tuple[str, int | None]


class BoxFile:
    """The boxes of a file, as a detector.

    Parameters
    ----------
    path : Path
    boxes : mapping of (name, frame) to ImageBoxes
        The frame is None for pictures.
    ids : mapping of name to image id, optional
        Where the file states ids.
    by_id : bool
        Names are image ids: those of pictures, or the frames of the one video.
    """

    def __init__(
        self, path: Path, boxes: dict[_Key, ImageBoxes], *, ids: dict[str, ImageId] | None = None, by_id: bool = False
    ) -> None:
        self.path = path
        self.name = path.name
        self.boxes = boxes
        self.ids = {} if ids is None else ids
        self.by_id = by_id
        self._names = {name for name, _ in boxes} | set(self.ids)

    def __len__(self) -> int:
        return sum(len(found) for found in self.boxes.values())

    def __call__(self, images: Sequence[NDArray[np.uint8]], shown: Sequence[Shown]) -> list[ImageBoxes]:
        return [self.of(one) for one in shown]

    def of(self, shown: Shown) -> ImageBoxes:
        """Boxes of an image or frame; none where the file does not name it."""
        if shown.frame is not None and self.by_id:
            return self.boxes.get((str(shown.frame), None), NO_BOXES)
        name = self.name_of(shown.path)
        return NO_BOXES if name is None else self.boxes.get((name, shown.frame), NO_BOXES)

    def name_of(self, path: Path) -> str | None:
        """What the file calls an input; None where it does not name it."""
        return next((name for name in _candidates(path) if name in self._names), None)

    def image_id(self, path: Path) -> ImageId | None:
        """Id that the file gives to a picture; None where it states none."""
        name = self.name_of(path)
        return None if name is None else self.ids.get(name)

    def frames_of(self, video: Path) -> set[int]:
        """Numbers of the frames that the file has boxes for."""
        if self.by_id:
            return {int(name) for name in self._names if name.isdecimal()}
        name = self.name_of(video)
        return {frame for known, frame in self.boxes if known == name and frame is not None}

    def check(self, paths: Iterable[Path]) -> str | None:
        """Look whether the file is one for these inputs.

        Returns
        -------
        str or None
            What to tell where it names only some of them.

        Raises
        ------
        InputError
            It names none of them, one name fits two of them, or a video is named without any frame.
        """
        paths = list(paths)
        videos = [path for path in paths if is_video(path)]
        if self.by_id and len(videos) > 1:
            raise InputError(
                f"is one list of frames for {len(videos)} videos", path=self.path, remedy="Give one video at a time."
            )
        taken: dict[str, Path] = {}
        unnamed = []
        for path in paths:
            if self.by_id and path in videos:
                if self._names and not self.frames_of(path):
                    raise InputError(
                        f"its image ids ({_some(sorted(self._names))}) are no numbers of frames of {path.name}",
                        path=self.path,
                    )
                continue
            name = self.name_of(path)
            if name is None:
                unnamed.append(path)
            elif taken.setdefault(name, path) != path:
                raise InputError(
                    f"its boxes of {name!r} fit {taken[name]} and {path}",
                    path=self.path,
                    remedy="Name them with their folders.",
                )
            elif path in videos and not self.frames_of(path):
                raise InputError(
                    f"its boxes of {name!r} are not those of frames",
                    path=self.path,
                    remedy='In JSON give {"0": [[x1, y1, x2, y2]]} for a video, in CSV a column frame.',
                )
        if not paths or not self._names:
            if paths:
                raise InputError("holds no box of a person", path=self.path)
            return None
        some = _some(path.name for path in unnamed)
        if len(unnamed) == len(paths):
            raise InputError(
                f"names none of the inputs ({some})", path=self.path, remedy=f"It names {_some(sorted(self._names))}"
            )
        if not unnamed:
            return None
        others = _some(sorted(self._names - set(taken)))
        text = f"{self.name} names {len(paths) - len(unnamed)} of {len(paths)} inputs, nobody is looked for in {some}"
        return f"{text}; it also names {others}" if others else text

    def check_frames(self, video: Path, count: int) -> None:
        """Raise :class:`InputError` where all frames that are named lie behind the end of a video of ``count``."""
        frames = self.frames_of(video)
        if frames and min(frames) >= count:
            raise InputError(
                f"has no box for the frames 0 to {count - 1} of {video.name}",
                path=self.path,
                remedy=f"It has boxes for {_some(map(str, sorted(frames)))}: are they those of another video?",
            )


def _some(names: Iterable[str]) -> str:
    """The first of many names."""
    first = list(islice(names, 4))
    return ", ".join([*first[:3], *(["..."] if len(first) > 3 else [])])


def _candidates(path: Path) -> list[str]:
    """Names that may mean a path, the most exact first: its ends, its stem, the number it ends in."""
    parts = path.absolute().parts[1:]
    names = ["/".join(parts[first:]) for first in range(len(parts))]
    names += [path.as_posix(), path.stem]
    number = re.search(r"\d+$", path.stem)
    return names + [str(int(number.group()))] if number else names


def read_box_file(path: str | PathLike[str]) -> BoxFile:
    """Read any of the layouts above; which one it is, is seen.

    Raises
    ------
    InputError
        None of them, or a record that is broken, which is named.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        return _from_csv(path)
    content = read_json(path)
    if isinstance(content, list):
        found = read_boxes(path, unusable=True).by_image
        names = {_name(str(image_id)): image_id for image_id in found}
        boxes: dict[_Key, ImageBoxes] = {(name, None): found[image_id] for name, image_id in names.items()}
        return BoxFile(path, boxes, ids=names, by_id=True)
    if isinstance(content, dict) and "images" in content and "annotations" in content:
        return _from_annotations(content, path)
    if isinstance(content, dict):
        return _from_plain(content, path)
    raise InputError(
        f"holds a JSON {type(content).__name__}, no boxes",
        path=path,
        remedy='Give COCO\'s layout, or {"photo.jpg": [[x1, y1, x2, y2]]}.',
    )


def _name(text: str) -> str:
    return PurePosixPath(text.replace("\\", "/")).as_posix()


def _from_annotations(content: dict[str, Any], path: Path) -> BoxFile:
    person = person_categories(content, path)
    rows: dict[ImageId, list[tuple[NDArray[np.float64], int]]] = {}
    for place, record in enumerate(objects_of(content, "annotations", "annotation", path)):
        what = f"annotation {record.get('id', place)}"
        if record.get("category_id", 1) not in person or record.get("iscrowd"):
            continue
        box = box_array(field_of(record, "bbox", what, path), what, path)
        stated = record.get("id")
        rows.setdefault(id_of(record, "image_id", what, path), []).append(
            (box, stated if isinstance(stated, int) else place)
        )
    boxes: dict[_Key, ImageBoxes] = {}
    ids: dict[str, ImageId] = {}
    for place, record in enumerate(objects_of(content, "images", "image", path)):
        what = f"image {record.get('id', place)}"
        name = _name(str(field_of(record, "file_name", what, path)))
        ids[name] = id_of(record, "id", what, path)
        its = rows.get(ids[name], [])
        boxes[name, None] = image_boxes([box for box, _ in its], np.ones(len(its)), [i for _, i in its])
    return BoxFile(path, boxes, ids=ids)


def _from_plain(content: dict[str, Any], path: Path) -> BoxFile:
    boxes: dict[_Key, ImageBoxes] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            for frame, its in value.items():
                if not frame.isdecimal():
                    raise InputError(f"{name}: {frame!r} is no frame number", path=path)
                boxes[_name(name), int(frame)] = _rows(its, f"frame {frame} of {name}", path)
        else:
            boxes[_name(name), None] = _rows(value, name, path)
    return BoxFile(path, boxes)


def _rows(values: Any, what: str, path: Path) -> ImageBoxes:
    expected = "Give a list of [x1, y1, x2, y2] or [x1, y1, x2, y2, score]."
    if not isinstance(values, list) or any(not isinstance(row, list) or len(row) not in (4, 5) for row in values):
        raise InputError(f"{what} has no list of boxes", path=path, remedy=expected)
    try:
        table = np.array([[*row, 1.0] if len(row) == 4 else row for row in values], np.float64).reshape(-1, 5)
    except (TypeError, ValueError):
        raise InputError(f"{what} has a box that is not of numbers", path=path, remedy=expected) from None
    if not np.isfinite(table).all():
        raise InputError(f"{what} has a box that is not finite", path=path)
    return image_boxes(table[:, :4], table[:, 4])


def _from_csv(path: Path) -> BoxFile:
    rows: dict[_Key, list[list[float]]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"has no column {missing[0]!r}", path=path, remedy=f"The first line names {', '.join(_COLUMNS)}."
                )
            for record in reader:
                frame = record.get("frame") or ""
                try:
                    numbers = [float(record[name]) for name in _COLUMNS[1:]] + [float(record.get("score") or 1)]
                    key = (_name(record["file"]), int(frame) if frame else None)
                except (TypeError, ValueError):
                    numbers = [math.nan]
                if not all(map(math.isfinite, numbers)):
                    raise InputError(
                        f"line {reader.line_num} is no box: {','.join(map(str, record.values()))}", path=path
                    )
                rows.setdefault(key, []).append(numbers)
    except FileNotFoundError:
        raise InputError("no such file", path=path, remedy="Check the path.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read as CSV ({error})", path=path) from None
    boxes = {key: image_boxes(np.array(its)[:, :4], np.array(its)[:, 4]) for key, its in rows.items()}
    return BoxFile(path, boxes)
