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
from priorscope_medical.ultrasound_configs import (
    EvaluateUltrasoundConfig,
    SimulateUltrasoundConfig,
    TrainUltrasoundConfig,
)

SUMMARY = "volumes from few X-ray views or few k-space lines, ultrasound without haze; for research use only"

__all__ = ["MODELS", "SUMMARY", "main"]

_VERBS = {
    "reconstruct": ReconstructConfig,
    "simulate": SimulateConfig,
    "evaluate": EvaluateConfig,
    "train": TrainConfig,
    "dehaze": DehazeConfig,
    "simulate-ultrasound": SimulateUltrasoundConfig,
    "train-ultrasound": TrainUltrasoundConfig,
    "evaluate-ultrasound": EvaluateUltrasoundConfig,
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
    if isinstance(config, SimulateUltrasoundConfig):
        from priorscope_medical.simulate_ultrasound import simulate_ultrasound

        return simulate_ultrasound(config)
    if isinstance(config, TrainUltrasoundConfig):
        from priorscope_medical.ultrasound.train_rf import train_rf

        print(f"model: {train_rf(config).model}")
        return 0
    if isinstance(config, EvaluateUltrasoundConfig):
        from priorscope_medical.evaluate_ultrasound import evaluate_ultrasound

        return evaluate_ultrasound(config)
    from priorscope_medical.demo import demo

    return demo(config)
