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
from priorscope_depth.configs import TrainConfig

_PICTURES = 4


def write_report(run: RunFolder, config: TrainConfig, result: FitResult) -> None:
    """Write ``report.html`` from metrics.jsonl and figures/; an earlier one of this run is replaced."""
    rows = run.history()
    report = Report("Depth training", f"{config.model}, {result.step} of {config.loop.steps} steps")
    report.paragraph(_summary(rows, result))
    add_curves(report, rows)
    pictures = sorted(run.figures.glob("step-*.png"))
    if pictures:
        report.heading("Held-out images")
        for path in _spread(pictures, _PICTURES):
            step = int(path.stem.partition("-")[2])
            report.figure(read_image(path), f"After {step} steps: image, truth, prediction fitted to the truth.")
    report.heading("The model")
    report.paragraph(
        f"{result.model} loads with `priorscope depth predict IMAGE --model {result.model}`, with "
        f"`priorscope depth evaluate`, and as DepthPredictor.from_pretrained({str(result.model)!r})."
    )
    logged = [row for row in rows if "loss" in row]
    if logged:
        report.table([logged[0], logged[-1]], caption="First and last row of metrics.jsonl.")
    report.environment(run)
    report.write(run.report_path, overwrite=True)


def _summary(rows: Sequence[dict[str, Any]], result: FitResult) -> str:
    looks = [row for row in rows if any(name.startswith("held_out_") for name in row)]
    if not looks:
        return "No held-out images were looked at (--held-out 0, or too few pairs)."
    name = next(name for name in looks[0] if name.startswith("held_out_"))
    shown = name.removeprefix("held_out_").replace("abs_rel", "AbsRel").replace("mean_angle", "mean angle (degrees)")
    ended = "" if result.finished else " The run is not finished; the same command with --resume goes on."
    return (
        f"{shown} on held-out images went from {looks[0][name]:.4g} at step {looks[0]['step']} to "
        f"{looks[-1][name]:.4g} at step {looks[-1]['step']}.{ended}"
    )


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """The first, the last and some between."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[place] for place in places]
