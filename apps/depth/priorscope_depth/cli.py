"""The commands of the depth app. Imports nothing heavy before a command is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from priorscope.cli import parse_verbs
from priorscope.errors import InputError
from priorscope_depth.configs import (
    DemoConfig,
    EvaluateConfig,
    EvaluateNormalsConfig,
    PredictConfig,
    ScenesConfig,
    TrainConfig,
)
from priorscope_depth.edges.configs import EdgesConfig, TrainEdgesConfig
from priorscope_depth.families import MODELS
from priorscope_depth.primedepth.configs import TrainPrimeDepthConfig
from priorscope_depth.sensor.configs import SensorConfig, TrainSensorConfig

SUMMARY = "depth and surface normals from photographs (Lotus, Marigold, E2E-FT, GenPercept, PrimeDepth)"

__all__ = ["MODELS", "SUMMARY", "main"]

_VERBS = {
    "predict": PredictConfig,
    "evaluate": EvaluateConfig,
    "evaluate-normals": EvaluateNormalsConfig,
    "train": TrainConfig,
    "scenes": ScenesConfig,
    "train-primedepth": TrainPrimeDepthConfig,
    "edges": EdgesConfig,
    "train-edges": TrainEdgesConfig,
    "sensor": SensorConfig,
    "train-sensor": TrainSensorConfig,
    "demo": DemoConfig,
}


def main(arguments: Sequence[str]) -> int:
    """Run ``priorscope depth ...``; returns the exit status."""
    config = parse_verbs("depth", _VERBS, arguments, summary=SUMMARY)
    if isinstance(config, PredictConfig):
        from priorscope_depth.predict import predict

        return predict(config)
    if isinstance(config, EvaluateConfig):
        from priorscope_depth.report import run_evaluation

        return run_evaluation(config)
    if isinstance(config, EvaluateNormalsConfig):
        from priorscope_depth.report import run_normals_evaluation

        return run_normals_evaluation(config)
    if isinstance(config, TrainConfig):
        from priorscope_depth.train import train

        print(f"model: {train(config).model}")
        return 0
    if isinstance(config, ScenesConfig):
        from priorscope_depth.scenes import write_scenes

        for name in ("count", "workers"):
            if getattr(config, name) < 1:
                raise InputError(f"--{name} {getattr(config, name)}", remedy="Use 1 or more.")
        seeds = range(config.first_seed, config.first_seed + config.count)
        write_scenes(config.out, seeds, height=config.height, width=config.width, workers=config.workers)
        return 0
    if isinstance(config, TrainPrimeDepthConfig):
        from priorscope_depth.primedepth.train import train_primedepth

        print(f"model: {train_primedepth(config).model}")
        return 0
    if isinstance(config, EdgesConfig):
        from priorscope_depth.edges.predict import predict_edges

        return predict_edges(config)
    if isinstance(config, TrainEdgesConfig):
        from priorscope_depth.edges.train import train_edges

        print(f"model: {train_edges(config).model}")
        return 0
    if isinstance(config, SensorConfig):
        from priorscope_depth.sensor.predict import simulate_scans

        return simulate_scans(config)
    if isinstance(config, TrainSensorConfig):
        from priorscope_depth.sensor.train import train_sensor

        print(f"model: {train_sensor(config).model}")
        return 0
    from priorscope_depth.demo import demo

    return demo(config)
