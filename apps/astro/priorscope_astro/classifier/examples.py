"""What a classifier learns from: images with classes or votes, and where each came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_astro.conditions.tree import ANSWERS


@dataclass(frozen=True)
class Examples:
    """Images of galaxies with their labels.

    Attributes
    ----------
    images : ndarray, (N, C, H, W), H = W
        uint8 pictures, or float32 bands that have been stretched: numbers of about the size of one.
    ids : tuple of str
        One an image; two sets with a common id must not be training and test. Generated images have ids too.
    labels : ndarray of int64, (N,), optional
        Places in ``classes``.
    classes : tuple of str
        Names.
    counts : ndarray of int64, (N, 37), optional
        Votes in the tree's order. One of labels and counts is there at least.

    Raises
    ------
    InputError
        For shapes that do not fit, values that are not finite, or ids that come twice.
    """

    images: NDArray[Any]
    ids: tuple[str, ...]
    labels: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    counts: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        shape, count = self.images.shape, len(self.ids)
        if len(shape) != 4 or shape[2] != shape[3] or len(self.images) != count:
            raise InputError(f"images {shape} with {count} ids", remedy="Give (N, C, H, H) and N ids.")
        if self.images.dtype not in (np.uint8, np.float32):
            raise InputError(f"images of {self.images.dtype}", remedy="Give uint8 or float32.")
        if self.images.dtype == np.float32:
            bad = [place for place in range(count) if not np.isfinite(self.images[place]).all()]
            if bad:
                raise InputError(
                    f"the image of {self.ids[bad[0]]} has pixels that are not finite (and {len(bad) - 1} more)",
                    remedy="Mask or leave them out.",
                )
        if len(set(self.ids)) < count:
            twice = next(one for place, one in enumerate(self.ids) if one in self.ids[:place])
            raise InputError(f"the id {twice} comes twice", remedy="Give every image an id of its own.")
        if self.labels is None and self.counts is None:
            raise InputError("there are neither labels nor votes", remedy="Give labels and classes, or counts.")
        if self.labels is not None:
            if self.labels.shape != (count,) or not np.issubdtype(self.labels.dtype, np.integer):
                raise InputError(f"labels {self.labels.shape} of {self.labels.dtype} for {count} images")
            if count and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
                raise InputError(
                    f"labels from {self.labels.min()} to {self.labels.max()} for {len(self.classes)} classes"
                )
        if self.counts is not None and (self.counts.shape != (count, len(ANSWERS)) or (self.counts < 0).any()):
            raise InputError(f"votes {self.counts.shape} for {count} images, or some below 0")

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, places: Sequence[int] | NDArray[Any]) -> Examples:
        """Some of them, by place or by a mask."""
        chosen = np.asarray(places)
        rows = np.arange(len(self))[chosen if chosen.size else slice(0)]
        return replace(
            self,
            images=self.images[rows],
            ids=tuple(self.ids[row] for row in rows),
            labels=None if self.labels is None else self.labels[rows],
            counts=None if self.counts is None else self.counts[rows],
        )

    def joined(self, other: Examples) -> Examples:
        """These and others, such as real and generated images.

        Raises
        ------
        InputError
            For other classes, sizes or kinds of images or labels, or a common id.
        """
        same = (
            self.classes == other.classes,
            self.images.shape[1:] == other.images.shape[1:],
            self.images.dtype == other.images.dtype,
            (self.labels is None) == (other.labels is None),
            (self.counts is None) == (other.counts is None),
        )
        if not all(same):
            raise InputError(
                f"{self.images.dtype} images {self.images.shape[1:]} of {self.classes} cannot be joined with "
                f"{other.images.dtype} images {other.images.shape[1:]} of {other.classes}",
                remedy="Both need the same images and labels.",
            )
        return Examples(
            np.concatenate([self.images, other.images]),
            self.ids + other.ids,
            None if self.labels is None or other.labels is None else np.concatenate([self.labels, other.labels]),
            self.classes,
            None if self.counts is None or other.counts is None else np.concatenate([self.counts, other.counts]),
        )


def refuse_common(learnt: Examples, held: Examples) -> None:
    """Raise where an object is in both sets."""
    common = set(learnt.ids) & set(held.ids)
    if common:
        raise InputError(
            f"{len(common)} objects are to be learnt and are held out, such as {min(common)}",
            remedy="Split by object id.",
        )
