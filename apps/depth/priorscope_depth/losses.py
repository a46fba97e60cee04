"""Losses of depth and normals on pixels."""

from __future__ import annotations

import math

import torch

from priorscope.diffusion.losses import masked_mean


def ssi_loss(predicted: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Scale- and shift-invariant L1: each prediction is fitted to its target by least squares first.

    Parameters
    ----------
    predicted, target : Tensor (B, 1, H, W)
    valid : bool Tensor (B, 1, H, W)

    Returns
    -------
    Tensor ()
        Mean over the valid pixels of the batch. Gradients flow through the fit, too.

    Source: E2E-FT's affine-invariant loss; an image without valid pixels, or with a constant prediction, is
    fitted with scale 0.
    """
    scale, shift = fit_scale_shift(predicted, target, valid)
    fitted = scale[:, None, None, None] * predicted + shift[:, None, None, None]
    return masked_mean((fitted - target).abs(), valid)


def fit_scale_shift(
    predicted: torch.Tensor, target: torch.Tensor, valid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per image, the (B,) scale s and shift t that minimise the sum of (s p + t - target)^2 over valid pixels."""
    weight = valid.flatten(1).to(predicted.dtype)
    p = torch.where(valid, predicted, 0).flatten(1)
    g = torch.where(valid, target, 0).flatten(1)
    count = weight.sum(1).clamp(min=1)
    mean_p, mean_g = p.sum(1) / count, g.sum(1) / count
    # centred: the textbook determinant of raw sums loses most of its digits in float32
    p = (p - mean_p[:, None]) * weight
    g = (g - mean_g[:, None]) * weight
    spread = (p * p).sum(1)
    usable = spread > 1e-12 * count
    scale = torch.where(usable, (p * g).sum(1) / torch.where(usable, spread, 1), 0)
    return scale, mean_g - scale * mean_p


def angular_loss(predicted: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean angle in radians between unit normals (B, 3, H, W), over ``valid`` (B, 1, H, W).

    Source: E2E-FT; the cosine is kept a little inside (-1, 1), where the arc's slope is finite.
    """
    cosine = (predicted * target).sum(1, keepdim=True).clamp(-1 + 1e-6, 1 - 1e-6)
    return masked_mean(cosine.acos(), valid)


def unit(normals: torch.Tensor) -> torch.Tensor:
    """Vectors (B, 3, H, W) brought to unit length; 1e-5 is added to the length, as in E2E-FT."""
    return normals / (normals.norm(dim=1, keepdim=True) + 1e-5)


def relative_depth_loss(disparity: torch.Tensor, depth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """How wrong a disparity is as a depth: the evaluation's AbsRel made smooth.

    Each prediction is fitted to the true disparity by least squares, as the evaluation does; the loss is the
    mean of ``|log(fitted / true)|``. Where the fit falls below 0.3 of the truth (it may be negative) the
    logarithm goes on as its tangent, so that the gradient stays finite.

    Parameters
    ----------
    disparity : Tensor (B, 1, H, W)
        Affine-invariant, larger is nearer.
    depth : Tensor (B, 1, H, W)
        Metres; counts as at most 150 m, since a disparity beyond cannot be told from 0.
    valid : bool Tensor (B, 1, H, W)
        Pixels without depth (sky) do not count.
    """
    true = torch.where(valid, 1 / depth.clamp(1e-6, 150.0), 1.0)
    scale, shift = fit_scale_shift(disparity, true, valid)
    ratio = (scale[:, None, None, None] * disparity + shift[:, None, None, None]) / true
    knee = 0.3
    error = torch.where(ratio > knee, ratio.clamp(min=knee).log().abs(), -math.log(knee) + (knee - ratio) / knee)
    return masked_mean(error, valid)


def relative_l1(
    predicted: torch.Tensor, target: torch.Tensor, valid: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """Mean absolute error of the normalised disparity, weighted about as AbsRel weighs it.

    A relative error of depth is one of disparity: the farther a pixel, the more the same error of disparity
    counts. Sky counts as much as an average pixel, pixels of unknown depth not at all.

    Parameters
    ----------
    predicted, target : Tensor (B, 1, H, W) in [-1, 1]
    valid : bool Tensor (B, 1, H, W)
        Where there is depth.
    counts : bool Tensor (B, 1, H, W)
        Where the target is known: depth or sky.
    """
    weight = torch.where(valid, 1.0 / ((target + 1) / 2 + 0.15), torch.ones_like(target)) * counts
    return ((predicted - target).abs() * weight).sum() / weight.sum().clamp(min=1e-6)
