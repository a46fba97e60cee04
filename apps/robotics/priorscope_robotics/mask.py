"""Which entries of a trajectory are known: Diffusion Policy's mask for low-dimensional data."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def lowdim_mask(
    shape: Sequence[int],
    action_dim: int,
    obs_dim: int,
    n_obs_steps: int,
    *,
    fix_obs_steps: bool = True,
    action_visible: bool = False,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """True where a trajectory (B, T, action_dim + obs_dim), actions first, is known.

    Parameters
    ----------
    shape : (int, int, int)
    action_dim, obs_dim : int
        With ``obs_dim`` 0 nothing is known (the observations condition the network otherwise).
    n_obs_steps : int
        Observed steps, or the most of them.
    fix_obs_steps : bool
        Otherwise their number is drawn for each trajectory, from 1 to ``n_obs_steps``.
    action_visible : bool
        Actions are known up to one step before the last observation.

    Returns
    -------
    bool Tensor
    """
    batch, horizon, _ = shape
    if fix_obs_steps:
        steps = torch.full((batch,), n_obs_steps)
    else:
        steps = torch.randint(1, n_obs_steps + 1, (batch,), generator=generator)
    time = torch.arange(horizon)
    observed = time < steps[:, None]
    acted = time < (steps[:, None] - 1).clamp(min=0) if action_visible else torch.zeros_like(observed)
    return torch.cat([acted[..., None].expand(-1, -1, action_dim), observed[..., None].expand(-1, -1, obs_dim)], -1)
