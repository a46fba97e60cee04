"""The report of an evaluation: official and correct figures, classes, confusion, the best and the worst image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from priorscope.evaluation.figures import Panel, figure_to_image, side_by_side
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.evaluation.suite import SuiteResult
from priorscope_remote_sensing.data.legend import Legend
from priorscope_remote_sensing.pictures import as_picture, confusion_figure
from priorscope_remote_sensing.predictor import SatellitePredictor
from priorscope_remote_sensing.scores import Counts
from priorscope_remote_sensing.training.examples import LabelledSet
from priorscope_remote_sensing.training.feed import stacked

#: Correct figure -> SatDiFuser's figure of the same purpose, and what that is.
_PAIRS: dict[str, list[tuple[str, str | None, str]]] = {
    "classification": [
        ("accuracy", "Accuracy", "the same"),
        ("macro_f1", "F1", "harmonic mean of class-averaged precision and recall"),
        ("balanced_accuracy", "Recall", "the same, but absent classes count 0"),
    ],
    "multi-label": [("micro_f1", "F1", "the same"), ("macro_f1", None, "")],
    "segmentation": [
        ("miou", "mIoU", "absent classes count 0; per cent"),
        ("miou_without_no_data", None, ""),
        ("macro_f1", "mF1", "absent classes count 0; per cent"),
        ("pixel_accuracy", "mAcc", "pixel accuracy under another name; per cent"),
        ("balanced_accuracy", "mPrecision", "recall under the name of precision; per cent"),
    ],
}
_SHOWN = 6


def tables(found: dict[str, Any], classes: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the figures, correct beside official, and rows of the classes.

    Parameters
    ----------
    found : dict
        Of :func:`priorscope_remote_sensing.scores.summary`.
    classes : sequence of str
    """
    correct, official = found["correct"], found["official"]
    task = "segmentation" if "iou" in correct else "multi-label" if "micro_f1" in correct else "classification"
    rows = [
        {
            "figure": name.replace("_", " "),
            "correct": correct[name],
            "SatDiFuser's": official[other] / (100 if "per cent" in what else 1) if other else None,
            "which is": what.replace("; per cent", ""),
        }
        for name, other, what in _PAIRS[task]
        if name in correct
    ]
    counts = np.asarray(found["counts"])
    if task == "multi-label":
        labels = counts[0] + counts[2]
        by_class = [
            {"class": n, "F1": f, "labels": int(c)} for n, f, c in zip(classes, correct["f1"], labels, strict=True)
        ]
        return rows, by_class
    score = "iou" if task == "segmentation" else "f1"
    labels, predictions = counts.sum(1), counts.sum(0)
    right = counts.diagonal()
    return rows, [
        {
            "class": name,
            score.upper() if score == "f1" else "IoU": correct[score][index],
            "recall": float(right[index] / labels[index]) if labels[index] else None,
            "precision": float(right[index] / predictions[index]) if predictions[index] else None,
            "labels": int(labels[index]),
        }
        for index, name in enumerate(classes)
    ]


def write_report(
    run: RunFolder,
    predictor: SatellitePredictor,
    data: LabelledSet,
    counts: Counts,
    found: dict[str, Any],
    outcome: SuiteResult,
) -> None:
    """Write ``report.html``."""
    settings = predictor.model.settings
    report = Report(
        f"{settings.task.capitalize()} of {data.title}",
        f"{len(outcome.rows)} images; {predictor.model.decoder.config.fuser} on features of {settings.backbone}",
    )
    rows, by_class = tables(found, settings.classes)
    report.heading("Figures").table(
        rows, "0 ... 1, more is better. Beside the correct figures those that SatDiFuser's code prints, for comparison "
        "with its tables.",
    )  # fmt: skip
    report.heading("Classes").table(by_class, "Labels: images, or pixels of maps.")
    if settings.task != "multi-label":
        figure = confusion_figure(counts.counts, settings.classes)
        picture = figure_to_image(figure)
        figure.savefig(run.figures / "confusion.png", dpi=150)
        report.figure(picture, "Of each label (row), the share that was taken for each class (column), in per cent.")
    if settings.task == "segmentation":
        _add_maps(report, predictor, data, outcome)
    if outcome.failures:
        report.heading("Failed images").table([{"image": f.key, "error": f.error} for f in outcome.failures])
    report.environment(run).write(run.report_path, overwrite=True)


def _add_maps(report: Report, predictor: SatellitePredictor, data: LabelledSet, outcome: SuiteResult) -> None:
    """Images from the best to the worst by their share of right pixels."""
    settings = predictor.model.settings
    legend = Legend.of(settings.classes)
    shares = {row["key"]: _share(row["counts"]) for row in outcome.rows if row["counts"]}
    order = sorted(shares, key=lambda key: -shares[key])
    places = np.unique(np.linspace(0, len(order) - 1, min(_SHOWN, len(order))).round().astype(int))
    by_key = {data.key(place): place for place in range(len(data))}
    panels = []
    for key in (order[place] for place in places):
        batch = stacked([data.read(by_key[key])])
        classes = predictor(batch["image"], batch["metadata"]).argmax(1)[0].numpy()
        panels += [
            Panel(as_picture(batch["image"][0].numpy(), settings.bands), key),
            Panel(legend.paint(batch["label"][0].numpy().astype(np.uint8)), "labels"),
            Panel(legend.paint(classes.astype(np.uint8)), f"prediction, {100 * shares[key]:.0f} % right"),
        ]
    report.heading("From the best image to the worst")
    if panels:
        report.figure(figure_to_image(side_by_side(panels, columns=3, width=9.0)), "By the share of right pixels.")
    report.gallery([(legend.picture(), "classes; grey: no label")])


def _share(counts: Sequence[Sequence[int]]) -> float:
    return sum(number for label, taken, number in counts if label == taken) / sum(number for *_, number in counts)
