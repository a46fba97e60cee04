"""``priorscope astro evaluate``: generated galaxies beside real ones, question by question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.device import resolve_device
from priorscope.errors import InputError
from priorscope.evaluation.processes import process_index_and_count
from priorscope.evaluation.run_folder import RunFolder, read_yaml
from priorscope.evaluation.tables import print_table
from priorscope_astro.acceptance import small_values
from priorscope_astro.assignments import assignments
from priorscope_astro.data.learnt import Learnt, learnt_by
from priorscope_astro.data.splits import SPLITS, Splits
from priorscope_astro.evaluation import arms as training
from priorscope_astro.evaluation import classifying
from priorscope_astro.evaluation.distances import distances, own_features, own_function
from priorscope_astro.evaluation.findings import Findings
from priorscope_astro.evaluation.look import Look, look_of, pictures_of, values_of
from priorscope_astro.evaluation.sample import Real, Sample, chosen_rows, read_generated, read_real
from priorscope_astro.evaluation.shapes import compare_shapes, measure_shapes
from priorscope_astro.evaluation.sky import compare_sky, measure_sky
from priorscope_astro.evaluation_config import EvaluateConfig, shares
from priorscope_astro.labels import class_settings, refuse_unused
from priorscope_astro.memorisation import memorisation

_QUANTILE = 0.05
#: What the classifier of --classifier is called.
_GIVEN = "given"
#: Galaxies that are classified at a time.
_BLOCK = 512


def run_evaluation(config: EvaluateConfig) -> int:
    """Run ``priorscope astro evaluate``; returns the exit status. Of several processes the first does the work.

    Raises
    ------
    InputError
        For options that make no sense, galaxies that cannot be read or do not go together.
    """
    if process_index_and_count()[0] > 0:
        return 0
    config.check()
    generated, catalogue = read_generated(config)
    real = read_real(config, generated)
    splits, learnt = read_splits(config), read_learnt(config)
    check_inputs(config, generated, real, splits, learnt)
    run = RunFolder.create(config.out, config)
    findings = evaluate(config, run, generated, real, splits, learnt)
    findings.catalogue = catalogue
    finish(config, run, findings)
    print(f"report: {run.report_path}")
    return 0


def finish(config: EvaluateConfig, run: RunFolder, findings: Findings) -> None:
    """Write metrics.json and report.html, and print the most important tables."""
    from priorscope_astro.evaluation_report import write_report

    run.write_metrics(findings.metrics())
    for name, rows in (("agreement", findings.agreement_rows), ("search", findings.rare_rows)):
        if rows:
            print(f"{name}:")
            columns = list(dict.fromkeys(key for row in rows for key in row))
            print_table([{key: row.get(key) for key in columns} for row in rows], ".3g")
    for row in findings.distance_rows:
        print(f"{row['class']}: n {row['n']}, KID {row['KID']}, of real galaxies {row['KID real']}")
    write_report(run, config, findings)


def read_splits(config: EvaluateConfig) -> Splits | None:
    """The splits that are named, else those of the run that generated, where they can be found.

    Raises
    ------
    InputError
        They cannot be read.
    """
    if config.splits is not None:
        return Splits.read(config.splits)
    folder = config.generated if config.generated.is_dir() else config.generated.parent
    if not (folder / "config.yaml").is_file():
        return None
    asked = read_yaml(folder / "config.yaml")
    if asked.get("splits"):
        beside = Path(str(asked["splits"]))
    elif asked.get("plan"):
        beside = Path(str(asked["plan"])).parent / "splits.ecsv"
    else:
        return None
    return Splits.read(beside) if beside.is_file() else None


def read_learnt(config: EvaluateConfig) -> Learnt | None:
    """What the model that generated has learnt, where `generate` has left that beside the images.

    Raises
    ------
    InputError
        The record is damaged.
    """
    return Learnt.read(config.generated if config.generated.is_dir() else config.generated.parent)


def check_inputs(
    config: EvaluateConfig, generated: Sample, real: Real, splits: Splits | None, learnt: Learnt | None = None
) -> None:
    """Refuse what :func:`evaluate` would refuse in its course, before a folder is made and work is done.

    Raises
    ------
    InputError
        Classes or galaxies that are not there, a classifier or a function that cannot be loaded, two classifiers of one
        name, test galaxies that the model or a classifier has learnt or would learn, a classifier that has learnt
        generated galaxies or stamps of another side, or whose votes make no class, ``--classes`` that changes nothing.
    """
    resolve_device(config.device)  # also where nothing will be classified
    labels = real.galaxies.labels or ()
    rows = _rows_of_splits(real, splits, learnt, config)
    _refuse_other_classes(config, generated, labels, [labels[row] for row in rows["compared"]])
    _rare(config, generated, labels)
    classifying.natural_shares([name for name in labels if name], shares(config.prevalence))
    if config.train_classifiers:
        _refuse_learning(generated, real, rows["train"])
    tested = [real.galaxies.ids[row] for name in ("validation", "test") for row in rows[name]]
    votes = False
    for folder in (config.classifier, *_compared(config).values()):
        if folder is not None:
            model = classifying.load_classifier(folder)
            classifying.refuse_side(model, generated.side if generated.mode == "flux" else 0, path=folder)
            classifying.refuse_learnt(folder, tested)
            if len(rows["test"]):  # where a classifier of votes needs the rules, whoever says the classes
                classifying.rules_of(model, sorted({name for name in labels if name}), config.classes, path=folder)
                votes = votes or not model.spec.classes
    if not votes:
        refuse_unused(real.galaxies, class_settings(config.real, config), ("classes",))
    if config.classifier is not None:
        classifying.refuse_generated(config.classifier)
    if config.features not in ("auto", "classifier", "morphology"):
        own_function(config.features)


def evaluate(
    config: EvaluateConfig,
    run: RunFolder,
    generated: Sample,
    real: Real,
    splits: Splits | None,
    learnt: Learnt | None = None,
) -> Findings:
    """Compare generated with real galaxies.

    Parameters
    ----------
    config : EvaluateConfig
    run : RunFolder
        Classifiers that are trained here go into it.
    generated : Sample
    real : Real
        With labels; all splits.
    splits : Splits or None
        Without, every real galaxy that is not known to be learnt is compared with, and nothing is trained.
    learnt : Learnt or None
        What the model has learnt. Without, it is taken to be the training galaxies of the splits.

    Raises
    ------
    InputError
        No real galaxy of the generated classes, splits that do not know a galaxy or hold out one that was learnt.
    """
    labels = real.galaxies.labels or ()
    rows = _rows_of_splits(real, splits, learnt, config)
    compared = chosen_rows([labels[row] for row in rows["compared"]], config.per_class, config.seed)
    beside = real.sample(rows["compared"][compared])
    _refuse_other_classes(config, generated, labels, beside.labels)
    look = look_of(real) if generated.mode == "flux" else None
    findings = Findings(
        generated,
        beside,
        look,
        _rare(config, generated, labels),
        _against(config, splits, rows),
        pictures_of(generated, look),
        pictures_of(beside, look),
    )
    _note_learnt(findings, splits, learnt)
    _note_scale(findings, real.survey.pixel_scale, generated.survey.pixel_scale)
    _shapes(config, findings, real)
    if look is not None:
        skies = tuple(measure_sky(sample.images, look.sky_sigma) for sample in (beside, generated))
        findings.skies = skies[0], skies[1]
        findings.sky_rows = compare_sky(*findings.skies, real.survey.bands, seed=config.seed)
    _copies(findings, real, rows)
    models = _classifiers(config, findings, run, real, rows)
    if models:
        _ask_classifiers(config, findings, real, rows, models)
    else:
        findings.notes.append("No classifier was given (--classifier, or --train-classifiers): nothing is classified.")
    _distances(config, findings, models)
    return findings


def _refuse_other_classes(
    config: EvaluateConfig, generated: Sample, labels: Sequence[str], compared: Sequence[str]
) -> None:
    """Raise where none of the real galaxies that are compared is of a generated class."""
    asked = set(generated.labels)
    if asked & set(compared):
        return
    elsewhere = sum(name in asked for name in labels)
    if elsewhere:
        fact = f"none of the {len(compared)} galaxies that are compared ({config.against}) is of a generated class"
        remedy = f"Give more real galaxies; --against all compares the other {elsewhere}."
    else:
        fact = "no real galaxy is of a generated class"
        remedy = "Name --class-column or --classes as the plan had them."
    raise InputError(
        f"{fact} ({', '.join(sorted(asked))}); there are {', '.join(sorted(set(compared)))[:200]}",
        path=config.real,
        remedy=remedy,
    )


def _against(config: EvaluateConfig, splits: Splits | None, rows: dict[str, NDArray[np.int64]]) -> str:
    if splits is not None:
        return config.against
    return "not learnt" if len(rows["learnt"]) and config.against != "all" else "all real galaxies"


def _note_learnt(findings: Findings, splits: Splits | None, learnt: Learnt | None) -> None:
    known = [] if learnt is None else [name for name in findings.real.ids if name in learnt.ids]
    if known:
        findings.notes.append(
            f"The model has learnt {len(known)} of the real galaxies that it is compared with, such as {known[0]}."
        )
    elif splits is None and (learnt is None or not learnt.complete):
        findings.notes.append("Without splits real galaxies that the model was trained on may be among the compared.")


def _note_scale(findings: Findings, real: float | None, generated: float | None) -> None:
    if real is not None and generated is not None and not np.isclose(real, generated, rtol=0.01):
        findings.notes.append(
            f"A pixel of the real galaxies is {real:g} arcsec, of the generated ones {generated:g}: sizes, sharpness "
            "and noise cannot be compared."
        )


def _rows_of_splits(
    real: Real, splits: Splits | None, learnt: Learnt | None, config: EvaluateConfig
) -> dict[str, NDArray[np.int64]]:
    """Rows of real galaxies: ``train``, ``validation``, ``test``; ``learnt`` by the model and ``held-out`` from it;
    ``compared``."""
    ids = real.galaxies.ids
    every = np.arange(len(ids))
    known = np.zeros(len(ids), bool) if learnt is None else learnt.mask(ids)
    rows = {
        name: np.empty(0, np.int64) if splits is None else np.flatnonzero(splits.mask(ids, name)) for name in SPLITS
    }
    if splits is None:
        # of a model that does not say what it has learnt nothing is known to be held out
        rows["held-out"] = np.flatnonzero(~known) if known.any() else every[:0]
        compared = rows["held-out"] if known.any() and config.against != "all" else every
    else:
        held_out = np.sort(np.concatenate([rows["validation"], rows["test"]]))
        compared = {"held-out": held_out, "test": rows["test"], "all": every}[config.against]
        leaks = held_out[known[held_out]]
        if len(leaks) and config.against != "all":
            raise InputError(
                f"the model has learnt {len(leaks)} of the {len(held_out)} galaxies that the splits hold out, such as "
                f"{ids[leaks[0]]}",
                path=config.splits or config.generated,
                remedy="Give the splits that it was trained with; --against all compares all the same.",
            )
        rows["held-out"] = held_out[~known[held_out]]
    if not len(compared):
        raise InputError(f"no real galaxy is {config.against}", path=config.real, remedy="Use --against all.")
    if learnt is None:
        rows["learnt"] = rows["train"]
    else:
        taught = known if learnt.complete else known | np.isin(every, rows["train"])
        rows["learnt"] = np.flatnonzero(taught)
    return {"compared": compared, **rows}


def _rare(config: EvaluateConfig, generated: Sample, labels: tuple[str, ...]) -> str:
    classes = sorted(set(generated.labels))
    if config.rare:
        if config.rare not in set(labels):
            raise InputError(
                f"--rare {config.rare}: no real galaxy is one", remedy=f"There are {', '.join(sorted(set(labels)))}."
            )
        return config.rare
    there = [name for name in classes if name in labels]
    return min(there or classes, key=lambda name: (labels.count(name), name))


def _shapes(config: EvaluateConfig, findings: Findings, real: Real) -> None:
    fit = config.sersic and findings.mode == "flux"
    pair = [
        measure_shapes(sample, real.survey, findings.look, sersic=fit) for sample in (findings.real, findings.generated)
    ]
    findings.shapes = pair[0], pair[1]
    findings.shape_rows, notes = compare_shapes(
        *findings.shapes, findings.real.labels, findings.generated.labels, repeats=config.repeats, seed=config.seed
    )
    findings.notes += [f"Shapes of {note}." for note in notes]


def _copies(findings: Findings, real: Real, rows: dict[str, NDArray[np.int64]]) -> None:
    """Nearest training images, of generated galaxies and of held-out ones of the same classes."""
    train = rows["learnt"]
    if not len(train):
        findings.notes.append(
            "Copies of training galaxies are not looked for: none of the real galaxies is known to have been learnt."
        )
        return
    others = _alike(findings.generated.labels, real, rows["held-out"])
    if len(others) < 1 / _QUANTILE:
        findings.notes.append(
            f"Copies of training galaxies are not looked for: {len(others)} held-out galaxies of the generated "
            f"classes, {1 / _QUANTILE:.0f} are needed."
        )
        return
    bank = small_values(real, train.tolist(), findings.look)
    compared = small_values(real, others.tolist(), findings.look)
    findings.copies = memorisation(values_of(findings.generated, findings.look), bank, compared, quantile=_QUANTILE)
    closest = np.argsort(findings.copies.generated.distance)
    near = np.stack(
        list(real.images(train[findings.copies.generated.index[closest[:8]]].tolist()))
    )  # one may come twice
    shown = near if findings.look is None else findings.look.pictures(near)
    pairs = zip(closest[:8], shown, strict=True)
    findings.nearest = np.concatenate(
        [np.concatenate([findings.generated_pictures[row], picture], axis=0) for row, picture in pairs], axis=1
    )


def _alike(asked: tuple[str, ...], real: Real, held_out: NDArray[np.int64]) -> NDArray[np.int64]:
    """Held-out galaxies of the classes in ``asked``, in the same shares as far as there are enough to compare with."""
    labels = np.array(real.galaxies.labels)
    random = np.random.default_rng(37)
    there = {name: random.permutation(held_out[labels[held_out] == name]) for name in dict.fromkeys(asked)}
    there = {name: some for name, some in there.items() if len(some)}
    if not there:
        return np.empty(0, np.int64)
    least = min(sum(map(len, there.values())), round(1 / _QUANTILE))
    scale = min(len(some) / asked.count(name) for name, some in there.items())
    while True:
        rows = np.concatenate([some[: int(scale * asked.count(name) + 1e-9)] for name, some in there.items()])
        if len(rows) >= least:
            return rows
        scale *= 1.1  # a class that is short of galaxies gives all it has


def _classifiers(
    config: EvaluateConfig, findings: Findings, run: RunFolder, real: Real, rows: dict[str, NDArray[np.int64]]
) -> dict[str, Any]:
    """Name -> network; the first was never trained on generated galaxies."""
    folders: dict[str, Path] = {}
    if config.classifier is not None:
        folders[_GIVEN] = config.classifier
    if config.train_classifiers:
        _refuse_learning(findings.generated, real, rows["train"])
        samples = [real.sample(rows[name]) for name in ("train", "validation")]
        folders |= training.train_arms(
            samples[0],
            samples[1],
            findings.generated,
            findings.look,
            run.path / "classifiers",
            steps=config.classifier_steps,
            seed=config.seed,
            device="auto" if config.device.startswith("cuda:") else config.device,
        )
    folders |= _compared(config)
    models = {name: classifying.load_classifier(folder, config.device) for name, folder in folders.items()}
    if models and config.classifier is None and not config.train_classifiers:
        findings.notes.append("Agreement needs a classifier that never saw a generated galaxy: --classifier.")
    elif models:
        findings.classifier = next(iter(models))
    return models


def _compared(config: EvaluateConfig) -> dict[str, Path]:
    """The classifiers of --compare; none has the name of another."""
    taken = {_GIVEN} if config.classifier is not None else set()
    taken |= set(training.ARMS) if config.train_classifiers else set()
    more = assignments(config.compare, "--compare")
    for name in more:
        if name in taken:
            raise InputError(f"--compare calls two classifiers {name!r}", remedy="Use another name.")
    return {name: Path(folder) for name, folder in more.items()}


def _refuse_learning(generated: Sample, real: Real, train: NDArray[np.int64]) -> None:
    if not len(train):
        raise InputError("--train-classifiers without splits", remedy="Give --splits.")
    common = set(generated.ids) & set(real.galaxies.ids)
    if common:  # test galaxies would be learnt
        raise InputError(
            f"{len(common)} galaxies are generated and real, such as {min(common)}",
            remedy="With --train-classifiers they must be others.",
        )


def _ask_classifiers(
    config: EvaluateConfig, findings: Findings, real: Real, rows: dict[str, NDArray[np.int64]], models: dict[str, Any]
) -> None:
    if findings.classifier:
        findings.agreement_rows = classifying.agreement(
            models[findings.classifier],
            findings.generated,
            findings.generated_pictures,
            findings.real,
            findings.real_pictures,
        )
        known = models[findings.classifier].spec.classes
        strange = sorted(set(findings.generated.labels) - set(known)) if known else []
        if strange:
            findings.notes.append(f"The classifier does not know {', '.join(strange)}: whether it agrees is not said.")
    record = None if config.classifier is None else learnt_by(config.classifier)
    seen = 0 if record is None else int(record.mask(findings.real.ids).sum())
    if seen:
        findings.notes.append(f"The classifier has learnt {seen} of the real galaxies that it is asked about beside.")
    if not len(rows["test"]):
        findings.notes.append("Completeness and purity need splits: they are measured on test galaxies.")
        return
    labels = real.galaxies.labels or ()
    given = [name for name in labels if name]
    natural = classifying.natural_shares(given, shares(config.prevalence))
    findings.prevalence = natural.get(findings.rare)
    classes = tuple(sorted(set(given)))
    rows = {split: np.array([row for row in rows[split] if labels[row]], np.int64) for split in ("validation", "test")}
    scored = {
        split: _scored(real, some, findings.look, models, classes, natural, config.classes)
        for split, some in rows.items()
    }
    if not scored["test"]:
        findings.notes.append("No test galaxy has a class: completeness and purity are not measured.")
        return
    split = next((some for some in rows if findings.rare not in {labels[row] for row in rows[some]}), "")
    if split and findings.rare in classes:
        findings.notes.append(
            f"Completeness at a purity of {config.purity:.0%} is not given: no {split} galaxy is a {findings.rare}."
        )
    for name, test in scored["test"].items():
        findings.class_rows[name] = classifying.class_figures(test, classes)
        column = classes.index(findings.rare) if findings.rare in classes else -1
        if column < 0:
            note = f"No real galaxy is a {findings.rare}: nothing is searched for."
            if note not in findings.notes:  # once for all classifiers
                findings.notes.append(note)
            continue
        figures = classifying.rare_figures(
            scored["validation"].get(name),
            test,
            column,
            findings.rare,
            purity=config.purity,
            best=config.best,
            repeats=config.repeats,
            seed=config.seed,
        )
        findings.rare_rows.append({"classifier": name, **figures})
        first = np.argsort(-test.scores[:, column], kind="stable")[: 2 * config.gallery]
        captions = [f"{test.labels[row]}, {test.scores[row, column]:.2f}" for row in first]
        pictures = pictures_of(real.sample(rows["test"][first]), findings.look)
        findings.found = pictures, captions  # of the last classifier


def _scored(
    real: Real,
    rows: NDArray[np.int64],
    look: Look | None,
    models: dict[str, Any],
    classes: tuple[str, ...],
    natural: dict[str, float],
    rules: str,
) -> dict[str, classifying.Scored]:
    """What each classifier says of real galaxies, which are read once, in blocks; empty where there are none."""
    if not len(rows):
        return {}
    labels: list[str] = []
    scores: dict[str, list[NDArray[np.float64]]] = {name: [] for name in models}
    for first in range(0, len(rows), _BLOCK):
        some = real.sample(rows[first : first + _BLOCK])
        labels += some.labels
        pictures = pictures_of(some, look)
        for name, model in models.items():
            scores[name].append(classifying.class_scores(model, pictures, classes, rules))
    weights = classifying.weights_of(labels, natural)
    return {name: classifying.Scored(tuple(labels), weights, np.concatenate(parts)) for name, parts in scores.items()}


def _distances(config: EvaluateConfig, findings: Findings, models: dict[str, Any]) -> None:
    space = config.features
    if space == "auto":
        space = "classifier" if findings.classifier else "morphology"
    if space == "classifier":
        if not findings.classifier:
            raise InputError("--features classifier without a classifier", remedy="Give --classifier.")
        from priorscope_astro.classifier.predict import features

        model = models[findings.classifier]
        pair = [
            features(model, classifying.fitted(model, pictures)).astype(np.float64)
            for pictures in (findings.real_pictures, findings.generated_pictures)
        ]
        findings.features = (
            f"{pair[0].shape[1]} features of the classifier {findings.classifier!r} before its last layer, of pictures"
        )
    elif space == "morphology":
        assert findings.shapes is not None
        pair = [one.space() for one in findings.shapes]
        known = np.isfinite(pair[0]).all(1)
        if known.sum() > 1:
            mean, spread = pair[0][known].mean(0), pair[0][known].std(0)
            pair = [(one - mean) / np.where(spread > 0, spread, 1) for one in pair]
        findings.features = "C, A, S, Gini and M20, each with mean 0 and standard deviation 1 over the real galaxies"
    else:
        pair = [own_features(space, pictures) for pictures in (findings.real_pictures, findings.generated_pictures)]
        findings.features = f"{pair[0].shape[1]} features of {space}, of pictures"
    findings.distance_rows, notes = distances(
        pair[0],
        pair[1],
        findings.real.labels,
        findings.generated.labels,
        repeats=config.repeats,
        seed=config.seed,
    )
    findings.notes += [f"Distances: {note}." for note in notes]
