"""A one-step student: a network that says at once where the teacher's path from noise ends.

Source: Song et al. 2023, "Consistency models" (distillation); for policies Prasad et al. 2024, "Consistency policy".
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from priorscope.diffusion.noise import Noise, required
from priorscope.errors import InputError
from priorscope_robotics.model import Given, PolicyModel
from priorscope_robotics.policies.policy import Policy, PolicyState


def consistent(
    model: PolicyModel, given: Given, x: torch.Tensor, t: torch.Tensor, *, spread: float = 0.5
) -> torch.Tensor:
    """The student's clean plan for ``x`` at levels ``t`` (B,): ``c_skip x + c_out network``, exactly x at level -1.

    With s = sigma / alpha, c_skip = d^2 / (s^2 + d^2) / alpha and c_out = s d / sqrt(s^2 + d^2) for data of deviation d
    (``spread``): those of Karras et al. 2022 in the coordinate x / alpha. Written so that nothing is divided by an
    alpha that is nearly 0.
    """
    schedule = model.schedule()
    alpha, sigma = schedule.coefficients(t, x)
    d2 = spread**2
    skip = d2 * alpha / (sigma**2 + d2 * alpha**2)
    out = sigma * spread / (sigma**2 + d2 * alpha**2).sqrt()
    told = t.clamp(min=0).to(x.device)
    output = model.network(x, told, **given.condition.expand(len(x)))
    plan = given.known(skip * x + out * output)
    limit = model.spec.diffusion.clip
    return plan.clamp(-limit, limit) if limit else plan


def consistency_loss(
    student: PolicyModel,
    target: PolicyModel,
    teacher: PolicyModel,
    given: Given,
    x0: torch.Tensor,
    eps: torch.Tensor,
    t: torch.Tensor,
    *,
    stride: int = 1,
) -> torch.Tensor:
    """The student at a level against its average one step of the teacher's DDIM path further down.

    Parameters
    ----------
    student, target, teacher : PolicyModel
        What is trained, its running average, and the policy that is distilled.
    given : Given
    x0, eps : Tensor (B, T, D)
        Clean plans and noise.
    t : Tensor (B,)
        Levels of the schedule, from 0 on.
    stride : int
        Levels of a teacher's step; it ends at the clean level.

    Returns
    -------
    Tensor ()
        Mean squared difference; known entries count for nothing.
    """
    denoiser = teacher.denoiser()
    schedule = denoiser.schedule
    x = given.known(schedule.add_noise(x0, t, eps))
    s = (t - stride).clamp(min=-1)
    with torch.no_grad():
        prediction = denoiser(x, t, given.condition)
        limit = teacher.spec.diffusion.clip
        alpha, sigma = schedule.coefficients(t, x)
        clean = prediction.x0.clamp(-limit, limit) if limit else prediction.x0
        noise = (x - alpha * clean) / sigma
        next_alpha, next_sigma = schedule.coefficients(s, x)
        lower = given.known(next_alpha * clean + next_sigma * noise)
        goal = consistent(target, given, lower, s)
    error = (consistent(student, given, x, t) - goal).square()
    return (error if given.mask is None else torch.where(given.mask, 0.0, error)).mean()


def student_of(teacher: PolicyModel) -> PolicyModel:
    """A student that starts from the teacher's weights; its last layer starts at 0."""
    student = copy.deepcopy(teacher).train().requires_grad_(True)
    network: Any = student.network
    last = network.final_conv[-1] if hasattr(network, "final_conv") else network.head
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return student


class ConsistencyPolicy(Policy):
    """One network call a plan, or one and ``chain`` more with noise in between.

    Parameters
    ----------
    model : PolicyModel
        A student.
    chain : int
        Levels between which noise is added again: 0 for one step.
    """

    def __init__(self, model: PolicyModel, *, chain: int = 0, **options: Any) -> None:
        super().__init__(model, **options)
        self.schedule = model.schedule()
        if not 0 <= chain < self.schedule.num_steps:
            raise InputError(f"a chain of {chain} steps")
        top = self.schedule.num_steps - 1
        self.levels = [round(top * (1 - part / (chain + 1))) for part in range(chain + 1)]

    def plan(
        self, given: Given, normalized: Mapping[str, torch.Tensor], state: PolicyState, noise: Noise | None
    ) -> tuple[torch.Tensor, list[int]]:
        x = self.blank(state.count)
        plan = x
        for level in self.levels:
            t = torch.full((state.count,), level)
            drawn = required(noise).like(x)
            x = given.known(drawn if level == self.levels[0] else self.schedule.add_noise(plan, t, drawn))
            plan = consistent(self.model, given, x, t)
        state.fresh[:] = False
        return plan, [len(self.levels)] * state.count
