"""``priorscope robotics collect``: demonstrations of an expert, of which only successful ones are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import refuse_overwrite
from priorscope.errors import InputError
from priorscope_robotics.configs import CollectConfig
from priorscope_robotics.data.arrays import write_arrays
from priorscope_robotics.data.episodes import Episodes
from priorscope_robotics.data.pusht_zarr import PushTRecorder
from priorscope_robotics.envs.environment import check_seeds


@dataclass
class _Try:
    seed: int
    success: bool
    rows: dict[str, NDArray[Any]]


def collect(config: CollectConfig) -> int:
    """Collect demonstrations; returns the exit status."""
    if config.episodes < 1 or config.attempts < 0 or not config.noise >= 0:
        given = f"--episodes {config.episodes} --attempts {config.attempts} --noise {config.noise}"
        raise InputError(given, remedy="Ask for 1 or more episodes, and 0 or more of the others.")
    if config.max_steps < 0:
        raise InputError(f"--max-steps {config.max_steps}", remedy="Use 0 or more.")
    check_seeds(config.seed, _most(config))
    if config.environment == "pusht":
        return _collect_pusht(config)
    kind, _, task = config.environment.partition(":")
    if kind != "metaworld":
        raise InputError(f"there is no expert for {config.environment!r}", remedy="There are pusht and metaworld:TASK.")
    if config.out.suffix != ".npz":
        raise InputError(f"--out {config.out}", remedy="Give a file that ends in .npz.")
    refuse_overwrite(config.out)
    kept, tries = [], 0
    for tried in _metaworld_tries(config, task):
        tries += 1
        if tried.success:
            kept.append(tried.rows)
            _say(len(kept), config.episodes, tries)
        if len(kept) == config.episodes:
            break
    _enough(len(kept), config.episodes, tries)
    observations = np.concatenate([rows["obs"] for rows in kept]).astype(np.float32)
    actions = np.concatenate([rows["action"] for rows in kept]).astype(np.float32)
    ends = np.cumsum([len(rows["action"]) for rows in kept]).astype(np.int64)
    found = Episodes({"obs": observations}, actions, ends, fps=80.0, title=config.environment)
    write_arrays(config.out, found, notes={"tries": np.int64(tries)})
    print(f"{len(kept)} episodes, {len(actions)} steps, {tries} tries: {config.out}")
    return 0


def _most(config: CollectConfig) -> int:
    return config.attempts or 4 * config.episodes


def _metaworld_tries(config: CollectConfig, task: str) -> Iterator[_Try]:
    from priorscope_robotics.envs.metaworld_env import MetaworldEnvironment, MetaworldExpert

    env = MetaworldEnvironment(task, max_steps=config.max_steps or 200)
    for seed in range(config.seed, config.seed + _most(config)):
        random = np.random.default_rng(seed)
        expert = MetaworldExpert(task)
        seen, done = env.reset(seed), False
        rows: dict[str, list[Any]] = {"obs": [], "action": []}
        while not done:
            action = expert.act(env, seen)
            rows["obs"].append(seen["obs"])
            rows["action"].append(action)
            outcome = env.step(_disturbed(action, config.noise, random))
            seen, done = outcome.seen, outcome.done
        yield _Try(seed, outcome.success, {name: np.stack(values) for name, values in rows.items()})


def _disturbed(action: NDArray[Any], noise: float, random: np.random.Generator) -> NDArray[Any]:
    return action + noise * random.normal(size=action.shape) if noise else action


def _collect_pusht(config: CollectConfig) -> int:
    from priorscope_robotics.envs.pusht import PushT
    from priorscope_robotics.envs.pusht_planner import PushTPlanner

    if config.out.suffix != ".zarr":
        raise InputError(f"--out {config.out}", remedy="Give a folder that ends in .zarr.")
    max_steps = config.max_steps or 300
    options = {"noise": config.noise, "max_steps": max_steps}
    recorder = PushTRecorder(config.out, images=config.images, resume=config.resume, options=options)
    env = PushT(["image"] if config.images else ["state"], max_steps=max_steps)
    tries = 0
    seed = max(config.seed, recorder.next_seed)
    while recorder.episodes < config.episodes and tries < _most(config):
        planner = PushTPlanner(seed=seed)
        random = np.random.default_rng(seed)
        seen, done = env.reset(seed), False
        rows: dict[str, list[Any]] = {name: [] for name in ("action", "state", "keypoint", "n_contacts", "img")}
        while not done:
            action = planner.act(env)
            rows["state"].append(env.state())
            rows["keypoint"].append(env.keypoints())
            if config.images:
                rows["img"].append(np.moveaxis(seen["image"], 0, -1))
            rows["action"].append(action)
            outcome = env.step(_disturbed(action, config.noise, random))
            rows["n_contacts"].append([env.physics.n_contact_points])
            seen, done = outcome.seen, outcome.done
        tries += 1
        seed += 1
        if outcome.success:
            recorder.add({name: np.array(values) for name, values in rows.items() if values}, next_seed=seed)
            _say(recorder.episodes, config.episodes, tries)
    _enough(recorder.episodes, config.episodes, tries)
    print(f"{recorder.episodes} episodes, {recorder.steps} steps, {tries} tries: {config.out}")
    return 0


def _say(kept: int, wanted: int, tries: int) -> None:
    if kept % max(1, wanted // 10) == 0:
        print(f"{kept} of {wanted} episodes after {tries} tries", flush=True)


def _enough(kept: int, wanted: int, tries: int) -> None:
    if kept < wanted:
        raise InputError(
            f"after {tries} tries of the expert there are {kept} successful episodes, {wanted} were asked for",
            remedy="Ask for fewer --episodes, or allow more --attempts.",
        )
