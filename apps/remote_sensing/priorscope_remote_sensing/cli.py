"""The commands of the remote-sensing app. Imports nothing heavy before a command is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from priorscope.cli import parse_verbs
from priorscope_remote_sensing.configs import DemoConfig, EvaluateConfig, PredictConfig, TrainConfig
from priorscope_remote_sensing.table import MODELS

SUMMARY = "classes and land-cover maps from satellite images, on features of diffusion models (SatDiFuser)"

__all__ = ["MODELS", "SUMMARY", "main"]

_VERBS = {"predict": PredictConfig, "evaluate": EvaluateConfig, "train": TrainConfig, "demo": DemoConfig}


def main(arguments: Sequence[str]) -> int:
    """Run ``priorscope remote-sensing ...``; returns the exit status."""
    config = parse_verbs("remote-sensing", _VERBS, arguments, summary=SUMMARY)
    if isinstance(config, PredictConfig):
        from priorscope_remote_sensing.predict import predict

        return predict(config)
    if isinstance(config, EvaluateConfig):
        from priorscope_remote_sensing.evaluate import evaluate

        return evaluate(config)
    if isinstance(config, TrainConfig):
        from priorscope_remote_sensing.train import train

        print(f"model: {train(config).model}")
        return 0
    from priorscope_remote_sensing.demo import demo

    return demo(config)
