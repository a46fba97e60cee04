"""``priorscope remote-sensing evaluate``: predictions of a split, counted, in official and in correct figures."""

from __future__ import annotations

from typing import Any

import numpy as np

from priorscope.errors import InputError
from priorscope.evaluation.cost import CostLog
from priorscope.evaluation.processes import process_index_and_count
from priorscope.evaluation.run_folder import RunFolder
from priorscope.evaluation.suite import run_items
from priorscope.evaluation.tables import print_table
from priorscope_remote_sensing.configs import EvaluateConfig
from priorscope_remote_sensing.predict import load_predictor
from priorscope_remote_sensing.predictor import SatellitePredictor
from priorscope_remote_sensing.report import tables, write_report
from priorscope_remote_sensing.scores import Counts, count, empty_counts, summary
from priorscope_remote_sensing.training.examples import LabelledSet, open_split
from priorscope_remote_sensing.training.feed import stacked

_MAY_DIFFER = ("resume", "settings.device", "settings.batch_size", "out")


def evaluate(config: EvaluateConfig) -> int:
    """Run ``priorscope remote-sensing evaluate``; 1 when some images failed."""
    if config.limit < 0:
        raise InputError(f"a limit of {config.limit} images", remedy="Use --limit 0 for all, or a positive number.")
    predictor = load_predictor(config.settings)
    settings = predictor.model.settings
    data = open_split(config.source, config.split, settings, patch=predictor.side)
    if config.limit:
        data = data.some(config.limit)
    if settings.task == "segmentation":  # whatever their size, images are seen at the scale of the training
        predictor = predictor.at_side(max(data.read(0).image.shape[-2:]))
    run = RunFolder.create(config.out, config, resume=config.resume, may_differ=_MAY_DIFFER)

    backbone = predictor.features.backbone
    cost = CostLog(run, backbone.unet, backbone.device)

    def predict(places: list[int]) -> list[dict[str, Any]]:
        return _rows(predictor, data, places, cost)

    outcome = run_items(
        range(len(data)), predict, key=data.key, batch_size=config.settings.batch_size, run=run, progress=data.title
    )
    if process_index_and_count()[0] > 0:
        return 1 if outcome.failures else 0
    if not outcome.rows:
        raise InputError(f"no image could be evaluated; the first says: {outcome.failures[0].error}")
    counts = total(outcome.rows, predictor)
    found = summary(counts)
    about = {"model": str(config.settings.model), "data": data.title, "images": len(outcome.rows)}
    run.write_metrics({**about, **found, "failed": [failure._asdict() for failure in outcome.failures]})
    print(f"\n{data.title}, {len(outcome.rows)} images, {settings.task}:")
    for rows in tables(found, settings.classes):
        print_table(rows)
        print()
    for failure in outcome.failures:
        print(f"failed: {failure.key}: {failure.error}")
    write_report(run, predictor, data, counts, found, outcome)
    print(cost.sentence())
    print(f"report: {run.report_path}")
    return 1 if outcome.failures else 0


def _rows(predictor: SatellitePredictor, data: LabelledSet, places: list[int], cost: CostLog) -> list[dict[str, Any]]:
    """A row an image: its label and prediction, or for maps how often each class was taken for each."""
    batch = stacked([data.read(place) for place in places])
    with cost.call(len(places)):
        probabilities = predictor(batch["image"], batch["metadata"])
    rows = []
    for place in range(len(places)):
        own = empty_counts(predictor.model.settings)
        count(own, probabilities[place : place + 1], batch["label"].numpy()[place : place + 1])
        pairs = np.argwhere(own.counts)
        rows.append({"counts": [[*map(int, pair), int(own.counts[tuple(pair)])] for pair in pairs]})
    return rows


def total(rows: list[dict[str, Any]], predictor: SatellitePredictor) -> Counts:
    """The counts of all images."""
    counts = empty_counts(predictor.model.settings)
    for row in rows:
        for first, second, number in row["counts"]:
            counts.counts[first, second] += number
    return counts
