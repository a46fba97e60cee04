"""Early fusion: all agents' points as one cloud in the ego vehicle's frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from priorscope.errors import InputError


def to_ego_frame(points: torch.Tensor, to_ego: torch.Tensor) -> torch.Tensor:
    """Points (N, 3 + ...) of an agent in the ego's frame by its pose (4, 4), in the type of the points."""
    if to_ego.shape != (4, 4):
        raise InputError(f"a pose of shape {tuple(to_ego.shape)}", remedy="Give a 4 x 4 matrix, agent to ego.")
    pose = to_ego.to(points.device, torch.float64)
    xyz = points[:, :3].double() @ pose[:3, :3].T + pose[:3, 3]
    return torch.cat([xyz.to(points.dtype), points[:, 3:]], 1)


def merge_points(clouds: Sequence[torch.Tensor], to_ego: torch.Tensor) -> torch.Tensor:
    """All clouds of a frame as one (sum N, D), the ego's first.

    Parameters
    ----------
    clouds : sequence of Tensor (N_i, D)
    to_ego : Tensor (L, 4, 4)
        Agent to ego.
    """
    if len(clouds) != len(to_ego):
        raise InputError(f"{len(to_ego)} poses for {len(clouds)} clouds", remedy="Leave out agents without a pose.")
    return torch.cat([to_ego_frame(points, pose) for points, pose in zip(clouds, to_ego, strict=True)])
