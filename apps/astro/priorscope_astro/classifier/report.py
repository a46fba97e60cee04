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
from priorscope_astro.conditions.tree import SLICES


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


def fraction_error(fractions: NDArray[Any], counts: NDArray[Any], least: int = 5) -> float:
    """Mean absolute error of vote fractions (N, 37) over the answers of questions that ``least`` or more were asked.

    NaN where no question was asked that often.
    """
    every = np.concatenate([np.abs(error).ravel() for error in _errors(fractions, counts, least).values()])
    return float(every.mean()) if len(every) else float("nan")


def question_rows(
    fractions: NDArray[Any], counts: NDArray[Any], learnt: NDArray[Any], least: int = 5
) -> list[dict[str, Any]]:
    """The error of :func:`fraction_error` question by question, beside that of one guess for all galaxies.

    Parameters
    ----------
    fractions : ndarray, (N, 37)
        What a classifier says.
    counts : ndarray, (N, 37)
        Votes.
    learnt : ndarray, (M, 37)
        Votes of training galaxies: the guess is the share of all of them together.
    least : int

    Returns
    -------
    list of dict
        ``question``, ``galaxies`` that it was asked of, ``error``, ``error of the mean``; those that were asked of one.
    """
    guess = np.zeros(learnt.shape[1])
    for part in SLICES.values():
        total = learnt[:, part].sum()
        guess[part] = learnt[:, part].sum(0) / total if total else 1 / len(guess[part])
    own, mean = (_errors(values, counts, least) for values in (fractions, np.tile(guess, (len(counts), 1))))
    return [
        {
            "question": question,
            "galaxies": len(error),
            "error": float(np.abs(error).mean()),
            "error of the mean": float(np.abs(mean[question]).mean()),
        }
        for question, error in own.items()
        if len(error)
    ]


def _errors(fractions: NDArray[Any], counts: NDArray[Any], least: int) -> dict[str, NDArray[Any]]:
    """Question -> errors (galaxies that ``least`` or more were asked about, answers)."""
    found = {}
    for question, part in SLICES.items():
        asked = counts[:, part].sum(1)
        enough = asked >= least
        found[question] = fractions[enough, part] - counts[enough, part] / asked[enough, None]
    return found


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
    if held_out is not None and len(held_out) and not model.spec.classes:
        assert held_out.counts is not None
        assert examples.counts is not None
        table_rows = question_rows(predict(model, held_out.images), held_out.counts, examples.counts)
        if table_rows:
            report.heading("How far its vote fractions are off")
            report.table(
                table_rows,
                "Mean absolute error over the answers of a question, of held-out galaxies that 5 or more were asked "
                "about; beside it that of a guess, the mean of the training galaxies, for all.",
                digits=3,
            )
    report.environment(run).write(run.report_path, overwrite=True)
