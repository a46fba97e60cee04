"""Agents of several frames: side by side for the backbone, as padded sets for the fusion."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from priorscope.errors import InputError


def check_agents(agents: Sequence[int], total: int) -> tuple[int, ...]:
    """Numbers of agents of each frame (the ego first), that add up to ``total``."""
    found = tuple(int(number) for number in agents)
    if not found or min(found) < 1 or sum(found) != total:
        raise InputError(
            f"frames of {list(found)} agents for {total} maps", remedy="Every frame has at least its ego vehicle."
        )
    return found


def as_sets(rows: torch.Tensor, agents: Sequence[int]) -> torch.Tensor:
    """Rows (N, ...) of all agents as (B, L, ...): the ego at index 0, zeros after a frame's last agent."""
    most = max(agents)
    if all(number == most for number in agents):
        return rows.unflatten(0, (len(agents), most))
    out = rows.new_zeros(len(agents), most, *rows.shape[1:])
    frame, place = _places(agents, rows.device)
    return out.index_put((frame, place), rows)


def presence(agents: Sequence[int], device: torch.device | str = "cpu") -> torch.Tensor:
    """Which entries (B, L) of the sets are agents, bool."""
    counts = torch.tensor(agents, device=device)
    return torch.arange(max(agents), device=device)[None] < counts[:, None]


def ego_rows(agents: Sequence[int]) -> list[int]:
    """Row of each frame's ego vehicle."""
    rows, at = [], 0
    for number in agents:
        rows.append(at)
        at += number
    return rows


def _places(agents: Sequence[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    frame = torch.repeat_interleave(torch.arange(len(agents)), torch.tensor(agents))
    place = torch.arange(sum(agents)) - torch.tensor(ego_rows(agents))[frame]
    return frame.to(device), place.to(device)
