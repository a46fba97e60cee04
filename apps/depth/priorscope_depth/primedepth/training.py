"""How the trained part learns on cached preimages: pictures first, depth afterwards. Losses and steps are ours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from priorscope.diffusion.noise import Noise, item_seed
from priorscope.evaluation.run_folder import RunFolder
from priorscope.features.forward import Features
from priorscope.training.order import Order
from priorscope.training.task import Task
from priorscope_depth.augmentation import View, random_view
from priorscope_depth.losses import relative_depth_loss, relative_l1
from priorscope_depth.pairs.pair import PairSource
from priorscope_depth.primedepth.architecture import Architecture
from priorscope_depth.primedepth.backbone import save_trained
from priorscope_depth.primedepth.model import PrimeDepthModel
from priorscope_depth.primedepth.predictor import PrimeDepthPredictor
from priorscope_depth.targets import normalise_depth
from priorscope_depth.training.look import HeldOut

#: Weight of the error of the normalised disparity beside the relative error of depth, as in the recipe `pixels`.
_ANCHOR = 0.2


class ViewFeed:
    """A :class:`priorscope.training.Feed` of views that stay the same from pass to pass.

    A batch holds ``image`` (B, 3, H, W) in [-1, 1], ``depth`` (B, 1, H, W) in metres, ``target`` (B, 1, H, W) in
    [-1, 1], ``valid`` and ``counts`` (B, 1, H, W), ``view`` (B,), the number of each view, and ``key``.

    Parameters
    ----------
    source : PairSource
    labelled : int
        Of the first so many pictures the depth is used, after ``pretrain`` steps that see all pictures.
    pretrain, views, batch_size, seed : int
    shape : (height, width)
    """

    def __init__(
        self,
        source: PairSource,
        *,
        labelled: int,
        pretrain: int,
        views: int,
        shape: tuple[int, int],
        batch_size: int,
        seed: int,
    ) -> None:
        self.source = source
        self.pretrain = pretrain
        self.views = views
        self.shape = shape
        self.batch_size = batch_size
        self.seed = seed
        self.all = Order(len(source) * views, seed)
        self.labelled = Order(labelled * views, seed)
        self.view = lru_cache(maxsize=4096)(self._view)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "view"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.view = lru_cache(maxsize=4096)(self._view)

    def _view(self, number: int) -> View:
        item, copy = divmod(number, self.views)
        return random_view(self.source.read(item), self.shape, np.random.default_rng([self.seed, item, copy]))

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        if step < self.pretrain:
            places = self.all.batch(step, self.batch_size)
        else:
            places = self.labelled.batch(step - self.pretrain, self.batch_size)
        numbers = [places[row].item for row in rows]
        views = [self.view(number) for number in numbers]
        depth = torch.stack([view.depth for view in views])
        counts = (depth > 0) | torch.stack([view.sky for view in views])
        return {
            "image": torch.stack([view.image for view in views]) * 2 - 1,
            "depth": depth[:, None],
            "target": normalise_depth(depth, counts=counts),
            "valid": (depth > 0)[:, None],
            "counts": counts[:, None],
            "view": torch.tensor(numbers),
            "key": [f"{self.source.name}/{number // self.views}/{number % self.views}" for number in numbers],
        }


class PreimageCache:
    """Preimages of views, computed once and kept in memory as far as it goes.

    Parameters
    ----------
    model : PrimeDepthModel
        With its latents' noise: each view has its own, always the same.
    seed : int
    limit : int
        Bytes.
    """

    def __init__(self, model: PrimeDepthModel, *, seed: int, limit: int) -> None:
        self.model = model
        self.seed = seed
        self.limit = limit
        self.used = 0
        self.kept: dict[int, Features] = {}
        self.computed = 0

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, views: Sequence[int]) -> Features:
        """Preimages (B, C, h, w) of images (B, 3, H, W) in [-1, 1] with these numbers."""
        new = {view: row for row, view in enumerate(views) if view not in self.kept}  # a view may be there twice
        fresh: dict[int, Features] = {}
        if new:
            latents = self.model.latents.encode(images[list(new.values())]).float()
            noise = Noise.per_item([item_seed(self.seed, view) for view in new])
            text = self.model.text.expand(len(new), -1, -1)
            maps = self.model.preimage(self.model.noised(latents, noise), text)
            self.computed += len(new)
            for place, view in enumerate(new):
                mine = {name: value[place].to("cpu", torch.float16) for name, value in maps.items()}
                fresh[view] = mine
                size = sum(value.nbytes for value in mine.values())
                if self.used + size <= self.limit:
                    self.kept[view] = mine
                    self.used += size
        parts = [fresh.get(view) or self.kept[view] for view in views]
        with torch.autocast("cpu", enabled=False):  # which knows no float16
            together = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
        return {name: value.to(images.device).float() for name, value in together.items()}


class PrimeDepthTask(Task):
    """Rebuild the picture for ``pretrain`` steps, then paint its depth; only the decoder and the head learn.

    Losses, ours: mean absolute error of the picture's pixels; then the recipe `pixels`' (relative error of depth after
    the best affine fit, and a weaker one of the normalised disparity) of the mean of the three channels.
    """

    def __init__(
        self,
        predictor: PrimeDepthPredictor,
        architecture: Architecture,
        cache: PreimageCache,
        *,
        pretrain: int,
        held_out: HeldOut | None = None,
    ) -> None:
        super().__init__(predictor.model.labeller)
        self.model.requires_grad_(True)
        self.predictor = predictor
        self.architecture = architecture
        self.cache = cache
        self.pretrain = pretrain
        self.held_out = held_out

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        image = batch["image"]
        whole = self.predictor.model
        preimage = self.cache(image, batch["view"].tolist())
        with torch.no_grad():
            embedding = whole.embedding(image)
        painted = self.model(preimage, whole.text.expand(len(image), -1, -1), embedding)
        if self.step < self.pretrain:
            loss = (painted - image).abs().mean()
            return {"loss": loss, "rebuilding": loss.detach()}
        disparity = painted.mean(1, keepdim=True)
        relative = relative_depth_loss(disparity, batch["depth"], batch["valid"])
        anchor = relative_l1(disparity, batch["target"], batch["valid"], batch["counts"])
        return {"loss": relative + _ANCHOR * anchor, "relative": relative.detach(), "anchor": anchor.detach()}

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        if self.held_out is None or step < self.pretrain:
            return {}
        return self.held_out.look(self.predictor, run, step)  # type: ignore[arg-type]

    def save(self, folder: Path) -> None:
        save_trained(self.predictor.model, self.architecture, self.predictor.geometry, folder)
