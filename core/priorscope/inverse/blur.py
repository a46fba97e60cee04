"""Convolution with any kernel, and kernels."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch.nn import functional

from priorscope.errors import InputError
from priorscope.inverse.operator import LinearOperator, image_domain, linear_map, transpose_of

Boundary = Literal["zero", "periodic", "reflect", "replicate"]
_PAD = {"zero": "constant", "periodic": "circular", "reflect": "reflect", "replicate": "replicate"}


class Blur(LinearOperator):
    """Convolution of every channel of (B, C, H, W) with one kernel; the size stays.

    Parameters
    ----------
    domain : (int, int, int)
        Channels, height and width.
    kernel : torch.Tensor
        (h, w), its origin at h // 2, w // 2. It is turned, as a convolution does, and not normalised.
    boundary : {"zero", "periodic", "reflect", "replicate"}
        What lies beyond the image; ``reflect`` does not repeat the border pixel.
    """

    def __init__(self, domain: tuple[int, int, int], kernel: torch.Tensor, boundary: Boundary = "reflect") -> None:
        domain, kernel = image_domain(domain), torch.as_tensor(kernel)
        super().__init__(domain, domain)
        if boundary not in get_args(Boundary):
            raise InputError(f"a boundary named {boundary!r}", remedy=f"Use one of {', '.join(get_args(Boundary))}.")
        if kernel.ndim != 2 or kernel.numel() == 0 or not bool(torch.isfinite(kernel).all()):
            raise InputError(f"a kernel of shape {tuple(kernel.shape)}", remedy="Give finite numbers (h, w).")
        h, w = kernel.shape
        least = {"zero": 0, "replicate": 0, "periodic": max(h // 2, w // 2), "reflect": max(h // 2, w // 2) + 1}[
            boundary
        ]
        if min(domain[1:]) < least:
            raise InputError(
                f"a kernel of {h} x {w} on images of {domain[1]} x {domain[2]}", remedy="Use boundary zero."
            )
        self.kernel, self.boundary = kernel.detach().flip(0, 1), boundary
        self._transpose = transpose_of(self._convolve, self.domain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Blur (B, C, H, W)."""
        self._fit(x, self.domain, "images", real=True)
        return linear_map(x, self._convolve, self._transpose)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """Exact transpose, at the boundary too."""
        self._fit(y, self.range, "images", real=True)
        return linear_map(y, self._transpose, self._convolve)

    def _convolve(self, x: torch.Tensor) -> torch.Tensor:
        h, w = self.kernel.shape
        # The turned kernel has its origin at (h - 1) // 2 for odd and even h.
        sides = ((w - 1) // 2, w // 2, (h - 1) // 2, h // 2)
        planes = functional.pad(x.reshape(-1, 1, *self.domain[1:]), sides, mode=_PAD[self.boundary])
        return functional.conv2d(planes, self._constant("kernel", self.kernel, x)[None, None]).reshape(x.shape)


def gaussian_kernel(std: float, radius: int | None = None) -> torch.Tensor:
    """Gaussian of standard deviation ``std`` pixels within ``radius`` (default: 4 std, rounded up); sums to 1."""
    if not (std > 0 and math.isfinite(std)):
        raise InputError(f"a Gaussian of standard deviation {std}")
    radius = math.ceil(4 * std) if radius is None else radius
    if radius < 0:
        raise InputError(f"a Gaussian within a radius of {radius} pixels")
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / std) ** 2)
    kernel = line[:, None] * line
    return kernel / kernel.sum()


def motion_kernel(length: float, angle: float) -> torch.Tensor:
    """Straight motion over ``length`` pixels at ``angle`` degrees, anticlockwise from the row; sums to 1.

    The line is sampled at tenths of a pixel, and every sample is shared by the four pixels around it.
    """
    if not (length > 0 and math.isfinite(length) and math.isfinite(angle)):
        raise InputError(f"motion over {length} pixels at {angle} degrees")
    radius = math.ceil(length / 2) + 1
    along = torch.linspace(-length / 2, length / 2, max(2, math.ceil(10 * length)), dtype=torch.float64)
    place = torch.stack([-math.sin(math.radians(angle)) * along, math.cos(math.radians(angle)) * along]) + radius
    corner = place.floor()
    part = place - corner
    kernel = torch.zeros(2 * radius + 1, 2 * radius + 1, dtype=torch.float64)
    for down in (0, 1):
        for right in (0, 1):
            weight = (part[0] if down else 1 - part[0]) * (part[1] if right else 1 - part[1])
            row, column = corner[0].long() + down, corner[1].long() + right
            kernel.index_put_((row, column), weight, accumulate=True)
    return kernel / kernel.sum()
