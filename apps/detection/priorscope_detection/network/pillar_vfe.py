"""What a pillar's points say together: PointPillars' feature network, and its map.

The published network sees every pillar with as many rows as it may have, zeros where points are absent; these rows take
part in batch normalisation, ReLU and the maximum. Here only the points are computed, and one row of zeros for every
pillar that has absent ones, with their number as its weight: the same values in less memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from priorscope.errors import InputError
from priorscope_detection.pillars import Pillars


class WeightedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of rows (K, C) that stand for ``weight`` (K,) rows each."""

    def forward(self, rows: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        """(K, C). Without weights, and in evaluation mode, it is ``BatchNorm1d``."""
        if weight is None or not self.training:
            return super().forward(rows)
        # sums over all points, in full precision also under autocast
        rows = rows if rows.dtype == torch.float64 else rows.float()
        weight = weight.to(rows.dtype)
        total = weight.sum()
        mean = (weight[:, None] * rows).sum(0) / total
        variance = (weight[:, None] * (rows - mean).square()).sum(0) / total
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            momentum = self.momentum if self.momentum is not None else 0.1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            unbiased = variance * (total / (total - 1).clamp(min=1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (rows - mean) * scale + self.bias


class PFNLayer(nn.Module):
    """Linear, batch norm (eps 1e-3), ReLU, maximum over the pillar; all but the last layer hand on both."""

    def __init__(self, inside: int, outside: int, *, use_norm: bool = True, last: bool = True) -> None:
        super().__init__()
        self.last = last
        width = outside if last else outside // 2
        self.linear = nn.Linear(inside, width, bias=not use_norm)
        self.norm = WeightedBatchNorm(width, eps=1e-3, momentum=0.01) if use_norm else None

    def forward(self, rows: torch.Tensor, pillar: torch.Tensor, weight: torch.Tensor, pillars: int) -> torch.Tensor:
        """Rows (K, inside) of their pillars (K,); (P, outside) from the last layer, else (K, outside)."""
        rows = self.linear(rows)
        if self.norm is not None:
            rows = self.norm(rows, weight)
        rows = functional.relu(rows)
        # ReLU leaves nothing below 0, so a pillar may start from 0
        top = rows.new_zeros(pillars, rows.shape[1]).scatter_reduce(
            0, pillar[:, None].expand_as(rows), rows, "amax", include_self=False
        )
        return top if self.last else torch.cat([rows, top[pillar]], 1)


class PillarVFE(nn.Module):
    """Pillars to features.

    Parameters
    ----------
    filters : sequence of int
        Width of each layer.
    point_width : int
        Columns of a point: x, y, z and more, such as the intensity.
    use_norm, use_absolute_xyz, with_distance : bool
        The published options: batch norm; x, y, z themselves among the inputs; the distance from the sensor too.

    Notes
    -----
    Inputs of a point: x, y, z, the rest; offset from the mean of its pillar (3); offset from the cell's centre (3);
    its distance if asked for. Source: Lang et al. 2019 (PointPillars); keys as CoAlign's ``pillar_vfe``.
    """

    def __init__(
        self,
        filters: Sequence[int] = (64,),
        *,
        point_width: int = 4,
        use_norm: bool = True,
        use_absolute_xyz: bool = True,
        with_distance: bool = False,
    ) -> None:
        super().__init__()
        self.use_absolute_xyz = use_absolute_xyz
        self.with_distance = with_distance
        self.point_width = point_width
        self.width = filters[-1]
        widths = [point_width + (6 if use_absolute_xyz else 3) + with_distance, *filters]
        self.pfn_layers = nn.ModuleList(
            PFNLayer(inside, outside, use_norm=use_norm, last=number == len(filters) - 1)
            for number, (inside, outside) in enumerate(pairwise(widths))
        )

    def forward(self, pillars: Pillars) -> torch.Tensor:
        """Features (P, filters[-1])."""
        count = len(pillars)
        if pillars.points.shape[1] != self.point_width:
            raise InputError(
                f"points of {pillars.points.shape[1]} numbers for a network that takes {self.point_width}",
                remedy="Give x, y, z in metres and the intensity.",
            )
        if not count:
            return pillars.points.new_zeros(0, self.width)
        rows = self.inputs(pillars)
        absent = pillars.max_points - pillars.counts
        short = (absent > 0).nonzero().flatten()
        rows = torch.cat([rows, rows.new_zeros(len(short), rows.shape[1])])
        pillar = torch.cat([pillars.pillar, short])
        weight = torch.cat([rows.new_ones(len(pillars.points)), absent[short].to(rows.dtype)])
        for layer in self.pfn_layers:
            rows = layer(rows, pillar, weight, count)
        return rows

    def inputs(self, pillars: Pillars) -> torch.Tensor:
        """What the first layer is given of every point, (K, 10) with the default options."""
        points, xyz = pillars.points, pillars.points[:, :3]
        total = xyz.new_zeros(len(pillars), 3).index_add_(0, pillars.pillar, xyz)
        mean = total / pillars.counts[:, None].to(xyz.dtype)
        cell = torch.tensor(pillars.grid.cell, dtype=xyz.dtype, device=xyz.device)
        # the centre of the cell at index 0 in Python's floats, as published
        first = [half / 2 + low for half, low in zip(pillars.grid.cell, pillars.grid.extent[:3], strict=True)]
        centre = pillars.coords[:, [3, 2, 1]].to(xyz.dtype) * cell + torch.tensor(
            first, dtype=xyz.dtype, device=xyz.device
        )
        parts = [points if self.use_absolute_xyz else points[:, 3:]]
        parts += [xyz - mean[pillars.pillar], xyz - centre[pillars.pillar]]
        if self.with_distance:
            parts.append(xyz.norm(dim=1, keepdim=True))
        return torch.cat(parts, 1)


def scatter_to_map(features: torch.Tensor, pillars: Pillars) -> torch.Tensor:
    """Features (P, C) of pillars at their cells of maps (clouds, C, H, W), zeros elsewhere."""
    nx, ny, nz = pillars.grid.size
    if nz != 1:
        raise InputError(f"{nz} cells along z", remedy="Pillars reach from the bottom of the range to its top.")
    flat = features.new_zeros(pillars.clouds * ny * nx, features.shape[1])
    cloud, _, y, x = pillars.coords.unbind(1)
    flat = flat.index_copy(0, (cloud * ny + y) * nx + x, features)
    return flat.view(pillars.clouds, ny, nx, -1).permute(0, 3, 1, 2).contiguous()
