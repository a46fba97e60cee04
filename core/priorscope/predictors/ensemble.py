"""Several predictions of one image, made into one."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy.optimize import minimize

from priorscope.errors import InputError
from priorscope.predictors.geometry import resize

Reduction = Literal["median", "mean"]


def ensemble_affine(
    members: torch.Tensor,
    *,
    shift_invariant: bool = True,
    reduction: Reduction = "median",
    regularizer: float = 0.02,
    max_iter: int = 50,
    tol: float = 1e-6,
    max_resolution: int = 1024,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Align affine-invariant predictions to each other and reduce them to one.

    Finds a scale and a shift a member by BFGS: least sum over pairs of the root mean square difference, plus
    ``regularizer`` times the distance of the result's range from [0, 1].

    Parameters
    ----------
    members : Tensor (E, 1, H, W)
        Depth or disparity, non-negative.
    shift_invariant : bool
        False aligns scales only.
    reduction : {"median", "mean"}
        The median of an even number of members is the lower of the two in the middle.
    regularizer, max_iter, tol : float, int, float
        Defaults are those of Marigold's own code; diffusers' are ``max_iter=2, tol=1e-3``.
    max_resolution : int
        The fit is made on members shrunk to this longer side.

    Returns
    -------
    prediction, uncertainty : Tensor (1, 1, H, W)
        The prediction in [0, 1] (from its smallest value, or from 0 where only the scale is fitted); the median
        absolute deviation or the standard deviation of the members, relative to the range. A single member
        comes back rescaled, with uncertainty 0.

    Notes
    -----
    The published objective is smallest, at ``regularizer``, where all scales vanish; what the official code
    returns is where BFGS on finite differences of a float32 cost stops, near the start. It moves by up to 2e-2
    with the last bit of that cost, from one processor to the next. Here the members are aligned in float32 as
    there, but differences are summed in float64 before they are rounded to float32, so that the result does not
    depend on the order of a processor's sums.

    Source: Ke et al. 2024 (Marigold), supplement; prs-eth/Marigold and diffusers.
    """
    if members.ndim != 4 or members.shape[1] != 1 or members.shape[0] < 1:
        raise InputError(f"members must be (E, 1, H, W), got {tuple(members.shape)}")
    if reduction not in ("median", "mean"):
        raise InputError(f"reduction {reduction!r}", remedy="Use 'median' or 'mean'.")
    if not torch.isfinite(members).all():
        raise InputError("ensemble members hold NaN or infinite values")
    count = members.shape[0]
    small = members.float()
    height, width = small.shape[-2:]
    longer = max(height, width)
    if longer > max_resolution:
        size = max(height * max_resolution // longer, 1), max(width * max_resolution // longer, 1)
        small = resize(small, size, "nearest-exact")
    flat = small.reshape(count, -1)
    lowest, highest = flat.min(1).values, flat.max(1).values
    if shift_invariant:
        scale = 1.0 / (highest - lowest).clamp(min=1e-6)
        start = torch.cat([scale, -scale * lowest])
    else:
        start = 1.0 / highest.clamp(min=1e-6)
    first, second = np.triu_indices(count, 1)

    def aligned(parameters: np.ndarray, values: torch.Tensor) -> torch.Tensor:
        tensor = torch.from_numpy(parameters).to(values).reshape(-1, count, 1, 1, 1)
        return values * tensor[0] + tensor[1] if shift_invariant else values * tensor[0]

    def cost(parameters: np.ndarray) -> float:
        values = aligned(parameters, small)
        total = 0.0
        for i, j in zip(first, second, strict=True):
            square = float((values[i].double() - values[j].double()).square().mean())
            total += float(np.float32(np.sqrt(square)))
        if regularizer > 0:
            reduced, _ = _reduce(values, reduction)
            total += regularizer * (float(reduced.min().abs()) + float((1.0 - reduced.max()).abs()))
        return total

    parameters = start.cpu().numpy().astype(np.float64)
    if count > 1:
        parameters = minimize(cost, parameters, method="BFGS", tol=tol, options={"maxiter": max_iter}).x
    prediction, uncertainty = _reduce(aligned(parameters, members), reduction)
    low = prediction.min() if shift_invariant else torch.zeros_like(prediction.min())
    span = (prediction.max() - low).clamp(min=1e-6)
    return (prediction - low) / span, uncertainty / span


def _reduce(members: torch.Tensor, reduction: Reduction) -> tuple[torch.Tensor, torch.Tensor]:
    if reduction == "mean":
        mean = members.mean(0, keepdim=True)
        spread = members.std(0, keepdim=True) if len(members) > 1 else torch.zeros_like(mean)
        return mean, spread
    median = members.median(0, keepdim=True).values
    return median, (members - median).abs().median(0, keepdim=True).values


def ensemble_normals(
    members: torch.Tensor, *, reduction: Literal["closest", "mean"] = "closest"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reduce surface normals to one field.

    Parameters
    ----------
    members : Tensor (E, 3, H, W)
        Unit vectors.
    reduction : {"closest", "mean"}
        The member closest to the mean direction, pixel by pixel, or the mean direction itself.

    Returns
    -------
    normals : Tensor (1, 3, H, W)
    uncertainty : Tensor (1, 1, H, W)
        Mean angle to the mean direction, divided by pi: in [0, 1].
    """
    if members.ndim != 4 or members.shape[1] != 3 or members.shape[0] < 1:
        raise InputError(f"members must be (E, 3, H, W), got {tuple(members.shape)}")
    mean = members.mean(0, keepdim=True)
    mean = mean / mean.norm(dim=1, keepdim=True).clamp(min=1e-6)
    cosine = (mean * members).sum(1, keepdim=True).clamp(-1.0, 1.0)
    uncertainty = cosine.arccos().mean(0, keepdim=True) / torch.pi
    if reduction == "mean":
        return mean, uncertainty
    if reduction != "closest":
        raise InputError(f"reduction {reduction!r}", remedy="Use 'closest' or 'mean'.")
    index = cosine.argmax(0, keepdim=True).expand(1, 3, -1, -1)
    return members.gather(0, index), uncertainty
