"""Slices for the training of a prior: in a fixed order, mirrored and moved a little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.training.order import Order


@dataclass(frozen=True)
class SliceFeed:
    """A :class:`priorscope.training.feed.Feed` of slices.

    Parameters
    ----------
    slices : array (N, H, W)
        In the prior's unit.
    size : int
        Of a batch.
    seed : int
    augment : bool
        Mirror left and right, turn upside down, shift by up to a sixteenth of a side, and scale values by up to 5 %.
    fill : float
        Value that moves in at the borders.
    """

    slices: NDArray[Any]
    size: int
    seed: int
    augment: bool = True
    fill: float = 0.0

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        """``image`` (rows, 1, H, W) float32, and ``seed`` (rows,) for the noise of each."""
        places = Order(len(self.slices), self.seed).batch(step, self.size)
        images, seeds = [], []
        for row in rows:
            image = np.asarray(self.slices[places[row].item], np.float32)
            if self.augment:
                image = self._moved(image, np.random.default_rng([self.seed, step, row]))
            images.append(image)
            seeds.append(places[row].noise_seed(self.seed))
        return {"image": torch.from_numpy(np.stack(images)[:, None]), "seed": torch.tensor(seeds)}

    def _moved(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        image = image[:, ::-1] if rng.random() < 0.5 else image
        image = image[::-1] if rng.random() < 0.5 else image
        reach = [side // 16 for side in image.shape]
        down, right = (int(rng.integers(-most, most + 1)) for most in reach)
        padded = np.pad(image, [(most, most) for most in reach], constant_values=self.fill)
        top, left = reach[0] - down, reach[1] - right
        moved = padded[top : top + image.shape[0], left : left + image.shape[1]]
        return np.float32(rng.uniform(0.95, 1.05)) * (moved - self.fill) + np.float32(self.fill)
