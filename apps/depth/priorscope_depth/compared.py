"""Rows of other models in an evaluation: the same images, protocol and alignment, each model at its own settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope_depth.base import ImagePredictor
from priorscope_depth.configs import EvaluateConfig
from priorscope_depth.evaluate import evaluate_depth
from priorscope_depth.predict import load_other
from priorscope_depth.predictor import NativePredictor
from priorscope_depth.protocols import DepthProtocol, get_compat
from priorscope_depth.scores import DepthEvaluation


def load_compared(config: EvaluateConfig) -> dict[str, ImagePredictor]:
    """The models that ``--compare`` names, before the first image; InputError for those that cannot be measured."""
    loaded: dict[str, ImagePredictor] = {}
    for model in config.compare:
        predictor = load_other(config.settings, model, posterior=config.settings.posterior)
        if predictor.task != "depth":
            raise InputError(f"{predictor.name} predicts {predictor.task}", remedy="Leave it out of --compare.")
        anyway = get_compat(config.compat).name != "priorscope"  # official conventions fit any prediction in any space
        if predictor.space not in config.alignments and predictor.scale != "metric" and not anyway:
            raise InputError(
                f"{predictor.name} predicts {predictor.space}, which --alignments does not name",
                remedy=f"Add {predictor.space}, or leave the model out.",
            )
        folders = {_folder(name).lower() for name in loaded}  # some file systems see no difference
        if _folder(predictor.name).lower() in folders or model == config.settings.model:
            raise InputError(f"{predictor.name} is compared twice", remedy="Name each model once, by one path.")
        loaded[predictor.name] = predictor
    return loaded


def evaluate_compared(
    predictors: dict[str, ImagePredictor], config: EvaluateConfig, samples: Sequence[Any], protocol: DepthProtocol
) -> dict[str, DepthEvaluation]:
    """Evaluate each in a run folder of its own, ``out/compared/NAME``, so that a run that is cut off goes on."""
    evaluations = {}
    for name, predictor in predictors.items():
        folder = config.out / "compared" / _folder(name)
        run = RunFolder.create(
            folder, config, resume=config.resume, may_differ=("resume", "settings.device", "settings.batch_size", "out")
        )
        evaluations[name] = evaluate_depth(
            NativePredictor(predictor, seed=config.settings.seed, run=run),
            samples,
            protocol,
            alignments=config.alignments,
            compat=config.compat,
            batch_size=config.settings.batch_size,
            run=run,
            progress=name,
        )
        run.write_metrics({"model": name, **evaluations[name].summary()})
    return evaluations


def _folder(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("_.")
