"""Maps of other agents in the ego vehicle's frame.

Cell (i, j) of a map (C, H, W) over a range from (x0, y0) has its centre at x0 + (j + 1/2) dx, y0 + (i + 1/2) dy. A
centre of the ego's cells is carried into the other agent's frame by the pose, and its map is read there (bilinear; zero
outside). Height is ignored, as published: what is carried are points of the plane z = 0, and only their x and y count.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from priorscope.errors import InputError

Extent = tuple[float, float, float, float, float, float]


def from_ego(to_ego: torch.Tensor) -> torch.Tensor:
    """The planar part (N, 2, 3) of the way from the ego's frame to each agent's, in metres.

    Parameters
    ----------
    to_ego : Tensor (N, 4, 4)
        Carries points of an agent's frame into the ego vehicle's.

    Raises
    ------
    InputError
        Another shape, or numbers that are not finite.
    """
    if to_ego.ndim != 3 or to_ego.shape[1:] != (4, 4):
        raise InputError(f"poses of shape {tuple(to_ego.shape)}", remedy="Give (N, 4, 4) matrices, agent to ego.")
    if not torch.isfinite(to_ego).all():
        raise InputError("an agent's pose is not finite", remedy="Leave out agents without a pose.")
    # of doubles: far from the origin of the world a pose in floats is off by centimetres
    back = torch.linalg.inv(to_ego.double())
    return back[:, :2][:, :, [0, 1, 3]]


def sampling_grid(planar: torch.Tensor, extent: Extent, height: int, width: int) -> torch.Tensor:
    """Where to read the agents' maps: (N, H, W, 2) in the coordinates of ``grid_sample`` (align_corners False)."""
    x0, y0, _, x1, y1, _ = extent
    device = planar.device
    x = x0 + (torch.arange(width, device=device, dtype=torch.float64) + 0.5) * ((x1 - x0) / width)
    y = y0 + (torch.arange(height, device=device, dtype=torch.float64) + 0.5) * ((y1 - y0) / height)
    # R (x, y) + t as outer sums: no table of all centres
    at = (
        planar[:, None, None, :, 0] * x[None, None, :, None]
        + planar[:, None, None, :, 1] * y[None, :, None, None]
        + planar[:, None, None, :, 2]
    )
    low = torch.tensor([x0, y0], dtype=torch.float64, device=device)
    size = torch.tensor([x1 - x0, y1 - y0], dtype=torch.float64, device=device)
    return (at - low) * (2 / size) - 1


def published_affine(to_ego: torch.Tensor, extent: Extent) -> torch.Tensor:
    """The matrix (N, 2, 3) of the published warp, for ``affine_grid``.

    It takes the sensor for the middle of the map. Where the range is symmetric about the sensor it says the same as
    :func:`sampling_grid`; elsewhere it does not. Source: CoAlign, ``normalize_pairwise_tfm``.
    """
    planar = from_ego(to_ego).clone()
    length, breadth = extent[3] - extent[0], extent[4] - extent[1]
    planar[:, 0, 1] *= breadth / length
    planar[:, 1, 0] *= length / breadth
    planar[:, 0, 2] *= 2 / length
    planar[:, 1, 2] *= 2 / breadth
    return planar


def warp_to_ego(
    features: torch.Tensor, to_ego: torch.Tensor, extent: Extent, *, published: bool = False
) -> torch.Tensor:
    """Maps (N, C, H, W) of agents over ``extent`` of their own frames, over that of the ego's.

    Parameters
    ----------
    features : Tensor (N, C, H, W)
    to_ego : Tensor (N, 4, 4)
    extent : tuple of float
        In metres, of both; ``(x0, y0, z0, x1, y1, z1)``.
    published : bool
        Read where the published code does, see :func:`published_affine`.
    """
    # places of half precision are off by cells
    wide = features if features.dtype == torch.float64 else features.float()
    grid = _grid(wide, to_ego, extent, published)
    warped = functional.grid_sample(wide, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return warped.to(features.dtype)


def coverage(to_ego: torch.Tensor, extent: Extent, height: int, width: int) -> torch.Tensor:
    """Which of the ego's cells (N, H, W) have their centre within each agent's map, bool."""
    grid = sampling_grid(from_ego(to_ego), extent, height, width)
    return (grid.abs() <= 1 + 1e-9).all(-1)


def _grid(features: torch.Tensor, to_ego: torch.Tensor, extent: Extent, published: bool) -> torch.Tensor:
    if len(features) != len(to_ego):
        raise InputError(f"{len(to_ego)} poses for the maps of {len(features)} agents")
    height, width = features.shape[2:]
    if published:
        matrix = published_affine(to_ego, extent).to(features.device, features.dtype)
        return functional.affine_grid(matrix, [len(features), 1, height, width], align_corners=False)
    planar = from_ego(to_ego).to(features.device)
    return sampling_grid(planar, extent, height, width).to(features.dtype)
