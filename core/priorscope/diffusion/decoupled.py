"""The decoupled process of DiffusionEdge: the image fades along a straight line while noise comes in beside it.

x_t = x0 + t C + sqrt(t) n with C = -x0, so alpha = 1 - t and sigma = sqrt(t) for t in [0, 1]. A network answers with
C and n separately, where others answer with one of the two and leave the other to follow: at t = 1 the noise says
nothing about the image, and C still does. Given x0 the noise is a Wiener process, so a step down is a Brownian bridge.

Source: DiffusionEdge (Ye et al. 2024) and the decoupled models it builds on; steps and weights as its code has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Level, Model, Prediction, StepInfo
from priorscope.diffusion.noise import Noise, required
from priorscope.diffusion.schedule import Schedule
from priorscope.errors import InputError

#: The least time that is trained on, and that of the short last step.
LEAST_TIME = 1e-4


@dataclass(frozen=True)
class DecoupledSchedule(Schedule):
    """alpha = 1 - t, sigma = sqrt(t) for t in [0, 1]."""

    start: float = field(default=1.0, init=False)
    end: float = field(default=0.0, init=False)

    def _alpha_sigma(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not np.all((t >= 0) & (t <= 1)):
            raise InputError(f"time {np.min(t)}...{np.max(t)} lies outside the process's 0 ... 1")
        return 1.0 - t, np.sqrt(t)


class DecoupledDenoiser:
    """A network with two outputs as a :class:`~priorscope.diffusion.denoiser.Model`.

    Parameters
    ----------
    network : callable
        ``network(x, label, **condition) -> Tensor`` with twice the channels of ``x``: C, then the noise.
    time_label : callable, optional
        What the network is told at the time t. Default: t.

    Notes
    -----
    The prediction's x0 is x - t C - sqrt(t) n, which both outputs share in; it is -C only where they agree.
    """

    def __init__(
        self, network: Callable[..., torch.Tensor], time_label: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> None:
        self.network = network
        self.schedule: Schedule = DecoupledSchedule()
        self.time_label = time_label

    def __call__(
        self, x: torch.Tensor, t: Level, condition: Condition | None = None, info: StepInfo | None = None
    ) -> Prediction:
        """Ask the network about ``x`` (B, C, ...) at time ``t``: a number or (B,)."""
        drift, noise = self.raw(x, t, condition)
        return Prediction(self.rebuild(x, t, drift, noise), noise)

    def raw(self, x: torch.Tensor, t: Level, condition: Condition | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The two outputs (C, n), each of the shape of ``x``."""
        told = t.to(x) if isinstance(t, torch.Tensor) else torch.full((x.shape[0],), float(t), device=x.device)
        label = told if self.time_label is None else self.time_label(told)
        output = self.network(x, label, **({} if condition is None else condition.expand(x.shape[0])))
        if output.shape[1] != 2 * x.shape[1]:
            raise InputError(f"a network gave {output.shape[1]} channels for C and noise of {x.shape[1]} each")
        drift, noise = output.chunk(2, dim=1)
        return drift, noise

    def rebuild(self, x: torch.Tensor, t: Level, drift: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """x0 = x - t C - sqrt(t) n."""
        alpha, sigma = self.schedule.coefficients(t, x)
        return x - (1 - alpha) * drift - sigma * noise


def brownian_bridge(
    model: Model, x: torch.Tensor, t: float, s: float, state: Any, noise: Noise | None
) -> tuple[torch.Tensor, Any]:
    """Solver: the way from time t down to s, given what the model believes about x0 and the noise.

    x + (t - s) x0 - (t - s) / sqrt(t) n + sqrt(s (t - s) / t) z. To s = 0 nothing random is added.

    Parameters
    ----------
    model : Model
        On a :class:`DecoupledSchedule`.
    """
    if not isinstance(model.schedule, DecoupledSchedule):
        raise InputError(
            f"a Brownian bridge on a {type(model.schedule).__name__}", remedy="Use ddim; it knows every schedule."
        )
    if not 0 <= s < t:
        raise InputError(f"a step from time {t:g} to {s:g}", remedy="Times must fall, and end at 0 or above.")
    x0, eps = model(x, t)
    way = t - s
    mean = x + way * x0 - way / math.sqrt(t) * eps
    fresh = math.sqrt(s * way / t)
    return (mean + fresh * required(noise).like(x) if fresh > 0 else mean), state


def decoupled_times(steps: int = 5, split: float = LEAST_TIME) -> list[float]:
    """Equal steps from 1 to 0, the last of them cut so that it ends with a short one of length ``split`` (0: not)."""
    if steps < 1:
        raise InputError(f"{steps} steps", remedy="Ask for at least one.")
    if not 0 <= split < 1 / steps:
        raise InputError(f"a last step of {split:g} in {steps} of {1 / steps:g}", remedy="Use a shorter one, or 0.")
    times = np.linspace(1.0, 0.0, steps + 1).tolist()
    return [*times[:-1], split, 0.0] if split else times


def decoupled_losses(
    denoiser: DecoupledDenoiser,
    x0: torch.Tensor,
    noise: torch.Tensor,
    t: torch.Tensor,
    condition: Condition | None = None,
) -> dict[str, torch.Tensor]:
    """What the two outputs are trained on.

    Parameters
    ----------
    denoiser : DecoupledDenoiser
    x0, noise : Tensor (B, C, ...)
        Clean samples and standard normal noise.
    t : Tensor (B,)
        Times from ``LEAST_TIME`` to 1.
    condition : Condition, optional

    Returns
    -------
    dict of Tensor ()
        ``loss`` and its parts: ``drift`` (weight (t + 1) / sqrt(t)) and ``noise`` (weight sqrt(2 - t) /
        sqrt(1 - t + 1e-4)), each the mean of squared and absolute errors, and ``rebuilt``, (1 - t)^2 |x0 error|.
        In float32.
    """
    alpha, sigma = denoiser.schedule.coefficients(t, x0)
    x = alpha * x0 + sigma * noise
    drift, predicted = (part.float() for part in denoiser.raw(x, t, condition))
    rebuilt = denoiser.rebuild(x.float(), t, drift, predicted)
    time = sigma.float().square()
    of_drift = (time + 1) / time.sqrt()
    of_noise = (2 - time).sqrt() / (1 - time + LEAST_TIME).sqrt()
    parts = {
        "drift": (of_drift * _both(drift + x0.float())).mean(),
        "noise": (of_noise * _both(predicted - noise.float())).mean(),
        "rebuilt": ((1 - time).square() * (rebuilt - x0.float()).abs()).mean(),
    }
    return {"loss": parts["drift"] + parts["noise"] + parts["rebuilt"], **parts}


def _both(error: torch.Tensor) -> torch.Tensor:
    """Mean of the squared and the absolute error, element by element."""
    return (error.square() + error.abs()) / 2
