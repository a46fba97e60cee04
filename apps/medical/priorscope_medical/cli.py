"""The commands of the medical app. Imports nothing heavy before a command is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from priorscope.cli import parse_verbs
from priorscope_medical.configs import (
    DehazeConfig,
    DemoConfig,
    EvaluateConfig,
    ReconstructConfig,
    SimulateConfig,
    TrainConfig,
)
from priorscope_medical.table import MODELS

SUMMARY = "volumes from few X-ray views or few k-space lines, ultrasound without haze; for research use only"

__all__ = ["MODELS", "SUMMARY", "main"]

_VERBS = {
    "reconstruct": ReconstructConfig,
    "simulate": SimulateConfig,
    "evaluate": EvaluateConfig,
    "train": TrainConfig,
    "dehaze": DehazeConfig,
    "demo": DemoConfig,
}


def main(arguments: Sequence[str]) -> int:
    """Run ``priorscope medical ...``; returns the exit status."""
    config = parse_verbs("medical", _VERBS, arguments, summary=SUMMARY)
    if isinstance(config, ReconstructConfig):
        from priorscope_medical.reconstruct import reconstruct

        return reconstruct(config)
    if isinstance(config, SimulateConfig):
        from priorscope_medical.simulate_file import simulate

        return simulate(config)
    if isinstance(config, EvaluateConfig):
        from priorscope_medical.evaluate import evaluate

        return evaluate(config)
    if isinstance(config, TrainConfig):
        from priorscope_medical.train import train

        print(f"model: {train(config).model}")
        return 0
    if isinstance(config, DehazeConfig):
        from priorscope_medical.dehaze import dehaze

        return dehaze(config)
    from priorscope_medical.demo import demo

    return demo(config)
