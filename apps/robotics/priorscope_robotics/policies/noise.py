"""Noise that belongs to environments, so that what one does changes nothing for the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from priorscope.diffusion.noise import Noise, PerItemNoise, item_seed
from priorscope.errors import InputError


class EnvironmentNoise(PerItemNoise):
    """One generator an environment; a part of the environments can be asked for.

    Parameters
    ----------
    seeds : iterable of int
        One an environment; drawn on the CPU, so that CPU and GPU start alike.
    """

    def __init__(self, seeds: Iterable[int]) -> None:
        super().__init__([item_seed(int(seed), "policy") for seed in seeds])

    def __len__(self) -> int:
        return len(self.generators)

    def renew(self, place: int, seed: int) -> None:
        """Give one environment the noise of another episode, from its beginning."""
        self.generators[place] = torch.Generator().manual_seed(item_seed(int(seed), "policy"))

    def select(self, index: Sequence[int]) -> EnvironmentNoise:
        """Of some environments; their generators go on here and there alike."""
        part = EnvironmentNoise(())
        part.generators = [self.generators[place] for place in index]
        return part


def part_of(noise: Noise | None, index: Sequence[int], count: int) -> Noise | None:
    """``noise`` for some of ``count`` environments.

    Raises
    ------
    InputError
        For noise that cannot be divided among environments.
    """
    if noise is None or len(index) == count:
        return noise
    if not isinstance(noise, EnvironmentNoise):
        raise InputError("this noise cannot be divided among environments", remedy="Use EnvironmentNoise(seeds).")
    return noise.select(index)
