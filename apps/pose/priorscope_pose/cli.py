"""The commands of the pose app. Imports nothing heavy before a command is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from priorscope.cli import parse_verbs
from priorscope.errors import InputError
from priorscope_pose.configs import (
    ConvertConfig,
    DemoConfig,
    EvaluateConfig,
    PeopleConfig,
    PredictConfig,
    StylesConfig,
    TrainConfig,
)
from priorscope_pose.published import MODELS

SUMMARY = "keypoints of people in images and videos (SDPose, DiffPose)"

__all__ = ["MODELS", "SUMMARY", "main"]

_VERBS = {
    "predict": PredictConfig,
    "evaluate": EvaluateConfig,
    "train": TrainConfig,
    "people": PeopleConfig,
    "convert": ConvertConfig,
    "styles": StylesConfig,
    "demo": DemoConfig,
}


def main(arguments: Sequence[str]) -> int:
    """Run ``priorscope pose ...``; returns the exit status."""
    config = parse_verbs("pose", _VERBS, arguments, summary=SUMMARY)
    if isinstance(config, PredictConfig):
        from priorscope_pose.predict import predict

        return predict(config)
    if isinstance(config, EvaluateConfig):
        from priorscope_pose.evaluate import run_evaluation

        return run_evaluation(config)
    if isinstance(config, ConvertConfig):
        from priorscope_pose.convert import convert

        return convert(config)
    if isinstance(config, StylesConfig):
        from priorscope_pose.styles import run_styles

        return run_styles(config)
    if isinstance(config, DemoConfig):
        from priorscope_pose.demo import demo

        return demo(config)
    if isinstance(config, TrainConfig):
        from priorscope_pose.train import train

        print(f"model: {train(config).model}")
        return 0
    return _draw_people(config)


def _draw_people(config: PeopleConfig) -> int:
    from priorscope_pose.people import write_coco, write_posetrack

    if config.count < 1 or config.first_seed < 0:
        raise InputError(
            f"--count {config.count} --first-seed {config.first_seed}", remedy="Use 1 or more, and 0 or more."
        )
    seeds = range(config.first_seed, config.first_seed + config.count)
    settings: dict[str, Any] = {
        "height": config.height,
        "width": config.width,
        "people": config.people or None,
        "workers": config.workers,
    }
    if config.layout == "coco":
        print(write_coco(config.out, seeds, split=config.split or "train2017", **settings))
    else:
        print(write_posetrack(config.out, seeds, split=config.split or "train", frames=config.frames, **settings))
    return 0
