"""Coil sensitivities from the fully sampled middle of k-space."""

from __future__ import annotations

import torch

from priorscope.errors import InputError
from priorscope.inverse.mri import from_kspace


def estimate_sensitivities(
    kspace: torch.Tensor, lines: int, *, rows: int | None = None, floor: float = 0.02
) -> torch.Tensor:
    """Sensitivities of every coil: low-resolution images divided by their root sum of squares.

    The middle of k-space is cut out with a Hann window, whose side lobes would otherwise ring through the maps, and
    transformed; sensitivities vary slowly, so little is lost. The phase of the object, as far as the low resolution
    shows it, goes into the maps, so that the image becomes nearly real.

    Parameters
    ----------
    kspace : torch.Tensor
        (B, coils, H, W), complex, centre at H // 2, W // 2; the middle ``lines`` columns fully sampled.
    lines : int
        Number of calibration lines.
    rows : int, optional
        Height of the block, along the fully sampled readout; by default ``lines`` too, in the same share of the
        height.
    floor : float
        Where the root sum of squares is below this part of its maximum there is only air, and maps fall to 0.

    Returns
    -------
    torch.Tensor
        (B, coils, H, W), complex; their squares add up to about 1 in the object.

    Raises
    ------
    InputError
        Real k-space, values that are not finite, more lines than columns, or calibration lines that are empty.
    """
    if kspace.ndim != 4 or not kspace.is_complex():
        raise InputError(
            f"k-space of shape {tuple(kspace.shape)}, {kspace.dtype}", remedy="Give complex (B, coils, H, W)."
        )
    height, width = kspace.shape[-2:]
    rows = max(1, round(lines * height / width)) if rows is None else rows
    if not (1 <= lines <= width and 1 <= rows <= height):
        raise InputError(f"{lines} calibration lines of {rows} rows in k-space of {height} x {width}")
    if not bool(torch.isfinite(kspace).all()):
        raise InputError("k-space that is not finite")
    middle = _window(lines, width, kspace)
    if not bool((kspace.abs().sum((0, 1, 2)) > 0)[middle > 0].all()):
        raise InputError(f"the middle {lines} lines of k-space are not all measured", remedy="Give their number.")
    images = from_kspace(kspace * _window(rows, height, kspace)[:, None] * middle)
    total = images.abs().square().sum(1, keepdim=True).sqrt()
    limit = floor * total.amax((-2, -1), keepdim=True)
    return images / torch.where(total > limit, total, limit.square() / total.clamp(min=1e-30)).clamp(min=1e-30)


def _window(count: int, length: int, like: torch.Tensor) -> torch.Tensor:
    """A Hann window of ``count`` positive values around ``length // 2``, zero elsewhere; (length,)."""
    window = torch.zeros(length, dtype=like.dtype.to_real(), device=like.device)
    first = length // 2 - count // 2
    window[first : first + count] = torch.hann_window(
        count + 2, periodic=False, dtype=window.dtype, device=like.device
    )[1:-1]
    return window
