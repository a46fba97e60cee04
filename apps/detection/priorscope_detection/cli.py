"""The commands of the detection app. Imports nothing heavy before a command is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from priorscope.cli import parse_verbs
from priorscope_detection.configs import DemoConfig, EvaluateConfig, PredictConfig, SimulateConfig, TrainConfig
from priorscope_detection.published import MODELS

SUMMARY = "what several cars see together: 3D boxes from the LiDAR of many (CoDiff, CoAlign)"

__all__ = ["MODELS", "SUMMARY", "main"]

_VERBS = {
    "simulate": SimulateConfig,
    "predict": PredictConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "demo": DemoConfig,
}


def main(arguments: Sequence[str]) -> int:
    """Run ``priorscope detection ...``; returns the exit status."""
    config = parse_verbs("detection", _VERBS, arguments, summary=SUMMARY)
    raise NotImplementedError(f"{type(config).__name__}: being written")
