"""The report of a training: curves, pictures, how to use the model."""

from __future__ import annotations

import numpy as np

from priorscope.data.images import read_image
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.curves import add_curves
from priorscope.training.loop import FitResult
from priorscope_astro.configs import TrainConfig

_PICTURES = 4


def write_report(run: RunFolder, config: TrainConfig, result: FitResult) -> None:
    """Write ``report.html`` from metrics.jsonl and figures/; an earlier one of this run is replaced."""
    rows = run.history()
    mode = "display" if config.method == "galaxysd" else config.mode
    report = Report(
        "Galaxy model training",
        f"{config.method} ({mode}, {config.side} pixels) from {config.start}, {result.step} of "
        f"{config.loop.steps} steps, {config.data}",
    )
    looks = [row for row in rows if "held_out_loss" in row]
    if len(looks) > 1:
        first, last = looks[0], looks[-1]
        report.paragraph(
            f"The loss on held-out galaxies went from {first['held_out_loss']:.4g} at step {first['step']} to "
            f"{last['held_out_loss']:.4g} at step {last['step']}."
        )
    if not result.finished:
        report.paragraph("The run is not finished; the same command with --resume goes on.")
    add_curves(report, rows)
    pictures = sorted(run.figures.glob("step-*.png"))
    if pictures:
        report.heading("Held-out galaxies, and galaxies drawn for their answers")
        places = np.unique(np.linspace(0, len(pictures) - 1, min(_PICTURES, len(pictures))).round().astype(int))
        for place in places:
            step = int(pictures[place].stem.partition("-")[2])
            said = f"After {step} steps: held-out galaxies above, below each one drawn galaxy of the same answers."
            report.figure(read_image(pictures[place]), said)
    report.heading("The model")
    report.paragraph(f"`priorscope astro generate PLAN --model {result.model}` draws galaxies with it.")
    logged = [row for row in rows if "loss" in row]
    if logged:
        report.table([logged[0], logged[-1]], caption="First and last row of metrics.jsonl with a loss.")
    report.environment(run)
    report.write(run.report_path, overwrite=True)
