"""Making plans: how the classes are balanced, how many to draw of which, and what each image is told."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from priorscope.errors import InputError
from priorscope.evaluation.config import plain
from priorscope.evaluation.tables import print_table
from priorscope_astro.assignments import assignments
from priorscope_astro.conditions.classes import UNCLASSIFIED, ClassRule, read_classes
from priorscope_astro.conditions.condition import Condition
from priorscope_astro.conditions.cuts import Cuts
from priorscope_astro.conditions.emphasis import emphasis_runs
from priorscope_astro.conditions.galaxy10 import CLASSES as GALAXY10
from priorscope_astro.conditions.galaxy10 import galaxy10_condition
from priorscope_astro.conditions.tree import ANSWER, nearest, path_to
from priorscope_astro.data.anything import read_galaxies
from priorscope_astro.data.galaxies import GalaxySet
from priorscope_astro.data.learnt import Learnt, learnt_by
from priorscope_astro.data.splits import SPLITS, Splits, make_splits, refuse_sky_leakage, sky_groups
from priorscope_astro.labels import label
from priorscope_astro.plan import PLAN_VERSION, Plan, PlanRow, row_seed
from priorscope_astro.plan_config import PlanConfig

#: Settings that change nothing in a plan's rows.
_NOT_PART = (
    "catalogue",
    "out",
    "splits",
    "validation",
    "test",
    "overwrite",
    "max_images",
    "id_column",
    "sky_radius",
    "model",
)


def plan(config: PlanConfig) -> int:
    """Run ``priorscope astro plan``: show the balance, write splits and plan; returns the exit status."""
    galaxies = label(load(config), config)
    learnt = learnt_by(config.model) if config.model else None
    splits, splits_path = _splits(config, galaxies, learnt)
    if config.model:
        _guard_learnt(config, splits, splits_path, learnt)
    made = make_plan(galaxies, splits, config)
    made.is_there(config.out, overwrite=config.overwrite)  # refused before the splits are written
    cuts = Cuts.read(config.cuts)
    notes = [] if cuts.verified else [f"the cuts {cuts.name} are not verified: {cuts.source}"]
    if config.sky_radius and not _has_positions(galaxies):
        notes.append("no positions (ra, dec): whether one galaxy has two ids is not looked for")
    for note in (*galaxies.notes, *notes):
        print(note)
    print_table(balance(galaxies, splits, _drawn(made)), number=".2%")
    there = splits_path.exists()
    if not there:
        splits.write(splits_path)
    print(f"splits: {splits_path}{' (was there already)' if there else ''}")
    written = made.write(config.out, overwrite=config.overwrite)
    print(f"plan: {config.out} ({len(made)} images, id {made.plan_id}{'' if written else ', was there already'})")
    return 0


def load(config: PlanConfig) -> GalaxySet:
    """The catalogue of a plan, with pictures' names where they lie in its folder."""
    path = config.catalogue
    has_pictures = path.is_dir() and any(
        (path / name).exists() for name in ("images", "images_gz2", "images_gz2.zip", "data")
    )
    return read_galaxies(path, pictures=has_pictures, label_column=config.class_column, ids=config.id_column)


def balance(galaxies: GalaxySet, splits: Splits, drawn: Mapping[str, int]) -> list[dict[str, Any]]:
    """One row a class: how many galaxies in each split, their share, how many are to be drawn; the largest first."""
    labels = _labels(galaxies)
    counts = Counter(zip(labels, (splits.of_id[name] for name in galaxies.ids), strict=True))
    totals = Counter(labels)
    rows = []
    for name in sorted(set(totals) | set(drawn), key=lambda name: (name == UNCLASSIFIED, -totals[name], name)):
        row: dict[str, Any] = {"class": name or "(none)"}
        row |= {split: counts[name, split] for split in SPLITS}
        row |= {"share": totals[name] / len(galaxies), "to draw": drawn.get(name, 0)}
        rows.append(row)
    return rows


def how_many(train: Mapping[str, int], config: PlanConfig, more: Collection[str] = ()) -> dict[str, int]:
    """How many images to draw of which class.

    Parameters
    ----------
    train : mapping
        Class -> training galaxies, of the classes that the catalogue has.
    config : PlanConfig
    more : collection of str
        Classes that it has not, and that may be asked for by name.

    Raises
    ------
    InputError
        Settings that do not go together, an unknown class (the nearest is suggested), a number that makes no sense, or
        more than ``max_images``.
    """
    if config.draw == "counts":
        if config.target or config.total or config.only:
            raise InputError("--target, --total and --only do not go with --draw counts", remedy="Give --counts alone.")
        numbers = _explicit(config.counts, [*train, *more])
    else:
        if config.counts:
            raise InputError(f"--counts does not go with --draw {config.draw}", remedy="Add --draw counts.")
        for name in config.only:
            _known_class(name, [*train, *more])
        chosen = sorted(set(config.only or train))
        if config.draw == "deficit":
            if config.target < 0 or config.total:
                raise InputError(
                    f"--target {config.target}, --total {config.total}", remedy="Deficit takes a --target."
                )
            target = config.target or max(train.values(), default=0)
            numbers = {name: max(0, target - train.get(name, 0)) for name in chosen}
        else:
            if config.total < 1 or config.target:
                raise InputError(f"--draw balanced with --total {config.total}", remedy="Say how many: --total 1000.")
            each, rest = divmod(config.total, max(1, len(chosen)))
            numbers = {name: each + (place < rest) for place, name in enumerate(chosen)}
    numbers = {name: number for name, number in numbers.items() if number}
    if sum(numbers.values()) > config.max_images:
        raise InputError(
            f"{sum(numbers.values())} images would be drawn, more than --max-images {config.max_images}",
            remedy="Give a --target, name --only some classes, or raise the limit.",
        )
    if not numbers:
        raise InputError("there is nothing to draw: every class has its number", remedy="Raise --target, or --counts.")
    return numbers


def make_plan(galaxies: GalaxySet, splits: Splits, config: PlanConfig) -> Plan:
    """Plan images from labelled galaxies; only training galaxies lend votes and references.

    Parameters
    ----------
    galaxies : GalaxySet
        With labels.
    splits : Splits
        Every galaxy must belong to one.
    config : PlanConfig

    Raises
    ------
    InputError
        As :func:`how_many`; one place of the sky in two splits; a class of which nothing can be said; or an option that
        changes nothing.
    """
    if config.sky_radius and _has_positions(galaxies):
        columns = galaxies.columns
        refuse_sky_leakage(splits, galaxies.ids, columns["ra"], columns["dec"], radius=config.sky_radius)
    order = np.argsort(np.array(galaxies.ids))  # the catalogue's order must not matter
    galaxies = galaxies.select(order)
    train = galaxies.of_split(splits, "train")
    labels = _labels(train)
    there = {name: 0 for name in _labels(galaxies) if name != UNCLASSIFIED}
    there |= {name: count for name, count in Counter(labels).items() if name != UNCLASSIFIED}
    source = _source(config, train)
    _refuse_unused(config, source)
    told = _Told(config, train, source)
    numbers = how_many(there, config, [] if source == "votes" else [*told.rules])
    told.check(sorted(numbers))
    plan_id = _plan_id(train, splits, config, source)
    names = train.picture_names
    members = {name: np.flatnonzero(np.array(labels) == name) for name in numbers}
    random = np.random.default_rng(int(plan_id, 16))
    rows: list[PlanRow] = []
    for name in sorted(numbers):
        for _ in range(numbers[name]):
            condition, prompt, lender = told.of(name, members[name], random)
            pool = members[name] if config.reference == "class" else np.arange(len(train))
            if config.reference != "none" and not len(pool):
                raise InputError(f"the class {name} has no training galaxy to start from", remedy="--reference any.")
            reference = None if config.reference == "none" else int(pool[random.integers(len(pool))])
            rows.append(
                PlanRow(
                    len(rows),
                    name,
                    prompt,
                    condition,
                    row_seed(plan_id, len(rows)),
                    "" if lender is None else train.ids[lender],
                    "" if reference is None else train.ids[reference],
                    "" if reference is None or names is None else names[reference],
                )
            )
    meta = {
        "catalogue": str(config.catalogue),
        "condition": source,
        "classes": {name: {"train": there.get(name, 0), "draw": number} for name, number in sorted(numbers.items())},
        "settings": _settings(config),
    }
    made = Plan(plan_id, tuple(rows), splits.digest(), meta)
    made.guard(splits)
    return made


class _Told:
    """What an image of a class is told."""

    def __init__(self, config: PlanConfig, train: GalaxySet, source: str) -> None:
        self.config, self.source, self.train = config, source, train
        self.cuts = Cuts.read(config.cuts)
        self.told: dict[tuple[str, int | None], tuple[Condition, str]] = {}  # the same galaxy lends more than once
        self.rules = {rule.name: rule for rule in read_classes(config.classes, extrapolate=config.extrapolate)}
        self.prompts = assignments(config.prompts, "--prompts", "CLASS") if source == "text" else {}

    def check(self, names: Sequence[str]) -> None:
        """Raise where nothing can be said of one of these classes."""
        source = self.source
        for name in names:
            if source == "text" and name not in self.prompts:
                raise InputError(f"--prompts says nothing of the class {name}", remedy=f"Add '{name}=PROMPT'.")
            if source == "tags" and self.rule(name) is None:
                raise InputError(
                    f"no tags are known for the class {name!r}",
                    remedy=nearest(name, [*self.rules]) + " Or give --condition text and --prompts.",
                )
        for name, prompt in self.prompts.items():
            _known_class(name, names)
            emphasis_runs(prompt)  # says which brace has no partner

    def rule(self, name: str) -> ClassRule | None:
        if name in self.rules:
            return self.rules[name]
        if name not in GALAXY10:
            return None
        condition = galaxy10_condition(name)
        return ClassRule.from_tags(name, condition.tags(vocabulary="all"))

    def of(self, name: str, members: Any, random: np.random.Generator) -> tuple[Condition, str, int | None]:
        """Condition, prompt, and the row of the galaxy whose votes it has."""
        if self.source == "text":
            return Condition(), self.prompts[name], None
        lender = None
        if self.source == "votes":
            if not len(members):
                raise InputError(
                    f"the class {name} has no training galaxy that could lend its votes", remedy="Use --condition tags."
                )
            lender = int(members[random.integers(len(members))])
        if (name, lender) not in self.told:
            self.told[name, lender] = self._of_galaxy(name, lender)
        return *self.told[name, lender], lender

    def _of_galaxy(self, name: str, lender: int | None) -> tuple[Condition, str]:
        rule = self.rule(name)
        weight = self.config.emphasis
        emphasis = {} if weight == 1 or rule is None else dict.fromkeys(_defining(rule), weight)
        if lender is None:
            assert rule is not None  # check has looked
            fractions = rule.condition.fractions
        else:
            assert self.train.votes is not None  # _source has looked
            fractions = self.train.votes.condition(lender, cuts=self.cuts).fractions
        condition = Condition(
            fractions, survey=self.config.survey, emphasis=emphasis, extrapolate=self.config.extrapolate
        )
        return condition, condition.tags(agreement=self.config.agreement)


def _has_positions(galaxies: GalaxySet) -> bool:
    return {"ra", "dec"} <= set(galaxies.columns)


def _defining(rule: ClassRule) -> list[str]:
    """The answers of a class that no other answer of it implies: the last ones of each path."""
    implied = {question for answer in rule.answers for question in path_to(ANSWER[answer].question)}
    return [answer for answer in rule.answers if ANSWER[answer].question not in implied]


def _source(config: PlanConfig, train: GalaxySet) -> str:
    if config.prompts and config.condition != "text":
        raise InputError("--prompts goes with --condition text")
    if config.condition == "votes" and train.votes is None:
        raise InputError("has no votes", path=config.catalogue, remedy="Use --condition tags or text.")
    if config.condition == "auto":
        return "votes" if train.votes is not None else "tags"
    return config.condition


def _refuse_unused(config: PlanConfig, source: str) -> None:
    """Raise where an option would change nothing in what images are told."""
    for name in ("survey", "emphasis"):
        if source == "text" and getattr(config, name) != getattr(PlanConfig, name):
            raise InputError(
                f"--{name} {getattr(config, name)} with --condition text", remedy="Write it into --prompts."
            )
    if source == "votes" and config.classes and config.class_column and config.emphasis == 1:
        raise InputError(
            f"--classes {config.classes} changes nothing: --class-column {config.class_column} says the classes, and "
            "galaxies lend their votes",
            remedy="Leave one of the two out, or use --condition tags.",
        )


def _guard_learnt(config: PlanConfig, splits: Splits, path: Path, learnt: Learnt | None) -> None:
    if learnt is None:
        print(f"warning: {config.model} does not say which galaxies it has learnt: leaks of those cannot be seen")
    elif not learnt.complete:
        print(f"warning: {config.model} began with a model that does not say which galaxies it had learnt")
    leaks = [] if learnt is None else learnt.held_out(splits)
    if leaks:
        raise InputError(
            f"the model {config.model} has learnt {len(leaks)} galaxies that are held out here, such as {leaks[0]}",
            path=path,
            remedy="Give the splits that it was trained with, or another --out, beside which splits are made anew.",
        )


def _splits(config: PlanConfig, galaxies: GalaxySet, learnt: Learnt | None = None) -> tuple[Splits, Path]:
    if config.splits is not None:
        for name in ("validation", "test"):
            if getattr(config, name) != getattr(PlanConfig, name):
                raise InputError(f"--{name} {getattr(config, name)} with --splits", remedy="Give one of the two.")
        return Splits.read(config.splits), config.splits
    path = config.out.parent / "splits.ecsv"
    if path.exists():
        return Splits.read(path), path
    groups = None
    if config.sky_radius and _has_positions(galaxies):
        places = sky_groups(galaxies.columns["ra"], galaxies.columns["dec"], radius=config.sky_radius)
        groups = [galaxies.ids[place] for place in places]
    made = make_splits(galaxies.ids, validation=config.validation, test=config.test, seed=config.seed, groups=groups)
    if learnt is not None:
        keys = galaxies.ids if groups is None else groups
        taught = {key for key, name in zip(keys, galaxies.ids, strict=True) if name in learnt.ids}
        trains = {name: "train" for key, name in zip(keys, galaxies.ids, strict=True) if key in taught}
        made = Splits({**made.of_id, **trains})
        print(f"{len(trains)} galaxies that {config.model} has learnt are put into train")
    return made, path


def _plan_id(train: GalaxySet, splits: Splits, config: PlanConfig, source: str) -> str:
    """Of all that decides the rows: training galaxies, their classes, votes and pictures, splits, settings, rules."""
    digest = hashlib.sha256(f"{PLAN_VERSION} {source} {splits.digest()}".encode())
    digest.update(json.dumps(_settings(config), sort_keys=True).encode())
    if config.classes not in ("", "gz2"):
        digest.update(Path(config.classes).read_bytes())  # the settings have its name alone
    for part in (train.ids, _labels(train), train.picture_names or ()):
        digest.update("\n".join(part).encode() + b"\0")
    if source == "votes":
        digest.update(train.vectors(config.cuts).tobytes())
    return digest.hexdigest()[:16]


def _settings(config: PlanConfig) -> dict[str, Any]:
    """Those that decide the rows."""
    return {key: value for key, value in plain(config).items() if key not in _NOT_PART} | {
        "classes": config.classes or "gz2"
    }


def _labels(galaxies: GalaxySet) -> tuple[str, ...]:
    if galaxies.labels is None:
        raise InputError("the galaxies have no classes", remedy="planning.label gives them some.")
    return galaxies.labels


def _drawn(made: Plan) -> Counter[str]:
    return Counter(row.class_name for row in made.rows)


def _known_class(name: str, classes: Collection[str]) -> None:
    if name not in classes:
        raise InputError(f"there is no class {name!r}", remedy=nearest(name, sorted(classes) or ["none"]))


def _explicit(words: Sequence[str], classes: Collection[str]) -> dict[str, int]:
    numbers = {}
    for name, value in assignments(words, "--counts", "CLASS").items():
        _known_class(name, classes)
        if not value.isdecimal():
            raise InputError(f"--counts {name}={value}", remedy="A number of images is a whole number from 0 up.")
        numbers[name] = int(value)
    if not numbers:
        raise InputError("--draw counts without --counts", remedy="Write --counts ring=100 dust_lane=500.")
    return numbers
