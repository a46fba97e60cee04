"""Which generated images can be used: a statement for the catalogue, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_astro.accept_config import AcceptConfig
from priorscope_astro.data.anything import read_flux, read_galaxies
from priorscope_astro.data.galaxies import GalaxySet
from priorscope_astro.data.learnt import Learnt
from priorscope_astro.data.splits import Splits
from priorscope_astro.evaluation.look import Look, look_from, pictures_of, values_of
from priorscope_astro.evaluation.sample import LARGEST_SIDE, Real, Sample, Survey, conditions_of, read_images, survey_of
from priorscope_astro.evaluation.shapes import measure_shapes

_BLOCK = 256
#: Pixels that copies are looked for at, and most training galaxies that tell how near they are to each other.
_SIDE, _PROBED = 32, 500


@dataclass(frozen=True)
class Bank:
    """Training galaxies, small, and how near one must come to be a copy."""

    ids: tuple[str, ...]
    values: NDArray[np.float32]
    threshold: float
    look: Look | None


class Gate:
    """Loads what the statement needs, before anything is drawn.

    Parameters
    ----------
    config : AcceptConfig
    survey : mapping
        Of a model of flux: ``bands``, ``unit``, ``psf``, ``sky_sigma``; of pictures none, or no ``unit``.
    splits : Splits, optional
        Of ``config.training``: only the training galaxies count.
    side : int
        Of the flux that will be stated, pixels: a classifier must have been trained on as many. 0 of pictures.
    learnt : Learnt, optional
        The galaxies that the model was trained on. Where it knows them all, these count, whatever the splits say.

    Raises
    ------
    InputError
        Numbers that make no sense, a classifier or galaxies that cannot be read, flux in other bands or units, a
        classifier that was trained on generated galaxies, galaxies that the model has not learnt.
    """

    def __init__(
        self,
        config: AcceptConfig,
        survey: dict[str, Any],
        splits: Splits | None = None,
        *,
        side: int = 0,
        learnt: Learnt | None = None,
    ) -> None:
        config.check_values()
        self.config = config
        sigma, psf = survey.get("sky_sigma"), survey.get("psf")
        self.survey = Survey(
            tuple(survey.get("bands", ())),
            str(survey.get("unit", "")),
            None if sigma is None else np.asarray(sigma, np.float64),
            None if psf is None else np.asarray(psf, np.float64),
        )
        self.model: Any = None
        self._bank: Bank | None = None
        self._look: Look | None = None
        if config.classifier is not None:
            from priorscope_astro.evaluation.classifying import load_classifier, refuse_generated, refuse_side

            self.model = load_classifier(config.classifier)
            refuse_side(self.model, side, path=config.classifier)
            refuse_generated(config.classifier)
        self._trained_on: tuple[GalaxySet, Survey] | None = None
        if config.training is not None:
            self._trained_on = _trained_on(config.training, splits, self.survey, learnt)

    def state(self, table: Any, folder: Path) -> None:
        """Add the statement to a catalogue of `generate`, in place.

        Columns: ``morphology_flag``; ``centre_offset`` (share of the side); ``agreement`` (NaN without a classifier)
        and ``classified_as``; ``nearest_training_id`` and ``nearest_training_distance`` (NaN without training
        galaxies; see :func:`priorscope_astro.memorisation.nearest_training_image`); ``accepted``; ``rejected_for``.

        Parameters
        ----------
        table : astropy QTable
            With ``image``, relative to ``folder``, ``class_name`` and the fractions that were asked for.
        folder : Path
        """
        files = [folder / str(name) for name in table["image"]]
        labels = [str(name) for name in table["class_name"]]
        conditions = conditions_of(table)
        parts: list[dict[str, NDArray[Any]]] = []
        for first in range(0, len(files), _BLOCK):
            rows = slice(first, first + _BLOCK)
            images, mode = read_images(files[rows])
            asked = None if conditions is None else conditions[rows]
            sample = Sample(tuple(map(str, files[rows])), tuple(labels[rows]), images, mode, asked)
            parts.append(self.of(sample))
        for name in parts[0]:
            table[name] = np.concatenate([part[name] for part in parts])
        table.meta["accepted"] = {
            "criteria": {
                "agreement": self.config.agreement if self.model is not None else "not looked at",
                "worst_flag": self.config.worst_flag,
                "offset": self.config.offset,
                "copies": self.config.copies if self.config.training is not None else "not looked at",
            },
            "nearest_distance_of_a_copy": None if self._bank is None else self._bank.threshold,
            "images": int(np.sum(table["accepted"])),
        }

    def of(self, sample: Sample) -> dict[str, NDArray[Any]]:
        """The columns of :meth:`state` for images in memory."""
        config, count = self.config, len(sample)
        if sample.mode == "flux" and self._look is None:
            self._look = look_from(sample.images, self.survey)
        look = self._look
        shapes = measure_shapes(sample, self.survey, look)
        reasons: list[list[str]] = [[] for _ in range(count)]

        def refuse(bad: NDArray[np.bool_], words: str) -> None:
            for row in np.flatnonzero(bad):
                reasons[row].append(words)

        refuse(shapes.flag > config.worst_flag, "morphology")
        refuse(~(shapes.offset <= config.offset), "centring")
        agreement, taken = np.full(count, np.nan), np.full(count, "", dtype="U64")
        if self.model is not None:
            agreement, taken = self._asked(sample, pictures_of(sample, look))
            refuse(~(agreement >= config.agreement), "classifier")
        nearest, distance = np.full(count, "", dtype="U64"), np.full(count, np.nan)
        if config.training is not None:
            nearest, distance, threshold = self._nearest(sample)
            refuse(distance < threshold, "copy")  # NaN, a constant image, is near nothing
        words = [", ".join(row) for row in reasons]
        return {
            "morphology_flag": shapes.flag,
            "centre_offset": shapes.offset.astype(np.float32),
            "agreement": agreement.astype(np.float32),
            "classified_as": taken,
            "nearest_training_id": nearest,
            "nearest_training_distance": distance.astype(np.float32),
            "accepted": np.array([not row for row in words], bool),
            "rejected_for": np.array(words, dtype="U40"),
        }

    def _asked(self, sample: Sample, pictures: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        from priorscope_astro.classifier.predict import predict
        from priorscope_astro.conditions.tree import QUESTIONS, SLICES
        from priorscope_astro.evaluation.classifying import fitted

        answers = predict(self.model, fitted(self.model, pictures)).astype(np.float64)
        names: Sequence[str] = self.model.spec.classes
        if names:
            place = {name: column for column, name in enumerate(names)}
            columns = np.array([place.get(name, -1) for name in sample.labels])
            own = np.where(columns < 0, np.nan, answers[np.arange(len(answers)), columns])
            return own, np.array(names)[answers.argmax(1)].astype("U64")
        sure: NDArray[np.float64] = np.full(len(sample), np.nan)
        for question in QUESTIONS if sample.conditions is not None else ():
            part = SLICES[question]
            asked = sample.conditions[:, part]  # type: ignore[index]
            clear = asked.max(1) > 0.5
            share = answers[:, part][np.arange(len(sample)), asked.argmax(1)]
            sure = np.where(clear, np.fmin(sure, share), sure)
        return sure, np.full(len(sample), "", dtype="U64")

    def _nearest(self, sample: Sample) -> tuple[NDArray[Any], NDArray[Any], float]:
        from priorscope_astro.memorisation import nearest_training_image

        bank = self._training(sample)
        values = values_of(sample, bank.look)
        told = values.reshape(len(values), -1).std(1) > 0  # a constant image is near nothing
        ids, distance = np.full(len(sample), "", dtype="U64"), np.full(len(sample), np.nan)
        if told.any():
            found = nearest_training_image(values[told], bank.values, side=_SIDE)
            ids[told] = [bank.ids[place] for place in found.index]
            distance[told] = found.distance
        return ids, distance, bank.threshold

    def _training(self, sample: Sample) -> Bank:
        if self._bank is None:
            assert self._trained_on is not None
            self._bank = _bank(*self._trained_on, self.config.copies, sample)
        return self._bank


def _trained_on(path: Path, splits: Splits | None, drawn: Survey, learnt: Learnt | None) -> tuple[GalaxySet, Survey]:
    """The training galaxies, not yet read, and what their flux has in common; ``drawn`` is that of generated flux."""
    survey, flux = Survey(), drawn.unit != ""  # pictures have none
    if flux:
        stamps = read_flux(path)
        galaxies, survey = stamps.galaxies(), survey_of(stamps)
        survey.refuse_other(drawn, "the generated galaxies are", path=path)
    else:
        galaxies = read_galaxies(path, mode="display")
    if galaxies.mode != ("flux" if flux else "display") or galaxies.images is None:
        raise InputError("has no pictures to compare pictures with", path=path, remedy="--accept.training: check it.")
    if learnt is not None and learnt.complete:
        known = learnt.mask(galaxies.ids)
        if not known.any():
            raise InputError(
                "holds none of the galaxies that the model has learnt",
                path=path,
                remedy="--accept.training takes those that it was trained on.",
            )
        galaxies = galaxies.select(known)
        if len(galaxies) < len(learnt.ids):
            print(f"copies are looked for among {len(galaxies)} of the {len(learnt.ids)} galaxies that were learnt")
    elif splits is not None:
        galaxies = galaxies.of_split(splits, "train")
    if len(galaxies) < 8:
        raise InputError(f"has {len(galaxies)} training galaxies", path=path, remedy="Give 8 or more.")
    return galaxies, survey


def _bank(galaxies: GalaxySet, survey: Survey, copies: float, sample: Sample) -> Bank:
    from priorscope_astro.evaluation.look import look_of
    from priorscope_astro.memorisation import nearest_training_image

    real = Real(galaxies, survey, sample.side if sample.mode == "flux" else min(sample.side, LARGEST_SIDE))
    look = look_of(real) if sample.mode == "flux" else None
    values = small_values(real, range(len(galaxies)), look)
    probed = np.random.default_rng(0).permutation(len(values))
    few = min(_PROBED, len(values) // 4)
    apart = nearest_training_image(values[probed[:few]], values[probed[few:]], side=_SIDE).distance
    return Bank(galaxies.ids, values, float(np.quantile(apart, copies)), look)


def small_values(real: Real, rows: Sequence[int], look: Look | None, side: int = _SIDE) -> NDArray[np.float32]:
    """Values (N, channels, side, side) of many real galaxies, averaged down as they are read: 4 bytes a value."""
    import torch
    from torch.nn import functional

    kept = []
    for row in rows:
        values = torch.from_numpy(values_of(real.sample([row]), look))
        kept.append((functional.adaptive_avg_pool2d(values, side) if values.shape[-1] > side else values)[0].numpy())
    return np.stack(kept)
