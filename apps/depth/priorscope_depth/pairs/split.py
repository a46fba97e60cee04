"""Keep some pairs of a training set out of training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from priorscope_depth.pairs.pair import PairSource, TrainingPair


class Subset:
    """Some pairs of a source, by their indices."""

    def __init__(self, source: PairSource, indices: Sequence[int]) -> None:
        self.source = source
        self.indices = list(indices)
        self.name = source.name

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> TrainingPair:
        return self.source.read(self.indices[index])


def hold_out(source: PairSource, count: int, seed: int) -> tuple[Subset, list[TrainingPair]]:
    """The source without ``count`` random pairs (a tenth of them at most), and these pairs, read."""
    count = min(count, len(source) // 10)
    order = np.random.default_rng([seed, 11]).permutation(len(source)).tolist()
    kept = sorted(order[count:])
    return Subset(source, kept), [source.read(index) for index in sorted(order[:count])]
