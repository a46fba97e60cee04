"""Solvers that remember nothing: DDIM, DDPM's ancestral sampling, Euler, Heun.

Two identities are tested: Euler is DDIM, and Euler-ancestral is DDIM with eta = 1, which is DDPM's ancestral step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch

from priorscope.diffusion.denoiser import Model
from priorscope.diffusion.noise import Noise, required
from priorscope.errors import InputError

Step = Callable[[Model, torch.Tensor, float, float, Any, Noise | None], tuple[torch.Tensor, Any]]


def ddim(
    model: Model, x: torch.Tensor, t: float, s: float, state: Any, noise: Noise | None, *, eta: float = 0.0
) -> tuple[torch.Tensor, Any]:
    """DDIM (Song, Meng and Ermon 2021, equation 12), for any schedule.

    ``eta`` scales the fresh noise: 0 is deterministic, 1 is DDPM's ancestral step; there is never more of it than the
    level s has. Order 1. With s above t and eta 0 it is DDIM inversion.
    """
    if not eta >= 0:
        raise InputError(f"eta {eta}", remedy="Use 0 for the ODE, 1 for the ancestral step.")
    x0, eps = model(x, t)
    alpha_t, sigma_t = model.schedule(t)
    alpha_s, sigma_s = model.schedule(s)
    fresh = min(eta * _posterior_std(alpha_t, sigma_t, alpha_s, sigma_s), sigma_s) if eta else 0.0
    kept = math.sqrt(max(sigma_s**2 - fresh**2, 0.0))
    x = (alpha_s * x0).add_(eps, alpha=kept)
    return (x.add_(required(noise).like(x), alpha=fresh) if fresh > 0 else x), state


def ddpm_ancestral(
    model: Model,
    x: torch.Tensor,
    t: float,
    s: float,
    state: Any,
    noise: Noise | None,
    *,
    variance: Literal["small", "large"] = "small",
) -> tuple[torch.Tensor, Any]:
    """DDPM's ancestral sampling (Ho et al. 2020, algorithm 2) over any jump t -> s.

    ``variance="small"`` uses that of the posterior q(x_s | x_t, x_0), ``"large"`` that of q(x_t | x_s) (called
    beta in the paper); both end without noise at a clean level.
    """
    if variance not in ("small", "large"):
        raise InputError(f"variance {variance!r}", remedy="Use 'small' or 'large'.")
    x0, eps = model(x, t)
    alpha_t, sigma_t = model.schedule(t)
    alpha_s, sigma_s = model.schedule(s)
    posterior = _posterior_std(alpha_t, sigma_t, alpha_s, sigma_s)
    mean = alpha_s * x0 + math.sqrt(max(sigma_s**2 - posterior**2, 0.0)) * eps
    std = posterior
    if variance == "large" and sigma_s > 0:
        std = posterior * sigma_t / sigma_s
    return (mean + std * required(noise).like(mean) if std > 0 else mean), state


def euler(
    model: Model,
    x: torch.Tensor,
    t: float,
    s: float,
    state: Any,
    noise: Noise | None,
) -> tuple[torch.Tensor, Any]:
    """Euler's step of the probability-flow ODE in (x / alpha, sigma / alpha). Order 1; equal to DDIM."""
    return ddim(model, x, t, s, state, noise)


def euler_ancestral(
    model: Model, x: torch.Tensor, t: float, s: float, state: Any, noise: Noise | None, *, eta: float = 1.0
) -> tuple[torch.Tensor, Any]:
    """Euler's step to a lower level, then fresh noise up to s (k-diffusion's ``sample_euler_ancestral``)."""
    return ddim(model, x, t, s, state, noise, eta=eta)


def heun(
    model: Model, x: torch.Tensor, t: float, s: float, state: Any, noise: Noise | None
) -> tuple[torch.Tensor, Any]:
    """Heun's method (Karras et al. 2022, algorithm 1 without churn): two calls, order 2.

    The last step to a noise-free level, and a first step from alpha = 0, are Euler's.
    """
    x0, eps = model(x, t)
    alpha_t, sigma_t = model.schedule(t)
    alpha_s, sigma_s = model.schedule(s)
    euler_x = (alpha_s * x0).add_(eps, alpha=sigma_s)
    if sigma_s == 0.0 or alpha_t == 0.0 or alpha_s == 0.0:
        return euler_x, state
    # half of what the slope changes on Euler's way; from euler_x and not from x, so that a constraint on x0 is kept
    way = sigma_s - sigma_t * alpha_s / alpha_t
    return euler_x + 0.5 * way * (model(euler_x, s).eps - eps), state


def _posterior_std(alpha_t: float, sigma_t: float, alpha_s: float, sigma_s: float) -> float:
    """Standard deviation of q(x_s | x_t, x_0) on the way down, 0 on the way up."""
    if sigma_s == 0.0 or sigma_t == 0.0 or alpha_s == 0.0:
        return 0.0
    between = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2
    return sigma_s / sigma_t * math.sqrt(max(between, 0.0))
