"""What a detector is, and which of its boxes are taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from priorscope_pose.data.boxes import ImageBoxes
from priorscope_pose.geometry.boxes import usable_boxes


class Shown(NamedTuple):
    """Where an image comes from."""

    path: Path
    """Of the picture or the video."""
    frame: int | None = None
    """Place in the video, from 0; None for a picture."""


class Detector(Protocol):
    """Finds people. ``name`` is what results say about it."""

    @property
    def name(self) -> str: ...

    def __call__(self, images: Sequence[NDArray[np.uint8]], shown: Sequence[Shown]) -> list[ImageBoxes]:
        """Boxes of the people in each image, left, top, right, bottom in pixels, with scores; not filtered.

        Parameters
        ----------
        images : sequence of uint8 arrays (H, W, 3)
            RGB, of any sizes.
        shown : sequence of Shown
            Where each of them comes from.
        """
        ...


class WholeImage:
    """One person an image, who fills it."""

    name = "whole image"

    def __call__(self, images: Sequence[NDArray[np.uint8]], shown: Sequence[Shown]) -> list[ImageBoxes]:
        return [image_boxes([[0, 0, image.shape[1], image.shape[0]]], [1.0]) for image in images]


def image_boxes(boxes: Any, scores: Any, ids: Any = None) -> ImageBoxes:
    """Boxes (N, 4) and scores (N,) of one image, which may be empty; ids count up by default."""
    values = np.asarray(boxes, np.float64).reshape(-1, 4)
    return ImageBoxes(
        values,
        np.asarray(scores, np.float64).reshape(len(values)),
        np.arange(len(values)) if ids is None else np.asarray(ids, np.int64).reshape(len(values)),
    )


def best_boxes(
    found: ImageBoxes, width: int, height: int, *, threshold: float = 0.0, limit: int = 0
) -> tuple[ImageBoxes, int]:
    """The boxes worth a look, in their order, and how many others were unusable.

    Parameters
    ----------
    found : ImageBoxes
    width, height : int
        Of the image.
    threshold : float
        Boxes with a lower score are dropped.
    limit : int
        Keep so many, those of the best scores; 0: all.

    Returns
    -------
    boxes : ImageBoxes
    unusable : int
        Boxes at or above the threshold without any area, wholly outside of the image, or not finite.
    """
    good = found.scores >= threshold
    usable = usable_boxes(found.boxes, width, height)
    places = np.flatnonzero(good & usable)
    if limit:
        places = np.sort(places[np.argsort(-found.scores[places], kind="stable")[:limit]])
    taken = ImageBoxes(found.boxes[places], found.scores[places], found.ids[places])
    return taken, int((good & ~usable).sum())
