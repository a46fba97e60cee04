"""The decision tree of Galaxy Zoo 2: questions, answers, and which answer leads to which question.

The names are those of the published tables (Willett et al. 2013; Hart et al. 2016): ``t04_spiral`` is a question,
``t04_spiral_a08_spiral`` one of its answers. Everything is read from ``gz2_tree.json`` beside this file.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from importlib import resources

from priorscope.errors import InputError


@dataclass(frozen=True)
class Answer:
    """One answer of the tree.

    Attributes
    ----------
    name : str
        As in the published tables, without suffix: ``t08_odd_feature_a38_dust_lane``.
    question : str
        The question it answers.
    tag : str
        How a caption says it.
    published : bool
        Whether GalaxySD's prompts use this tag; the others are ours.
    also : tuple of str
        Other wordings that are understood.
    """

    name: str
    question: str
    tag: str
    published: bool
    also: tuple[str, ...]


def _read() -> tuple[tuple[str, ...], tuple[Answer, ...], dict[str, tuple[str, ...]], frozenset[str], tuple[str, ...]]:
    content = json.loads(resources.files(__package__).joinpath("gz2_tree.json").read_text(encoding="utf-8"))
    answers = []
    for question in content["questions"]:
        for row in question["answers"]:
            name = f"{question['name']}_{row['name']}"
            answers.append(Answer(name, question["name"], row["tag"], row["published"], tuple(row["also"])))
    return (
        tuple(question["name"] for question in content["questions"]),
        tuple(answers),
        {question["name"]: tuple(question["asked_after"]) for question in content["questions"]},
        frozenset(question["name"] for question in content["questions"] if question["several"]),
        tuple(content["surveys"]),
    )


#: QUESTIONS: the 11 questions in the order of their numbers. ASKED_AFTER: question -> the answers that lead to it
#: (none: the first question). SEVERAL: questions of which several answers can be true of one galaxy. SURVEYS: first
#: tags of captions.
QUESTIONS, _ANSWERS, ASKED_AFTER, SEVERAL, SURVEYS = _read()
#: The 37 answers in the order of the published tables; the order of every vector here.
ANSWERS: tuple[str, ...] = tuple(answer.name for answer in _ANSWERS)
#: Answer's name -> answer.
ANSWER: dict[str, Answer] = {answer.name: answer for answer in _ANSWERS}
#: Question -> its answers.
ANSWERS_OF: dict[str, tuple[str, ...]] = {
    question: tuple(answer.name for answer in _ANSWERS if answer.question == question) for question in QUESTIONS
}
#: Question -> where its answers stand in ANSWERS.
SLICES: dict[str, slice] = {
    question: slice(ANSWERS.index(names[0]), ANSWERS.index(names[-1]) + 1) for question, names in ANSWERS_OF.items()
}


def parent(question: str) -> str | None:
    """The question whose answers lead to this one; None for the first."""
    before = ASKED_AFTER[question]
    return ANSWER[before[0]].question if before else None


def path_to(question: str) -> dict[str, tuple[str, ...]]:
    """What must have been answered for this question to be asked: question -> the answers that lead on, from the root.

    >>> path_to("t07_rounded")
    {'t01_smooth_or_features': ('t01_smooth_or_features_a01_smooth',)}
    """
    above = parent(question)
    return {} if above is None else path_to(above) | {above: ASKED_AFTER[question]}


def checked_question(name: str) -> str:
    """The name, if it is a question's.

    Raises
    ------
    InputError
        It is not; the nearest one is suggested.
    """
    if name not in SLICES:
        raise InputError(f"{name!r} is no question of the Galaxy Zoo 2 tree", remedy=nearest(name, QUESTIONS))
    return name


def checked_answer(name: str) -> str:
    """The name, if it is an answer's.

    Raises
    ------
    InputError
        It is not; the nearest one is suggested.
    """
    if name not in ANSWER:
        raise InputError(f"{name!r} is no answer of the tree", remedy=nearest(name, ANSWERS))
    return name


#: Words that a message lists.
_LISTED = 20


def nearest(word: str, words: tuple[str, ...] | list[str]) -> str:
    """A sentence that suggests the nearest of some words, or lists them (the first 20) where none is near."""
    by_lower = {other.lower(): other for other in words}
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    if close:
        return f"Did you mean {by_lower[close[0]]!r}?"
    more = f" and {len(words) - _LISTED} more" if len(words) > _LISTED else ""
    return f"Known: {', '.join(words[:_LISTED])}{more}."
