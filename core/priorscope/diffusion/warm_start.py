"""A run that begins late, from an estimate: the levels above are left out, and with them their network calls."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from priorscope.diffusion.noise import Noise
from priorscope.diffusion.schedule import Schedule
from priorscope.errors import InputError


def late_start(
    estimate: torch.Tensor, times: Sequence[float], schedule: Schedule, level: float, noise: Noise
) -> tuple[torch.Tensor, list[float]]:
    """The noisy sample and the levels of a run that starts at ``level``, for :func:`~priorscope.diffusion.sample`.

    Parameters
    ----------
    estimate : Tensor (B, ...)
        What the run starts from: the measurement, the last frame's result, or what a fast method says.
    times : sequence of float
        Levels of the full run, falling in noise.
    schedule : Schedule
        The model's.
    level : float
        The first level, in the schedule's unit. Where it lies between two of ``times`` the next lower one follows, so
        a run never takes more steps than the full one.
    noise : Noise

    Returns
    -------
    Tensor (B, ...), list of float
        ``alpha estimate + sigma z`` at the level, and the levels from there on.

    Notes
    -----
    The larger the estimate's error, the higher the level that hides it; noise of at least the error's standard
    deviation is needed. Published joint samplers keep the number of steps and squeeze the levels together, which
    saves nothing: for that, space the levels yourself.
    Source: Chung et al. 2022 (come-closer-diffuse-faster), algorithm 1.
    """
    values = [float(t) for t in times]
    _, sigma = schedule(level)
    rest = [t for t in values if schedule(t)[1] / _signal(schedule, t) < sigma / _signal(schedule, level)]
    if not rest:
        raise InputError(
            f"level {level} leaves no step of a run that ends at {values[-1] if values else 'no level'}",
            remedy="Start at a level with more noise than the last.",
        )
    alpha, _ = schedule(level)
    return alpha * estimate + sigma * noise.like(estimate), [float(level), *rest]


def _signal(schedule: Schedule, t: float) -> float:
    return max(schedule(t)[0], 1e-30)
