"""Haze-free B-mode by posterior sampling under a diffusion prior of haze-free pictures.

``smooth``: the sample follows what is finer than haze, and is never brighter than the picture. ``dps``: it follows the
picture everywhere alike. ``semantic``: less where it may be haze, by a map of trust. ``nuclear``: the picture is what
the prior explains plus a background that hardly changes over the frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from priorscope.diffusion.noise import Noise, item_seed
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.warm_start import late_start
from priorscope.errors import InputError
from priorscope.inverse.dps import DPS
from priorscope.inverse.nuclear import NuclearDiffusion
from priorscope_medical.ultrasound.bmode_guidance import SmoothHazeGuidance
from priorscope_medical.ultrasound.bmode_prior import EchoPrior

BmodeMethod = Literal["smooth", "dps", "semantic", "nuclear"]
Guide = DPS | NuclearDiffusion | SmoothHazeGuidance


@dataclass(frozen=True)
class BmodeSampling:
    """How a haze-free picture is found.

    Parameters
    ----------
    method : {"smooth", "dps", "semantic", "nuclear"}
    steps : int
        Network calls a frame.
    start : float
        Level of noise at which the run begins, from the picture itself: 1 is nearly pure noise.
    omega : float
        Weight of the misfit |y - x0| of a frame. Steps of a run with fewer are larger, so that the sum stays.
    hold : float
        smooth: weight of slow brightness, see :class:`~.bmode_guidance.SmoothHazeGuidance`.
    gamma, share : float
        nuclear: weight of the background's rank, and the background's largest share of the picture.
    batch_size : int
        Frames in a network call; for ``nuclear`` also the frames that share a background.
    seed : int
        All frames get the same noise, so that it does not flicker.
    """

    method: BmodeMethod = "smooth"
    steps: int = 20
    start: float = 0.8
    omega: float = 40.0
    hold: float = 0.2
    gamma: float = 1.0
    share: float = 0.3
    batch_size: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(BmodeMethod):
            raise InputError(f"method {self.method!r}", remedy=f"Use one of {', '.join(get_args(BmodeMethod))}.")
        if min(self.steps, self.batch_size) < 1 or not 0 < self.start <= 1 or min(self.omega, self.gamma) < 0:
            raise InputError(
                f"{self.steps} steps from level {self.start} with weight {self.omega}",
                remedy="Use 1 step or more, a level above 0 up to 1, a weight from 0.",
            )


#: Standard deviation of what may be haze, in parts of the picture's side.
_HAZE_SIDE = 6 / 128
#: What each method runs with unless told otherwise.
DEFAULTS: dict[BmodeMethod, BmodeSampling] = {
    "smooth": BmodeSampling("smooth"),
    "dps": BmodeSampling("dps", omega=150.0),
    "semantic": BmodeSampling("semantic", omega=150.0),
    "nuclear": BmodeSampling("nuclear"),
}


def haze_free(
    grey: torch.Tensor,
    prior: EchoPrior,
    how: BmodeSampling,
    *,
    trust: torch.Tensor | None = None,
    told: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """The pictures as the prior would have them.

    Parameters
    ----------
    grey : Tensor (T, size, size)
        From 0 to 1, in the prior's square, 0 outside of the sector.
    prior : EchoPrior
    how : BmodeSampling
    trust : Tensor like ``grey``, optional
        semantic: weight of each pixel, 1 for what is surely no haze.
    told : callable, optional
        ``told(frames done, frames)`` after each batch.

    Returns
    -------
    Tensor like ``grey``
        On the CPU.
    """
    if grey.ndim != 3 or any(side % prior.multiple for side in grey.shape[1:]):
        raise InputError(f"pictures of shape {tuple(grey.shape)}", remedy=f"Sides are multiples of {prior.multiple}.")
    if (how.method == "semantic") != (trust is not None):
        raise InputError(f"{how.method} with{'' if trust is not None else 'out'} a map of trust")
    found = torch.empty_like(grey)
    for frames in windows(len(grey), how.batch_size):
        y = prior.to_network(grey[frames, None].to(prior.device))
        weights = None if trust is None else trust[frames, None].to(prior.device)
        found[frames] = prior.to_grey(_sampled(y, prior, how, weights))[:, 0].cpu()
        if told is not None:
            told(frames.stop, len(grey))
    return found


def windows(count: int, size: int) -> Iterator[slice]:
    """Slices of ``size`` frames; the last one reaches back, so that it has as many, where there are."""
    for first in range(0, count, size):
        end = min(first + size, count)
        yield slice(max(0, end - size), end)


def _sampled(y: torch.Tensor, prior: EchoPrior, how: BmodeSampling, trust: torch.Tensor | None) -> torch.Tensor:
    times = [how.start * (1 - index / how.steps) for index in range(how.steps)] + [-1.0]
    schedule = prior.denoiser.schedule
    noise = Noise.per_item([item_seed(how.seed, 0)] * len(y))
    x, times = late_start(y, times, schedule, times[0], noise)
    omega = how.omega / how.steps
    guide: Guide
    if how.method == "smooth":
        guide = SmoothHazeGuidance(y, omega=omega, hold=how.hold, sigma=_HAZE_SIDE * y.shape[-1])
    elif how.method == "nuclear":
        guide = NuclearDiffusion(y, len(y), omega=omega, gamma=how.gamma, haze=how.share, weight_slope=20.0)
    elif trust is not None:
        weights = trust
        guide = DPS(lambda x0: weights * x0, weights * y, step=omega / 2)
    else:
        guide = DPS(lambda x0: x0, y, step=omega / 2)
    # the last level is clean: a move after it would be the misfit's alone
    return sample(prior.denoiser, x, times, constraint=guide, correct=_until_clean(guide))


def _until_clean(guide: Guide) -> Callable[[torch.Tensor, float], torch.Tensor]:
    return lambda x, s: x if s < 0 else guide.correct(x, s)
