"""``priorscope robotics demo``: one episode with warm-started plans and with full ones, side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.evaluation.demo_folder import demo_folder
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.evaluation.tables import print_table
from priorscope_robotics.checkpoints.load import load_policy
from priorscope_robotics.configs import DemoConfig
from priorscope_robotics.envs.environment import Environment, check_seeds, make_environment
from priorscope_robotics.episodes_run import History, check_environment, stack_histories
from priorscope_robotics.film import beside, strip, write_film
from priorscope_robotics.filmed import Filmed, film_episode
from priorscope_robotics.latency import summarise, time_in_turns
from priorscope_robotics.level_trials import level_from_trials
from priorscope_robotics.policies.named import executed_actions, make_policy
from priorscope_robotics.policies.policy import Policy

_DDIM = "ddim:8"


def demo(config: DemoConfig) -> int:
    """Run the demo, write its run folder, print the latency table; returns the exit status."""
    if config.latency_calls < 1 or config.max_steps < 0 or config.n_action_steps < 0:
        raise InputError(
            f"--latency-calls {config.latency_calls} --max-steps {config.max_steps} "
            f"--n-action-steps {config.n_action_steps}",
            remedy="Use 1 or more calls, and 0 or more steps.",
        )
    check_seeds(config.episode)
    if config.policy == config.full:
        raise InputError(f"--policy {config.policy} --full {config.full}", remedy="Compare two policies.")
    model = load_policy(config.model, device=config.device)
    environment = make_environment(config.environment, [entry.name for entry in model.spec.observations])
    environment.max_steps = config.max_steps or environment.max_steps
    check_environment(model.spec, environment)
    steps = config.n_action_steps or None
    policies = {}
    for text in _texts(config):
        trials = level_from_trials(model, [environment], executed_actions(text) or steps)
        policies[text] = make_policy(model, text, n_action_steps=steps, start_level=trials)
    start = environment.reset(config.episode)
    if environment.picture() is None:
        raise InputError(
            f"{environment.name} cannot be drawn", remedy="Use pusht, or another environment of gymnasium."
        )
    run = demo_folder(config.out, config, "priorscope robotics demo")
    seen = stack_histories(model.spec, [History(model.spec.n_obs_steps, start)])
    latencies = _latencies(policies, seen, config)
    print_table(latencies, ".3g")
    filmed = {text: _filmed(environment, text, policies[text], config) for text in (config.policy, config.full)}
    environment.close()
    pictures = _side_by_side(filmed)
    for suffix in ("mp4", "gif"):
        write_film(run.figures / f"side-by-side.{suffix}", pictures, environment.fps)
    episodes = [_episode_row(text, one) for text, one in filmed.items()]
    print_table(episodes, ".3g")
    run.write_metrics({"latency": latencies, "episodes": episodes})
    _write_report(run, config, latencies, episodes, filmed)
    print(f"film: {run.figures / 'side-by-side.mp4'}\nreport: {run.report_path}")
    return 0


def _texts(config: DemoConfig) -> list[str]:
    """What is timed: the two policies, and DDIM where the model is a diffusion policy."""
    texts = [config.full, config.policy]
    return [config.full, _DDIM, config.policy] if config.full == "ddpm" and _DDIM not in texts else texts


def _latencies(policies: dict[str, Policy], seen: dict[str, torch.Tensor], config: DemoConfig) -> list[dict[str, Any]]:
    times = time_in_turns(list(policies.values()), seen, config.latency_calls)
    found = {text: summarise(part) for text, part in zip(policies, times, strict=True)}
    full = found[config.full]["p50_ms"]
    return [
        {
            "policy": text,
            "p50_ms": one["p50_ms"],
            "p95_ms": one["p95_ms"],
            "speedup": full / one["p50_ms"],
        }
        for text, one in found.items()
    ]


def _filmed(environment: Environment, text: str, policy: Policy, config: DemoConfig) -> Filmed:
    print(f"{text} in {environment.name}, seed {config.episode} ...", flush=True)
    return film_episode(environment, policy, config.episode, noise_seed=config.seed)


def _side_by_side(filmed: dict[str, Filmed]) -> list[NDArray[np.uint8]]:
    titles = [
        [f"{text}   step {step}" for step in range(len(one.pictures) - 1)] + [f"{text}   {_end(one)}"]
        for text, one in filmed.items()
    ]
    return beside([one.pictures for one in filmed.values()], titles)


def _end(filmed: Filmed) -> str:
    result = filmed.result
    return f"{'solved' if result.success else 'not solved'} after {result.steps} steps, score {result.score:.2f}"


def _episode_row(text: str, filmed: Filmed) -> dict[str, Any]:
    result = filmed.result
    row = {"policy": text, "success": result.success, "score": result.score, "steps": result.steps}
    return row | {
        "plans": len(filmed.times),
        "calls": result.calls,
        "planning_s": sum(one.encoder + one.denoiser for one in filmed.times),
    }


def _write_report(
    run: RunFolder,
    config: DemoConfig,
    latencies: list[dict[str, Any]],
    episodes: list[dict[str, Any]],
    filmed: dict[str, Filmed],
) -> None:
    report = Report(
        "Acting on a few network calls", f"{config.model} in {config.environment}, the episode of seed {config.episode}"
    )
    report.heading("The episode").table(
        episodes,
        "score: the best reward (Push-T: coverage / 0.95, at most 1); plans: how often the policy was asked; calls: "
        "network calls of all plans; planning_s: seconds they took.",
    )
    for text, one in filmed.items():
        report.figure(
            strip(one.pictures), f"{text}: {_end(one)}.{' ' + one.result.failure if one.result.failure else ''}"
        )
    report.paragraph("The film is figures/side-by-side.mp4, and the same as .gif.")
    report.heading("Latency").table(
        latencies,
        "Milliseconds a plan for one environment, median and 95th percentile of "
        f"{config.latency_calls} calls in turns; speedup: medians, against {config.full}. A warm-started policy begins "
        "an episode with a full plan, which is not among these.",
        best={"p50_ms": "least"},
    )
    report.paragraph(
        "One episode shows what happens, not how often: `priorscope robotics evaluate --compare` measures that."
    )
    report.environment(run).write(run.report_path)
