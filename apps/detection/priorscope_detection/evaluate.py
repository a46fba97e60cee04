"""``priorscope detection evaluate``: average precision of one model or several, and how it falls with disturbances."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.evaluation.processes import process_index_and_count
from priorscope.evaluation.run_folder import RunFolder
from priorscope.evaluation.suite import SuiteResult, run_items
from priorscope.evaluation.tables import print_table
from priorscope_detection.configs import EvaluateConfig
from priorscope_detection.data.frame import Frames
from priorscope_detection.data.open import open_frames
from priorscope_detection.data.rigid import Array
from priorscope_detection.evaluation.ap import RANGES, VISIBILITIES, measure_frame, summary
from priorscope_detection.evaluation.conditions import (
    Condition,
    Reader,
    check_delays,
    check_heard,
    conditions_of,
    models_of,
)
from priorscope_detection.geometry.boxes import corners, corners_inside
from priorscope_detection.messages import in_range
from priorscope_detection.predictor import Predictor
from priorscope_detection.training.sources import HELD_OUT_SEED, PERIOD, check_source, simulate

_MAY_DIFFER = ("resume", "out", "pictures", "settings.device")


@dataclass(frozen=True)
class Outcome:
    """Figures of a model under a disturbance, means over the seeds.

    Attributes
    ----------
    model, setting : str
    figures : dict
        As :func:`~priorscope_detection.evaluation.ap.summary` names them, with ``bytes_per_agent`` (mean over frames
        and other agents) and ``seconds_per_frame``.
    spread : dict
        Standard deviation over the seeds, where there are several.
    seeds : int
    """

    model: str
    setting: str
    figures: dict[str, float | None]
    spread: dict[str, float]
    seeds: int


def run_evaluation(config: EvaluateConfig) -> int:
    """Run ``priorscope detection evaluate``; 1 when some frames failed.

    Raises
    ------
    InputError
        Wrong files or options, models of different ranges, no frame that could be evaluated.
    """
    from priorscope_detection.evaluation_report import write_report

    _check(config)
    conditions = conditions_of(config)
    predictors = {name: Predictor.load(settings) for name, settings in models_of(config).items()}
    extent = common_range(predictors)
    count = check_source(config.data, config.layout, config.streets)
    _check_compression(predictors, config)
    frames = None if count else open_frames(config.data, layout=config.layout, labelled=True)
    # made only after this, so that a mistake leaves nothing behind
    check_delays(conditions, PERIOD if frames is None else frames.period)
    if frames is not None:
        check_heard(conditions, frames)
        chosen_frames(frames, config)
    elif config.skip >= config.streets.frames:
        raise _nothing_left(config.skip, config.streets.frames)
    run = RunFolder.create(config.out, config, resume=config.resume, may_differ=_MAY_DIFFER)
    if frames is None:
        frames = simulate(run.path / "streets", count or 0, HELD_OUT_SEED, config.streets)
    result = measure_all(predictors, frames, conditions, config, extent, run)
    if not result.rows:
        first = result.failures[0]
        raise InputError(f"none of {len(result.failures)} could be evaluated; the first, {first.key}: {first.error}")
    status = 1 if result.failures else 0
    if process_index_and_count()[0] > 0:
        return status
    found = outcomes(result.rows, list(predictors), conditions)
    about = {name: predictor.about() for name, predictor in predictors.items()}
    run.write_metrics(
        {
            "models": about,
            "outcomes": [
                {"model": each.model, "setting": each.setting, "seeds": each.seeds, **each.figures, "std": each.spread}
                for each in found
            ],
            "failed": len(result.failures),
        }
    )
    base = conditions[0].setting
    names = ("ap_bev_0.3", "ap_bev_0.5", "ap_bev_0.7", "ap_3d_0.5", "ap_bev_0.5_per_frame", "bytes_per_agent")
    print_table(
        [{"model": each.model, **{n: each.figures[n] for n in names}} for each in found if each.setting == base]
    )
    write_report(run, config, frames, predictors, conditions, found, result)
    print(f"report: {run.report_path}")
    return status


def measure_all(
    predictors: dict[str, Predictor],
    frames: Frames,
    conditions: Sequence[Condition],
    config: EvaluateConfig,
    extent: tuple[float, ...],
    run: RunFolder | None = None,
) -> SuiteResult:
    """Every frame under every condition by every model; rows are kept as they come, and a later call goes on.

    Returns
    -------
    SuiteResult
        Rows of :func:`~priorscope_detection.evaluation.ap.measure_frame` with ``model``, ``condition``, ``bytes`` (one
        for each other agent) and ``seconds``. A true box's visibility is the number of points that all agents have on
        it without noise, delay or loss. Which true boxes count: :func:`counted_boxes`.
    """
    reader = Reader(frames, config.reach)
    counted = counted_boxes(predictors, extent)
    chosen = chosen_frames(frames, config)
    items = [(i, condition, model) for i in chosen for condition in conditions for model in predictors]

    def measure(batch: list[tuple[int, Condition, str]]) -> list[dict[str, Any]]:
        return [_measured(*item) for item in batch]

    def _measured(index: int, condition: Condition, model: str) -> dict[str, Any]:
        predictor = predictors[model]
        truths, visibility = reader.truth(index)
        keep = counted(truths)
        frame = reader.disturbed(index, condition)
        begin = time.perf_counter()
        found = predictor(frame)
        seconds = time.perf_counter() - begin
        row = measure_frame(
            found.boxes.boxes,
            found.boxes.scores,
            torch.from_numpy(truths[keep]),
            visibility=visibility[keep],
        )
        sent = predictor.sent_bytes(
            frame, found, compression=config.compression, bytes_per_value=config.bytes_per_value
        )
        young = any(agent.delay < condition.how.delay for agent in frame.agents[1:])
        told = {"model": model, "condition": condition.name, "bytes": sent, "seconds": seconds}
        return {**row, **told, **({"young": True} if young else {})}

    def key(item: tuple[int, Condition, str]) -> str:
        index, condition, model = item
        return f"{model} | {condition.name} | {frames.name(index)}"

    return run_items(items, measure, key=key, run=run, progress="frames")


def chosen_frames(frames: Frames, config: EvaluateConfig) -> list[int]:
    """The frames that are measured, by ``config.skip`` and ``config.limit``.

    Raises
    ------
    InputError
        None is left.
    """
    seen: Counter[str] = Counter()
    chosen = []
    for index in range(len(frames)):
        sequence = frames.sequence(index)
        if seen[sequence] >= config.skip:
            chosen.append(index)
        seen[sequence] += 1
    if not seen:
        raise InputError(f"{frames.title} holds no frame", remedy="Is the data set whole?")
    if not chosen:
        raise _nothing_left(config.skip, max(seen.values()))
    return chosen[: config.limit or None]


def _nothing_left(skip: int, longest: int) -> InputError:
    return InputError(f"--skip {skip} leaves nothing of sequences of up to {longest} frames", remedy="Skip fewer.")


def outcomes(rows: Sequence[dict[str, Any]], models: Sequence[str], conditions: Sequence[Condition]) -> list[Outcome]:
    """Figures by model and disturbance, in this order; those without a row are left out."""
    settings: dict[str, list[str]] = {}
    for condition in conditions:
        settings.setdefault(condition.setting, []).append(condition.name)
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault((row["model"], row["condition"]), []).append(row)
    found = []
    for model in models:
        for setting, names in settings.items():
            each = [_figures(grouped[model, name]) for name in names if (model, name) in grouped]
            if each:
                found.append(_mean(model, setting, each))
    return found


def _figures(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    figures: dict[str, float | None] = dict(summary(rows, parts=(*RANGES, *VISIBILITIES)))
    sent = [value for row in rows for value in row["bytes"]]
    figures["bytes_per_agent"] = float(np.mean(sent)) if sent else None
    figures["seconds_per_frame"] = float(np.median([row["seconds"] for row in rows]))
    return figures


def _mean(model: str, setting: str, each: Sequence[dict[str, float | None]]) -> Outcome:
    mean: dict[str, float | None] = {}
    spread: dict[str, float] = {}
    for name in each[0]:
        values = [value for figures in each if (value := figures[name]) is not None]
        mean[name] = float(np.mean(values)) if values else None
        if len(values) > 1:
            spread[name] = float(np.std(values, ddof=1))
    return Outcome(model, setting, mean, spread, len(each))


def common_range(predictors: dict[str, Predictor]) -> tuple[float, ...]:
    """The range that all models cover; each is told to leave out boxes beyond it."""
    extents = {name: predictor.detector.spec.extent for name, predictor in predictors.items()}
    first = next(iter(extents.values()))
    for name, extent in extents.items():
        if (extent[0], extent[1], extent[3], extent[4]) != (first[0], first[1], first[3], first[4]):
            raise InputError(
                f"{name} covers {extent} m, {next(iter(extents))} {first} m",
                remedy="Compare models of the same range.",
            )
    return first


def counted_boxes(predictors: dict[str, Predictor], extent: tuple[float, ...]) -> Callable[[Array], NDArray[np.bool_]]:
    """Which true boxes (N, 7) count: those with their centre in the range, seen from above.

    Where all models leave out boxes that do not lie inside one range as a whole, as CoAlign's do, so do true ones, as
    in its evaluation: at the border no detector of these could find them.
    """
    choices = [predictor.choice for predictor in predictors.values()]
    limits = choices[0].limits
    if limits is None or any(choice.inside != "corners" or choice.limits != limits for choice in choices):
        return lambda boxes: in_range(boxes, extent)
    return lambda boxes: corners_inside(corners(torch.from_numpy(boxes)), limits).numpy()


def _check_compression(predictors: dict[str, Predictor], config: EvaluateConfig) -> None:
    if config.compression > 1 and not any(predictor.message_shapes for predictor in predictors.values()):
        raise InputError(
            f"--compression {config.compression:g}, but none of the models sends features", remedy="Leave it out."
        )
    for name, predictor in predictors.items():
        for channels, _, _ in predictor.message_shapes:
            if channels % config.compression:
                raise InputError(
                    f"--compression {config.compression:g}: {name} sends maps of {channels} channels",
                    remedy="Use a factor that divides them.",
                )


def _check(config: EvaluateConfig) -> None:
    for name in ("limit", "pictures", "skip"):
        if getattr(config, name) < 0:
            raise InputError(f"--{name} {getattr(config, name)}", remedy="Use 0 or more.")
    if not config.reach > 0:
        raise InputError(f"--reach {config.reach}", remedy="Use a distance above 0.")
    for option, given in (("--sigmas", "sigmas"), ("--delays", "delays")):
        if not config.robustness and getattr(config, given) != getattr(EvaluateConfig, given):
            raise InputError(f"{option} without --robustness", remedy="Ask for the curves, or leave it out.")
    if not 1 <= config.compression < inf:
        raise InputError(f"--compression {config.compression}", remedy="Use 1 or more.")
    if config.bytes_per_value < 1:
        raise InputError(f"--bytes-per-value {config.bytes_per_value}", remedy="Use 1 or more.")
