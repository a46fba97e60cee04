"""The commands of the robotics app. Imports nothing heavy before a command is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from priorscope.cli import parse_verbs
from priorscope_robotics.configs import (
    CollectConfig,
    ConvertConfig,
    DemoConfig,
    EvaluateConfig,
    PredictConfig,
    RolloutConfig,
    TrainConfig,
)
from priorscope_robotics.table import MODELS

SUMMARY = "diffusion policies that act in time: warm-started denoising (RTI-DP) of Diffusion Policy and LeRobot models"

__all__ = ["MODELS", "SUMMARY", "main"]

_VERBS = {
    "collect": CollectConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "rollout": RolloutConfig,
    "predict": PredictConfig,
    "convert": ConvertConfig,
    "demo": DemoConfig,
}


def main(arguments: Sequence[str]) -> int:
    """Run ``priorscope robotics ...``; returns the exit status."""
    config = parse_verbs("robotics", _VERBS, arguments, summary=SUMMARY)
    if isinstance(config, CollectConfig):
        from priorscope_robotics.collect import collect

        return collect(config)
    if isinstance(config, TrainConfig):
        from priorscope_robotics.train import train

        print(f"model: {train(config).model}")
        return 0
    if isinstance(config, EvaluateConfig):
        from priorscope_robotics.evaluate import evaluate

        return evaluate(config)
    if isinstance(config, RolloutConfig):
        from priorscope_robotics.rollout import rollout

        return rollout(config)
    if isinstance(config, PredictConfig):
        from priorscope_robotics.predict import predict

        return predict(config)
    if isinstance(config, DemoConfig):
        from priorscope_robotics.demo import demo

        return demo(config)
    from priorscope_robotics.convert import convert

    return convert(config)
