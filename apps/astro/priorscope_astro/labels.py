"""The class of each galaxy: a column's, the data's own, or by rules (``--classes``) on its votes or caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from priorscope.errors import InputError
from priorscope_astro.conditions.classes import UNCLASSIFIED, classify, read_classes
from priorscope_astro.conditions.condition import Condition
from priorscope_astro.data.galaxies import GalaxySet
from priorscope_astro.plan_config import PlanConfig


class ClassOptions(Protocol):
    """What commands are told about classes; see :class:`PlanConfig`."""

    @property
    def class_column(self) -> str: ...
    @property
    def classes(self) -> str: ...
    @property
    def cuts(self) -> str: ...
    @property
    def agreement(self) -> float: ...


def class_settings(path: Path, config: ClassOptions) -> PlanConfig:
    """The settings of another command about the classes of galaxies in ``path``."""
    return PlanConfig(
        path,
        class_column=config.class_column,
        classes=config.classes,
        cuts=config.cuts,
        agreement=config.agreement,
    )


def by_rules(galaxies: GalaxySet, config: PlanConfig) -> bool:
    """Whether rules say the classes: there are no others, or ``--classes`` asks for them and votes or captions tell."""
    if galaxies.labels is None:
        return True
    tells = galaxies.votes is not None or galaxies.captions is not None
    return bool(config.classes) and not config.class_column and tells


def label(galaxies: GalaxySet, config: PlanConfig) -> GalaxySet:
    """The galaxies with a class each: the column's, the layout's own, or by votes or captions.

    Raises
    ------
    InputError
        There is nothing that says the class.
    """
    if not by_rules(galaxies, config):
        return galaxies
    rules = read_classes(config.classes, extrapolate=config.extrapolate)
    if galaxies.votes is not None:
        return replace(galaxies, labels=classify(galaxies.votes, rules, cuts=config.cuts, agreement=config.agreement))
    if galaxies.captions is None:
        raise InputError(
            "has neither classes, votes nor captions", path=config.catalogue, remedy="Name --class-column."
        )
    said: dict[str, str] = {}
    for caption in dict.fromkeys(galaxies.captions):
        condition = Condition.from_tags(caption, extrapolate=True)
        fits = (r.name for r in rules if all((condition.share(a) or 0) >= config.agreement for a in r.answers))
        said[caption] = next(fits, UNCLASSIFIED)
    return replace(galaxies, labels=tuple(said[caption] for caption in galaxies.captions))


def refuse_unused(
    galaxies: GalaxySet, config: PlanConfig, options: Sequence[str] = ("classes", "cuts", "agreement")
) -> None:
    """Raise where an option about rules changes nothing.

    Raises
    ------
    InputError
        A column or the data says the classes; or there are no votes, which ``--cuts`` is about.
    """
    rules = by_rules(galaxies, config)
    who = f"--class-column {config.class_column} says" if config.class_column else "the data says"
    for name in options:
        value = getattr(config, name)
        if value == getattr(PlanConfig, name) or (rules and (name != "cuts" or galaxies.votes is not None)):
            continue
        fact = "there are no votes" if rules else f"{who} the classes"
        told = not (rules or config.class_column) and by_rules(galaxies, replace(config, classes="gz2"))
        raise InputError(
            f"--{name} {value} changes nothing: {fact}",
            path=config.catalogue,
            remedy="Leave it out, or add --classes." if told else "Leave it out.",
        )
