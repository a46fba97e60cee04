"""Dimensions of an action that take few values: what goes out, and what the next run starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from priorscope_robotics.model import ACTION, PolicyModel
from priorscope_robotics.spec import DiscreteAction


def nearest_values(x: torch.Tensor, values: Sequence[float]) -> torch.Tensor:
    """Each number replaced by the nearest of ``values``; in the middle between two, the lower one."""
    table = torch.tensor(sorted(values), dtype=x.dtype, device=x.device)
    return table[torch.bucketize(x.contiguous(), (table[1:] + table[:-1]) / 2)]


def snap_actions(actions: torch.Tensor, dims: Sequence[DiscreteAction]) -> torch.Tensor:
    """Actions (..., action_dim) in the network's unit, with their discrete dimensions at one of the values."""
    if not dims:
        return actions
    actions = actions.clone()
    for dim in dims:
        actions[..., dim.index] = nearest_values(actions[..., dim.index] * dim.scale, dim.values)
    return actions


def snap_guess(model: PolicyModel, trajectory: torch.Tensor, dims: Sequence[DiscreteAction]) -> torch.Tensor:
    """A normalised trajectory as the next run's start: dimensions with a ``guess_scale`` get their value over it.

    Parameters
    ----------
    model : PolicyModel
        Its normaliser says what a value is for the network.
    trajectory : Tensor (B, T, D)
        Actions first.
    dims : sequence of DiscreteAction
    """
    dims = [dim for dim in dims if dim.guess_scale]
    if not dims:
        return trajectory
    size = model.spec.action_dim
    # a copy: where the normaliser changes nothing it gives back its input, which is part of the plan that goes out
    actions = model.normalizer.unnormalize(ACTION, trajectory[..., :size]).clone()
    for dim in dims:
        value = nearest_values(actions[..., dim.index] * dim.scale, dim.values)
        actions[..., dim.index] = value / dim.guess_scale
    snapped = model.normalizer.normalize(ACTION, actions)
    trajectory = trajectory.clone()
    for dim in dims:  # the index counts in the action, which is not all of the trajectory where this is inpainted
        trajectory[..., dim.index % size] = snapped[..., dim.index]
    return trajectory


def robomimic_grippers(action_dim: int, *, factor: float = 10.0, scaled: bool = False) -> tuple[DiscreteAction, ...]:
    """The grippers of robomimic's absolute actions (10 numbers an arm), as RTI-DP treats them.

    Parameters
    ----------
    action_dim : int
        10 or 20; others have none.
    factor : float
        With ``scaled`` what the training data were divided by, otherwise what the stored plan is.
    scaled : bool
        The network was trained on scaled data (RTI-DP-scale); otherwise the stored plan is clipped (RTI-DP-clip).
    """
    if action_dim not in (10, 20):
        return ()
    if scaled:
        return tuple(DiscreteAction(index, scale=factor) for index in range(9, action_dim, 10))
    return tuple(DiscreteAction(index, guess_scale=factor) for index in range(9, action_dim, 10))
