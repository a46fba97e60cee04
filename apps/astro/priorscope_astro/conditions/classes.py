"""Classes of galaxies as rules over the tree: a galaxy belongs to the first class whose answers all have the votes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from priorscope.errors import InputError
from priorscope_astro.conditions.condition import Condition
from priorscope_astro.conditions.cuts import Cuts
from priorscope_astro.conditions.tree import ANSWER, ANSWERS, ANSWERS_OF, QUESTIONS
from priorscope_astro.conditions.votes import VoteTable

#: Label of galaxies that no rule fits, or whose votes are too few to say.
UNCLASSIFIED = ""


@dataclass(frozen=True)
class ClassRule:
    """One class.

    Attributes
    ----------
    name : str
    condition : Condition
        What its tags say, with what they imply.
    answers : tuple of str
        The answers that make a galaxy belong to it.
    """

    name: str
    condition: Condition
    answers: tuple[str, ...]

    @classmethod
    def from_tags(cls, name: str, tags: str, *, extrapolate: bool = False) -> ClassRule:
        """A class of tags that :meth:`Condition.from_tags` reads."""
        condition = Condition.from_tags(tags, extrapolate=extrapolate)
        answers = [
            answer
            for question, shares in condition.fractions.items()
            for answer, share in zip(ANSWERS_OF[question], shares, strict=True)
            if share > 0
        ]
        return cls(name, condition, tuple(answers))


def read_classes(name: str | PathLike[str] = "gz2", *, extrapolate: bool = False) -> tuple[ClassRule, ...]:
    """The built-in classes (``gz2``, or ''), or those of a JSON file of the same layout as ``gz2_classes.json``.

    Parameters
    ----------
    name : str or path-like
    extrapolate : bool
        Allow tags that the tree forbids together; see :class:`Condition`.

    Raises
    ------
    InputError
        No such file, not that layout, a class named twice, an unknown tag, or tags that contradict each other.
    """
    if str(name) in ("", "gz2"):
        text, path = resources.files(__package__).joinpath("gz2_classes.json").read_text(encoding="utf-8"), None
    else:
        path = Path(name)
        if not path.is_file():
            raise InputError("no such file of classes", path=path, remedy="Use gz2, or a JSON file of classes.")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read as text ({error})", path=path, remedy="Write it as UTF-8.") from None
    try:
        rows: list[dict[str, Any]] = json.loads(text)["classes"]
        rules = tuple(ClassRule.from_tags(str(row["name"]), str(row["tags"]), extrapolate=extrapolate) for row in rows)
    except InputError as error:
        raise InputError(error.fact, path=path, remedy=error.remedy) from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(
            f"is no file of classes ({type(error).__name__}: {error})",
            path=path,
            remedy='It holds {"classes": [{"name": ..., "tags": ...}, ...]}.',
        ) from None
    names = [rule.name for rule in rules]
    if len(set(names)) != len(names) or not names or UNCLASSIFIED in names:
        raise InputError(f"the classes are called {', '.join(names) or 'nothing'}", path=path, remedy="Name each once.")
    return rules


def classify(
    votes: VoteTable, rules: Sequence[ClassRule], *, cuts: Cuts | str = "majority", agreement: float = 0.5
) -> tuple[str, ...]:
    """The class of each galaxy by its votes.

    Parameters
    ----------
    votes : VoteTable
    rules : sequence of ClassRule
        The first that fits counts.
    cuts : Cuts or str
        Which questions are well sampled; an answer of another question never counts.
    agreement : float
        Smallest share of every answer of the class, in (0, 1].

    Returns
    -------
    tuple of str
        Names; ``UNCLASSIFIED`` where no rule fits.
    """
    if not 0 < agreement <= 1:
        raise InputError(f"the agreement is {agreement:g}", remedy="It lies in (0, 1].")
    shares, known = votes.normalised(), votes.well_sampled(cuts)
    names = np.full(len(votes), UNCLASSIFIED, dtype=object)
    free = np.ones(len(votes), bool)
    for rule in rules:
        fits = free.copy()
        for answer in rule.answers:
            question = QUESTIONS.index(ANSWER[answer].question)
            fits &= known[:, question] & (shares[:, ANSWERS.index(answer)] >= agreement)
        names[fits] = rule.name
        free &= ~fits
    return tuple(str(name) for name in names)
