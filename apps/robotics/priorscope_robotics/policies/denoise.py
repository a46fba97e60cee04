"""Carrying plans through noise levels: the loop of the core with a clipped clean sample and known entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Literal

import torch

from priorscope.diffusion.denoiser import Denoiser, Level, Prediction, StepInfo
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.sampling import Constraint, sample
from priorscope.diffusion.schedule import VPSchedule
from priorscope.diffusion.solvers.one_step import Step, ddim, ddpm_ancestral
from priorscope.errors import InputError
from priorscope_robotics.model import Given, PolicyModel
from priorscope_robotics.noise_schedule import published_ddpm, training_schedule
from priorscope_robotics.spec import Diffusion

Solver = Literal["ddpm", "ddim", "ddpm-published"]
ScheduleName = Literal["checkpoint", "linear-as-released"]
Jumps = Literal["consistent", "official"]


def solver_named(model: PolicyModel, name: Solver, schedule: ScheduleName = "checkpoint") -> Step:
    """The core's DDPM or DDIM step, or DDPM's with the rounding of the published code.

    Raises
    ------
    InputError
        Another name.
    """
    if name == "ddpm-published":
        return published_ddpm(_noise_named(model, schedule))
    if name == "ddpm":
        return partial(ddpm_ancestral, variance=model.spec.diffusion.variance)
    if name != "ddim":
        raise InputError(f"solver {name!r}", remedy="Use 'ddpm', 'ddim' or 'ddpm-published'.")
    return ddim


def schedule_named(model: PolicyModel, name: ScheduleName) -> VPSchedule:
    """The schedule of the checkpoint, or the one that RTI-DP's released evaluation replaces it by.

    The latter is the linear one of 1e-4 to 0.02, over as many steps, whatever the network was trained with: its noise
    levels are about half of what the network is told, and its noisiest still holds 60 % of the signal. Only for
    reproducing published runs.
    """
    return training_schedule(_noise_named(model, name))


def _noise_named(model: PolicyModel, name: ScheduleName) -> Diffusion:
    if name == "checkpoint":
        return model.spec.diffusion
    if name != "linear-as-released":
        raise InputError(f"schedule {name!r}", remedy="Use 'checkpoint' or 'linear-as-released'.")
    return replace(model.spec.diffusion, beta_schedule="linear", beta_start=0.0001, beta_end=0.02)


def clip_constraint(denoiser: Denoiser, limit: float, step: Step) -> Constraint | None:
    """Clean samples within +-``limit``.

    DDPM's posterior is written in x0 and x_t, so eps follows x0; DDIM keeps the network's eps, as diffusers does.
    """
    if not limit:
        return None

    def clip(x: torch.Tensor, t: Level, prediction: Prediction, info: StepInfo) -> Prediction:
        x0 = prediction.x0.clamp(-limit, limit)
        if step is ddim:
            return Prediction(x0, prediction.eps)
        alpha, sigma = denoiser.schedule.coefficients(t, x)
        return Prediction(x0, (x - alpha * x0) / sigma)

    return clip


def denoise(
    model: PolicyModel,
    denoiser: Denoiser,
    given: Given,
    x: torch.Tensor,
    levels: Sequence[float],
    *,
    step: Step,
    noise: Noise | None = None,
    jumps: Jumps = "consistent",
) -> torch.Tensor:
    """``x`` at ``levels[0]`` to a clean plan.

    Parameters
    ----------
    model : PolicyModel
    denoiser : Denoiser
        On the schedule that counts.
    given : Given
        What observations say.
    x : Tensor (B, T, D)
    levels : sequence of float
        Those at which the network is asked, falling; the clean one follows by itself.
    step : solver
        From :func:`solver_named`.
    noise : Noise, optional
        For DDPM.
    jumps : {"consistent", "official"}
        Where the list leaves levels out: step from each to the next in the list, or from t to t - 1 whatever comes
        next, as RTI-DP's code does (the sample is then told a level below its own).

    Returns
    -------
    Tensor (B, T, D)
    """
    levels = check_levels(levels, denoiser.schedule)
    common = {
        "step": step,
        "noise": noise,
        "condition": given.condition,
        "constraint": clip_constraint(denoiser, model.spec.diffusion.clip, step),
        "known": given.known,
    }
    if jumps == "official":
        for t in levels:
            x = sample(denoiser, x, [t, t - 1], **common)  # type: ignore[arg-type]
    else:
        x = sample(denoiser, x, [*levels, denoiser.schedule.end], **common)  # type: ignore[arg-type]
    return given.known(x)


def check_levels(levels: Sequence[float], schedule: object) -> list[float]:
    """The levels as floats; InputError where they do not fall or the schedule has no such step."""
    values = [float(t) for t in levels]
    last = schedule.num_steps - 1 if isinstance(schedule, VPSchedule) else float("inf")
    falling = all(a > b for a, b in pairwise(values))
    if not values or not falling or values[0] > last or values[-1] < 0:
        raise InputError(f"levels {list(levels)}", remedy=f"Give falling steps from at most {last:g} down to 0.")
    return values
