"""``priorscope robotics rollout``: one episode, filmed."""

from __future__ import annotations

import numpy as np

from priorscope.data.files import atomic_path, refuse_overwrite
from priorscope.errors import InputError
from priorscope_robotics.checkpoints.load import load_policy
from priorscope_robotics.configs import RolloutConfig
from priorscope_robotics.envs.environment import check_seeds, make_environment
from priorscope_robotics.film import write_film
from priorscope_robotics.filmed import film_episode
from priorscope_robotics.latency import summarise
from priorscope_robotics.policies.named import make_policy


def rollout(config: RolloutConfig) -> int:
    """Run one episode and write it; returns the exit status."""
    if config.out.suffix not in (".mp4", ".gif", ".npz"):
        raise InputError(f"--out {config.out}", remedy="Give a file that ends in .mp4, .gif or .npz.")
    check_seeds(config.episode)
    if config.max_steps < 0:
        raise InputError(f"--max-steps {config.max_steps}", remedy="Use 0 or more.")
    if not config.overwrite:
        refuse_overwrite(config.out, remedy="Use --overwrite or another --out.")
    model = load_policy(config.model, device=config.device)
    env = make_environment(config.environment, [entry.name for entry in model.spec.observations])
    env.max_steps = config.max_steps or env.max_steps
    policy = make_policy(model, config.policy, n_action_steps=config.n_action_steps or None)
    filmed = film_episode(env, policy, config.episode, noise_seed=config.seed, drawn=config.out.suffix != ".npz")
    result, times = filmed.result, filmed.times
    if not times:
        raise InputError(f"the episode {config.episode} of {env.name} cannot begin: {result.failure}")
    if config.out.suffix == ".npz":
        # what the last plan had left when the episode ended was not done; a step that failed was
        actions = np.concatenate(filmed.actions)[: result.steps + bool(result.failure)]
        with atomic_path(config.out, overwrite=config.overwrite) as temporary, open(temporary, "wb") as file:
            np.savez(file, actions=actions, score=result.score, success=result.success)
    else:
        write_film(config.out, filmed.pictures, env.fps, overwrite=config.overwrite)
    found = summarise(times[1:]) or summarise(times)
    if result.failure:
        print(f"the episode failed: {result.failure}")
    print(
        f"{config.policy} in {env.name}, seed {config.episode}: {'success' if result.success else 'no success'}, score "
        f"{result.score:.3f}, {result.steps} steps, {result.calls} network calls, {found['p50_ms']:.1f} ms a call "
        f"(median): {config.out}"
    )
    env.close()
    return 0
