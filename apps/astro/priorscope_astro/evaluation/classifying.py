"""What classifiers say: agreement with what was asked for, and how well they find real galaxies of each class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.evaluation.distributions import bootstrap
from priorscope_astro.classifier.network import GalaxyClassifier
from priorscope_astro.classifier.predict import answer_probability, predict
from priorscope_astro.conditions.classes import ClassRule, read_classes
from priorscope_astro.conditions.tree import QUESTIONS, SLICES
from priorscope_astro.data.learnt import learnt_by
from priorscope_astro.evaluation.sample import Sample, resized
from priorscope_astro.metrics import (
    completeness_at_purity,
    found,
    found_above,
    prevalence_weights,
    purity_at,
    share_interval,
)
from priorscope_astro.plan import is_generated


def load_classifier(folder: str | Path, device: str = "cpu") -> GalaxyClassifier:
    """A classifier's model folder, or its run folder.

    Raises
    ------
    InputError
        None is there, or it takes no pictures of three colours in 8 bit.
    """
    from priorscope.device import resolve_device

    folder = Path(folder)
    model = GalaxyClassifier.load(folder / "model" if (folder / "model").is_dir() else folder)
    if model.spec.channels != 3 or not model.spec.integer:
        raise InputError(
            "is a classifier of flux", path=folder, remedy="Here pictures are classified: uint8 in three colours."
        )
    return model.to(resolve_device(device))


def refuse_side(model: GalaxyClassifier, side: int, *, path: Path) -> None:
    """Raise where a classifier learnt stamps of another side than it is to see: galaxies would look larger or smaller.

    Parameters
    ----------
    model : GalaxyClassifier
    side : int
        Of stamps of flux, pixels; 0 of pictures, which are resized.
    path : Path
        Of the classifier, for the message.

    Raises
    ------
    InputError
    """
    if side and model.spec.size != side:
        raise InputError(
            f"has learnt stamps of {model.spec.size} pixels, and is to see some of {side}",
            path=path,
            remedy=f"Train it with --side {side}: flux is never resized.",
        )


def refuse_generated(folder: Path) -> None:
    """Raise where a classifier that is to judge generated galaxies has learnt some.

    Raises
    ------
    InputError
        Names one.
    """
    record = learnt_by(folder)
    drawn = sorted(filter(is_generated, () if record is None else record.ids))
    if drawn:
        raise InputError(
            f"was trained on {len(drawn)} generated galaxies, such as {drawn[0]}",
            path=folder,
            remedy="Give one that has seen real galaxies alone.",
        )


def refuse_learnt(folder: Path, tested: Iterable[str]) -> None:
    """Raise where a classifier has learnt galaxies that it is to be tested on.

    Raises
    ------
    InputError
        Names one.
    """
    record = learnt_by(folder)
    known = [] if record is None else sorted(set(tested) & record.ids)
    if known:
        raise InputError(
            f"has learnt {len(known)} of the galaxies that it would be tested on, such as {known[0]}",
            path=folder,
            remedy="Train it with the splits of this evaluation: train-classifier --splits.",
        )


def fitted(model: GalaxyClassifier, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures (N, H, W, 3) as the classifier takes them: (N, 3, size, size)."""
    size = model.spec.size
    if pictures.shape[1] != size:
        pictures = np.stack([resized(picture, size) for picture in pictures])
    return np.ascontiguousarray(np.moveaxis(pictures, -1, 1))


def class_scores(
    model: GalaxyClassifier, pictures: NDArray[np.uint8], classes: Sequence[str], rules: str = ""
) -> NDArray[np.float64]:
    """How sure a classifier is of each class, (N, classes).

    A head for classes gives probabilities (0 for a class that it does not know); one for votes the smallest expected
    share among the answers that define the class.
    """
    known = rules_of(model, classes, rules)
    answers = predict(model, fitted(model, pictures)).astype(np.float64)
    if known:
        shares = [[answer_probability(answers, answer) for answer in rule.answers] for rule in known]
        return np.stack([np.min(some, axis=0) for some in shares], 1)
    place = {name: column for column, name in enumerate(model.spec.classes)}
    zero = np.zeros(len(answers))
    return np.stack([answers[:, place[name]] if name in place else zero for name in classes], 1)


def rules_of(
    model: GalaxyClassifier, classes: Sequence[str], rules: str = "", *, path: Path | None = None
) -> tuple[ClassRule, ...]:
    """The rule by which the votes of a classifier make each class; none for one that gives classes.

    Raises
    ------
    InputError
        A class has no rule.
    """
    if model.spec.classes:
        return ()
    known = {rule.name: rule for rule in read_classes(rules)}
    lacking = next((name for name in classes if name not in known), None)
    if lacking is not None:
        raise InputError(
            f"is a classifier of votes, and no rule says which of them make a {lacking!r}",
            path=path,
            remedy="Give --classes FILE with a rule for each class of the real galaxies.",
        )
    return tuple(known[name] for name in classes)


def agreement(
    model: GalaxyClassifier, generated: Sample, pictures: NDArray[np.uint8], real: Sample, real_pictures: Any
) -> list[dict[str, Any]]:
    """How often a classifier finds in generated galaxies what was asked for, beside what it finds in real ones.

    With a head for classes one row a class that it knows; with one for votes one row a question that was asked with
    a majority for an answer, and no figures of real galaxies.

    Returns
    -------
    list of dict
        ``asked``, ``generated``, ``agree``, ``low``, ``high`` (95 %), and of classes ``taken for`` (the most frequent
        other class), ``real``, ``agree, real``.
    """
    if model.spec.classes:
        return _class_agreement(model, generated, pictures, real, real_pictures)
    if generated.conditions is None:
        return []
    shares = predict(model, fitted(model, pictures))
    rows = []
    for question in QUESTIONS:
        part = SLICES[question]
        asked = generated.conditions[:, part]
        clear = asked.max(1) > 0.5
        hits = shares[clear, part].argmax(1) == asked[clear].argmax(1)
        if not clear.any():
            continue
        interval = share_interval(int(hits.sum()), int(clear.sum()))
        row = {"asked": question, "generated": int(clear.sum()), "agree": interval.estimate}
        rows.append(row | {"low": interval.low, "high": interval.high})
    return rows


def _class_agreement(
    model: GalaxyClassifier, generated: Sample, pictures: NDArray[np.uint8], real: Sample, real_pictures: Any
) -> list[dict[str, Any]]:
    names = np.array(model.spec.classes)
    taken = names[predict(model, fitted(model, pictures)).argmax(1)]
    known = names[predict(model, fitted(model, real_pictures)).argmax(1)] if len(real) else np.empty(0, names.dtype)
    asked, truth = np.array(generated.labels), np.array(real.labels)
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(generated.labels):
        if name not in model.spec.classes:
            continue  # it could not agree
        ours = taken[asked == name]
        interval = share_interval(int((ours == name).sum()), len(ours))
        others = [str(other) for other in ours if other != name]
        theirs = known[truth == name]
        rows.append(
            {
                "asked": name,
                "generated": len(ours),
                "agree": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "taken for": max(sorted(set(others)), key=others.count) if others else "",
                "real": len(theirs),
                "agree, real": float((theirs == name).mean()) if len(theirs) else None,
            }
        )
    return rows


@dataclass(frozen=True)
class Scored:
    """What a classifier says of real galaxies.

    Attributes
    ----------
    labels : tuple of str
    weights : array (N,)
        That restore natural prevalence.
    scores : array (N, classes)
    """

    labels: tuple[str, ...]
    weights: NDArray[np.float64]
    scores: NDArray[np.float64]


def weights_of(labels: Sequence[str], natural: Mapping[str, float]) -> NDArray[np.float64]:
    """Weights of real galaxies that give each class its share in nature; classes without a galaxy are left out."""
    there = dict.fromkeys(labels)
    total = sum(natural.get(name, 0.0) for name in there)
    if not total > 0:
        raise InputError("no class of the real galaxies has a share in nature", remedy="Correct --prevalence.")
    return prevalence_weights(labels, {name: natural.get(name, 0.0) / total for name in there})


def natural_shares(labels: Sequence[str], given: Mapping[str, float]) -> dict[str, float]:
    """Share of each class in nature: the given ones, the rest as often as the real galaxies have it.

    Raises
    ------
    InputError
        A given class that no real galaxy has.
    """
    counts = {name: labels.count(name) for name in dict.fromkeys(labels)}
    for name in given:
        if name not in counts:
            raise InputError(f"--prevalence names the class {name!r}", remedy=f"There are {', '.join(sorted(counts))}.")
    left = max(0.0, 1 - sum(given.values()))
    others = sum(count for name, count in counts.items() if name not in given)
    return {name: given[name] if name in given else left * count / others for name, count in counts.items()}


def class_figures(test: Scored, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Completeness, purity and F1 of the most probable class, at natural prevalence."""
    best = test.scores.argmax(1)
    truth = np.array(test.labels)
    rows = []
    for place, name in enumerate(classes):
        if not (truth == name).any():
            continue
        figures = found(truth == name, best == place, test.weights)
        row = {"class": name, "galaxies": int((truth == name).sum()), "completeness": figures.completeness}
        rows.append(row | {"purity": _number(figures.purity), "F1": figures.f1})
    return rows


def rare_figures(
    validation: Scored | None,
    test: Scored,
    column: int,
    rare: str,
    *,
    purity: float,
    best: Sequence[int],
    repeats: int,
    seed: int,
) -> dict[str, Any]:
    """A search for one class among real test galaxies, at natural prevalence.

    Returns
    -------
    dict
        ``completeness`` at the threshold that reaches ``purity`` among the validation galaxies, with ``low`` and
        ``high`` (bootstrap over the test galaxies, each class keeping its size); ``purity`` that the test galaxies have
        there; ``purity of the best K`` of as many galaxies drawn from nature; ``right among the K surest`` of the test
        galaxies as they are, without weights; ``average rank`` of the class, 0 the first and 1 the last. Without
        validation galaxies of the class the threshold cannot be set, and the first are missing.
    """
    scores, truth = test.scores[:, column], np.array(test.labels) == rare
    row: dict[str, Any] = {}
    held = None if validation is None else np.array(validation.labels) == rare
    if validation is not None and held is not None and held.any() and truth.any():
        result = completeness_at_purity(
            (validation.scores[:, column], held, validation.weights), (scores, truth, test.weights), purity
        )

        def completeness(s: Any, t: Any, w: Any) -> float:
            return found_above(s, t, result.threshold, w).completeness

        interval = bootstrap(
            completeness, scores, truth, test.weights, paired=True, strata=truth, repeats=max(200, repeats), seed=seed
        )
        row |= {"completeness": result.completeness, "low": interval.low, "high": interval.high}
        row |= {"purity": _number(result.purity), "selected": result.selected}
    for k in best:
        if k <= test.weights.sum() and truth.any():
            row[f"purity of the best {k}"] = purity_at(scores, truth, k, test.weights)
        if k <= len(scores):
            row[f"right among the {k} surest"] = purity_at(scores, truth, k)
    if truth.any() and not truth.all():
        place = np.empty(len(scores))
        place[np.argsort(-scores, kind="stable")] = np.linspace(0, 1, len(scores))
        row["average rank"] = float(place[truth].mean())
    return row


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
