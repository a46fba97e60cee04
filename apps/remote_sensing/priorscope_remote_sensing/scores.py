"""Predictions counted against labels, for any of the three tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope_remote_sensing.data.legend import UNLABELLED
from priorscope_remote_sensing.metrics import ClassificationCounts, MultiLabelCounts, SegmentationCounts
from priorscope_remote_sensing.settings import SatDiFuserSettings

Counts = ClassificationCounts | MultiLabelCounts | SegmentationCounts

#: What a model is chosen by: SatDiFuser's choice, but for maps the mean over classes that occur.
SELECTED_BY = {"classification": "accuracy", "multi-label": "micro_f1", "segmentation": "miou"}


def empty_counts(settings: SatDiFuserSettings) -> Counts:
    """Counts of nothing yet, for the task and classes of a model."""
    classes = len(settings.classes)
    if settings.task == "multi-label":
        return MultiLabelCounts(classes)
    if settings.task == "segmentation":
        return SegmentationCounts(classes, UNLABELLED, no_data=settings.no_data)
    return ClassificationCounts(classes)


def count(counts: Counts, probabilities: torch.Tensor, labels: NDArray[Any]) -> None:
    """Count a batch.

    Parameters
    ----------
    counts : of :func:`empty_counts`
    probabilities : Tensor (B, classes) or (B, classes, H, W)
    labels : ndarray (B,) int, (B, classes) of 0 and 1, or (B, H, W) uint8 with 255 where there is none
    """
    if isinstance(counts, MultiLabelCounts):
        counts.update(probabilities.numpy(), labels)
    else:
        counts.update(probabilities.argmax(1).numpy(), np.asarray(labels))


def figures(counts: Counts) -> dict[str, float]:
    """The single figures among ``counts.metrics()``, all in 0 ... 1."""
    return {name: value for name, value in counts.metrics().items() if isinstance(value, float)}


def summary(counts: Counts) -> dict[str, Any]:
    """What is written to metrics.json.

    Returns
    -------
    dict
        ``correct``: ``counts.metrics()``; ``official``: SatDiFuser's figures, in their own units; ``counts``.
    """
    return {"correct": counts.metrics(), "official": counts.official(), "counts": counts.counts.tolist()}
