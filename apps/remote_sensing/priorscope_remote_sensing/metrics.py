"""Metrics of classification, multi-label classification and segmentation: correct ones, and SatDiFuser's own.

Each is an accumulator of counts: ``update`` with a batch, ``+`` to join those of several processes, then
``metrics()`` and ``official()``. The counts are sums, so neither batches nor processes change a figure.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError


class _Confusion:
    """``counts[label, prediction]`` over all that has been seen.

    Parameters
    ----------
    num_classes : int
    ignore_index : int, optional
        Label of pixels or images that count nowhere.
    """

    def __init__(self, num_classes: int, ignore_index: int | None = None) -> None:
        if num_classes < 1:
            raise InputError(f"{num_classes} classes")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(self, prediction: ArrayLike, label: ArrayLike) -> None:
        """Count a batch of class indices, two integer arrays of one shape."""
        p, g = _indices("prediction", prediction), _indices("label", label)
        if p.shape != g.shape:
            raise InputError(f"predictions {list(p.shape)} and labels {list(g.shape)} must have one shape")
        if self.ignore_index is not None:
            keep = g != self.ignore_index
            p, g = p[keep], g[keep]
        for name, values in (("prediction", p), ("label", g)):
            if values.size and not 0 <= values.min() <= values.max() < self.num_classes:
                raise InputError(
                    f"a {name} lies outside 0 ... {self.num_classes - 1}: {values.min()} ... {values.max()}",
                    remedy="Give the ignored label as ignore_index." if name == "label" else None,
                )
        joint = g.ravel().astype(np.int64) * self.num_classes + p.ravel()
        self.counts += np.bincount(joint, minlength=self.num_classes**2).reshape(self.counts.shape)

    def __add__(self, other: Self) -> Self:
        """The counts of both."""
        if (self.num_classes, self.ignore_index) != (other.num_classes, other.ignore_index):
            raise InputError("counts of different classes cannot be added")
        total = type(self)(self.num_classes, self.ignore_index)
        total.counts = self.counts + other.counts
        return total

    def _shares(self) -> tuple[NDArray[np.float64], ...]:
        """Right ones, labels and predictions of each class."""
        if not self.counts.any():
            raise InputError("nothing was counted: there is no labelled item")
        return (
            self.counts.diagonal().astype(np.float64),
            self.counts.sum(1).astype(np.float64),
            self.counts.sum(0).astype(np.float64),
        )


class ClassificationCounts(_Confusion):
    """Single-label classification; see the module."""

    def metrics(self) -> dict[str, Any]:
        """Figures in 0 ... 1.

        Returns
        -------
        dict
            ``accuracy``; ``balanced_accuracy``, the mean recall of the classes that have labels; ``macro_f1``, the
            mean F1 of the classes that have labels or predictions (scikit-learn's default); ``f1``, a list with
            None for classes that have neither.
        """
        right, labels, predictions = self._shares()
        f1 = _ratio(2 * right, labels + predictions)
        recall = _ratio(right, labels)
        return {
            "accuracy": float(right.sum() / labels.sum()),
            "balanced_accuracy": float(np.nanmean(recall)),
            "macro_f1": float(np.nanmean(f1)),
            "f1": _listed(f1),
        }

    def official(self) -> dict[str, float]:
        """SatDiFuser's figures: F1 is the harmonic mean of the class-averaged precision and recall.

        Precision and recall are means over all classes, absent ones counting 0.
        """
        right, labels, predictions = self._shares()
        precision = float(_ratio(right, predictions, 0.0).mean())
        recall = float(_ratio(right, labels, 0.0).mean())
        both = precision + recall
        accuracy = float(right.sum() / labels.sum())
        return {
            "Accuracy": accuracy,
            "Precision": precision,
            "Recall": recall,
            "F1": 2 * precision * recall / both if both else 0.0,
            "model_selection_metric": accuracy,
        }


class SegmentationCounts(_Confusion):
    """Segmentation, pooled over all pixels; see the module.

    Parameters
    ----------
    num_classes : int
    ignore_index : int, optional
        Label of pixels that count nowhere.
    no_data : int, optional
        A class that only says that nothing is known (cashew 0, SA-crop 0, chesapeake's last): predicted and
        labelled as any, but left out of ``miou_without_no_data``.
    """

    def __init__(self, num_classes: int, ignore_index: int | None = None, *, no_data: int | None = None) -> None:
        super().__init__(num_classes, ignore_index)
        if no_data is not None and not 0 <= no_data < num_classes:
            raise InputError(f"no_data {no_data} is none of {num_classes} classes")
        self.no_data = no_data

    def __add__(self, other: Self) -> Self:
        total = super().__add__(other)
        if self.no_data != other.no_data:
            raise InputError("counts of different classes cannot be added")
        total.no_data = self.no_data
        return total

    def metrics(self) -> dict[str, Any]:
        """Figures in 0 ... 1.

        Returns
        -------
        dict
            ``miou`` and ``macro_f1``, means over the classes that have labels or predictions;
            ``miou_without_no_data``, the same where pixels labelled "no data" count nowhere and the class is left
            out (absent without ``no_data``); ``pixel_accuracy``; ``balanced_accuracy``; ``iou``, a list with None
            for classes that have neither.
        """
        right, labels, predictions = self._shares()
        iou = _ratio(right, labels + predictions - right)
        figures = {
            "miou": float(np.nanmean(iou)),
            "pixel_accuracy": float(right.sum() / labels.sum()),
            "balanced_accuracy": float(np.nanmean(_ratio(right, labels))),
            "macro_f1": float(np.nanmean(_ratio(2 * right, labels + predictions))),
            "iou": _listed(iou),
        }
        if self.no_data is not None:
            figures["miou_without_no_data"] = self._miou_without_no_data()
        return figures

    def _miou_without_no_data(self) -> float:
        known = self.counts.copy()
        known[self.no_data] = 0
        if not known.any():
            raise InputError("every pixel is labelled 'no data'")
        right = known.diagonal()
        # a known pixel that is predicted as "no data" is still a miss of its class
        iou = _ratio(right, known.sum(0) + known.sum(1) - right)
        return float(np.nanmean(np.delete(iou, self.no_data)))  # type: ignore[arg-type]

    def official(self) -> dict[str, Any]:
        """SatDiFuser's figures, in percent: means over all classes, absent ones counting 0.

        What it calls precision is recall and the reverse, and ``mAcc`` is the pixel accuracy. One thing is not
        reproduced: for a batch without any valid pixel the official code counts its ignored pixels.
        """
        right, labels, predictions = self._shares()
        by_class = {
            "IoU": _ratio(right, labels + predictions - right, 0.0),
            "F1": _ratio(2 * right, labels + predictions, 0.0),
            "Precision": _ratio(right, labels, 0.0),
            "Recall": _ratio(right, predictions, 0.0),
        }
        means = {f"m{name}": 100 * float(values.mean()) for name, values in by_class.items()}
        return {
            **{name: (100 * values).tolist() for name, values in by_class.items()},
            **means,
            "mAcc": 100 * float(right.sum() / labels.sum()),
            "model_selection_metric": means["mIoU"],
        }


class MultiLabelCounts:
    """Multi-label classification: how often each class was rightly, wrongly and not found.

    Parameters
    ----------
    num_classes : int
    threshold : float
        A class is predicted where its probability is above.
    """

    def __init__(self, num_classes: int, threshold: float = 0.5) -> None:
        if num_classes < 1 or not 0 <= threshold < 1:
            raise InputError(f"{num_classes} classes, threshold {threshold}")
        self.num_classes = num_classes
        self.threshold = threshold
        #: Rows: found, falsely found, missed.
        self.counts: NDArray[np.int64] = np.zeros((3, num_classes), dtype=np.int64)

    def update(self, probabilities: ArrayLike, labels: ArrayLike) -> None:
        """Count a batch: probabilities in 0 ... 1 and labels 0 or 1, both (B, classes)."""
        p, g = np.asarray(probabilities), np.asarray(labels)
        if p.shape != g.shape or p.ndim != 2 or p.shape[1] != self.num_classes:
            raise InputError(
                f"probabilities {list(p.shape)} and labels {list(g.shape)} are not (B, {self.num_classes})"
            )
        if p.size and not (p.min() >= 0 and p.max() <= 1):  # NaN too
            raise InputError("probabilities must lie in 0 ... 1 and not be NaN", remedy="Logits go through a sigmoid.")
        if not np.isin(g, (0, 1)).all():
            raise InputError("labels must be 0 or 1")
        found, true = p > self.threshold, g.astype(bool)
        self.counts += np.stack([(found & true).sum(0), (found & ~true).sum(0), (~found & true).sum(0)])

    def __add__(self, other: MultiLabelCounts) -> MultiLabelCounts:
        """The counts of both."""
        if (self.num_classes, self.threshold) != (other.num_classes, other.threshold):
            raise InputError("counts of different classes cannot be added")
        total = MultiLabelCounts(self.num_classes, self.threshold)
        total.counts = self.counts + other.counts
        return total

    def metrics(self) -> dict[str, Any]:
        """``micro_f1``, ``micro_precision``, ``micro_recall`` over all decisions; ``macro_f1``, the mean of classes.

        In 0 ... 1; 0 where nothing was predicted or nothing was there, except that ``macro_f1`` leaves out classes
        of which both are true, None in the list ``f1``.
        """
        if not self.counts.any():
            raise InputError("nothing was counted: no label is set and no class was predicted")
        found, false, missed = self.counts.astype(np.float64)
        f1 = _ratio(2 * found, 2 * found + false + missed)
        pooled = self.counts.sum(1).astype(np.float64)
        return {
            "micro_f1": float(_ratio(2 * pooled[0], 2 * pooled[0] + pooled[1] + pooled[2], 0.0)),
            "micro_precision": float(_ratio(pooled[0], pooled[0] + pooled[1], 0.0)),
            "micro_recall": float(_ratio(pooled[0], pooled[0] + pooled[2], 0.0)),
            "macro_f1": float(np.nanmean(f1)),
            "f1": _listed(f1),
        }

    def official(self) -> dict[str, float]:
        """SatDiFuser's figures, which are the micro ones."""
        own = self.metrics()
        names = {"Precision": "micro_precision", "Recall": "micro_recall", "F1": "micro_f1"}
        figures = {name: own[key] for name, key in names.items()}
        return {**figures, "model_selection_metric": figures["F1"]}


def _indices(name: str, values: ArrayLike) -> NDArray[np.integer]:
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"a {name} must be an array of integers, got {array.dtype}", remedy="Logits need argmax.")
    return array


def _ratio(part: Any, whole: Any, empty: float = np.nan) -> NDArray[np.float64]:
    """``part / whole``, ``empty`` where ``whole`` is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full_like(whole, empty), where=whole > 0)


def _listed(values: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
