"""Whom a training shows: a picture, a box, and keypoints where there are any."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from priorscope.data.images import find_images, read_image
from priorscope.errors import InputError
from priorscope_pose.data.annotations import Annotations

#: Pictures that are kept in memory: people of one picture follow each other nowhere, so few are found again.
_KEPT = 16


@dataclass(frozen=True, eq=False)
class Person:
    """One example before augmentation.

    Parameters
    ----------
    image : uint8 array (H, W, 3)
    box : float64 array (4,)
        Left, top, right, bottom in pixels.
    keypoints : float64 array (K, 3)
        x, y, v; labelled where v > 0. K is 0 where nothing is known.
    key : str
    """

    image: NDArray[np.uint8]
    box: NDArray[np.float64]
    keypoints: NDArray[np.float64]
    key: str


class PersonSource(Protocol):
    """Anything that has people by their number; picklable."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Person: ...


@dataclass
class PictureCache:
    """The last few pictures that were read; a copy for another process starts empty."""

    kept: int = _KEPT
    _pictures: OrderedDict[Path, NDArray[np.uint8]] = field(default_factory=OrderedDict, repr=False)

    def read(self, path: Path) -> NDArray[np.uint8]:
        if path not in self._pictures:
            self._pictures[path] = read_image(path)
            while len(self._pictures) > self.kept:
                self._pictures.popitem(last=False)
        self._pictures.move_to_end(path)
        return self._pictures[path]

    def __getstate__(self) -> dict[str, object]:
        return {"kept": self.kept, "_pictures": OrderedDict()}


class AnnotatedPeople:
    """The usable people of a data set, boxes cut at the borders of the picture, as mmpose does.

    Parameters
    ----------
    annotations : Annotations
    labelled : bool
        Only people with a labelled keypoint. False takes everybody who has a box: enough for a prior.

    Raises
    ------
    InputError
        Nobody is left, or pictures are missing.
    """

    def __init__(self, annotations: Annotations, *, labelled: bool = True) -> None:
        annotations.check_images()
        self.skeleton = annotations.skeleton
        self._found = annotations.usable_people() if labelled else _with_box(annotations)
        if not self._found:
            raise InputError("nobody in it has a box and a labelled keypoint", path=annotations.path)
        self._pictures = PictureCache()

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, index: int, /) -> Person:
        image, person = self._found[index]
        picture = self._pictures.read(image.path)
        height, width = picture.shape[:2]
        box = person.clipped_box(width, height)
        if box is None:
            raise InputError(
                f"annotation {person.id} has no part in the picture, which is {width} x {height}",
                path=image.path,
                remedy="Do the annotations belong to pictures of another size?",
            )
        return Person(picture, box, person.keypoints, f"{image.id}/{person.id}")


def _with_box(annotations: Annotations) -> list:
    return [
        (image, person)
        for image in annotations
        for person in image.people
        if not person.iscrowd and person.clipped_box(image.width or 1 << 30, image.height or 1 << 30) is not None
    ]


class WholePictures:
    """Every picture of folders as one person without keypoints: for a prior on unlabelled crops.

    Parameters
    ----------
    paths : sequence of path
        Folders or files (:func:`priorscope.data.images.find_images`).
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = find_images(paths)
        self._pictures = PictureCache()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int, /) -> Person:
        file = self._files[index]
        picture = self._pictures.read(file.path)
        height, width = picture.shape[:2]
        return Person(picture, np.array([0.0, 0.0, width - 1.0, height - 1.0]), np.zeros((0, 3)), file.stem)


class Subset:
    """Some of the people of a source, by their numbers."""

    def __init__(self, source: PersonSource, places: Sequence[int]) -> None:
        self.source, self.places = source, list(places)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int, /) -> Person:
        return self.source[self.places[index]]
