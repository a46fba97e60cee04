"""Training of the galaxy classifier by the core's loop."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.loop import FitResult, fit, make_accelerator
from priorscope.training.settings import MAY_DIFFER
from priorscope.training.task import Task
from priorscope_astro.classifier.config import ClassifierConfig
from priorscope_astro.classifier.examples import Examples, refuse_common
from priorscope_astro.classifier.feed import ExampleFeed
from priorscope_astro.classifier.losses import focal_loss, votes_nll
from priorscope_astro.classifier.network import QUESTION_SIZES, ClassifierSpec, GalaxyClassifier
from priorscope_astro.classifier.predict import predict
from priorscope_astro.classifier.report import fraction_error, write_report
from priorscope_astro.data.learnt import Learnt, learnt_from

#: Examples that the mean and deviation of the channels are taken from, spread over the set.
_SAMPLE = 2000


class ClassifierTask(Task):
    """A :class:`priorscope.training.Task` on batches of :class:`~.feed.ExampleFeed`.

    Parameters
    ----------
    model : GalaxyClassifier
    config : ClassifierConfig
    held_out : Examples, optional
        Looked at while training; nothing is learnt from them.
    learnt : Learnt, optional
        What is said to be learnt.
    """

    def __init__(
        self,
        model: GalaxyClassifier,
        config: ClassifierConfig,
        held_out: Examples | None = None,
        learnt: Learnt | None = None,
    ) -> None:
        super().__init__(model)
        self.classifier = [model]  # hidden: it is self.model, with its own type
        self.config = config
        self.held_out, self.learnt = held_out, learnt

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        out = self.model(batch["image"])
        if self.config.head == "votes":
            return {"loss": votes_nll(batch["counts"], out, QUESTION_SIZES).mean()}
        label = batch["label"]
        right = (out.argmax(-1) == label).float().mean()
        if self.config.loss == "focal":
            return {"loss": focal_loss(out, label, self.config.gamma).mean(), "accuracy": right}
        return {"loss": F.cross_entropy(out, label), "accuracy": right}

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        """Accuracy and mean completeness of the classes; or the error of vote fractions where 5 or more voted."""
        held = self.held_out
        if held is None or not len(held):
            return {}
        found = predict(self.classifier[0], held.images)
        if self.config.head == "votes":
            assert held.counts is not None
            return {"held_out_fraction_error": fraction_error(found, held.counts)}
        assert held.labels is not None
        right = found.argmax(-1) == held.labels
        each = [float(right[held.labels == label].mean()) for label in np.unique(held.labels)]
        return {"held_out_accuracy": float(right.mean()), "held_out_mean_completeness": float(np.mean(each))}

    def save(self, folder: Path) -> None:
        """Write the model folder."""
        self.classifier[0].save(folder)
        if self.learnt is not None:
            self.learnt.write(folder)


def train_classifier(
    examples: Examples,
    config: ClassifierConfig,
    out: str | PathLike[str],
    *,
    held_out: Examples | None = None,
) -> FitResult:
    """Train a classifier, or go on training it where ``config.loop.resume`` is set; the model is in ``out/model``.

    Parameters
    ----------
    examples : Examples
        With labels for a head of classes, with counts for one of votes.
    config : ClassifierConfig
    out : path-like
        Run folder.
    held_out : Examples, optional
        Only looked at.

    Raises
    ------
    InputError
        For settings that make no sense, examples that do not fit them, a common object, or what the loop raises.
    """
    config.check()
    if 2 * config.shift >= examples.images.shape[-1]:
        raise InputError(
            f"shift {config.shift} of pictures of {examples.images.shape[-1]} pixels",
            remedy="The galaxy would leave them: use a few pixels.",
        )
    for part, name in ((examples, "the examples"), (held_out, "the held-out examples")):
        if part is not None and (part.labels if config.head == "classes" else part.counts) is None:
            raise InputError(f"{name} have no {'labels' if config.head == 'classes' else 'votes'}")
    if held_out is not None:
        refuse_common(examples, held_out)
        if config.head == "classes" and held_out.classes != examples.classes:
            raise InputError(f"classes {held_out.classes} are held out, {examples.classes} are learnt")
    accelerator = make_accelerator(config.loop)
    model = new_classifier(examples, config)
    feed = ExampleFeed(
        examples,
        config.loop.batch_size,
        config.loop.seed,
        balanced=config.sampling == "balanced",
        turns=config.turns,
        shift=config.shift,
    )
    _ = feed.order  # refuses what cannot be balanced before a folder is made
    run = RunFolder.create(
        out, config, resume=config.loop.resume, may_differ=("out", *(f"loop.{name}" for name in MAY_DIFFER))
    )
    accelerator.wait_for_everyone()
    learnt = learnt_from(examples.ids)
    result = fit(ClassifierTask(model, config, held_out, learnt), feed, config.loop, run, accelerator)
    if accelerator.is_main_process:
        write_report(run, result, examples, held_out)
    return result


def new_classifier(examples: Examples, config: ClassifierConfig) -> GalaxyClassifier:
    """A network with new weights for these examples."""
    if not len(examples):
        raise InputError("the training set is empty")
    spec = ClassifierSpec(
        size=examples.images.shape[-1],
        channels=examples.images.shape[1],
        classes=examples.classes if config.head == "classes" else (),
        widths=config.widths,
        integer=examples.images.dtype == np.uint8,
    )
    model = GalaxyClassifier.new(spec, config.loop.seed)
    sample = examples.images[:: max(1, len(examples) // _SAMPLE)].astype(np.float64) / (255 if spec.integer else 1)
    model.normalise_by(sample.mean((0, 2, 3)).tolist(), sample.std((0, 2, 3)).tolist())
    return model
