"""Gaussian targets, for all keypoints at once."""

from __future__ import annotations

import torch


def windowed_gaussians(
    centers: torch.Tensor,
    middles: torch.Tensor,
    visible: torch.Tensor,
    drawn: torch.Tensor,
    size: tuple[int, int],
    sigma: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussians cut off at a square window.

    Parameters
    ----------
    centers : Tensor, [N, K, 2]
        Of the Gaussians, in heatmap pixels.
    middles : Tensor, [N, K, 2]
        Whole pixels; the window is ``[middle - 3 sigma, middle + 3 sigma + 1)``, its ends cut to whole pixels
        towards zero.
    visible, drawn : Tensor, [N, K]
        Weight of each keypoint, and whether its Gaussian is drawn.
    size : (width, height)
        Of the heatmaps.

    Returns
    -------
    heatmaps : Tensor, float32, [N, K, H, W]
    weights : Tensor, float32, [N, K]
        ``visible``, but 0 where a window that should be drawn lies outside the heatmap.
    """
    first, end = (middles - 3 * sigma).trunc(), (middles + 3 * sigma + 1).trunc()
    outside = (first >= middles.new_tensor(size)).any(-1) | (end < 0).any(-1)
    columns, rows = (
        _profile(centers[..., axis], first[..., axis], end[..., axis], size[axis], sigma) for axis in (0, 1)
    )
    rows = rows * (drawn & ~outside)[..., None]
    return rows.float()[..., :, None] * columns.float()[..., None, :], torch.where(drawn & outside, 0, visible)


def _profile(center: torch.Tensor, first: torch.Tensor, end: torch.Tensor, length: int, sigma: float) -> torch.Tensor:
    pixels = torch.arange(length, dtype=center.dtype, device=center.device)
    values = torch.exp(-0.5 * ((pixels - center[..., None]) / sigma) ** 2)
    return values * ((pixels >= first[..., None]) & (pixels < end[..., None]))
