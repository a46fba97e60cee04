"""Training on a network's own runs: where each item of a batch stands at one call of a run of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Model
from priorscope.errors import InputError


@torch.no_grad()
def runs_at_calls(
    model: Model,
    x: torch.Tensor,
    times: Sequence[Sequence[float]],
    calls: Sequence[int],
    condition: Condition | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Carry each item through a deterministic run (DDIM) of its own, up to what the network is given at one call.

    A loss at noised data shows the network the truth under noise; in a run it meets what its own earlier calls made. A
    network that has learned to trust x carries their errors on, and more steps make it worse. Trained at the states
    that this gives, it learns to put them right (ours; the idea is that of "scheduled sampling", Bengio et al. 2015).

    Parameters
    ----------
    model : Model
        The denoiser; it is asked without gradient, and only for the items that have not arrived.
    x : Tensor of shape (B, ...)
        Each at the first level of its run.
    times : sequence of B sequences of float
        The levels of each item's run (:func:`~priorscope.diffusion.spaced_times`).
    calls : sequence of B int
        Which call of its run each item is carried to; 0 is the first.
    condition : Condition, optional

    Returns
    -------
    x : Tensor of shape (B, ...)
    t : Tensor of shape (B,)
        The levels there, float32.

    Raises
    ------
    InputError
        Numbers of items that differ, a call that a run does not have.
    """
    if not len(x) == len(times) == len(calls):
        raise InputError(f"{len(times)} runs and {len(calls)} calls for {len(x)} items")
    for levels, call in zip(times, calls, strict=True):
        if not 0 <= call < len(levels) - 1:
            raise InputError(f"call {call} of a run of {len(levels) - 1} steps", remedy="The first call is 0.")
    x = x.detach().clone()

    def levels_of(rows: Sequence[int], places: Sequence[int]) -> torch.Tensor:
        return torch.tensor([times[row][place] for row, place in zip(rows, places, strict=True)]).to(x.device)

    for number in range(max(calls, default=0)):
        left = [row for row, call in enumerate(calls) if call > number]
        rows = torch.tensor(left, device=x.device)
        told = None if condition is None else condition.select(rows)
        x0, eps = model(x[rows], levels_of(left, [number] * len(left)), told)
        alpha, sigma = model.schedule.coefficients(levels_of(left, [number + 1] * len(left)), x)
        x[rows] = (alpha * x0 + sigma * eps).to(x.dtype)
    # older versions of torch would reuse the weights that mixed precision cast here, which carry no gradient
    torch.clear_autocast_cache()
    return x, levels_of(range(len(calls)), calls)
