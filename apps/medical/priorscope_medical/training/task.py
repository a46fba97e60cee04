"""What is trained: a prior on slices, by the error of its network at random noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from priorscope.diffusion.losses import denoising_loss
from priorscope.diffusion.noise import Noise, item_seed
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.checkpoint import Stateful
from priorscope.training.curriculum import DifficultyCurriculum
from priorscope.training.task import Task
from priorscope_medical.configs import AidsConfig
from priorscope_medical.prior import SlicePrior
from priorscope_medical.score_prior import Prior


class PriorTask(Task):
    """A :class:`priorscope.training.Task` on batches of :class:`~.feed.SliceFeed`.

    Derive from it: give ``levels``, ``level_of`` and ``loss``. A slice's level and noise derive from its seed, so
    that several processes learn what one learns.

    Parameters
    ----------
    prior : SlicePrior or ScorePrior
    held_out : Tensor (N, 1, H, W), optional
        Slices in the prior's unit that no training step sees.
    """

    #: Noise levels of the held-out loss, so that its figures can be compared.
    levels: ClassVar[Sequence[float]]

    def __init__(self, prior: Prior, held_out: torch.Tensor | None = None) -> None:
        super().__init__(prior.network)
        self.prior = prior
        self.held_out = held_out

    def level_of(self, share: torch.Tensor) -> torch.Tensor:
        """Noise levels (B,) from uniform random numbers (B,) of 0 ... 1, the 1 excluded."""
        raise NotImplementedError

    def loss(self, x0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Loss of clean slices in the network's numbers, noised by ``eps`` to the levels ``t``."""
        raise NotImplementedError

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        x0 = self.prior.values.to_network(batch["image"])
        share, eps = random_draws(batch["seed"], x0)
        return {"loss": self.loss(x0, eps, self.level_of(share))}

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        """Loss on held-out slices at fixed levels and noise."""
        if self.held_out is None:
            return {}
        generator = torch.Generator().manual_seed(0)
        found = {}
        for level in self.levels:
            eps = torch.randn(self.held_out.shape, generator=generator)
            total = 0.0
            for part, noise in zip(self.held_out.split(8), eps.split(8), strict=True):
                x0 = self.prior.values.to_network(part.to(self.prior.device))
                t = torch.full((len(part),), float(level), device=x0.device)
                total += float(self.loss(x0, noise.to(x0), t)) * len(part)
            found[f"held_out_loss_{level:g}"] = total / len(self.held_out)
        found["held_out_loss"] = sum(found.values()) / len(self.levels)
        return found

    def save(self, folder: Path) -> None:
        """Write the prior."""
        self.prior.save_pretrained(folder)


class SlicePriorTask(PriorTask):
    """The squared error of the network's output, at uniform steps; with ``aids``, weighted, or from hard noise on.

    Parameters
    ----------
    prior : SlicePrior
    held_out : Tensor (N, 1, H, W), optional
    aids : AidsConfig, optional
        Its task routing is the prior's own (:meth:`SlicePrior.new`).
    """

    levels = (50, 200, 400, 600, 800)

    def __init__(self, prior: SlicePrior, held_out: torch.Tensor | None = None, aids: AidsConfig | None = None) -> None:
        super().__init__(prior, held_out)
        self.aids = aids or AidsConfig()
        self.curriculum = DifficultyCurriculum(prior.denoiser.schedule, self.aids.curriculum)  # type: ignore[arg-type]

    def level_of(self, share: torch.Tensor) -> torch.Tensor:
        """Steps among those that have joined: all of them, without a curriculum."""
        edges = self.curriculum.edges
        first = edges[-1 - self.curriculum.joined]
        return (share * (edges[-1] - first)).floor() + first

    def loss(self, x0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        # held-out figures of all trainings are to be compared
        weighting = self.aids.weighting if self.training else "output"
        return denoising_loss(self.prior.denoiser, x0, eps, t, weighting=weighting)

    def told(self, means: dict[str, float]) -> None:
        """A group of noise levels joins where the loss got no better."""
        self.curriculum.told(means["loss"])

    def checkpoint_parts(self) -> dict[str, Stateful]:
        """The curriculum, where there is one: checkpoints of trainings without are as they were."""
        return {"curriculum": self.curriculum} if self.aids.curriculum.clusters > 1 else {}


def random_draws(seeds: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A uniform number in [0, 1) and standard normal noise for every slice of a batch, from its seed.

    Parameters
    ----------
    seeds : integer Tensor (B,)
    like : Tensor (B, ...)

    Returns
    -------
    Tensor (B,), Tensor like ``like``
        Drawn on the CPU, so that a run is the same wherever it trains.
    """
    numbers = [int(seed) for seed in seeds.tolist()]
    generators = [torch.Generator().manual_seed(item_seed(number, "level")) for number in numbers]
    share = torch.cat([torch.rand(1, generator=generator) for generator in generators])
    return share.to(like), Noise.per_item(numbers).like(like)
