"""Batches of training pairs, fixed by (seed, step)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from priorscope.diffusion.noise import item_seed
from priorscope.training.order import Place
from priorscope_depth.augmentation import View, batch_shape, random_view
from priorscope_depth.pairs.mixture import Mixture
from priorscope_depth.pairs.pair import TrainingPair
from priorscope_depth.targets import NormType, normalise_depth


@dataclass(frozen=True)
class PairFeed:
    """A :class:`priorscope.training.Feed` of pairs.

    Parameters
    ----------
    mixture : Mixture
        Each batch comes from one of its sources.
    transforms : sequence of callable or None
        For each source: ``transform(pair, generator) -> View``, the published one; None: random views.
    batch_size : int
        Pairs an optimiser step.
    size : int
        Longer side of random views, pixels.
    multiple : int
        Their sides are multiples of it.
    seed : int
    task : {"depth", "normals"}
    norm : str
        How depth is brought to [-1, 1] (:func:`priorscope_depth.targets.normalise_depth`).
    flip_x : bool
        Paint normals with x to the left, as Lotus does.

    Notes
    -----
    A batch holds ``image`` and ``target`` (B, 3, H, W) in [-1, 1], ``depth`` (B, 1, H, W) in metres, ``valid``
    (where there is depth) and ``counts`` (where the target is known: sky counts as far) (B, 1, H, W), ``seed``
    (B,) for noise, and ``key``.
    """

    mixture: Mixture
    transforms: Sequence[Callable[[TrainingPair, np.random.Generator], View] | None]
    batch_size: int
    size: int
    multiple: int
    seed: int
    task: Literal["depth", "normals"] = "depth"
    norm: NormType = "trunc_disparity"
    flip_x: bool = False

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        which, places = self.mixture.plan(self.seed, step, self.batch_size)
        source, transform = self.mixture.sources[which], self.transforms[which]
        first, shape = None, (0, 0)
        if transform is None:  # random views have the shape that the batch's first pair sets, in whatever process
            first = source.read(places[0].item)
            shape = self._shape(first, step)
        views, keys, seeds = [], [], []
        for row in rows:
            place = places[row]
            pair = first if row == 0 and first is not None else source.read(place.item)
            generator = np.random.default_rng([self.seed, place.epoch, place.item, which])
            views.append(random_view(pair, shape, generator) if transform is None else transform(pair, generator))
            keys.append(f"{source.name}/{pair.key}")
            seeds.append(_noise_seed(self.seed, which, place))
        return self._collate(views, keys, seeds, source.name)

    def _shape(self, pair: TrainingPair, step: int) -> tuple[int, int]:
        share = self.size / max(pair.rgb.shape[:2])
        largest = round(pair.rgb.shape[0] * share), round(pair.rgb.shape[1] * share)
        return batch_shape(*largest, np.random.default_rng([self.seed, 1, step]), self.multiple)

    def _paint(self, depth: torch.Tensor, sky: torch.Tensor, source: str) -> torch.Tensor:
        """Depth in [-1, 1], the sky at its far end."""
        known = depth > 0
        if "disparity" not in self.norm:
            depth = torch.where(sky, 1e4, depth)
        elif source != "vkitti":
            # Lotus takes quantiles over all pixels, a sky's 0 with them, but over valid ones of VKITTI
            known = known | sky
        return normalise_depth(depth, self.norm, counts=known, farthest=65.0 if source == "hypersim" else 80.0)

    def _collate(self, views: list[View], keys: list[str], seeds: list[int], source: str) -> dict[str, Any]:
        depth = torch.stack([view.depth for view in views])[:, None]
        valid = depth > 0
        if self.task == "normals":
            target = torch.stack([view.normals for view in views])
            if self.flip_x:
                target = target * torch.tensor([-1.0, 1.0, 1.0]).reshape(1, 3, 1, 1)
            counts = target.norm(dim=1, keepdim=True) > 0.5
        else:
            sky = torch.stack([view.sky for view in views])
            counts = valid | sky[:, None]
            target = self._paint(depth[:, 0], sky, source).expand(-1, 3, -1, -1)
        return {
            "image": torch.stack([view.image for view in views]) * 2 - 1,
            "target": target.contiguous(),
            "depth": depth,
            "valid": valid,
            "counts": counts,
            "seed": torch.tensor(seeds),
            "key": keys,
        }


def _noise_seed(seed: int, which: int, place: Place) -> int:
    return item_seed(place.noise_seed(seed), which)
