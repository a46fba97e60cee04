"""What a denoiser is trained on: squared errors of its output, weighted over noise levels."""

from __future__ import annotations

from typing import Any, Literal

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser
from priorscope.errors import InputError

Weighting = Literal["output", "x0", "min-snr"]


def masked_mean(values: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Mean of ``values`` where ``mask``, over the whole batch; 0 where the mask is empty.

    Parameters
    ----------
    values : Tensor
    mask : bool Tensor, optional
        Broadcastable to ``values``.
    """
    if mask is None:
        return values.mean()
    mask = mask.expand_as(values)
    # not values[mask]: its size would have to be read back from the GPU; where(): 0 * NaN is NaN
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def denoising_loss(
    denoiser: Denoiser,
    x0: torch.Tensor,
    eps: torch.Tensor,
    t: torch.Tensor,
    condition: Condition | None = None,
    *,
    mask: torch.Tensor | None = None,
    weighting: Weighting = "output",
    gamma: float = 5.0,
) -> torch.Tensor:
    """Mean squared error of a denoiser at noised samples, for every prediction type.

    Parameters
    ----------
    denoiser : Denoiser
        Its prediction type says what the network is compared with (:meth:`Denoiser.target`).
    x0, eps : Tensor (B, ...)
        Clean samples and standard normal noise.
    t : Tensor (B,)
        Levels.
    condition : Condition, optional
    mask : bool Tensor, optional
        Where the error counts; broadcastable to ``x0``.
    weighting : {"output", "x0", "min-snr"}
        The error of the network's own output; that of the x0 it implies; or the latter times
        min(SNR, ``gamma``) (Hang et al. 2023, "Min-SNR-gamma"), SNR = alpha^2 / sigma^2.
    gamma : float

    Returns
    -------
    Tensor ()
        In float32.

    Notes
    -----
    An error d of the output is an error f d of x0, with f = sigma / alpha (epsilon), sigma^2 / alpha (score),
    sigma / (alpha^2 + sigma^2) (v), sigma / (alpha + sigma) (flow), 1 (sample).
    """
    if weighting not in ("output", "x0", "min-snr"):
        raise InputError(f"loss weighting {weighting!r}", remedy="Use 'output', 'x0' or 'min-snr'.")
    alpha, sigma = denoiser.schedule.coefficients(t, x0)
    output = denoiser.raw(alpha * x0 + sigma * eps, t, condition)
    error = (output.float() - denoiser.target(x0, eps, t).float()).square()
    if weighting != "output":
        kind = denoiser.prediction_type
        weight = _x0_per_output(kind, alpha, sigma) ** 2
        if weighting == "min-snr":
            # min(SNR f^2, gamma f^2): at alpha = 0 the f of epsilon is infinite, SNR f^2 is 1
            weight = torch.minimum(_eps_per_output(kind, alpha, sigma) ** 2, gamma * weight)
        error = error * weight
    return masked_mean(error, mask)


def _x0_per_output(kind: str, alpha: Any, sigma: Any) -> Any:
    """By how much x0 errs for an error of 1 of the output."""
    if kind == "epsilon":
        return sigma / alpha
    if kind == "score":
        return sigma * sigma / alpha
    if kind == "v":
        return sigma / (alpha * alpha + sigma * sigma)
    if kind == "flow":
        return sigma / (alpha + sigma)
    return torch.ones_like(sigma)


def _eps_per_output(kind: str, alpha: Any, sigma: Any) -> Any:
    """By how much alpha / sigma times x0 errs, which is the noise that is left over: sqrt(SNR) f without its 0 / 0."""
    if kind == "epsilon":
        return torch.ones_like(sigma)
    if kind == "score":
        return sigma
    if kind == "v":
        return alpha / (alpha * alpha + sigma * sigma)
    if kind == "flow":
        return alpha / (alpha + sigma)
    return alpha / sigma
