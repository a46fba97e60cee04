"""Evaluate a predictor of surface normals: pad, predict, crop, measure angles, pool over pixels or over images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from typing import Protocol as TypingProtocol

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_depth.evaluate import call_predictor
from priorscope_depth.metrics import NORMAL_METRICS, angular_errors, mean_over_images, normal_metrics
from priorscope_depth.normals_data import NormalsSample, centred_padding, pad_centred
from priorscope_depth.protocols import Compat, get_compat

if TYPE_CHECKING:
    import torch

    from priorscope.evaluation.run_folder import RunFolder
    from priorscope.evaluation.suite import Failure

Pooling = Literal["pixels", "images"]
POOLINGS: tuple[Pooling, ...] = ("pixels", "images")


class NormalsPredictor(TypingProtocol):
    """Map float32 [B, 3, H, W] in [0, 1] to normals [B, 3, H, W], y up, z towards the camera, of any length.

    ``items`` as for :class:`priorscope_depth.evaluate.EvaluatedPredictor`.
    """

    def __call__(self, rgb: torch.Tensor) -> torch.Tensor: ...


class LoadsNormals(TypingProtocol):
    """A sample that can be loaded: an item of an archive, or a NormalsSample."""

    @property
    def key(self) -> str: ...

    def load(self) -> NormalsSample: ...


@dataclass(frozen=True)
class NormalsEvaluation:
    """Result of :func:`evaluate_normals`.

    Attributes
    ----------
    pooling : {"pixels", "images"}
        Over what ``means`` were formed.
    compat : Compat
    means : dict
        See :func:`priorscope_depth.metrics.normal_metrics`.
    rows : list of dict
        One an image: ``key``, ``valid_pixels`` and its own metrics, whatever the pooling.
    failures : list of Failure
    """

    pooling: Pooling
    compat: Compat
    means: dict[str, float]
    rows: list[dict[str, Any]]
    failures: list[Failure]

    @property
    def images(self) -> int:
        """Number of images that were evaluated."""
        return len(self.rows)

    @property
    def pixels(self) -> int:
        """Number of pixels that were evaluated."""
        return sum(row["valid_pixels"] for row in self.rows)

    def summary(self) -> dict[str, Any]:
        """Return everything but the rows, JSON-able."""
        return {
            "pooling": self.pooling,
            "convention": self.compat.name,
            "images": self.images,
            "pixels": self.pixels,
            "failures": [{"key": f.key, "error": f.error} for f in self.failures],
            "means": dict(self.means),
        }


def compare_normals(evaluations: dict[str, NormalsEvaluation]) -> list[dict[str, Any]]:
    """Put evaluations into one table, a row each: ``label``, ``images`` and the metrics.

    Raises
    ------
    InputError
        They differ in pooling, convention, images or pixels: such figures say nothing about each other.
    """
    if not evaluations:
        raise InputError("no evaluations to compare")
    for name in ("pooling", "compat", "images", "pixels"):
        if len({getattr(e, name) for e in evaluations.values()}) > 1:
            raise InputError(f"normals evaluations of different {name} cannot be compared")
    return [{"label": label, "images": e.images, **e.means} for label, e in evaluations.items()]


def evaluate_normals(
    predictor: NormalsPredictor,
    samples: Sequence[LoadsNormals],
    *,
    pooling: Pooling = "pixels",
    compat: str | Compat = "priorscope",
    x_axis: Literal["left", "right"] = "left",
    batch_size: int = 1,
    run: RunFolder | None = None,
    progress: bool | str = True,
) -> NormalsEvaluation:
    """Evaluate a predictor of surface normals.

    Parameters
    ----------
    predictor : NormalsPredictor
        Where it has a ``device``, images are moved there. It sees each image at its own size, padded to a
        multiple of 32 on all sides.
    samples : sequence
        A :class:`~priorscope_depth.normals_data.NormalsArchive`, or any sequence of objects with ``key`` and
        ``load()``.
    pooling : {"pixels", "images"}
        "pixels": metrics of all pixels of the data set together, as DSINE and Lotus; "images": the mean of the
        metrics of each image, as Marigold. The two are not comparable.
    compat : {"priorscope", "lotus", "marigold"} or Compat
        Whose deviations to reproduce.
    x_axis : {"left", "right"}
        Where the x axis of the predictor points. The benchmarks' points left; "right" negates x.
    batch_size : int
        Images per call of the predictor, where their sizes agree.
    run : RunFolder, optional
        Where rows, and for pooling over pixels the angular errors (``angular_errors/``), are kept.
    progress : bool or str
        Show a progress bar on a terminal; a string is its title.

    Returns
    -------
    NormalsEvaluation

    Raises
    ------
    InputError
        Bad arguments, or no image that could be evaluated; a single bad image is listed in ``failures``.

    Notes
    -----
    The exact median of all pixels needs all errors: 4 bytes a pixel (654 images of NYUv2: 0.8 GB). They are kept
    on disk when a run folder is given, in memory otherwise.
    """
    from priorscope.evaluation.suite import run_items

    options = get_compat(compat)
    if pooling not in POOLINGS:
        raise InputError(f"unknown pooling {pooling!r}", remedy=f"Use one of {', '.join(POOLINGS)}.")
    if x_axis not in ("left", "right"):
        raise InputError(f"unknown direction of the x axis {x_axis!r}", remedy="Use left or right.")
    if not len(samples):
        raise InputError("there is no sample to evaluate")
    store = _ErrorStore(None if run is None else run.path / "angular_errors")

    def evaluate(items: list[LoadsNormals]) -> list[dict[str, Any]]:
        loaded = [item.load() for item in items]
        rows = []
        predictions = predict_normals(predictor, loaded, options)
        for sample, prediction in zip(loaded, predictions, strict=True):
            if x_axis == "right":
                prediction = prediction * np.array([-1, 1, 1], np.float32)[:, None, None]
            errors = angular_errors(prediction, sample.normals, sample.valid, precision=options.normal_precision)
            rows.append({"valid_pixels": errors.size, **normal_metrics(errors, digits=options.normal_digits)})
            if pooling == "pixels":
                store.add(sample.key, errors)
        return rows

    result = run_items(samples, evaluate, key=lambda item: item.key, batch_size=batch_size, run=run, progress=progress)
    if not result.rows:
        first = result.failures[0]
        raise InputError(f"none of {len(samples)} images could be evaluated; the first, {first.key}: {first.error}")
    if pooling == "pixels":
        means = normal_metrics(store.collect([row["key"] for row in result.rows]))
    else:
        means = mean_over_images([{name: row[name] for name in NORMAL_METRICS} for row in result.rows])
    return NormalsEvaluation(pooling, options, means, result.rows, result.failures)


def predict_normals(
    predictor: NormalsPredictor, samples: Sequence[NormalsSample], compat: str | Compat
) -> list[NDArray[np.float32]]:
    """Pad to a multiple of 32, predict (images of one size in one call) and crop: float32 [3, H, W] each."""
    import torch

    options = get_compat(compat)
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(sample.rgb.shape, []).append(index)
    found: dict[int, NDArray[np.float32]] = {}
    with torch.inference_mode():
        for (height, width, _), indices in groups.items():
            rgb = np.stack([samples[i].rgb.transpose(2, 0, 1) for i in indices])
            batch = torch.from_numpy(rgb).float() / 255.0
            batch = pad_centred(batch, official=options.official_normal_padding)
            predicted = call_predictor(predictor, batch, [samples[i].key for i in indices])
            if predicted.shape != batch.shape:
                raise ValueError(f"the predictor gave {list(predicted.shape)} where {list(batch.shape)} is expected")
            left, _, top, _ = centred_padding(height, width)
            cropped = predicted[..., top : top + height, left : left + width].float().cpu().numpy()
            found.update(zip(indices, cropped, strict=True))
    return [found[i] for i in range(len(samples))]


class _ErrorStore:
    """Angular errors of each image, on disk or in memory."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.memory: dict[str, NDArray[np.float32]] = {}

    def add(self, key: str, errors: NDArray[np.float32]) -> None:
        if self.folder is None:
            self.memory[key] = errors
            return
        from priorscope.data.files import atomic_path

        # before the row is written: a row without errors could not be resumed
        with atomic_path(self._path(self.folder, key), overwrite=True) as temporary:
            np.save(temporary, errors)

    def collect(self, keys: Sequence[str]) -> _StoredErrors:
        """Return the errors of the images, those that other processes hold included."""
        from priorscope.evaluation.processes import gather_objects

        lacking = set().union(*gather_objects({key for key in keys if not self._has(key)}))
        if lacking:  # nothing is exchanged where all see one folder
            for part in gather_objects({key: self._load(key) for key in lacking if self._has(key)}):
                self.memory |= part
        lost = [key for key in keys if not self._has(key)]
        if lost:
            raise InputError(
                f"the angular errors of {len(lost)} images of an earlier run are gone (first: {lost[0]})",
                path=self.folder,
                remedy="Start a new run.",
            )
        return _StoredErrors(self, list(keys))

    def _has(self, key: str) -> bool:
        return key in self.memory or (self.folder is not None and self._path(self.folder, key).is_file())

    def _load(self, key: str) -> NDArray[np.float32]:
        if key in self.memory or self.folder is None:
            return self.memory[key]
        return np.load(self._path(self.folder, key), allow_pickle=False)

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / f"{hashlib.sha1(key.encode()).hexdigest()}.npy"  # keys hold slashes


class _StoredErrors:
    """The errors of many images, an array at a time, as often as needed."""

    def __init__(self, store: _ErrorStore, keys: list[str]) -> None:
        self.store, self.keys = store, keys

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self.store._load(key) for key in self.keys)
