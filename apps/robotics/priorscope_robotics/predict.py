"""``priorscope robotics predict``: plans for recorded observations."""

from __future__ import annotations

import numpy as np
import torch

from priorscope.data.files import atomic_path, refuse_overwrite
from priorscope.errors import InputError
from priorscope_robotics.checkpoints.load import load_policy
from priorscope_robotics.configs import PredictConfig
from priorscope_robotics.data.open import open_episodes
from priorscope_robotics.policies.named import executed_actions, make_policy
from priorscope_robotics.policies.noise import EnvironmentNoise
from priorscope_robotics.training.start import check_data


def predict(config: PredictConfig) -> int:
    """Plan along an episode and write the plans; returns the exit status."""
    if not config.overwrite:
        refuse_overwrite(config.out, remedy="Use --overwrite or another --out.")
    model = load_policy(config.model, device=config.device)
    spec = model.spec
    episodes = open_episodes(config.data, [entry.name for entry in spec.observations])
    check_data(spec, episodes)
    if not 0 <= config.episode < len(episodes):
        raise InputError(f"--episode {config.episode}", remedy=f"There are {len(episodes)}, from 0 on.")
    # the recording moves on by one step a call, whatever the policy would do
    if executed_actions(config.policy) > 1:
        raise InputError(f"--policy {config.policy}", remedy="A recording moves on by one step a plan: leave :do= out.")
    if config.policy.startswith("streaming") and spec.n_action_steps > 1:
        raise InputError(
            f"a streaming policy that moves on by {spec.n_action_steps} steps cannot follow a recording step by step",
            remedy="Plan with ddpm, or try it with rollout.",
        )
    policy = make_policy(model, config.policy, n_action_steps=1)
    first, end = int(episodes.starts[config.episode]), int(episodes.ends[config.episode])
    state, noise = policy.start(1), EnvironmentNoise([config.seed])
    plans, calls = [], []
    for row in range(first, end):
        rows = np.clip(np.arange(row - spec.n_obs_steps + 1, row + 1), first, None)
        seen = {
            entry.name: torch.from_numpy(np.asarray(episodes.observations[entry.name])[rows])[None]
            for entry in spec.observations
        }
        out = policy.act(seen, state, noise)
        plans.append(out.plan[0].cpu().numpy())
        calls.append(out.calls[0])
    whole = np.stack(plans)
    planned, done = whole[:, spec.first_action], episodes.actions[first:end]
    with atomic_path(config.out, overwrite=config.overwrite) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, plans=whole, actions=planned, recorded=done, calls=np.array(calls))
    error = float(np.sqrt(np.mean((planned - done) ** 2)))
    print(
        f"{len(whole)} plans of {spec.horizon} steps, {sum(calls)} network calls; the first actions differ from the "
        f"recorded ones by {error:.4g} (root mean square, in the action's unit): {config.out}"
    )
    return 0
