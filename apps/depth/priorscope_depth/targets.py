"""What a depth model learns to paint: metric depth made relative, in [-1, 1]."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from priorscope.errors import InputError

NormType = Literal["instnorm", "truncnorm", "perscene", "disparity", "trunc_disparity"]


def normalise_depth(
    depth: torch.Tensor,
    norm: NormType = "trunc_disparity",
    *,
    counts: torch.Tensor | None = None,
    low: float = 0.02,
    farthest: float = 80.0,
) -> torch.Tensor:
    """Depth as it is painted.

    Parameters
    ----------
    depth : Tensor (B, H, W)
        Metres; 0 where there is none.
    norm : {"instnorm", "truncnorm", "perscene", "disparity", "trunc_disparity"}
        Between the least and the greatest depth; between its quantiles ``low`` and ``1 - low``; between 0 and
        ``farthest``; the same of disparity 1 / depth instead.
    counts : bool Tensor (B, H, W), optional
        Pixels whose least, greatest and quantiles are taken. Default: all.
    low : float
    farthest : float
        Metres; 65 for Hypersim, 80 for Virtual KITTI.

    Returns
    -------
    Tensor (B, 1, H, W) in [-1, 1], clipped. Pixels without depth get disparity 0; in space depth, -1 .. 1 by
    what the caller put there.

    Source: Lotus' ``norm_type`` (``truncnorm_min`` 0.02), Marigold's 2 % quantiles.
    """
    if depth.ndim != 3:
        raise InputError(f"depth must be (B, H, W), got {tuple(depth.shape)}")
    if norm not in get_args(NormType):
        raise InputError(f"norm {norm!r}", remedy=f"Use one of {', '.join(get_args(NormType))}.")
    if norm == "perscene":
        return (depth / farthest * 2 - 1).clamp(-1, 1)[:, None]
    values = depth
    if norm in ("disparity", "trunc_disparity"):
        values = torch.where(depth > 0, 1.0 / depth.clamp(min=1e-6), torch.zeros_like(depth))
    share = low if norm.startswith("trunc") else 0.0
    levels = torch.tensor([share, 1.0 - share], dtype=values.dtype, device=values.device)
    if counts is None:
        bounds = torch.quantile(values.flatten(1), levels, dim=1)
    else:
        rows = [torch.quantile(v[c] if c.any() else v.flatten(), levels) for v, c in zip(values, counts, strict=True)]
        bounds = torch.stack(rows, 1)
    bottom, top = bounds[0][:, None, None], bounds[1][:, None, None]
    return (((values - bottom) / (top - bottom + 1e-5) - 0.5) * 2).clamp(-1, 1)[:, None]


def truncated_disparity(depth: torch.Tensor, low: float = 0.02) -> torch.Tensor:
    """Disparity between its two quantiles, stretched to [-1, 1] and clipped: Lotus' ``trunc_disparity``.

    Parameters
    ----------
    depth : Tensor (B, H, W)
        Metres; 0 where there is none. Such pixels (sky) count as infinitely far: disparity 0.
    low : float
        The quantiles are ``low`` and ``1 - low``, over all pixels of an image.

    Returns
    -------
    Tensor (B, 1, H, W) in [-1, 1], larger is nearer.
    """
    return normalise_depth(depth, "trunc_disparity", low=low)
