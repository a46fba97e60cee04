"""The report of a training: curves, pictures, how to use the model."""

from __future__ import annotations

from typing import Any

import numpy as np

from priorscope.data.images import read_image
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.curves import add_curves
from priorscope.training.loop import FitResult
from priorscope_remote_sensing.configs import TrainConfig
from priorscope_remote_sensing.data.legend import Legend
from priorscope_remote_sensing.scores import SELECTED_BY
from priorscope_remote_sensing.training.examples import LabelledSet

_PICTURES = 3


def write_report(
    run: RunFolder, config: TrainConfig, result: FitResult, data: LabelledSet, best: dict[str, Any] | None
) -> None:
    """Write ``report.html`` from metrics.jsonl and figures/; an earlier one of this run is replaced."""
    report = Report(
        f"Training on {data.title}",
        f"{data.task}, {len(data)} images, {len(data.names)} classes; {config.fuser} on features of {config.backbone}, "
        f"{result.step} steps",
    )
    if best is None:
        report.paragraph("No held-out images were looked at: the model is that of the last step.")
    else:
        measure = SELECTED_BY[data.task].replace("_", " ")
        report.paragraph(
            f"The model kept is that of step {best['step']}, with {measure} {best['score']:.3f} on held-out images, "
            "the best of all looks. It was chosen by these images: measure it on others."
        )
    if not result.finished:
        report.paragraph("The run is not finished; the same command with --resume goes on.")
    add_curves(report, run.history())
    pictures = sorted(run.figures.glob("step-*.png"))
    if pictures:
        report.heading("Held-out images")
        chosen = np.unique(np.linspace(0, len(pictures) - 1, min(_PICTURES, len(pictures))).round().astype(int))
        for place in chosen:
            step = int(pictures[place].stem.partition("-")[2])
            report.figure(read_image(pictures[place]), f"After {step} steps: image, labels, prediction.")
        report.gallery([(Legend.of(data.names).picture(), "classes")])
    report.heading("The model")
    report.paragraph(
        f"{result.model} is used with `priorscope remote-sensing predict SCENE --model {result.model}`, with "
        f"`priorscope remote-sensing evaluate`, and as SatellitePredictor.from_pretrained({str(result.model)!r})."
    )
    report.environment(run).write(run.report_path, overwrite=True)
