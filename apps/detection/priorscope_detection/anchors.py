"""Anchors: the boxes that a detector starts from, one set at each cell of the feature map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import radians
from typing import Literal

import torch
from torch import Tensor

from priorscope.errors import InputError

Placement = Literal["cells", "published"]


def grid_size(limits: Sequence[float], cell: Sequence[float]) -> tuple[int, int]:
    """Cells of a bird's-eye-view grid.

    Parameters
    ----------
    limits : sequence of float
        x1, y1, z1, x2, y2, z2 of the range, in metres.
    cell : sequence of float
        Edges of a cell along x and y, in metres; more are ignored.

    Returns
    -------
    (int, int)
        H (along y) and W (along x).

    Raises
    ------
    InputError
        A range that is empty or not finite, or that the cells do not fill.
    """
    if len(limits) != 6 or not all(low < high for low, high in zip(limits[:3], limits[3:], strict=True)):
        raise InputError(f"range {list(limits)} is empty", remedy="Give x1, y1, z1, x2, y2, z2 with x1 < x2 and so on.")
    counts = []
    for axis, low, high, edge in zip("xy", limits[:2], limits[3:5], cell, strict=False):
        count = (high - low) / edge if edge > 0 else 0.0
        if not abs(count - round(count)) < 1e-3 or round(count) < 1:
            raise InputError(
                f"range {low:g} to {high:g} m along {axis} is {count:.4g} cells of {edge:g} m",
                remedy="Choose a range that is a whole number of cells.",
            )
        counts.append(round(count))
    return counts[1], counts[0]


@dataclass(frozen=True)
class AnchorGrid:
    """Where anchors are, and how large.

    Parameters
    ----------
    limits : tuple of float
        x1, y1, z1, x2, y2, z2 of the range, in metres.
    voxel : (float, float)
        Edges of a pillar along x and y, in metres.
    stride : int
        Pillars a cell of the feature map.
    size : (float, float, float)
        Length, width, height in metres; OPV2V's by default.
    yaws : tuple of float
        Degrees, one anchor each.
    z : float
        Of the anchors' centres, in metres.
    placement : {"cells", "published"}
        cells: at the centres of the feature map's cells. published: CoAlign's; the first and the last stand one pillar
        inside the range and the rest evenly between, so that those between are off the cells' centres where a cell is
        not two pillars; a row or column that the stride does not fill is dropped. What published checkpoints learnt.

    Raises
    ------
    InputError
        For a range that pillars do not fill or (placement "cells") that the stride does not divide, and sizes of 0.
    """

    limits: tuple[float, float, float, float, float, float]
    voxel: tuple[float, float]
    stride: int = 2
    size: tuple[float, float, float] = (3.9, 1.6, 1.56)
    yaws: tuple[float, ...] = (0.0, 90.0)
    z: float = -1.0
    placement: Placement = "cells"

    def __post_init__(self) -> None:
        height, width = grid_size(self.limits, self.voxel)
        if self.stride < 1:
            raise InputError(f"stride is {self.stride}", remedy="Give 1 or more.")
        if self.placement == "cells" and (height % self.stride or width % self.stride):
            raise InputError(
                f"range of {width} x {height} pillars is not divisible by the stride {self.stride}",
                remedy=f"Choose a range whose sides are multiples of {self.stride * self.voxel[0]:g} m (x) and "
                f"{self.stride * self.voxel[1]:g} m (y).",
            )
        if not all(0 < edge < float("inf") for edge in self.size) or not self.yaws:
            raise InputError(f"anchors have size {self.size} and yaws {self.yaws}", remedy="Give l, w, h above 0.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """H (along y), W (along x) and anchors a cell."""
        height, width = grid_size(self.limits, self.voxel)
        return height // self.stride, width // self.stride, len(self.yaws)

    def boxes(self) -> Tensor:
        """The anchors.

        Returns
        -------
        Tensor
            (H, W, A, 7) boxes, float64.
        """
        height, width, count = self.shape
        result = torch.empty(height, width, count, 7, dtype=torch.float64)
        result[..., 0] = self._centres(0, width)[None, :, None]
        result[..., 1] = self._centres(1, height)[:, None, None]
        result[..., 2] = self.z
        result[..., 3:6] = torch.tensor(self.size, dtype=torch.float64)
        result[..., 6] = torch.tensor([radians(yaw) for yaw in self.yaws], dtype=torch.float64)
        return result

    def _centres(self, axis: int, count: int) -> Tensor:
        low, high, edge = self.limits[axis], self.limits[axis + 3], self.voxel[axis]
        if self.placement == "published":
            return torch.linspace(low + edge, high - edge, count, dtype=torch.float64)
        return low + (torch.arange(count, dtype=torch.float64) + 0.5) * edge * self.stride
