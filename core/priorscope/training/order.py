"""Which examples come when: a fixed function of (seed, step), so that a resumed run sees what it would have seen."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from priorscope.diffusion.noise import item_seed
from priorscope.errors import InputError


class Place(NamedTuple):
    """One example of one pass: all of its randomness derives from (seed, epoch, item)."""

    epoch: int
    item: int

    def generator(self, seed: int) -> np.random.Generator:
        """For augmentation and noise of this example."""
        return np.random.default_rng([seed, self.epoch, self.item])

    def noise_seed(self, seed: int) -> int:
        """Of the diffusion noise of this example, see :class:`priorscope.diffusion.noise.Noise`."""
        return item_seed(item_seed(seed, self.item), self.epoch)


class Order:
    """An endless stream of shuffled passes over ``size`` items.

    Parameters
    ----------
    size : int
        Items of the data set. May be smaller than a batch: a batch then spans passes.
    seed : int
        The permutation of a pass depends on (seed, epoch).

    Raises
    ------
    InputError
        For an empty data set.
    """

    def __init__(self, size: int, seed: int) -> None:
        if size < 1:
            raise InputError("the training set is empty")
        self.size = size
        self.seed = seed

    def __getitem__(self, position: int) -> Place:
        """The example at a position of the stream, from 0."""
        epoch, place = divmod(position, self.size)
        return Place(epoch, int(_permutation(self.size, self.seed, epoch)[place]))

    def batch(self, step: int, size: int) -> list[Place]:
        """The ``size`` examples of step ``step`` (from 0) of a run with that batch size."""
        return [self[position] for position in range(step * size, (step + 1) * size)]


@lru_cache(maxsize=16)
def _permutation(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(size)
