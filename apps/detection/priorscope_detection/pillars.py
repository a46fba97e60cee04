"""Points into pillars: which cell each point falls in, by sorting, without a Python loop over cells.

Bird's-eye-view maps are (C, H, W) with H along y and W along x, both growing with the coordinate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from priorscope.errors import InputError

#: Points looked at in one go; bounds the memory that does not depend on what is kept.
CHUNK = 1 << 17
#: More cells than this are taken for a mistake (the table of cells has 8 bytes a cell).
MAX_CELLS = 1 << 26


@dataclass(frozen=True)
class PillarGrid:
    """The cells of a LiDAR's surroundings.

    Parameters
    ----------
    extent : tuple of float
        x, y, z of the lower and of the upper corner, in metres, in the frame of the agent.
    cell : tuple of float
        Length of a cell along x, y, z, in metres. Pillars have a single cell along z.
    """

    extent: tuple[float, float, float, float, float, float]
    cell: tuple[float, float, float]

    def __post_init__(self) -> None:
        extent, cell = tuple(float(v) for v in self.extent), tuple(float(v) for v in self.cell)
        if len(extent) != 6 or len(cell) != 3 or not all(map(math.isfinite, extent + cell)):
            raise InputError(f"a range of {extent} in cells of {cell}", remedy="Give 6 and 3 numbers, in metres.")
        object.__setattr__(self, "extent", extent)
        object.__setattr__(self, "cell", cell)
        for axis, name in enumerate("xyz"):
            low, high, size = extent[axis], extent[axis + 3], cell[axis]
            if not (size > 0 and high > low):
                raise InputError(f"a range from {low} to {high} m along {name} in cells of {size} m")
            count = (high - low) / size
            if abs(count - round(count)) > 1e-3 or round(count) < 1:
                raise InputError(
                    f"the range from {low} to {high} m along {name} is {count:.3f} cells of {size} m",
                    remedy=f"End it at {low + max(round(count), 1) * size:.6g} m.",
                )
        if math.prod(self.size) > MAX_CELLS:
            raise InputError(f"{self.size} cells along x, y, z", remedy="Use a smaller range or larger cells.")

    @property
    def size(self) -> tuple[int, int, int]:
        """Number of cells along x, y, z."""
        counts = [(self.extent[axis + 3] - self.extent[axis]) / self.cell[axis] for axis in range(3)]
        return round(counts[0]), round(counts[1]), round(counts[2])

    def check_stride(self, stride: int) -> PillarGrid:
        """Refuse a range whose map cannot be divided by ``stride`` (InputError)."""
        for axis, name in enumerate("xy"):
            cells = self.size[axis]
            if cells % stride:
                low, step = self.extent[axis], self.cell[axis] * stride
                more = math.ceil(cells / stride)
                raise InputError(
                    f"{cells} cells along {name} are not divisible by the network's stride of {stride}",
                    remedy=f"End the range at {low + more * step:.6g} m instead of {self.extent[axis + 3]:.6g} m.",
                )
        return self


@dataclass(frozen=True)
class Pillars:
    """Points that were kept, side by side pillar by pillar.

    Attributes
    ----------
    points : Tensor (K, D)
        x, y, z, intensity, and whatever else a point carries. Sorted by pillar, as the points came within one.
    pillar : int64 Tensor (K,)
        Row of ``coords`` that each point belongs to.
    coords : int64 Tensor (P, 4)
        Cloud, z, y and x index of each pillar.
    counts : int64 Tensor (P,)
        Points of each pillar, at least 1.
    grid : PillarGrid
    max_points : int
        Rows a pillar has in the published layout, where absent points are zeros.
    clouds : int
        Number of clouds (agents), also of those without any point.
    """

    points: torch.Tensor
    pillar: torch.Tensor
    coords: torch.Tensor
    counts: torch.Tensor
    grid: PillarGrid
    max_points: int
    clouds: int = 1

    def __len__(self) -> int:
        return len(self.coords)

    def to(self, device: torch.device | str) -> Pillars:
        """The same on another device."""
        return replace(
            self,
            points=self.points.to(device),
            pillar=self.pillar.to(device),
            coords=self.coords.to(device),
            counts=self.counts.to(device),
        )

    def padded(self) -> torch.Tensor:
        """The published layout (P, max_points, D): pillars with zeros where points are absent."""
        first = self.counts.cumsum(0) - self.counts
        place = torch.arange(len(self.points), device=self.points.device) - first[self.pillar]
        out = self.points.new_zeros(len(self), self.max_points, self.points.shape[1])
        out[self.pillar, place] = self.points
        return out


def group_points(
    points: torch.Tensor,
    grid: PillarGrid,
    *,
    max_points: int = 32,
    max_pillars: int = 70_000,
    chunk: int = CHUNK,
) -> Pillars:
    """Group a cloud by the cells of a grid.

    Parameters
    ----------
    points : Tensor (N, D), floating point
        x, y, z in metres, then any more. Points that are not finite, and those outside the range (its upper end
        included), are left out. N may be 0.
    grid : PillarGrid
    max_points : int
        Points kept of a pillar: the first ones.
    max_pillars : int
        Pillars kept: those whose first point comes first.
    chunk : int
        Points looked at in one go. Besides the cloud itself memory is some 200 bytes a point of a chunk, 8 bytes a cell
        of the grid and what is kept, at most ``max_pillars * max_points`` points.

    Returns
    -------
    Pillars
        Of one cloud; pillars in the order of their first points.

    Raises
    ------
    InputError
        Not a table of at least three columns of floating point, or limits below 1.

    Notes
    -----
    The order, and what is left out, are those of spconv's ``Point2VoxelCPU3d``, which CoAlign and OpenCOOD use; cells
    are computed in float32 as there.
    """
    if points.ndim != 2 or points.shape[1] < 3 or not points.is_floating_point():
        raise InputError(
            f"a cloud of shape {tuple(points.shape)} and type {points.dtype}",
            remedy="Give (N, 4) numbers of floating point: x, y, z in metres, intensity.",
        )
    if max_points < 1 or max_pillars < 1 or chunk < 1:
        raise InputError(
            f"at most {max_points} points in at most {max_pillars} pillars, {chunk} at a time", remedy="Use 1 or more."
        )
    device = points.device
    nx, ny, nz = grid.size
    row_of_cell = torch.full((nx * ny * nz,), -1, dtype=torch.int32, device=device)
    seen = torch.zeros(nx * ny * nz, dtype=torch.int32, device=device)  # points of a cell in the chunks before
    cells: list[torch.Tensor] = []
    kept: list[torch.Tensor] = []
    rows: list[torch.Tensor] = []
    pillars = 0
    for part in points.split(chunk):
        part, cell = _inside(part, grid)
        if not len(part):
            continue
        order = torch.sort(cell, stable=True).indices
        by_cell = cell[order]
        begins = torch.ones_like(by_cell, dtype=torch.bool)
        begins[1:] = by_cell[1:] != by_cell[:-1]
        starts = begins.nonzero().flatten()
        run = begins.cumsum(0) - 1  # which of the cells in this chunk
        cell_of_run = by_cell[starts].long()
        # cells that are new become rows in the order of their first points
        new = (row_of_cell[cell_of_run] < 0).nonzero().flatten()
        new = new[torch.sort(order[starts[new]]).indices][: max_pillars - pillars]
        row_of_cell[cell_of_run[new]] = torch.arange(pillars, pillars + len(new), dtype=torch.int32, device=device)
        cells.append(cell_of_run[new])
        pillars += len(new)
        place = torch.arange(len(by_cell), device=device) - starts[run] + seen[cell_of_run][run]
        row = row_of_cell[cell_of_run][run]
        keep = (row >= 0) & (place < max_points)
        kept.append(part[order[keep]])
        rows.append(row[keep])
        lengths = torch.diff(starts, append=starts.new_tensor([len(by_cell)]))
        # a cell never needs to count further than to max_points
        seen[cell_of_run] = (seen[cell_of_run] + lengths.int()).clamp_(max=max_points)
    if not cells:
        empty = torch.zeros(0, dtype=torch.int64, device=device)
        return Pillars(points[:0], empty, empty.new_zeros(0, 4), empty, grid, max_points)
    row = torch.cat(rows)
    row, order = torch.sort(row, stable=True)
    cell = torch.cat(cells)
    coords = torch.stack([torch.zeros_like(cell), cell // (nx * ny), cell // nx % ny, cell % nx], 1)
    row = row.long()
    return Pillars(torch.cat(kept)[order], row, coords, torch.bincount(row, minlength=pillars), grid, max_points)


def _inside(points: torch.Tensor, grid: PillarGrid) -> tuple[torch.Tensor, torch.Tensor]:
    """Points within the range, and the number of each one's cell (x fastest), int32."""
    low = torch.tensor(grid.extent[:3], dtype=torch.float32, device=points.device)
    cell = torch.tensor(grid.cell, dtype=torch.float32, device=points.device)
    size = torch.tensor(grid.size, dtype=torch.float32, device=points.device)
    place = torch.floor((points[:, :3].float() - low) / cell)
    inside = ((place >= 0) & (place < size)).all(1) & torch.isfinite(points).all(1)  # NaN is never inside
    points, place = points[inside], place[inside].int()
    nx, ny, _ = grid.size
    return points, place[:, 0] + nx * (place[:, 1] + ny * place[:, 2])


def collate_pillars(parts: Sequence[Pillars]) -> Pillars:
    """Pillars of several clouds as one: cloud and row numbers go on from one to the next.

    Raises
    ------
    InputError
        No cloud, or clouds on different grids.
    """
    if not parts:
        raise InputError("no cloud", remedy="Give at least the ego vehicle's.")
    grid, max_points = parts[0].grid, parts[0].max_points
    if any(part.grid != grid or part.max_points != max_points for part in parts):
        raise InputError("clouds on different grids cannot be one batch")
    rows, clouds = 0, 0
    pillar, coords = [], []
    for part in parts:
        pillar.append(part.pillar + rows)
        coords.append(part.coords + part.coords.new_tensor([clouds, 0, 0, 0]))
        rows += len(part)
        clouds += part.clouds
    return Pillars(
        torch.cat([part.points for part in parts]),
        torch.cat(pillar),
        torch.cat(coords),
        torch.cat([part.counts for part in parts]),
        grid,
        max_points,
        clouds,
    )
