"""The report of a training: curves, the data, the policy, how to use it."""

from __future__ import annotations

import numpy as np

from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.curves import add_curves
from priorscope.training.loop import FitResult
from priorscope_robotics.data.episodes import Episodes
from priorscope_robotics.model import ACTION, PolicyModel


def write_report(run: RunFolder, result: FitResult, model: PolicyModel, episodes: Episodes, held_out: int) -> None:
    """Write ``report.html`` from metrics.jsonl; an earlier one of this run is replaced."""
    spec = model.spec
    report = Report(
        f"A policy of {episodes.title}",
        f"{len(episodes)} episodes, {episodes.steps} steps, {result.step} optimiser steps.",
    )
    if not result.finished:
        report.paragraph("The run is not finished; the same command with --resume goes on.")
    add_curves(report, run.history())
    report.paragraph(
        "held_out_action_error is the root mean square error of drawn actions, in normalised units: people and "
        "planners have several ways to go, so it does not reach 0."
    )
    report.heading("Data")
    lengths = episodes.lengths()
    steps = f"{lengths.min()} to {lengths.max()}, median {int(np.median(lengths))}"
    report.table(
        [
            {"what": "episodes to learn from", "value": len(episodes)},
            {"what": "held-out episodes", "value": held_out},
            {"what": "steps of an episode", "value": steps},
            {"what": "steps a second", "value": episodes.fps or None},
        ]
    )
    stats = model.normalizer.field(ACTION)
    low, high = stats.unnormalize(-1 + 0 * stats.scale), stats.unnormalize(1 + 0 * stats.scale)
    report.table(
        [
            {"action": place, "from": float(a), "to": float(b)}
            for place, (a, b) in enumerate(zip(low.tolist(), high.tolist(), strict=True))
        ],
        "What the ends of the network's range, -1 and 1, mean. Samples are clipped there.",
    )
    report.heading("The policy")
    plan = f"{spec.horizon} steps of {spec.action_dim} numbers; {spec.n_action_steps} are executed"
    weights = sum(weight.numel() for weight in model.parameters()) / 1e6
    report.table(
        [
            {"what": "sees", "value": ", ".join(f"{e.name} {tuple(e.shape)}" for e in spec.observations)},
            {"what": "plan", "value": plan},
            {"what": "network", "value": f"{spec.network}, {weights:.2f} M weights"},
            {"what": "conditioning", "value": spec.conditioning},
            {"what": "objective", "value": spec.objective},
            {"what": "noise levels", "value": spec.diffusion.steps},
            {
                "what": "farthest move of observations in a step",
                "value": spec.largest_moves[0] if spec.largest_moves else None,
            },
        ]
    )
    report.paragraph(f"Try it with `priorscope robotics evaluate {result.model} ENVIRONMENT --compare ddpm rti:2,1,0`.")
    report.environment(run).write(run.report_path, overwrite=True)
