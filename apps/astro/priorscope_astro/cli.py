"""The commands of the astro app. Imports nothing heavy before a command is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from priorscope.cli import parse_verbs
from priorscope_astro.configs import (
    DemoConfig,
    EvaluateConfig,
    GenerateConfig,
    PlanConfig,
    SimulateConfig,
    TrainClassifierConfig,
    TrainConfig,
)
from priorscope_astro.published import MODELS

SUMMARY = "galaxies on demand, with provenance (GalaxySD, and small models of flux)"

__all__ = ["MODELS", "SUMMARY", "main"]

_VERBS = {
    "simulate": SimulateConfig,
    "plan": PlanConfig,
    "train": TrainConfig,
    "train-classifier": TrainClassifierConfig,
    "generate": GenerateConfig,
    "evaluate": EvaluateConfig,
    "demo": DemoConfig,
}


def main(arguments: Sequence[str]) -> int:
    """Run ``priorscope astro ...``; returns the exit status."""
    config = parse_verbs("astro", _VERBS, arguments, summary=SUMMARY)
    if isinstance(config, SimulateConfig):
        from priorscope_astro.simulator.survey import run

        run(config)
        return 0
    if isinstance(config, PlanConfig):
        from priorscope_astro.planning import plan

        return plan(config)
    if isinstance(config, TrainConfig):
        from priorscope_astro.train import train

        print(f"model: {train(config).model}")
        return 0
    if isinstance(config, TrainClassifierConfig):
        from priorscope_astro.train_classifier import train as train_classifier

        print(f"classifier: {train_classifier(config).model}")
        return 0
    if isinstance(config, EvaluateConfig):
        from priorscope_astro.evaluate import run_evaluation

        return run_evaluation(config)
    if isinstance(config, DemoConfig):
        from priorscope_astro.demo import demo

        return demo(config)
    from priorscope_astro.generate import generate

    return generate(config)
