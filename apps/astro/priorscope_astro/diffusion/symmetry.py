"""The eight ways to turn and mirror a square image: a galaxy has no upright."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch

ArrayT = TypeVar("ArrayT", "np.ndarray", torch.Tensor)

#: How many there are; 0 leaves an image as it is.
COUNT = 8


def turned(image: ArrayT, which: int) -> ArrayT:
    """The image (..., H, W) turned by ``which % 4`` quarters, and mirrored first from 4 on."""
    if which >= 4:
        image = image.flip(-1) if isinstance(image, torch.Tensor) else image[..., ::-1]
    if isinstance(image, torch.Tensor):
        return torch.rot90(image, which % 4, (-2, -1))
    return np.ascontiguousarray(np.rot90(image, which % 4, (-2, -1)))
