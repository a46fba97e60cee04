"""From what a user gives to what an autoencoder says about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from priorscope.data.images import check_rgb
from priorscope.errors import InputError

Source = np.ndarray | torch.Tensor
Images = np.ndarray | torch.Tensor | Sequence[np.ndarray]


def as_sources(images: Images) -> list[Source]:
    """Single images out of what a user may give, checked: uint8 arrays (H, W, 3) or tensors (3, H, W) in [0, 1]."""
    if isinstance(images, torch.Tensor):
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point() or 0 in images.shape:
            raise InputError(
                f"images must be a float tensor (B, 3, H, W), got {images.dtype} {tuple(images.shape)}",
                remedy="Give uint8 arrays (H, W, 3), or tensors in [0, 1].",
            )
        if not bool(((images >= 0) & (images <= 1)).all()):
            raise InputError("images hold NaN or values outside [0, 1]", remedy="Scale them to [0, 1].")
        return list(images)
    several = images.ndim == 4 if isinstance(images, np.ndarray) else isinstance(images, Sequence)
    arrays: list[Any] = list(images) if several else [images]
    if not arrays:
        raise InputError("no images were given")
    for image in arrays:
        check_rgb(image)
    return arrays


def prepare(source: Source, size: tuple[int, int] | None, factor: int, device: torch.device | str) -> torch.Tensor:
    """A checked image as (1, 3, h, w) in [-1, 1], resized to ``size`` or its own, rounded to multiples of ``factor``.

    Bicubic with antialiasing, as Pillow resizes; the whole image stays in view, so maps cover it from edge to edge.
    """
    if isinstance(source, np.ndarray):
        # a copy: pictures that Pillow decoded are read-only, which torch warns about
        image = torch.from_numpy(np.array(source, order="C")).permute(2, 0, 1)[None].to(device).float() / 255
    else:
        image = source[None].to(device, torch.float32)
    height, width = (max(factor, round(side / factor) * factor) for side in size or image.shape[-2:])
    if (height, width) != tuple(image.shape[-2:]):
        image = functional.interpolate(image, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
    return image * 2 - 1
