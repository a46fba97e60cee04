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
    rows, middle = _calibration(kspace, lines, rows)
    height = kspace.shape[-2]
    images = from_kspace(kspace * _window(rows, height, kspace)[:, None] * middle)
    total = images.abs().square().sum(1, keepdim=True).sqrt()
    limit = floor * total.amax((-2, -1), keepdim=True)
    return images / torch.where(total > limit, total, limit.square() / total.clamp(min=1e-30)).clamp(min=1e-30)


def espirit(
    kspace: torch.Tensor,
    lines: int,
    *,
    rows: int | None = None,
    kernel: int = 6,
    threshold: float = 0.02,
    crop: float = 0.9,
) -> torch.Tensor:
    """Sensitivities by ESPIRiT: at every pixel the coil vector that the calibration data reproduces.

    Every ``kernel`` x ``kernel`` neighbourhood in k-space, over all coils, lies in a small space that the calibration
    block shows. To project onto it is a convolution in k-space, so a matrix of coils by coils at every pixel; its
    eigenvector of eigenvalue 1 is the sensitivity there. It needs fewer lines than :func:`estimate_sensitivities`, and
    more time. The free phase of each pixel is that of the low-resolution maps.

    Parameters
    ----------
    kspace, lines
        As for :func:`estimate_sensitivities`.
    rows : int, optional
        Height of the block; by default twice ``lines``, as far as there are so many.
    kernel : int
        Side of a neighbourhood, at most that of the block.
    threshold : float
        Singular values above this part of the largest belong to the space.
    crop : float
        Where the eigenvalue is smaller there is no object: the maps are 0.

    Returns
    -------
    torch.Tensor
        (B, coils, H, W), complex; their squares add up to 1 in the object.

    References
    ----------
    Uecker et al., ESPIRiT, Magnetic Resonance in Medicine 71, 2014.
    """
    phases = estimate_sensitivities(kspace, lines)
    count, _ = _calibration(kspace, lines, min(2 * lines, kspace.shape[-2]) if rows is None else rows)
    coils, height, width = kspace.shape[1:]
    top, left = height // 2 - count // 2, width // 2 - lines // 2
    if not 1 <= kernel <= min(count, lines):
        raise InputError(f"neighbourhoods of {kernel} in a calibration block of {count} x {lines}")
    maps = []
    for block, phase in zip(kspace[..., top : top + count, left : left + lines], phases, strict=True):
        patches = block.unfold(1, kernel, 1).unfold(2, kernel, 1)
        patches = patches.permute(1, 2, 0, 3, 4).reshape(-1, coils * kernel * kernel)
        values, space = torch.linalg.eigh(patches.T @ patches.conj())
        space = space[:, values > threshold**2 * values[-1]].T.reshape(-1, coils, kernel, kernel)
        projector = kspace.new_zeros((height, width, coils, coils))
        for vector in space:
            seen = torch.fft.fftshift(torch.fft.ifft2(vector, s=(height, width), norm="forward"), (-2, -1))
            seen = seen.permute(1, 2, 0)
            projector += seen[..., :, None] * seen[..., None, :].conj()
        eigenvalues, vectors = torch.linalg.eigh(projector / kernel**2)
        largest = vectors[..., -1].permute(2, 0, 1)
        turn = torch.sgn((largest.conj() * phase).sum(0))
        maps.append(largest * turn * (eigenvalues[..., -1] > crop))
    return torch.stack(maps)


def _calibration(kspace: torch.Tensor, lines: int, rows: int | None) -> tuple[int, torch.Tensor]:
    """Height of the calibration block and the window over its lines; checks everything first."""
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
    return rows, middle


def _window(count: int, length: int, like: torch.Tensor) -> torch.Tensor:
    """A Hann window of ``count`` positive values around ``length // 2``, zero elsewhere; (length,)."""
    window = torch.zeros(length, dtype=like.dtype.to_real(), device=like.device)
    first = length // 2 - count // 2
    window[first : first + count] = torch.hann_window(
        count + 2, periodic=False, dtype=window.dtype, device=like.device
    )[1:-1]
    return window
