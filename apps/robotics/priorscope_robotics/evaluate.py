"""``priorscope robotics evaluate``: success, score and latency, of several policies on the same episodes."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder, read_jsonl
from priorscope.evaluation.tables import print_table
from priorscope_robotics.checkpoints.load import load_policy
from priorscope_robotics.configs import EvaluateConfig
from priorscope_robotics.envs.environment import Environment, check_seeds, make_environment
from priorscope_robotics.episodes_run import CallTime, check_environment, run_episodes
from priorscope_robotics.evaluation_report import Contestant, write_report
from priorscope_robotics.latency import summarise, time_calls
from priorscope_robotics.level_trials import level_from_trials
from priorscope_robotics.model import PolicyModel
from priorscope_robotics.paired import paired_difference
from priorscope_robotics.policies.contraction import measure_contraction
from priorscope_robotics.policies.named import discrete_dimensions, executed_actions, make_policy
from priorscope_robotics.policies.noise import EnvironmentNoise
from priorscope_robotics.policies.policy import Output, Policy
from priorscope_robotics.policies.rti import RtiPolicy, shifted


def evaluate(config: EvaluateConfig) -> int:
    """Evaluate, write the run folder, print the table; returns the exit status.

    Where ``max_seconds`` are used up first, what was found is kept and there is no metrics.json yet.
    """
    _check(config)
    deadline = time.monotonic() + config.max_seconds if config.max_seconds else float("inf")
    texts = config.compare or (config.policy,)
    models = {source: load_policy(source, device=config.device) for source in {_split(t, config)[1] for t in texts}}
    first = models[_split(texts[0], config)[1]]
    environments = _environments(config, first)
    rows = [row for row in read_jsonl(config.out / "metrics.jsonl") if "seed" in row] if config.resume else []
    # one policy has one level: trials are not made again where some of its episodes are done
    begun = {row["policy"]: int(row["levels"].split(",")[0]) for row in rows if row.get("levels")}
    policies = [_policy(text, config, models, environments, begun.get(text)) for text in texts]
    run = RunFolder.create(
        config.out,
        config,
        resume=config.resume,
        may_differ=("resume", "max_seconds", "out", "device", "batch_size", "films", "compare"),
    )
    done = {(row["policy"], row["seed"]): row for row in rows}
    contestants = []
    for text, policy in zip(texts, policies, strict=True):
        contestant = _contest(text, policy, config, environments, run, done, deadline)
        if contestant is None:
            print(f"the time is used up during {text}; --resume goes on")
            return 0
        contestants.append(contestant)
    for contestant, policy in zip(contestants, policies, strict=True):
        _time_and_contract(contestant, policy, config, environments)
    table = _table(contestants)
    run.write_metrics({"rows": table})
    write_report(run, config, contestants, table)
    print_table([{name: row.get(name) for name in _PRINTED if any(name in r for r in table)} for row in table], ".4g")
    print(f"report: {run.report_path}")
    for environment in environments:
        environment.close()
    return 0


_PRINTED = (
    *("policy", "calls", "success", "score", "failed", "max_coverage", "mean_coverage", "contraction"),
    *("p50_ms_1", "p95_ms_1", "encoder_p50_ms_1", "denoiser_p50_ms_1", "speedup_1", "difference", "lower_95"),
)


def _split(text: str, config: EvaluateConfig) -> tuple[str, str]:
    """A policy's text and its model."""
    text, _, source = text.partition("@")
    return text, source or config.model


def _environments(config: EvaluateConfig, model: PolicyModel) -> list[Environment]:
    names = [entry.name for entry in model.spec.observations]
    count = min(config.batch_size, config.episodes)
    found = [make_environment(config.environment, names) for _ in range(count)]
    for environment in found:
        environment.max_steps = config.max_steps or environment.max_steps
    check_environment(model.spec, found[0])
    return found


def _levels(policy: Policy) -> str:
    """Of a warm-started policy, such as ``2,1,0``; empty of others."""
    return ",".join(f"{level:g}" for level in policy.levels) if isinstance(policy, RtiPolicy) else ""


def _policy(
    text: str,
    config: EvaluateConfig,
    models: dict[str, PolicyModel],
    environments: list[Environment],
    start_level: int | None = None,
) -> Policy:
    text, source = _split(text, config)
    model = models[source]
    check_environment(model.spec, environments[0])
    steps = executed_actions(text) or config.n_action_steps or None
    discrete = discrete_dimensions(config.discrete, model.spec.action_dim)
    return make_policy(
        model,
        text,
        n_action_steps=steps,
        discrete=discrete,
        start_level=level_from_trials(model, environments, steps) if start_level is None else lambda: start_level,
    )


def _contest(
    text: str,
    policy: Policy,
    config: EvaluateConfig,
    environments: list[Environment],
    run: RunFolder,
    done: dict[tuple[str, int], dict[str, Any]],
    deadline: float,
) -> Contestant | None:
    """What a policy does; None where the time is used up before the last episode."""
    seeds = list(range(config.first_seed, config.first_seed + config.episodes))
    filmed = set(seeds[: config.films])
    films: dict[int, list[Any]] = {}
    left = [seed for seed in seeds if (text, seed) not in done]
    found = Contestant(text, [], {}, films, environments[0].fps)
    times: list[CallTime] = []
    levels = _levels(policy)

    def draw(seed: int, environment: Environment) -> None:
        if seed in filmed and (picture := environment.picture()) is not None:
            films.setdefault(seed, []).append(picture)

    def keep(_: Output, observations: Any) -> None:
        found.last.update(observations)

    rows = {seed: done[text, seed] for seed in seeds if (text, seed) in done}
    results = run_episodes(
        environments, policy, left, noise_seed=config.seed, times=times, on_step=draw, on_output=keep
    )
    for number, result in enumerate(results, start=1):
        row = {"policy": text, **asdict(result)} | ({"levels": levels} if levels else {})
        rows[result.seed] = row
        run.log(row)
        if result.failure:
            print(f"{text}, seed {result.seed}: failed, {result.failure}")
        if number % max(1, config.episodes // 5) == 0:
            print(f"{text}: {number} of {len(left)} episodes", flush=True)
        if time.monotonic() > deadline and number < len(left):
            return None
    found.rows = [rows[seed] for seed in seeds]
    found.levels = levels
    found.latencies["in_episodes"] = summarise(times[1:])  # the first call warms up
    return found


def _time_and_contract(
    contestant: Contestant, policy: Policy, config: EvaluateConfig, environments: list[Environment]
) -> None:
    """How long a policy's calls take alone, and by how much warm starts contract."""
    last = contestant.last or _first_observation(environments[0], policy, config.first_seed)
    if config.latency_calls:
        for batch in sorted({1, len(environments)}):
            observations = {name: value[:1].expand(batch, *value.shape[1:]) for name, value in last.items()}
            contestant.latencies[str(batch)] = summarise(time_calls(policy, observations, config.latency_calls))
    if config.contraction and isinstance(policy, RtiPolicy):
        contestant.contraction = _contraction(policy, last)


def _contraction(policy: RtiPolicy, observations: dict[str, torch.Tensor]) -> dict[str, float]:
    """Of a run from a shifted full plan, at the first of the observations: of each step, and of the whole run."""
    one = {name: value[:1] for name, value in observations.items()}
    with torch.no_grad():
        given = policy.model.given(policy.model.features(policy.model.normalized(one)))
        guess = shifted(policy.full.from_noise(given, 1, EnvironmentNoise([0])), policy.shift)
    found = measure_contraction(policy, given, guess)
    steps = {f"level {level:g}": float(factor) for level, factor in zip(found.levels, found.steps, strict=True)}
    return {"whole run": float(found.whole), **steps}


def _first_observation(environment: Environment, policy: Policy, seed: int) -> dict[str, torch.Tensor]:
    from priorscope_robotics.episodes_run import History, stack_histories

    return stack_histories(policy.spec, [History(policy.spec.n_obs_steps, environment.reset(seed))])


def _table(contestants: list[Contestant]) -> list[dict[str, Any]]:
    rows = []
    first = contestants[0]
    for contestant in contestants:
        scores = [row["score"] for row in contestant.rows]
        calls, steps = (sum(row[name] for row in contestant.rows) for name in ("calls", "steps"))
        row: dict[str, Any] = {
            "policy": contestant.name,
            "episodes": len(scores),
            "calls": calls / max(steps, 1),
            "success": float(np.mean([row["success"] for row in contestant.rows])),
            "score": float(np.mean(scores)),
        }
        if failed := sum(bool(one.get("failure")) for one in contestant.rows):
            row["failed"] = failed
        for name in sorted({name for one in contestant.rows for name in one["measures"]}):
            row[name] = float(np.mean([one["measures"][name] for one in contestant.rows if name in one["measures"]]))
        for batch, found in contestant.latencies.items():
            row |= {f"{name}_{batch}": value for name, value in found.items()}
        if contestant.levels:
            row["levels"] = contestant.levels
        if contestant.contraction:
            row["contraction"] = contestant.contraction["whole run"]
        if contestant is not first:
            difference = paired_difference([one["score"] for one in first.rows], scores)
            row |= {"difference": difference.mean, "lower_95": difference.low, "upper_95": difference.high}
            success = paired_difference(*([float(o["success"]) for o in c.rows] for c in (first, contestant)))
            row |= {"success_difference": success.mean, "success_lower_95": success.low}
            if first.latencies.get("1"):
                row["speedup_1"] = first.latencies["1"]["p50_ms"] / contestant.latencies["1"]["p50_ms"]
        rows.append(row)
    return rows


def _check(config: EvaluateConfig) -> None:
    for name in ("episodes", "batch_size"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}", remedy="Use 1 or more.")
    for name in ("n_action_steps", "max_steps", "films", "latency_calls", "first_seed", "max_seconds"):
        if not getattr(config, name) >= 0:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}", remedy="Use 0 or more.")
    check_seeds(config.first_seed, config.episodes)
    if len(set(config.compare)) < len(config.compare):
        raise InputError(f"--compare {' '.join(config.compare)}", remedy="Name each policy once.")
