"""The report of a classifier's training: what it learnt from, curves, and what it takes for what."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.curves import add_curves
from priorscope.training.loop import FitResult
from priorscope_astro.classifier.examples import Examples
from priorscope_astro.classifier.network import GalaxyClassifier
from priorscope_astro.classifier.predict import predict


def confusion(truth: NDArray[Any], found: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """How many examples of each class (rows) were taken for each class (columns).

    Parameters
    ----------
    truth, found : ndarray of int, (N,)
    classes : int
    """
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (truth, found), 1)
    return table


def write_report(run: RunFolder, result: FitResult, examples: Examples, held_out: Examples | None) -> None:
    """Write ``report.html`` into the run folder; an earlier one of this run is replaced."""
    model = GalaxyClassifier.load(result.model)
    weights = sum(weight.numel() for weight in model.parameters()) / 1e6
    report = Report(
        "A galaxy classifier",
        f"{len(examples)} images, {result.step} optimiser steps, {weights:.2f} M weights.",
    )
    if not result.finished:
        report.paragraph("The run is not finished; the same command with resume goes on.")
    add_curves(report, run.history())
    report.heading("What it learnt from")
    if examples.labels is not None:
        learnt = np.bincount(examples.labels, minlength=len(examples.classes))
        rows: list[dict[str, Any]] = [
            {"class": name, "images": int(count)} for name, count in zip(examples.classes, learnt, strict=True)
        ]
        report.table(rows)
    if held_out is not None and len(held_out) and model.spec.classes:
        assert held_out.labels is not None
        table = confusion(held_out.labels, predict(model, held_out.images).argmax(-1), len(held_out.classes))
        rows = [
            {"held out": name} | dict(zip(held_out.classes, row.tolist(), strict=True))
            for name, row in zip(held_out.classes, table, strict=True)
        ]
        report.heading("What it takes for what")
        report.table(rows, "Images of each class (rows) by the class that was most probable (columns).")
    report.environment(run).write(run.report_path, overwrite=True)
