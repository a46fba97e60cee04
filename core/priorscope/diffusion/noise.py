"""Random numbers: every draw of the library asks a :class:`Noise`, so that a seed fixes the result."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from priorscope.errors import InputError


class Noise:
    """A source of standard normal noise; use one of its three constructors.

    ``per_item``: each item has its own generator, so its noise does not depend on what else is in the batch.
    ``shared``: one generator draws whole batches, as most official code does (parity).
    ``recorded``: gives back stored tensors in order, for tests and for coupled comparisons.
    Noise is drawn on the CPU in float32 and then moved, so that CPU and GPU runs start alike.
    """

    def draw(
        self, shape: Sequence[int], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Standard normal noise of ``shape`` (B, ...)."""
        raise NotImplementedError

    def like(self, x: torch.Tensor) -> torch.Tensor:
        """Noise of the shape, device and dtype of ``x``."""
        return self.draw(x.shape, device=x.device, dtype=x.dtype)

    @staticmethod
    def per_item(seeds: Iterable[int]) -> Noise:
        """One generator an item, seeded with the given integers."""
        return PerItemNoise([int(seed) for seed in seeds])

    @staticmethod
    def for_items(seed: int, items: Iterable[int | str]) -> Noise:
        """Per-item noise derived from a run's seed and each item's identity (number or name)."""
        return PerItemNoise([item_seed(seed, item) for item in items])

    @staticmethod
    def shared(generator: torch.Generator | int) -> Noise:
        """One generator (or the seed of one) for whole batches."""
        return _Shared(generator)

    @staticmethod
    def recorded(tensors: Iterable[torch.Tensor]) -> Noise:
        """Give back these tensors one after the other; a draw of another shape is an error."""
        return _Recorded(list(tensors))


def item_seed(seed: int, item: int | str) -> int:
    """A 63-bit seed from a run's seed and an item's number or name, equal on every machine."""
    key = item if isinstance(item, int) else zlib.crc32(item.encode())
    words = np.random.SeedSequence([seed & (2**63 - 1), key & (2**63 - 1), isinstance(item, str)])
    return int(words.generate_state(1, np.uint64)[0] >> np.uint64(1))


def required(noise: Noise | None) -> Noise:
    """The noise of a stochastic solver; InputError where it was run without."""
    if noise is None:
        raise InputError("a stochastic solver was run without noise", remedy="Pass noise=Noise.per_item(seeds).")
    return noise


class PerItemNoise(Noise):
    """A generator an item, drawn from on the CPU; see :meth:`Noise.per_item`."""

    def __init__(self, seeds: list[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(
        self, shape: Sequence[int], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        if shape[0] != len(self.generators):
            raise InputError(f"noise for {shape[0]} items was asked of {len(self.generators)} per-item seeds")
        rows = [torch.randn(tuple(shape[1:]), generator=generator) for generator in self.generators]
        return torch.stack(rows).to(device, dtype)


class _Shared(Noise):
    def __init__(self, generator: torch.Generator | int) -> None:
        self.generator = torch.Generator().manual_seed(generator) if isinstance(generator, int) else generator

    def draw(
        self, shape: Sequence[int], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        drawn = torch.randn(tuple(shape), generator=self.generator, device=self.generator.device)
        return drawn.to(device, dtype)


class _Recorded(Noise):
    def __init__(self, tensors: list[torch.Tensor]) -> None:
        self.tensors = tensors
        self.drawn = 0

    def draw(
        self, shape: Sequence[int], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        if self.drawn == len(self.tensors):
            raise InputError(f"all {self.drawn} recorded noise tensors are used up")
        value = self.tensors[self.drawn]
        if tuple(value.shape) != tuple(shape):
            raise InputError(f"recorded noise {self.drawn} has shape {tuple(value.shape)}, not {tuple(shape)}")
        self.drawn += 1
        return value.to(device, dtype)
