"""The report of a training: curves, pictures, how to use the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from priorscope.data.images import read_image
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.curves import add_curves
from priorscope.training.loop import FitResult
from priorscope_pose.configs import TrainConfig

_PICTURES = 4
_NAMES = {
    "held_out_pixels": "The mean distance on held-out people, in pixels of the crop,",
    "held_out_loss": "The loss on held-out people",
}


def write_report(run: RunFolder, config: TrainConfig, result: FitResult) -> None:
    """Write ``report.html`` from metrics.jsonl and figures/; an earlier one of this run is replaced."""
    rows = run.history()
    report = Report(
        "Pose training",
        f"{config.method} from {config.start}, {result.step} of {config.loop.steps} steps, {config.data}",
    )
    report.paragraph(_summary(rows, result))
    add_curves(report, rows)
    pictures = sorted(run.figures.glob("step-*.png"))
    if pictures:
        report.heading("Held-out people")
        places = np.unique(np.linspace(0, len(pictures) - 1, min(_PICTURES, len(pictures))).round().astype(int))
        for place in places:
            step = int(pictures[place].stem.partition("-")[2])
            said = f"After {step} steps: the true joints in green, beside them those that were found, in orange."
            report.figure(read_image(pictures[place]), said)
    report.heading("The model")
    report.paragraph(_use(config, result))
    logged = [row for row in rows if "loss" in row]
    if logged:
        report.table([logged[0], logged[-1]], caption="First and last row of metrics.jsonl with a loss.")
    report.environment(run)
    report.write(run.report_path, overwrite=True)


def _use(config: TrainConfig, result: FitResult) -> str:
    if config.method == "prior":
        return f"`priorscope pose train DATA --start {result.model}` trains an SDPose model that begins as this prior."
    return f"{result.model} is measured by `priorscope pose evaluate DATA --model {result.model}`."


def _summary(rows: Sequence[dict[str, Any]], result: FitResult) -> str:
    ended = "" if result.finished else " The run is not finished; the same command with --resume goes on."
    for name, said in _NAMES.items():
        looks = [row for row in rows if name in row]
        if len(looks) > 1:
            first, last = looks[0], looks[-1]
            return (
                f"{said} went from {first[name]:.4g} at step {first['step']} to {last[name]:.4g} at step "
                f"{last['step']}.{ended}"
            )
    return f"No held-out people were looked at more than once.{ended}"
