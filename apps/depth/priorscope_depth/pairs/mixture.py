"""Several training sets, one of them for each batch: Lotus' and Marigold's way of mixing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.training.order import Order, Place
from priorscope_depth.pairs.pair import PairSource


@dataclass(frozen=True)
class Mixture:
    """Sources and how often each gives a batch.

    Parameters
    ----------
    sources : sequence of PairSource
    shares : sequence of float
        Relative frequencies; Lotus and Marigold draw Hypersim with 0.9 and Virtual KITTI 2 with 0.1. Default:
        equal ones.

    Raises
    ------
    InputError
        For no source, an empty one, or shares that do not fit.
    """

    sources: Sequence[PairSource]
    shares: Sequence[float] = ()

    def __post_init__(self) -> None:
        if not self.sources:
            raise InputError("there is nothing to train on", remedy="Give --pairs, --hypersim, --vkitti or --scenes.")
        for source in self.sources:
            if len(source) == 0:
                raise InputError(f"the training set {source.name} is empty")
        usable = len(self.shares) == len(self.sources) and all(0 < share < math.inf for share in self.shares)
        if self.shares and not usable:
            raise InputError(
                f"--shares {' '.join(map(str, self.shares))} for {len(self.sources)} training sets",
                remedy="Give one number above 0 for each set.",
            )

    def plan(self, seed: int, step: int, batch_size: int) -> tuple[int, list[Place]]:
        """Which source gives batch ``step`` (from 0), and which of its pairs.

        A fixed function of its arguments. Each source goes through its own shuffled passes, in which every pair
        comes once.
        """
        weights = tuple(self.shares) or (1.0,) * len(self.sources)
        which, before = _choice(seed, step, weights)
        return which, Order(len(self.sources[which]), seed + which).batch(before, batch_size)


#: Choices are drawn in blocks, so that any step's is found without those of all steps before it.
_BLOCK = 1024


def _choice(seed: int, step: int, weights: tuple[float, ...]) -> tuple[int, int]:
    """The source of batch ``step``, and how many batches it gave before."""
    if len(weights) == 1:
        return 0, step
    block, place = divmod(step, _BLOCK)
    drawn = _block(seed, block, weights)
    which = int(drawn[place])
    return which, _given_before(seed, block, weights)[which] + int((drawn[:place] == which).sum())


@lru_cache(maxsize=64)
def _given_before(seed: int, block: int, weights: tuple[float, ...]) -> tuple[int, ...]:
    """How many batches each source gave in the blocks before; once a block, whatever its number."""
    counts = np.zeros(len(weights), dtype=np.int64)
    for earlier in range(block):
        counts += np.bincount(_block(seed, earlier, weights), minlength=len(weights))
    return tuple(counts.tolist())


@lru_cache(maxsize=256)
def _block(seed: int, block: int, weights: tuple[float, ...]) -> NDArray[np.int64]:
    shares = np.asarray(weights) / sum(weights)
    return np.random.default_rng([seed, 3, block]).choice(len(weights), size=_BLOCK, p=shares)
