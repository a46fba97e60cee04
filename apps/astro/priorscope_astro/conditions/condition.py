"""A condition: what is asked of a galaxy, as shares of votes at the questions of the Galaxy Zoo 2 tree."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_astro.conditions.cuts import Cuts
from priorscope_astro.conditions.emphasis import emphasis_runs
from priorscope_astro.conditions.tree import (
    ANSWER,
    ANSWERS,
    ANSWERS_OF,
    ASKED_AFTER,
    QUESTIONS,
    SEVERAL,
    SLICES,
    SURVEYS,
    checked_answer,
    checked_question,
    nearest,
    parent,
    path_to,
)

#: Length of :meth:`Condition.to_vector`: a share and a flag for each of the 37 answers.
CONDITION_SIZE = 2 * len(ANSWERS)
Vocabulary = Literal["published", "all"]
VoteKind = Literal["debiased", "weighted_fraction", "fraction"]

_SUM_TOLERANCE = 1e-3
_EXTRAPOLATE = "Ask for it with extrapolate if it is meant."


@dataclass(frozen=True)
class Condition:
    """Shares of votes at some questions of the tree; a question that is not there is not known.

    Parameters
    ----------
    fractions : mapping
        Question -> one share an answer, in the tree's order, each in [0, 1], together 1.
    survey : str
        Whose look is asked for, the first tag of GalaxySD's prompts: sdss, hubble, candels; or nothing.
    emphasis : mapping
        Answer -> weight of its tag in a prompt (``{dust lane:1.3}``). Not part of the vector.
    extrapolate : bool
        Allow what the tree forbids: an answered question that nobody can have been asked.

    Raises
    ------
    InputError
        Unknown question, wrong number of shares, shares that do not sum to 1, or answers that the tree forbids.

    Examples
    --------
    >>> Condition.from_tags("sdss, completely round galaxy").fractions["t01_smooth_or_features"]
    (1.0, 0.0, 0.0)
    """

    fractions: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    survey: str = ""
    emphasis: Mapping[str, float] = field(default_factory=dict)
    extrapolate: bool = False

    def __post_init__(self) -> None:
        checked = {}
        for question in sorted(self.fractions, key=lambda name: QUESTIONS.index(checked_question(name))):
            checked[question] = _checked_shares(question, self.fractions[question])
        object.__setattr__(self, "fractions", checked)
        if self.survey and self.survey not in SURVEYS:
            raise InputError(f"the survey {self.survey!r} is not known", remedy=nearest(self.survey, SURVEYS))
        for answer, weight in self.emphasis.items():
            checked_answer(answer)
            if not np.isfinite(weight) or weight <= 0:
                raise InputError(f"the weight of {answer} is {weight}, not a positive number")
        if not self.extrapolate:
            _refuse_impossible(checked)

    @property
    def known(self) -> tuple[str, ...]:
        """The questions that are answered, in the tree's order."""
        return tuple(self.fractions)

    def share(self, answer: str) -> float | None:
        """The share of one answer, or None where its question is not known."""
        question = ANSWER[checked_answer(answer)].question
        if question not in self.fractions:
            return None
        return self.fractions[question][ANSWERS_OF[question].index(answer)]

    def most_likely(self, question: str) -> str | None:
        """The answer with the largest share (the first of equal ones), or None where the question is not known."""
        shares = self.fractions.get(checked_question(question))
        return None if shares is None else ANSWERS_OF[question][int(np.argmax(shares))]

    def to_vector(self) -> NDArray[np.float32]:
        """Float32 (74,): 37 shares in the order of ANSWERS (0 where not known), then 37 flags (1: known).

        All zeros means that nothing is known: the unconditional branch of guidance.
        """
        vector = np.zeros(CONDITION_SIZE, np.float32)
        for question, shares in self.fractions.items():
            place = SLICES[question]
            vector[place] = shares
            vector[len(ANSWERS) + place.start : len(ANSWERS) + place.stop] = 1
        return vector

    @classmethod
    def from_vector(cls, vector: Any, *, survey: str = "", extrapolate: bool = False) -> Condition:
        """The condition of a vector (74,) as :meth:`to_vector` makes it.

        Raises
        ------
        InputError
            Another shape, not finite, flags that are neither 0 nor 1 or differ within a question, shares that do not
            sum to 1, or what the tree forbids.
        """
        values = np.asarray(vector, np.float64)
        if values.shape != (CONDITION_SIZE,) or not np.isfinite(values).all():
            raise InputError(f"a condition's vector has {CONDITION_SIZE} finite numbers, not shape {values.shape}")
        shares, flags = values[: len(ANSWERS)], values[len(ANSWERS) :]
        fractions = {}
        for question in QUESTIONS:
            flag = flags[SLICES[question]]
            if not (np.isin(flag, (0, 1)).all() and (flag == flag[0]).all()):
                raise InputError(f"{question}: the flags {flag.tolist()} must all be 0 or all be 1")
            if flag[0]:
                fractions[question] = tuple(shares[SLICES[question]].tolist())
        return cls(fractions, survey=survey, extrapolate=extrapolate)

    @classmethod
    def from_votes(
        cls,
        row: Any,
        *,
        kind: VoteKind = "debiased",
        cuts: Cuts | str = "majority",
        survey: str = "",
    ) -> Condition:
        """The well-sampled answers of one row of a Galaxy Zoo 2 table.

        Parameters
        ----------
        row : mapping, astropy Row or pandas Series
            With the columns of the published tables: ``tNN_..._aNN_..._count`` and ``..._debiased``.
        kind : {"debiased", "weighted_fraction", "fraction"}
            Which column the shares come from.
        cuts : Cuts or str
            Which questions count as well sampled; :meth:`Cuts.read` takes the name.
        survey : str
            As in :class:`Condition`.

        Raises
        ------
        InputError
            A column is missing, or the votes do not sum.
        """
        from priorscope_astro.conditions.votes import VoteTable

        names = getattr(row, "colnames", None) or list(row.keys())
        return VoteTable.from_columns({name: [row[name]] for name in names}, kind=kind).condition(
            0, cuts=cuts, survey=survey
        )

    @classmethod
    def from_tags(cls, text: str, *, extrapolate: bool = False) -> Condition:
        """Read tags as GalaxySD's prompts have them; what they imply about earlier questions is filled in.

        Parameters
        ----------
        text : str
            Comma-separated, with weights or without: ``"sdss, spiral galaxy, {dust lane:1.3}"``.
        extrapolate : bool
            Where tags contradict each other, give them equal shares instead of refusing.

        Raises
        ------
        InputError
            Unknown tag (the nearest is suggested), tags that contradict each other, braces that do not match.
        """
        survey = ""
        chosen: dict[str, list[str]] = {}
        emphasis: dict[str, float] = {}
        for tag, weight in _weighted_tags(text):
            if tag in SURVEYS:
                if survey not in ("", tag):
                    raise InputError(f"the tags name two surveys, {survey} and {tag}", remedy="Keep one.")
                survey = tag
                continue
            if tag not in _ANSWER_OF_TAG:
                raise InputError(
                    f"the tag {tag!r} is not known",
                    remedy=nearest(tag, [*_ANSWER_OF_TAG, *SURVEYS]) + " Free text is a prompt, not a condition.",
                )
            answer = _ANSWER_OF_TAG[tag]
            chosen.setdefault(ANSWER[answer].question, []).append(answer)
            if weight != 1:
                emphasis[answer] = weight
        if not extrapolate:
            for question, answers in chosen.items():
                if len(set(answers)) > 1 and question not in SEVERAL:
                    tags = " and ".join(repr(ANSWER[answer].tag) for answer in answers)
                    raise InputError(f"the tags {tags} contradict each other", remedy=f"Keep one. {_EXTRAPOLATE}")
        _fill_in_path(chosen, extrapolate)
        fractions = {
            question: tuple(
                (answer in answers) / len(set(answers)) if answers else 0.0 for answer in ANSWERS_OF[question]
            )
            for question, answers in chosen.items()
        }
        return cls(fractions, survey=survey, emphasis=emphasis, extrapolate=extrapolate)

    def tag_list(self, *, agreement: float = 0.5, vocabulary: Vocabulary = "published") -> list[str]:
        """Tags of the answers that enough volunteers agree on, the survey first, then in the tree's order.

        Parameters
        ----------
        agreement : float
            Smallest share of an answer that becomes a tag, in (0, 1].
        vocabulary : {"published", "all"}
            Only tags that GalaxySD's prompts use, or also ours ("no bar", "boxy edge-on bulge").
        """
        if not 0 < agreement <= 1:
            raise InputError(f"the agreement is {agreement:g}", remedy="It lies in (0, 1].")
        tags = [self.survey] if self.survey else []
        said: dict[str, list[str]] = {}
        for question, shares in self.fractions.items():
            # a minority may have been asked what the majority's answers above rule out
            if not self.extrapolate and any(
                above in said and not set(said[above]) & set(answers) for above, answers in path_to(question).items()
            ):
                continue
            best = max(shares)
            chosen = [name for name, share in zip(ANSWERS_OF[question], shares, strict=True) if share == best]
            shared = question in SEVERAL or self.extrapolate  # two odd features at once: half of the votes each
            if (best * len(chosen) if shared else best) < agreement or (len(chosen) > 1 and not shared):
                continue
            said[question] = chosen
            for answer in chosen:
                if vocabulary == "all" or ANSWER[answer].published:
                    weight = self.emphasis.get(answer, 1.0)
                    tag = ANSWER[answer].tag
                    tags.append(tag if weight == 1 else f"{{{tag}:{weight:g}}}")
        return tags

    def tags(self, *, agreement: float = 0.5, vocabulary: Vocabulary = "published") -> str:
        """:meth:`tag_list` as one caption; :meth:`from_tags` reads it back."""
        return ", ".join(self.tag_list(agreement=agreement, vocabulary=vocabulary))

    def to_json(self) -> str:
        """One line of JSON, for tables; :meth:`from_json` reads it back exactly."""
        content: dict[str, Any] = {"fractions": {name: list(shares) for name, shares in self.fractions.items()}}
        if self.survey:
            content["survey"] = self.survey
        if self.emphasis:
            content["emphasis"] = dict(sorted(self.emphasis.items()))
        if self.extrapolate:
            content["extrapolate"] = True
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> Condition:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        InputError
            Not such a line.
        """
        try:
            content = json.loads(text)
            fractions = {name: tuple(shares) for name, shares in content["fractions"].items()}
            more = {key: content[key] for key in ("survey", "emphasis", "extrapolate") if key in content}
            more["emphasis"] = {str(answer): float(weight) for answer, weight in more.get("emphasis", {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{text[:60]!r} is no condition ({error})") from None
        return cls(fractions, **more)


_ANSWER_OF_TAG = {
    tag: answer.name for answer in ANSWER.values() for tag in (answer.tag, *answer.also)
}  # every wording is one answer's only; a test says so


def _checked_shares(question: str, shares: Sequence[float]) -> tuple[float, ...]:
    count = len(ANSWERS_OF[question])
    try:
        values = np.asarray(shares, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{question}: its shares are no list of numbers") from None
    if values.shape != (count,):
        raise InputError(f"{question} has {count} answers, shares of shape {values.shape} were given")
    if not np.isfinite(values).all() or values.min() < 0 or abs(values.sum() - 1) > _SUM_TOLERANCE:
        raise InputError(
            f"{question}: the shares {[round(float(value), 4) for value in values]} are not in [0, 1] with sum 1",
            remedy="Leave the question out where its answer is not known.",
        )
    return tuple(float(value) for value in values)


def _refuse_impossible(fractions: Mapping[str, tuple[float, ...]]) -> None:
    """Raise where a question is answered that, by the other answers, nobody was asked."""
    needed: dict[str, tuple[str, tuple[str, ...]]] = {}  # of questions that are not known: by whom, which answers
    for question in fractions:
        for above, answers in path_to(question).items():
            if above in fractions:
                shares = dict(zip(ANSWERS_OF[above], fractions[above], strict=True))
                if sum(shares[answer] for answer in answers) == 0:
                    raise InputError(
                        f"{question} is answered, but no vote led to it: {' and '.join(answers)} has the share 0",
                        remedy=f"Leave one of the two out. {_EXTRAPOLATE}",
                    )
                continue
            other, allowed = needed.get(above, (question, answers))
            common = tuple(answer for answer in answers if answer in allowed)
            if not common:
                raise InputError(
                    f"{other} and {question} are both answered, but follow different answers to {above}",
                    remedy=f"Leave one out, or say how the votes of {above} divide. {_EXTRAPOLATE}",
                )
            needed[above] = (other, common)


def _fill_in_path(chosen: dict[str, list[str]], extrapolate: bool) -> None:
    """Add the answers that the chosen ones imply; from the last question up, as each may imply the next."""
    for question in reversed(QUESTIONS):
        before = ASKED_AFTER[question]
        above = parent(question)
        if question not in chosen or above is None or len(before) != 1:
            continue  # where two answers lead here (smooth, features), neither is implied
        if above not in chosen or (extrapolate and before[0] not in chosen[above]):
            chosen.setdefault(above, []).append(before[0])
        elif before[0] not in chosen[above]:
            said = ", ".join(repr(ANSWER[answer].tag) for answer in chosen[question])
            against = ", ".join(repr(ANSWER[answer].tag) for answer in chosen[above])
            raise InputError(
                f"{said} implies {ANSWER[before[0]].tag!r}, which contradicts {against}",
                remedy=f"Leave one out. {_EXTRAPOLATE}",
            )


def _weighted_tags(text: str) -> list[tuple[str, float]]:
    """Tags with the largest weight of their words; lower case, without empty ones."""
    tags: list[tuple[str, float]] = []
    tag, weight = "", 1.0
    for run, factor in [*emphasis_runs(text), (",", 1.0)]:
        for place, part in enumerate(run.split(",")):
            if place:
                tags.append((" ".join(tag.lower().split()), weight))
                tag, weight = "", 1.0
            tag += part
            if part.strip() and factor != 1:
                weight = factor if weight == 1 else max(weight, factor)
    return [pair for pair in tags if pair[0]]
