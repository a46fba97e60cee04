"""The report of a training: curves, the data, the model, how to use it."""

from __future__ import annotations

from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.curves import add_curves
from priorscope.training.loop import FitResult
from priorscope_detection.checkpoints import Detector
from priorscope_detection.configs import TrainConfig

_NEXT = {
    "codec": "Next: `priorscope detection train DATA --stage diffusion --start {out}`.",
    "diffusion": "Next, if wanted: `priorscope detection train DATA --stage joint --start {out}`.",
}


def write_report(
    run: RunFolder, config: TrainConfig, result: FitResult, detector: Detector, learnt: int, held_out: int
) -> None:
    """Write ``report.html`` from metrics.jsonl; an earlier one of this run is replaced."""
    spec = detector.spec
    report = Report(
        f"A detector trained on {config.data}",
        f"Stage {config.stage}, fusion {spec.fusion}; {learnt} frames, {result.step} optimiser steps.",
    )
    if not result.finished:
        report.paragraph("The run is not finished; the same command with --resume goes on.")
    add_curves(report, run.history())
    if held_out and config.stage != "codec":
        report.paragraph(
            "held_out_ap is the average precision at an overlap of 0.5 in bird's-eye view, on held-out frames with the "
            "strongest disturbance of the training"
            + (
                "; held_out_ap_coarse is that of the same detector without diffusion."
                if config.stage != "detector"
                else "."
            )
        )
    report.heading("The model")
    weights = sum(weight.numel() for weight in detector.network.parameters()) / 1e6
    x0, y0, z0, x1, y1, z1 = spec.extent
    report.table(
        [
            {"what": "range", "value": f"x {x0:g} to {x1:g} m, y {y0:g} to {y1:g} m, z {z0:g} to {z1:g} m"},
            {"what": "pillars", "value": f"{spec.size[0]} x {spec.size[1]} of {spec.cell[0]:g} m"},
            {"what": "fusion", "value": spec.fusion},
            {"what": "weights", "value": f"{weights:.2f} M"},
            {"what": "frames to learn from", "value": learnt},
            {"what": "held-out frames", "value": held_out},
            {
                "what": "pose noise in training",
                "value": f"up to {config.pose_noise:g} m, {config.yaw_noise:g} degrees"
                if config.vary_noise
                else f"{config.pose_noise:g} m, {config.yaw_noise:g} degrees",
            },
            {"what": "delay in training", "value": f"up to {config.max_delay:g} ms"},
        ]
    )
    if config.stage in _NEXT:
        report.paragraph(_NEXT[config.stage].format(out=run.path))
    if config.stage != "codec":
        report.paragraph(f"Try it with `priorscope detection evaluate DATA --model {run.path}`.")
    report.environment(run).write(run.report_path, overwrite=True)
