"""``priorscope detection demo``: a simulated junction with noisy poses, boxes before and after fusion, the curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from priorscope.backbones.table import find_published
from priorscope.errors import InputError
from priorscope.evaluation.demo_folder import demo_folder
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.evaluation.tables import print_table
from priorscope_detection.configs import DemoConfig, EvaluateConfig
from priorscope_detection.data.frame import Frame
from priorscope_detection.evaluate import Outcome, chosen_frames, common_range, measure_all, outcomes
from priorscope_detection.evaluation.conditions import (
    Condition,
    Reader,
    check_delays,
    conditions_of,
    curves_of,
    models_of,
)
from priorscope_detection.evaluation_report import draw_curves
from priorscope_detection.messages import vehicles_only
from priorscope_detection.noise import Disturbance
from priorscope_detection.picture import bird_view
from priorscope_detection.predictor import Predictor, find_detector
from priorscope_detection.published import MODELS
from priorscope_detection.training.sources import HELD_OUT_SEED, PERIOD, simulate

#: Streets that neither training, evaluation nor the evidence draws.
_FIRST_SEED = HELD_OUT_SEED + 900_000
_METRES = 0.08


def demo(config: DemoConfig) -> int:
    """Run the demo, write its run folder, print the table; returns the exit status.

    Raises
    ------
    InputError
        Unknown models, models of different ranges, options out of range.
    """
    config = replace(config, compare=config.compare or _beside(config.settings.model))
    asked = _evaluation(config)
    conditions = conditions_of(asked)
    base = conditions[0]
    clean = Condition(replace(base.how, position=0.0, yaw=0.0, delay=0.0), 0)
    conditions += [clean] if clean not in conditions else []
    found_models = {name: Predictor.load(settings) for name, settings in models_of(asked).items()}
    # the model itself last, so that its line is drawn on top
    predictors = {name: found_models[name] for name in (*config.compare, config.settings.model)}
    extent = common_range(predictors)
    # an earlier demo is replaced only now: a mistake leaves it as it is
    check_delays(conditions, PERIOD)
    run = demo_folder(config.out, config, "priorscope detection demo")
    frames = simulate(run.path / "streets", config.scenarios, _FIRST_SEED, config.streets)
    result = measure_all(predictors, frames, conditions, asked, extent, run)
    if result.failures:
        raise InputError(f"{len(result.failures)} frames failed; the first: {result.failures[0].error}")
    found = outcomes(result.rows, list(predictors), conditions)
    rows = _rows(found, clean.setting, base.setting)
    print_table(rows, ".3g")
    index = chosen_frames(frames, asked)[0]
    frame = vehicles_only(Reader(frames, asked.reach).disturbed(index, base))
    pictures = _pictures(run, frame, predictors, extent)
    run.write_metrics({"outcomes": rows, "frame": frame.name})
    _write_report(run, config, base.how, found, rows, pictures, frame)
    print(f"report: {run.report_path}")
    return 0


def _beside(model: str) -> tuple[str, ...]:
    """What a model is compared with unless told."""
    if find_published(model, MODELS) is not None:
        return tuple(row.name for row in MODELS if row.name != model)[::-1]
    return (":steps=0",) if find_detector(model).spec.fusion == "codiff" else ()


def _evaluation(config: DemoConfig) -> EvaluateConfig:
    if config.scenarios < 1:
        raise InputError(f"--scenarios {config.scenarios}", remedy="Use 1 or more.")
    if not config.delays or not config.sigmas:
        raise InputError("a curve without points", remedy="Name --sigmas and --delays.")
    longest = max(*config.delays, config.delay)
    if longest >= PERIOD * config.streets.frames:
        raise InputError(
            f"delays of up to {longest:g} ms in streets of {config.streets.frames} frames, {PERIOD:g} ms apart",
            remedy="Leave out the longest, or ask for more with --streets.frames.",
        )
    return EvaluateConfig(
        f"simulated:{config.scenarios}",
        compare=config.compare,
        pose_noise=config.pose_noise,
        yaw_noise=config.yaw_noise,
        delay=config.delay,
        robustness=True,
        sigmas=config.sigmas,
        delays=config.delays,
        skip=ceil(longest / PERIOD),
        settings=config.settings,
    )


def _rows(found: Sequence[Outcome], clean: str, base: str) -> list[dict[str, Any]]:
    table = {(each.model, each.setting): each.figures for each in found}
    return [
        {
            "model": model,
            "AP 0.5, undisturbed": table[model, clean]["ap_bev_0.5"],
            "AP 0.5, disturbed": table[model, base]["ap_bev_0.5"],
            "AP 0.7, disturbed": table[model, base]["ap_bev_0.7"],
            "kB per agent": (table[model, base]["bytes_per_agent"] or 0.0) / 1000,
            "seconds": table[model, base]["seconds_per_frame"],
        }
        for model in dict.fromkeys(each.model for each in found)
    ]


def _pictures(
    run: RunFolder, frame: Frame, predictors: dict[str, Predictor], extent: tuple[float, ...]
) -> list[tuple[NDArray[np.uint8], str]]:
    """What is told, then what each model makes of it; also as files."""
    kinds = ["the ego", *("a road-side unit" if a.kind == "infrastructure" else "a car" for a in frame.agents[1:])]
    found = [("told", np.zeros((0, 7)), f"What is told: points of {', '.join(kinds)}. Green: true boxes.")]
    for name, predictor in predictors.items():
        boxes = predictor(frame).boxes.boxes.numpy()
        found.append((name, boxes, f"{name}: {len(boxes)} boxes, in red."))
    pictures = []
    for number, (_, boxes, caption) in enumerate(found):
        picture = bird_view(frame, boxes, extent, metres=_METRES)
        Image.fromarray(picture).save(run.figures / f"junction-{number}.png")
        pictures.append((picture, caption))
    return pictures


def _write_report(
    run: RunFolder,
    config: DemoConfig,
    base: Disturbance,
    found: Sequence[Outcome],
    rows: list[dict[str, Any]],
    pictures: list[tuple[NDArray[np.uint8], str]],
    frame: Frame,
) -> None:
    frames = int(found[0].figures["frames"] or 0)
    noise = f"{config.pose_noise:g} m, {config.yaw_noise:g} degrees and {config.delay:g} ms"
    report = Report("What several cars see together", f"A simulated junction; poses and messages off by {noise}.")
    report.heading("One moment").gallery(pictures, f"{frame.name}, seen from above.", width=460)
    report.paragraph(
        f"Every agent's pose, the ego's too, is off by noise of {config.pose_noise:g} m and {config.yaw_noise:g} "
        f"degrees, and the others' sweeps are {config.delay:g} ms old: what moved since then stands where it was."
    )
    report.heading("All frames").table(
        rows,
        f"Average precision in bird's-eye view on {frames} frames of {config.scenarios} junctions that "
        f"no model has seen; disturbed: by {noise}. kB per agent: what another agent sends for a frame.",
        best=dict.fromkeys(("AP 0.5, undisturbed", "AP 0.5, disturbed", "AP 0.7, disturbed"), "greatest"),
    )
    report.paragraph(
        "A few frames show what happens, not how good a model is: `priorscope detection evaluate` measures that, and "
        "benchmarks/RESULTS.md has figures over several trainings."
    )
    curves = draw_curves(found, *curves_of(base, config.sigmas, config.delays))
    curves.savefig(run.figures / "robustness.png", dpi=130)
    report.heading("Robustness").figure(
        curves,
        f"AP at 0.5 over pose noise (at {config.delay:g} ms) and over delay (at {config.pose_noise:g} m, "
        f"{config.yaw_noise:g} degrees), one draw of the noise.",
    )
    report.environment(run).write(run.report_path)
