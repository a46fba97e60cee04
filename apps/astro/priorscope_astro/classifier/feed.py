"""Batches of examples, fixed by (seed, step): natural or balanced by class, turned, flipped and shifted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.diffusion.noise import item_seed
from priorscope.errors import InputError
from priorscope.training.order import Order, Place
from priorscope_astro.classifier.examples import Examples


class BalancedOrder:
    """An endless stream in which every class comes equally often, each in shuffled passes of its own.

    Parameters
    ----------
    labels : ndarray of int64, (N,)
    classes : int
        How many there are.
    seed : int

    Raises
    ------
    InputError
        Where a class has no example.
    """

    def __init__(self, labels: NDArray[np.int64], classes: int, seed: int) -> None:
        self.members = [np.flatnonzero(labels == label) for label in range(classes)]
        empty = [label for label, members in enumerate(self.members) if not len(members)]
        if empty:
            raise InputError(f"class number {empty[0]} has no example to balance with", remedy="Leave it out.")
        self.seed = seed
        self.turns = Order(classes, seed)
        self.orders = [Order(len(members), item_seed(seed, label)) for label, members in enumerate(self.members)]

    def __getitem__(self, position: int) -> Place:
        turn = self.turns[position]
        # the epoch of the turns counts how often each class has come
        place = self.orders[turn.item][turn.epoch]
        return Place(place.epoch, int(self.members[turn.item][place.item]))


@dataclass(frozen=True)
class ExampleFeed:
    """A :class:`priorscope.training.Feed` of examples.

    Parameters
    ----------
    examples : Examples
    batch_size, seed : int
    balanced : bool
        Draw every class equally often.
    turns : bool
        One of the eight flips and quarter turns of the square for each example of each pass.
    shift : int
        Largest shift in pixels; what comes in is mirrored at the border.

    Notes
    -----
    A batch has ``image`` (B, C, H, H) and, where they are known, ``label`` (B,) and ``counts`` (B, 37).
    """

    examples: Examples
    batch_size: int
    seed: int
    balanced: bool = False
    turns: bool = True
    shift: int = 0

    @cached_property
    def order(self) -> Order | BalancedOrder:
        if not self.balanced:
            return Order(len(self.examples), self.seed)
        if self.examples.labels is None:
            raise InputError("examples without classes cannot be balanced", remedy="Use natural sampling.")
        return BalancedOrder(self.examples.labels, len(self.examples.classes), self.seed)

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        first = step * self.batch_size
        places = [self.order[first + row] for row in rows]
        examples = self.examples
        chosen = [place.item for place in places]
        images = [
            augmented(examples.images[place.item], place.generator(self.seed), turns=self.turns, shift=self.shift)
            for place in places
        ]
        batch: dict[str, Any] = {
            "image": torch.from_numpy(np.stack(images)),
            "key": [examples.ids[item] for item in chosen],
        }
        if examples.labels is not None:
            batch["label"] = torch.from_numpy(examples.labels[chosen].astype(np.int64))
        if examples.counts is not None:
            batch["counts"] = torch.from_numpy(examples.counts[chosen].astype(np.int64))
        return batch


def augmented(image: NDArray[Any], random: np.random.Generator, *, turns: bool, shift: int) -> NDArray[Any]:
    """One image (C, H, H) flipped, turned and shifted at random; a galaxy has no upper side."""
    if turns:
        place = int(random.integers(8))
        image = np.rot90(image, place % 4, axes=(1, 2))
        image = image[:, :, ::-1] if place >= 4 else image
    if shift:
        down, right = random.integers(0, 2 * shift + 1, 2)
        padded = np.pad(image, ((0, 0), (shift, shift), (shift, shift)), mode="reflect")
        image = padded[:, down : down + image.shape[1], right : right + image.shape[2]]
    return np.ascontiguousarray(image)
