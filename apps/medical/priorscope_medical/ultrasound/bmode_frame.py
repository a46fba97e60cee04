"""From a scanner's picture to the square that a prior was trained on, and haze back onto the picture.

What goes back is smooth: the haze that was found, as a slowly varying linear function of the picture's own brightness
(a guided filter), so that no detail of the picture is drawn by the prior, and edges stay as sharp as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from priorscope.errors import InputError

#: Part of the square's side that the sector spans; as in the training pictures.
_FILLED = 1 / 1.02


@dataclass(frozen=True)
class Square:
    """Where the square lies on the picture.

    Parameters
    ----------
    top, left : float
        Of its corner, in pixels of the picture; may lie outside of it.
    side : float
        In pixels of the picture.
    size : int
        In pixels of the prior.
    """

    top: float
    left: float
    side: float
    size: int

    @classmethod
    def around(cls, sector: NDArray[np.bool_], size: int) -> Square:
        """The square that the sector fills."""
        rows, columns = np.flatnonzero(sector.any(1)), np.flatnonzero(sector.any(0))
        if not len(rows):
            raise InputError("an empty sector")
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        side = max(height, width) / _FILLED
        return cls(rows[0] + (height - side) / 2, columns[0] + (width - side) / 2, float(side), size)

    def taken(self, pictures: torch.Tensor) -> torch.Tensor:
        """(T, H, W) to (T, size, size): means over the prior's pixels, 0 outside of the picture."""
        fine = max(1, round(self.side / self.size * 1.5))
        height, width = pictures.shape[-2:]
        steps = (torch.arange(fine * self.size, dtype=torch.float64) + 0.5) * self.side / (fine * self.size)
        rows, columns = (self.top + steps) * 2 / height - 1, (self.left + steps) * 2 / width - 1
        found = _sampled(pictures, rows, columns, "zeros")
        return functional.avg_pool2d(found, fine)

    def put_back(self, maps: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        """(T, size, size) to (T, H, W), bilinearly; the square's border is repeated outside of it."""
        rows = (torch.arange(shape[0], dtype=torch.float64) + 0.5 - self.top) * 2 / self.side - 1
        columns = (torch.arange(shape[1], dtype=torch.float64) + 0.5 - self.left) * 2 / self.side - 1
        return _sampled(maps, rows, columns, "border")


@dataclass(frozen=True)
class Smoothing:
    """How haze is smoothed before it is taken off.

    Parameters
    ----------
    radius : int
        Of the windows within which haze is linear in brightness, in pixels of the prior.
    floor : float
        Variance of brightness below which a window counts as flat: there haze is a constant.
    frames : float
        Standard deviation over time in frames: haze hardly moves.
    """

    radius: int = 4
    floor: float = 1e-3
    frames: float = 1.0


def guided_haze(
    haze: torch.Tensor, small: torch.Tensor, full: torch.Tensor, square: Square, smoothing: Smoothing
) -> torch.Tensor:
    """Haze at the picture's resolution.

    Parameters
    ----------
    haze, small : Tensor (T, size, size)
        What was found, and the picture in the prior's square.
    full : Tensor (T, H, W)
        The picture, from 0 to 1.
    square : Square
    smoothing : Smoothing

    Returns
    -------
    Tensor (T, H, W)
        From 0 to the picture's own brightness.

    Source: He and Sun 2015 (fast guided filter).
    """
    slope, offset = guided_coefficients(over_time(haze, smoothing.frames), small, smoothing)
    shape = (int(full.shape[-2]), int(full.shape[-1]))
    found = square.put_back(slope, shape) * full + square.put_back(offset, shape)
    return torch.minimum(found.clamp(min=0), full)


def guided_coefficients(
    values: torch.Tensor, guide: torch.Tensor, smoothing: Smoothing
) -> tuple[torch.Tensor, torch.Tensor]:
    """a and b (T, H, W) of the guided filter: values are a guide + b, with a and b smooth."""

    def mean(x: torch.Tensor) -> torch.Tensor:
        side = 2 * smoothing.radius + 1
        return functional.avg_pool2d(x[:, None], side, 1, smoothing.radius, count_include_pad=False)[:, 0]

    middle, level = mean(guide), mean(values)
    variance = mean(guide * guide) - middle * middle
    slope = (mean(guide * values) - middle * level) / (variance + smoothing.floor)
    return mean(slope), mean(level - slope * middle)


def over_time(values: torch.Tensor, frames: float) -> torch.Tensor:
    """(T, ...) smoothed over time by a Gaussian of so many frames."""
    if frames <= 0 or len(values) < 2:
        return values
    from scipy.ndimage import gaussian_filter1d

    return torch.from_numpy(gaussian_filter1d(values.numpy(), frames, axis=0, mode="nearest"))


def _sampled(pictures: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, beyond: str) -> torch.Tensor:
    """(T, H, W) at rows and columns given from -1 to 1 of the picture's sides."""
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    grid = torch.stack([x, y], -1).to(pictures.dtype).expand(len(pictures), -1, -1, -1)
    found = functional.grid_sample(pictures[:, None], grid, mode="bilinear", padding_mode=beyond, align_corners=False)
    return found[:, 0]
