"""Random squares of pairs that lie in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np

from priorscope.diffusion.noise import item_seed
from priorscope.errors import InputError
from priorscope.training.order import Order
from priorscope_depth.scenes.generate import check_request


class Pair(Protocol):
    """Two maps of one size."""

    @property
    def key(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


PairT = TypeVar("PairT", bound=Pair)


def check_crop(crop: int, height: int, width: int, *, drawn: bool) -> None:
    """Refuse a --crop that is no multiple of 16 or larger than the scenes to be drawn, and sizes that none is drawn in.

    Raises
    ------
    InputError
    """
    if crop < 16 or crop % 16:
        raise InputError(f"--crop {crop}", remedy="Use a multiple of 16.")
    if not drawn:
        return
    check_request(0, height, width, None, 1)
    if min(height, width) < crop:
        raise InputError(
            f"--crop {crop} of scenes of --height {height} --width {width}",
            remedy="Draw larger scenes, or train on smaller squares.",
        )


class CropFeed(Generic[PairT]):
    """What feeds of squares share: derive from it and give the ``batch`` of a :class:`priorscope.training.Feed`.

    Parameters
    ----------
    pairs : sequence
        Each with its ``key`` and its ``shape`` (H, W).
    crop : int
        Side of the squares, pixels.
    batch_size : int
    seed : int

    Raises
    ------
    InputError
        If a pair is smaller than the squares, or there is none.
    """

    def __init__(self, pairs: Sequence[PairT], *, crop: int, batch_size: int, seed: int) -> None:
        small = next((pair for pair in pairs if min(pair.shape) < crop), None)
        if small is not None:
            raise InputError(
                f"{small.key} has {small.shape} pixels", remedy=f"Train on squares smaller than --crop {crop}."
            )
        self.pairs = list(pairs)
        self.crop = crop
        self.batch_size = batch_size
        self.seed = seed
        self.order = Order(len(self.pairs), seed)

    def crops(
        self, step: int, rows: range
    ) -> Iterator[tuple[PairT, tuple[slice, slice], int, np.random.Generator, int]]:
        """For some rows of a step's batch: pair, window, 1 or -1 (turn it round), generator, and seed of the noise.

        The generator is for whatever else is drawn for the row.
        """
        places = self.order.batch(step, self.batch_size)
        for place in (places[row] for row in rows):
            draw, pair = place.generator(self.seed), self.pairs[place.item]
            top, left = (int(draw.integers(side - self.crop + 1)) for side in pair.shape)
            window = np.s_[top : top + self.crop, left : left + self.crop]
            turn = -1 if draw.random() < 0.5 else 1
            yield pair, window, turn, draw, item_seed(place.noise_seed(self.seed), 0)
