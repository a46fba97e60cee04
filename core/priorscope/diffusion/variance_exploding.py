"""Predictor-corrector sampling of variance-exploding diffusion (Song et al. 2021, algorithm 2).

A predictor goes down one noise level; a corrector, Langevin dynamics, stays at its level and mends what the
predictor's finite step did. As solvers for :func:`~priorscope.diffusion.sampling.sample` they follow levels that end
free of noise: :func:`ve_times`.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch

from priorscope.diffusion.denoiser import Model
from priorscope.diffusion.noise import Noise, required
from priorscope.diffusion.schedule import VESchedule
from priorscope.errors import InputError

Norms = Literal["item", "batch"]
Order = Literal["corrector-predictor", "predictor-corrector"]


def ve_times(steps: int, *, official: bool = False) -> list[float]:
    """Levels of a :class:`VESchedule` from 1 to 0, evenly spaced, and the one without noise.

    Parameters
    ----------
    steps : int
        Network levels, at least 2.
    official : bool
        DiffusionMBIR's, in float32; its last one is 1e-10.

    Returns
    -------
    list of float
        ``steps + 1`` levels; the last is -inf, where sigma is 0.
    """
    if steps < 2:
        raise InputError(f"{steps} steps of a predictor", remedy="Use at least two.")
    if official:
        return [*torch.linspace(1.0, 1e-10, steps).tolist(), -math.inf]
    return [*np.linspace(1.0, 0.0, steps).tolist(), -math.inf]


def discrete_sigmas(schedule: VESchedule, count: int) -> torch.Tensor:
    """The official table of sigma, evenly spaced in its logarithm and rising: float32 (count,).

    Rounded as the official code does: differences of its squares are off by up to 1e-4.
    """
    return torch.exp(torch.linspace(math.log(schedule.sigma_min), math.log(schedule.sigma_max), count))


def scale_index(t: float, count: int) -> int:
    """Where the official code looks into a table of ``count`` sigmas at time ``t``: rounded down in float32."""
    return int(np.float32(t) * np.float32(count - 1))


def reverse_diffusion(
    model: Model,
    x: torch.Tensor,
    t: float,
    s: float,
    state: Any,
    noise: Noise | None,
    *,
    table: int | None = None,
) -> tuple[torch.Tensor, Any]:
    """The predictor: x + G^2 score + G z with G^2 = sigma_t^2 - sigma_s^2.

    Down to a level without noise it still adds G z, as the official code does. Elsewhere it is DDPM's ancestral
    step with the large variance.

    Parameters
    ----------
    table : int, optional
        Parity: G is taken from that many discrete sigmas at the place below ``t`` (:func:`scale_index`) instead of
        from t and s, while the network is told sigma(t).
    """
    score, sigma_t = _score(model, x, t)
    if table is None:
        _, sigma_s = model.schedule(s)
        if not sigma_s < sigma_t:
            raise InputError(f"a predictor from sigma {sigma_t:g} to {sigma_s:g}", remedy="Levels must fall.")
        power = sigma_t**2 - sigma_s**2
    else:
        power = _table_step(model, t, table)
    return x + power * score + math.sqrt(power) * required(noise).like(x), state


def langevin(
    model: Model,
    x: torch.Tensor,
    t: float,
    noise: Noise | None,
    *,
    snr: float = 0.16,
    norms: Norms = "item",
) -> torch.Tensor:
    """One step of the corrector at level ``t``: x + e score + sqrt(2 e) z with e = 2 (snr |z| / |score|)^2.

    Parameters
    ----------
    model : Model
    x : Tensor (B, ...)
    t : float
    noise : Noise
    snr : float
        Ratio of the score's part to the noise's, above 0. DiffusionMBIR uses 0.16.
    norms : {"item", "batch"}
        Of each item, so that an item's result does not depend on its batch; or their means over the batch, as the
        official code has it.

    Returns
    -------
    Tensor (B, ...)
    """
    if not snr > 0:
        raise InputError(f"snr {snr}", remedy="Use a number above 0.")
    if norms not in ("item", "batch"):
        raise InputError(f"norms {norms!r}", remedy="Use 'item' or 'batch'.")
    score, _ = _score(model, x, t)
    z = required(noise).like(x)
    score_norm, noise_norm = (value.flatten(1).norm(dim=1) for value in (score, z))
    if norms == "batch":
        score_norm, noise_norm = score_norm.mean(0, keepdim=True), noise_norm.mean(0, keepdim=True)
    # at a maximum of the density, where the score is 0, the item rests
    ratio = torch.where(score_norm > 0, noise_norm / score_norm, 0)
    step = (2 * (snr * ratio) ** 2).view(-1, *(1,) * (x.ndim - 1))
    return x + step * score + (2 * step).sqrt() * z


def predictor_corrector(
    model: Model,
    x: torch.Tensor,
    t: float,
    s: float,
    state: Any,
    noise: Noise | None,
    *,
    order: Order = "corrector-predictor",
    snr: float = 0.16,
    corrector_steps: int = 1,
    norms: Norms = "item",
    table: int | None = None,
) -> tuple[torch.Tensor, Any]:
    """A step with both, a network call and a draw of noise each.

    Parameters
    ----------
    order : {"corrector-predictor", "predictor-corrector"}
        The first is that of ``score_sde``: corrected at t, then down to s. The second is DiffusionMBIR's, whose
        corrector is told t although the sample has gone down already.
    snr, norms
        As for :func:`langevin`.
    corrector_steps : int
    table : int, optional
        As for :func:`reverse_diffusion`.
    """
    if order not in ("corrector-predictor", "predictor-corrector"):
        raise InputError(f"order {order!r}", remedy="Use 'corrector-predictor' or 'predictor-corrector'.")
    if corrector_steps < 0:
        raise InputError(f"{corrector_steps} corrector steps", remedy="Use 0 or more.")
    if order == "predictor-corrector":
        x, state = reverse_diffusion(model, x, t, s, state, noise, table=table)
    for _ in range(corrector_steps):
        x = langevin(model, x, t, noise, snr=snr, norms=norms)
    if order == "corrector-predictor":
        x, state = reverse_diffusion(model, x, t, s, state, noise, table=table)
    return x, state


def _score(model: Model, x: torch.Tensor, t: float) -> tuple[torch.Tensor, float]:
    alpha, sigma = model.schedule(t)
    if alpha != 1.0 or not sigma > 0:
        raise InputError(
            f"a predictor-corrector was asked at alpha {alpha:g}, sigma {sigma:g}",
            remedy="It is written for variance-exploding schedules (alpha = 1), at levels with noise.",
        )
    return model(x, t).eps / -sigma, sigma


def _table_step(model: Model, t: float, table: int) -> float:
    if not isinstance(model.schedule, VESchedule):
        raise InputError("a table of sigmas belongs to a VESchedule")
    sigmas = discrete_sigmas(model.schedule, table)
    index = scale_index(t, table)
    below = sigmas[index - 1] ** 2 if index > 0 else 0.0
    return float(sigmas[index] ** 2 - below)
