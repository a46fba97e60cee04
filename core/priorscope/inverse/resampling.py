"""Super-resolution: what a coarser detector sees of an image."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

from priorscope.errors import InputError
from priorscope.inverse.operator import LinearOperator, image_domain, image_size, linear_map, transpose_of


class BlockMean(LinearOperator):
    """Mean over blocks of ``factor`` x ``factor`` pixels: (B, C, H, W) to (B, C, H / factor, W / factor)."""

    def __init__(self, domain: tuple[int, int, int], factor: int) -> None:
        channels, height, width = domain = image_domain(domain)
        if factor < 1 or factor != int(factor) or height % factor or width % factor:
            raise InputError(f"blocks of {factor} pixels in images of {height} x {width}", remedy="Crop to a multiple.")
        super().__init__(domain, (channels, int(height // factor), int(width // factor)))
        self.factor = int(factor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._fit(x, self.domain, "images", real=True)
        return functional.avg_pool2d(x, self.factor)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.pseudo_inverse(y) / self.factor**2

    def pseudo_inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Every pixel of a block gets its mean: the image of least norm that fits."""
        self._fit(y, self.range, "images", real=True)
        return y.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1)


class Resize(LinearOperator):
    """Resizing to another size with antialiasing, pixel centres at half-integers: (B, C, H, W) to (B, C, h, w).

    Parameters
    ----------
    domain : (int, int, int)
        Channels, height and width.
    size : int or (int, int)
        Height and width of what is measured.
    mode : {"bilinear", "bicubic"}
        torch's antialiased filters, a triangle or a cubic (a = -0.5); single and double precision.
    """

    def __init__(
        self,
        domain: tuple[int, int, int],
        size: int | tuple[int, int],
        mode: Literal["bilinear", "bicubic"] = "bicubic",
    ) -> None:
        if mode not in ("bilinear", "bicubic"):
            raise InputError(f"resizing by {mode!r}", remedy="Use bilinear or bicubic.")
        domain, self.size, self.mode = image_domain(domain), image_size(size), mode
        super().__init__(domain, (domain[0], *self.size))
        self._transpose = transpose_of(self._resize, self.domain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._fit(x, self.domain, "images", real=True)
        return linear_map(x, self._resize, self._transpose)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self._fit(y, self.range, "images", real=True)
        return linear_map(y, self._transpose, self._resize)

    def _resize(self, x: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(x, self.size, mode=self.mode, antialias=True, align_corners=False)
