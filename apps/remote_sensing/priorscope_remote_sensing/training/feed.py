"""Batches of labelled images, fixed by (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from priorscope.errors import InputError
from priorscope.training.order import Order
from priorscope_remote_sensing.training.examples import Example, LabelledSet


@dataclass(frozen=True)
class ExampleFeed:
    """A :class:`priorscope.training.Feed` of a set's images.

    Parameters
    ----------
    data : LabelledSet
    batch_size : int
        Images an optimiser step.
    seed : int
    augment : bool
        Turn and mirror: one of the eight symmetries, drawn for each visit.

    Notes
    -----
    A batch holds ``image`` (B, C, H, W), ``label``, ``epoch`` and ``step`` (int), ``metadata`` and ``key``.
    """

    data: LabelledSet
    batch_size: int
    seed: int
    augment: bool = False

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        order = Order(len(self.data), self.seed)
        places = order.batch(step, self.batch_size)[rows.start : rows.stop]
        examples = [self.data.read(place.item) for place in places]
        if self.augment:
            turns = [int(place.generator(self.seed).integers(8)) for place in places]
            examples = [turned(example, turn) for example, turn in zip(examples, turns, strict=True)]
        return {**stacked(examples), "draw": [place.epoch for place in places], "step": step}


def turned(example: Example, turn: int) -> Example:
    """One of the eight symmetries of a square; 0 is the identity."""

    def move(array: Any) -> Any:
        array = np.rot90(array, turn % 4, axes=(-2, -1))
        return np.ascontiguousarray(array[..., ::-1] if turn >= 4 else array)

    label = move(example.label) if getattr(example.label, "ndim", 0) == 2 else example.label
    return example._replace(image=move(example.image), label=label)


def stacked(examples: list[Example]) -> dict[str, Any]:
    """Images, labels, metadata and keys of some examples as one batch.

    Raises
    ------
    InputError
        They differ in size.
    """
    sizes = {example.image.shape for example in examples}
    if len(sizes) > 1:
        raise InputError(f"images of different sizes: {', '.join(map(str, sorted(sizes)))}")
    labels = np.stack([np.asarray(example.label) for example in examples])
    return {
        "image": torch.from_numpy(np.stack([example.image for example in examples])),
        "label": torch.from_numpy(labels if labels.dtype == np.float32 else labels.astype(np.int64)),
        "metadata": [example.metadata for example in examples],
        "key": [example.key for example in examples],
    }
