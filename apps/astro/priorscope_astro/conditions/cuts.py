"""Which questions of a galaxy are well sampled: enough volunteers came to them, by the answers before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.json_file import read_json
from priorscope.errors import InputError
from priorscope_astro.conditions.tree import ANSWER, ANSWERS, QUESTIONS, SLICES, nearest

#: Tables of cuts that are built in.
BUILT_IN = ("majority", "willett13")


@dataclass(frozen=True)
class Cuts:
    """For every question, how many votes it needs and which earlier shares must lie above which value.

    Attributes
    ----------
    name, source : str
        What the table is called, and where its values come from.
    verified : bool
        Whether the values were checked against their source. Those of ``willett13`` were not.
    minimum_votes : int
        Fewest votes of a question that is well sampled.
    above : mapping
        Question -> pairs (answers, value): the sum of these answers' shares must exceed the value.
    """

    name: str
    source: str
    verified: bool
    minimum_votes: int
    above: Mapping[str, tuple[tuple[tuple[str, ...], float], ...]]

    @classmethod
    def read(cls, name: str | PathLike[str]) -> Cuts:
        """A built-in table (``majority``, ``willett13``), or one of your own in a JSON file of the same layout.

        ``majority`` is our rule: at least 10 votes, and more than half at every answer before. ``willett13`` has the
        published kind of cuts, with values that nobody has compared with the paper here (``verified`` is false).

        Raises
        ------
        InputError
            No such table, not JSON, unknown question or answer, or a value outside [0, 1].
        """
        if str(name) in BUILT_IN:
            text = resources.files(__package__).joinpath(f"cuts_{name}.json").read_text(encoding="utf-8")
            return cls._parsed(json.loads(text), Path(f"cuts_{name}.json"))
        path = Path(name)
        if not path.is_file():
            raise InputError(
                f"{str(name)!r} is neither a built-in table of cuts nor a file", remedy=nearest(str(name), BUILT_IN)
            )
        return cls._parsed(read_json(path), path)

    @classmethod
    def _parsed(cls, content: Any, path: Path) -> Cuts:
        try:
            above = {
                question: tuple((tuple(row["answers"]), float(row["above"])) for row in rows)
                for question, rows in content["questions"].items()
            }
            cuts = cls(
                str(content["name"]),
                str(content["source"]),
                bool(content["verified"]),
                int(content["minimum_votes"]),
                above,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"is no table of cuts ({type(error).__name__}: {error})",
                path=path,
                remedy="It needs name, source, verified, minimum_votes and questions, as cuts_majority.json has.",
            ) from None
        for question, rows in above.items():
            if question not in QUESTIONS:
                raise InputError(f"{question!r} is no question", path=path, remedy=nearest(question, QUESTIONS))
            for answers, value in rows:
                for answer in answers:
                    if answer not in ANSWER:
                        raise InputError(f"{answer!r} is no answer", path=path, remedy=nearest(answer, ANSWERS))
                if not 0 <= value <= 1:
                    raise InputError(f"{question}: the share {value:g} does not lie in [0, 1]", path=path)
        return cuts

    def well_sampled(self, votes: NDArray[Any], shares: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which questions are well sampled.

        Parameters
        ----------
        votes : ndarray, (N, 11)
            Votes of each question, in the order of QUESTIONS.
        shares : ndarray, (N, 37)
            Vote fractions, in the order of ANSWERS; 0 where nobody was asked.

        Returns
        -------
        ndarray of bool, (N, 11)
        """
        good = np.asarray(votes) >= max(1, self.minimum_votes)
        for place, question in enumerate(QUESTIONS):
            for answers, value in self.above.get(question, ()):
                good[:, place] &= shares[:, _places(answers)].sum(1) > value
        return good


def _places(answers: Sequence[str]) -> list[int]:
    return [ANSWERS.index(answer) for answer in answers]


def per_question(answers: NDArray[Any]) -> NDArray[Any]:
    """Values of the answers (N, 37), summed in each question: (N, 11)."""
    return np.stack([answers[:, SLICES[question]].sum(1) for question in QUESTIONS], axis=1)


def per_answer(questions: NDArray[Any]) -> NDArray[Any]:
    """Values of the questions (N, 11), repeated for each of their answers: (N, 37)."""
    return np.repeat(questions, [SLICES[question].stop - SLICES[question].start for question in QUESTIONS], axis=-1)
