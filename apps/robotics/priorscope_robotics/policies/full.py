"""Policies that denoise every plan from pure noise: DDPM with all steps, DDIM with some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from priorscope.diffusion.noise import Noise, required
from priorscope.diffusion.spacing import spaced_times
from priorscope_robotics.model import Given, PolicyModel
from priorscope_robotics.policies.denoise import ScheduleName, Solver, denoise, schedule_named, solver_named
from priorscope_robotics.policies.policy import Policy, PolicyState


class FullPolicy(Policy):
    """From pure noise to a plan, at every call.

    Parameters
    ----------
    model : PolicyModel
    solver : {"ddpm", "ddim", "ddpm-published"}
        See :func:`~priorscope_robotics.policies.denoise.solver_named`.
    steps : int or sequence of int, optional
        Network calls, or the levels themselves; all levels by default.
    spacing : {"leading", "trailing"}
        Of fewer steps than there are levels. "leading" is diffusers' default, and Diffusion Policy's: its first level
        is not the noisiest.
    schedule : {"checkpoint", "linear-as-released"}
        See :func:`~priorscope_robotics.policies.denoise.schedule_named`.
    """

    def __init__(
        self,
        model: PolicyModel,
        *,
        solver: Solver = "ddpm",
        steps: int | Sequence[float] | None = None,
        spacing: Literal["leading", "trailing"] = "leading",
        schedule: ScheduleName = "checkpoint",
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.step = solver_named(model, solver, schedule)
        found = schedule_named(model, schedule)
        self.denoiser = model.denoiser(found)
        self.levels = spaced_times(found, found.num_steps if steps is None else steps, spacing)[:-1]

    def plan(
        self, given: Given, normalized: Mapping[str, torch.Tensor], state: PolicyState, noise: Noise | None
    ) -> tuple[torch.Tensor, list[int]]:
        state.fresh[:] = False
        return self.from_noise(given, state.count, noise), [len(self.levels)] * state.count

    def from_noise(self, given: Given, batch: int, noise: Noise | None) -> torch.Tensor:
        """Trajectories (B, T, D)."""
        x = required(noise).like(self.blank(batch))
        return denoise(self.model, self.denoiser, given, x, self.levels, step=self.step, noise=noise)
