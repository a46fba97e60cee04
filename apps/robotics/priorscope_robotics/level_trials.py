"""The level where ``rti:auto`` begins, from episodes of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from priorscope.errors import InputError
from priorscope_robotics.envs.environment import Environment
from priorscope_robotics.episodes_run import run_episodes
from priorscope_robotics.model import PolicyModel
from priorscope_robotics.policies.full import FullPolicy
from priorscope_robotics.policies.policy import Output
from priorscope_robotics.policies.start_level import propose_start

#: Seeds of the episodes from which ``rti:auto`` learns its level: none of those that are evaluated.
_TRIAL_SEEDS = range(7_000_000, 7_000_004)
_TRIAL_CALLS = 12


def level_from_trials(
    model: PolicyModel, environments: Sequence[Environment], n_action_steps: int | None
) -> Callable[[], int]:
    """What finds the level where a warm start begins, when it is called: from a few plans of full runs.

    Parameters
    ----------
    model : PolicyModel
    environments : sequence of Environment
        They are reset.
    n_action_steps : int, optional
        Steps of a plan that are executed; the model's own by default.
    """

    def level() -> int:
        plans: list[torch.Tensor] = []
        steps = min(20, model.spec.diffusion.steps)
        policy = FullPolicy(model, solver="ddim", steps=steps, n_action_steps=n_action_steps)
        seeds = list(_TRIAL_SEEDS)[: len(environments)]

        def keep(output: Output, _: Any) -> None:
            plans.append(output.trajectory[..., : model.spec.action_dim].cpu())
            if len(plans) == _TRIAL_CALLS:
                raise _Enough

        try:
            for _ in run_episodes(environments[: len(seeds)], policy, seeds, on_output=keep):
                break  # plans of an ended episode and of the next must not be compared
        except _Enough:
            pass
        if len(plans) < 2:
            raise InputError(
                f"rti:auto needs an episode of two plans or more in {environments[0].name}",
                remedy="Name the levels (rti:20,10,0), or execute fewer actions of a plan (:do=1).",
            )
        found = propose_start(torch.stack(plans), model.schedule(), shift=policy.n_action_steps)
        print(
            f"rti:auto starts at level {found.published_level}, by the paper's rule (shifted plans typically err by "
            f"{found.error:.3g} in normalised units, which noise of level {found.level} would hide)"
        )
        return found.published_level

    return level


class _Enough(Exception):
    pass
