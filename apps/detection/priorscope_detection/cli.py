"""The commands of the detection app. Imports nothing heavy before a command is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from priorscope.cli import parse_verbs
from priorscope.errors import InputError
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
    if isinstance(config, SimulateConfig):
        return _simulate(config)
    if isinstance(config, PredictConfig):
        from priorscope_detection.predict import predict

        return predict(config)
    if isinstance(config, TrainConfig):
        from priorscope_detection.train import train

        print(f"model: {train(config).model}")
        return 0
    if isinstance(config, EvaluateConfig):
        from priorscope_detection.evaluate import run_evaluation

        return run_evaluation(config)
    from priorscope_detection.demo import demo

    return demo(config)


def _simulate(config: SimulateConfig) -> int:
    from priorscope_detection.simulator.write import write_opv2v

    if config.count < 1 or config.first_seed < 0:
        raise InputError(
            f"{config.count} scenarios from seed {config.first_seed}",
            remedy="Use --count 1 or more, a seed of 0 or more.",
        )
    if config.split in ("", ".", "..") or set(config.split) & set("/\\"):
        raise InputError(f"--split {config.split!r}", remedy="Give a name: it becomes a folder in --out.")
    seeds = range(config.first_seed, config.first_seed + config.count)
    print(write_opv2v(config.out, seeds, config.streets, split=config.split, workers=config.workers))
    return 0
