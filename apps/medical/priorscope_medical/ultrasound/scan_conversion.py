"""From beams to a picture: samples on (depth, angle) to pixels on (z, x), and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from priorscope.errors import InputError


@dataclass(frozen=True)
class Sector:
    """Where the samples of a sector scan lie: evenly spaced depths along evenly spaced beams.

    Parameters
    ----------
    depths : (float, float)
        First and last, in m from the probe's surface.
    angles : (float, float)
        First and last beam in radians, from z towards x.
    radius : float
        Of a curved probe in m; 0: all beams come from one point.
    """

    depths: tuple[float, float]
    angles: tuple[float, float]
    radius: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.depths[0] < self.depths[1] < math.inf and 0 <= self.radius < math.inf):
            raise InputError(
                f"depths {self.depths} m and a radius of {self.radius} m", remedy="Near before far, from 0."
            )
        if not -math.pi / 2 <= self.angles[0] < self.angles[1] <= math.pi / 2:
            raise InputError(f"beams from {self.angles[0]} to {self.angles[1]}", remedy="Radians, from left to right.")

    def extent(self) -> tuple[float, float, float, float]:
        """Least and largest x, least and largest z in m that the sector reaches."""
        angles = np.linspace(*self.angles, 181)
        near, far = (depth + self.radius for depth in self.depths)
        x = far * np.sin(angles)
        z = np.concatenate([near * np.cos(angles), far * np.cos(angles)]) - self.radius
        return float(x.min()), float(x.max()), float(z.min()), float(z.max())


def scan_convert(
    samples: torch.Tensor, sector: Sector, x: Sequence[float], z: Sequence[float], *, fill: float = 0.0
) -> torch.Tensor:
    """Pixels between the samples of a sector, bilinearly.

    Parameters
    ----------
    samples : Tensor (..., depths, beams)
        Real: the envelope or decibels, not RF, whose phase does not interpolate.
    sector : Sector
    x, z : sequence of float
        Columns and rows of the picture in m, x along the probe, z away from it.
    fill : float
        Outside the sector.

    Returns
    -------
    Tensor (..., len(z), len(x))
    """
    across, down = torch.meshgrid(_line(x, samples), _line(z, samples), indexing="xy")
    depth = torch.hypot(across, down + sector.radius) - sector.radius
    angle = torch.atan2(across, down + sector.radius)
    return _sampled(samples, _share(angle, sector.angles), _share(depth, sector.depths), fill)


def to_beams(
    image: torch.Tensor, sector: Sector, x: tuple[float, float], z: tuple[float, float], shape: tuple[int, int]
) -> torch.Tensor:
    """The way back: (..., H, W) whose columns span ``x`` and rows ``z`` in m to (..., depths, beams) of ``shape``."""
    depth, angle = torch.meshgrid(
        torch.linspace(*sector.depths, shape[0], dtype=torch.float64, device=image.device),
        torch.linspace(*sector.angles, shape[1], dtype=torch.float64, device=image.device),
        indexing="ij",
    )
    across = (depth + sector.radius) * torch.sin(angle)
    down = (depth + sector.radius) * torch.cos(angle) - sector.radius
    return _sampled(image, _share(across, x), _share(down, z), 0.0)


def _line(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values, dtype=np.float64), device=like.device)


def _share(values: torch.Tensor, ends: tuple[float, float]) -> torch.Tensor:
    """-1 at the first sample, 1 at the last."""
    return 2 * (values - ends[0]) / (ends[1] - ends[0]) - 1


def _sampled(image: torch.Tensor, columns: torch.Tensor, rows: torch.Tensor, fill: float) -> torch.Tensor:
    """``image`` (..., H, W) at places given from -1 to 1; ``fill`` beyond."""
    if image.is_complex() or not image.is_floating_point():
        raise InputError(f"samples of {image.dtype}", remedy="Convert the envelope or decibels, as floats.")
    if image.ndim < 2 or min(image.shape[-2:]) < 2:
        raise InputError(f"samples of shape {tuple(image.shape)}", remedy="At least 2 x 2 are needed.")
    flat = image.reshape(-1, 1, *image.shape[-2:])
    grid = torch.stack([columns, rows], -1).to(flat.dtype).expand(len(flat), -1, -1, -1)
    found = functional.grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=True)[:, 0]
    tolerance = 1e-6
    inside = (columns.abs() <= 1 + tolerance) & (rows.abs() <= 1 + tolerance)
    return torch.where(inside, found, fill).reshape(*image.shape[:-2], *columns.shape)
