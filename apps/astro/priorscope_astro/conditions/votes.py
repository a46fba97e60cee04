"""Tables of volunteers' votes: checked, and turned into conditions. Vectorised: a whole survey at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_astro.conditions.condition import Condition, VoteKind
from priorscope_astro.conditions.cuts import Cuts, per_answer, per_question
from priorscope_astro.conditions.tree import ANSWERS, ANSWERS_OF, ASKED_AFTER, QUESTIONS, SLICES, nearest

#: Names of galaxy-datasets (Zoobot): question -> its name there, and its answers' there, in the tree's order. That
#: catalogue does not ask which odd feature was seen.
GALAXY_DATASETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "t01_smooth_or_features": ("smooth-or-featured-gz2", ("smooth", "featured-or-disk", "artifact")),
    "t02_edgeon": ("disk-edge-on-gz2", ("yes", "no")),
    "t03_bar": ("bar-gz2", ("yes", "no")),
    "t04_spiral": ("has-spiral-arms-gz2", ("yes", "no")),
    "t05_bulge_prominence": ("bulge-size-gz2", ("no", "just-noticeable", "obvious", "dominant")),
    "t06_odd": ("something-odd-gz2", ("yes", "no")),
    "t07_rounded": ("how-rounded-gz2", ("round", "in-between", "cigar")),
    "t09_bulge_shape": ("bulge-shape-gz2", ("round", "boxy", "no-bulge")),
    "t10_arms_winding": ("spiral-winding-gz2", ("tight", "medium", "loose")),
    "t11_arms_number": ("spiral-arm-count-gz2", ("1", "2", "3", "4", "more-than-4", "cant-tell")),
}

# The published raw fractions are rounded to three decimals: a question's sum misses 1 by at most 0.002 in the 3000 rows
# looked at. Debiased fractions are adjusted answer by answer and need not sum to 1: there, from 0.68 to 1.38 where a
# question has 20 votes.
_RAW_SUM = 0.01
_DEBIASED_SUM = (0.5, 1.5)
# A question may have a few more votes than led to it, by volunteers who came back: at most 2 in those rows.
_EXTRA_VOTES = 5


@dataclass(frozen=True)
class VoteTable:
    """Votes of N galaxies.

    Attributes
    ----------
    counts : ndarray, (N, 37)
        Votes of each answer, in the order of ANSWERS.
    fractions : ndarray, (N, 37)
        Shares as the table has them, not yet divided by their question's sum; 0 where nobody was asked.
    wrong : ndarray of bool, (N,), or None
        Rows whose votes do not sum, where such were tolerated.
    fault : str
        What is wrong with the first of them.
    """

    counts: NDArray[np.int64]
    fractions: NDArray[np.float64]
    wrong: NDArray[np.bool_] | None = None
    fault: str = ""

    def __len__(self) -> int:
        return len(self.counts)

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Any],
        *,
        kind: VoteKind = "debiased",
        path: str | PathLike[str] | None = None,
        ids: Sequence[str] | None = None,
        tolerate: float = 0.0,
    ) -> VoteTable:
        """Read the columns of a published table (``tNN_..._count``), or of galaxy-datasets (``..-gz2_smooth``: counts).

        Parameters
        ----------
        columns : mapping
            Column name -> N values; more columns than needed may be there.
        kind : {"debiased", "weighted_fraction", "fraction"}
            Which shares to take. galaxy-datasets has counts only, so its shares are raw.
        path : path-like, optional
            Named in messages.
        ids : sequence of str, optional
            Object ids, named in messages.
        tolerate : float
            Share of rows that may be wrong: those are marked in ``wrong``, all their votes 0, instead of refused. A
            large published table need not fail for one bad row.

        Raises
        ------
        InputError
            A column is missing (the nearest is suggested), a count is negative or no whole number, or votes do not sum:
            shares of a question that are far from 1, a total that is not the sum of its counts, or a question with more
            votes than led to it.
        """
        if kind not in ("debiased", "weighted_fraction", "fraction"):
            raise InputError(f"there is no kind of fraction {kind!r}", remedy="debiased, weighted_fraction, fraction.")
        check = _Check(columns, path, ids, tolerate)
        if f"{GALAXY_DATASETS['t01_smooth_or_features'][0]}_smooth" in columns:
            counts = check.counts(_galaxy_datasets_names())
            fractions = _divided(counts)
        else:
            counts = check.counts([f"{answer}_count" for answer in ANSWERS])
            fractions = check.fractions([f"{answer}_{kind}" for answer in ANSWERS])
            check.sums(counts, fractions, _DEBIASED_SUM if kind == "debiased" else (1 - _RAW_SUM, 1 + _RAW_SUM), kind)
            check.totals(counts)
        check.tree(counts)
        if not check.wrong.any():
            return cls(counts, fractions)
        counts[check.wrong], fractions[check.wrong] = 0, 0
        return cls(counts, fractions, check.wrong, check.first_fault)

    @classmethod
    def from_counts(
        cls, counts: Any, *, path: str | PathLike[str] | None = None, ids: Sequence[str] | None = None
    ) -> VoteTable:
        """Votes (N, 37) in the order of ANSWERS, with raw fractions.

        Raises
        ------
        InputError
            Another shape, counts that are negative or not whole, or a question with more votes than led to it.
        """
        array = np.asarray(counts)
        if array.ndim != 2 or array.shape[1] != len(ANSWERS):
            raise InputError(
                f"votes have shape {list(array.shape)}", path=path, remedy=f"[N, {len(ANSWERS)}] is meant."
            )
        check = _Check(dict(zip(ANSWERS, array.T, strict=True)), path, ids)
        checked = check.counts(ANSWERS)
        check.tree(checked)
        return cls(checked, _divided(checked))

    @property
    def question_votes(self) -> NDArray[np.int64]:
        """Votes of each question, (N, 11)."""
        return per_question(self.counts)

    def normalised(self) -> NDArray[np.float64]:
        """Shares (N, 37) that sum to 1 in each question, or are all 0 where nobody was asked."""
        return _divided(self.fractions)

    def well_sampled(self, cuts: Cuts | str = "majority") -> NDArray[np.bool_]:
        """Which questions of which galaxy are well sampled, (N, 11)."""
        table = cuts if isinstance(cuts, Cuts) else Cuts.read(cuts)
        shares = self.normalised()
        return table.well_sampled(self.question_votes, shares) & (per_question(shares) > 0)

    def vectors(self, cuts: Cuts | str = "majority") -> NDArray[np.float32]:
        """Conditions of all galaxies, (N, 74); see :meth:`Condition.to_vector`."""
        known = per_answer(self.well_sampled(cuts))
        return np.concatenate([self.normalised() * known, known], axis=1).astype(np.float32)

    def condition(self, index: int, *, cuts: Cuts | str = "majority", survey: str = "") -> Condition:
        """The condition of one galaxy: its well-sampled questions."""
        row = VoteTable(self.counts[index : index + 1], self.fractions[index : index + 1])
        shares, known = row.normalised()[0], row.well_sampled(cuts)[0]
        return Condition(
            {
                question: tuple(shares[SLICES[question]].tolist())
                for question, good in zip(QUESTIONS, known, strict=True)
                if good
            },
            survey=survey,
        )

    def select(self, rows: Any) -> VoteTable:
        """The table of some galaxies, by index or mask."""
        return VoteTable(self.counts[rows], self.fractions[rows])


def _galaxy_datasets_names() -> list[str | None]:
    names: list[str | None] = []
    for question in QUESTIONS:
        theirs = GALAXY_DATASETS.get(question)
        names += [None] * len(ANSWERS_OF[question]) if theirs is None else [f"{theirs[0]}_{a}" for a in theirs[1]]
    return names


def _divided(values: NDArray[Any]) -> NDArray[np.float64]:
    """Each question's values divided by their sum; 0 where that is 0."""
    sums = per_answer(per_question(values))
    return np.divide(values, sums, out=np.zeros(values.shape), where=sums > 0)


class _Check:
    """Columns of one table, read with errors that name the file, the row and the column.

    A few wrong rows among many (at most the share ``tolerate`` of each kind of fault) are marked in ``wrong`` instead.
    """

    def __init__(
        self,
        columns: Mapping[str, Any],
        path: str | PathLike[str] | None,
        ids: Sequence[str] | None,
        tolerate: float = 0.0,
    ) -> None:
        self.columns, self.path, self.ids, self.tolerate = columns, path, ids, tolerate
        length = max((np.size(values) for values in columns.values()), default=0)
        self.wrong = np.zeros(length, bool)
        self.first_fault = ""

    def refuse(self, bad: NDArray[np.bool_], fact: str, remedy: str, **values: NDArray[Any]) -> None:
        """Raise, or mark the rows; ``{name}`` in the fact stands for the first bad row's value."""
        if not bad.any():
            return
        row = int(np.argmax(bad))
        where = f"object {self.ids[row]}" if self.ids is not None else f"row {row + 1}"
        said = f"{where}: {fact.format(**{name: array[row] for name, array in values.items()})}"
        if bad.mean() > self.tolerate:
            others = int(bad.sum()) - 1
            raise InputError(
                said + (f" (and {others} more such rows)" if others else ""), path=self.path, remedy=remedy
            )
        self.wrong |= bad
        self.first_fault = self.first_fault or said

    def numbers(self, name: str) -> NDArray[np.float64]:
        if name not in self.columns:
            raise InputError(
                f"has no column {name!r}", path=self.path, remedy=nearest(name, list(self.columns)[:400] or ["none"])
            )
        try:
            values = np.ma.filled(np.ma.asarray(self.columns[name]).astype(np.float64), np.nan)
        except (TypeError, ValueError):
            raise InputError(f"column {name!r} does not hold numbers", path=self.path) from None
        bad = ~np.isfinite(values) | (values < 0)
        remedy = "Votes are numbers from 0 up; drop that row."
        self.refuse(bad, f"{name} is {{value:g}}", remedy, value=values)
        return np.where(bad, 0, values)

    def counts(self, names: Sequence[str | None]) -> NDArray[np.int64]:
        table = np.zeros((len(self.wrong), len(names)), np.int64)
        for place, name in enumerate(names):
            if name is not None:
                values = self.numbers(name)
                table[:, place] = values
                fact = f"{name} is {{value:g}}, not a whole number of votes"
                self.refuse(values != table[:, place], fact, "Counts are needed, not shares.", value=values)
        return table

    def fractions(self, names: Sequence[str]) -> NDArray[np.float64]:
        return np.stack([self.numbers(name) for name in names], axis=1)

    def sums(
        self, counts: NDArray[np.int64], fractions: NDArray[np.float64], span: tuple[float, float], kind: str
    ) -> None:
        for question in QUESTIONS:
            sums = fractions[:, SLICES[question]].sum(1)
            # Nobody asked, or only volunteers of weight 0: nothing to sum. With few votes the published debiased
            # fractions are unreliable, and no cut lets them through.
            asked = (counts[:, SLICES[question]].sum(1) >= 10) & (sums > 0)
            bad = asked & ((sums < span[0]) | (sums > span[1]))
            remedy = f"They should sum to about 1 ({span[0]:g} to {span[1]:g}); are the columns shifted?"
            self.refuse(bad, f"the {kind} shares of {question} sum to {{sum:.3f}}", remedy, sum=sums)

    def totals(self, counts: NDArray[np.int64]) -> None:
        first = counts[:, SLICES[QUESTIONS[0]]].sum(1)
        for name, right in (("total_votes", counts.sum(1)), ("total_classifications", first)):
            if name in self.columns:
                said = self.numbers(name)
                fact = f"{name} is {{said:g}}, but its counts sum to {{right}}"
                remedy = "Votes must sum; are columns missing or shifted?"
                self.refuse(said != right, fact, remedy, said=said, right=right)

    def tree(self, counts: NDArray[np.int64]) -> None:
        place = {answer: index for index, answer in enumerate(ANSWERS)}
        for question, before in ASKED_AFTER.items():
            if before:
                votes = counts[:, SLICES[question]].sum(1)
                led = counts[:, [place[answer] for answer in before]].sum(1)
                fact = f"{question} has {{votes}} votes, but only {{led}} led to it"
                remedy = "Votes must sum; are the columns in order?"
                self.refuse(votes > led + _EXTRA_VOTES, fact, remedy, votes=votes, led=led)
