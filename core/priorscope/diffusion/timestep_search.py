"""Where a run of few steps should stop: an evolutionary search over lists of levels, done once, offline.

Source: Li et al. 2023 (AutoDiffusion), the search over timesteps. There the metric is the FID of a few samples; any
number will do here, and the distance to a run of many steps from the same noise (:class:`DistanceToReference`) costs
far less.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from priorscope.data.files import write_text, writing
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Model
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.schedule import Schedule, VPSchedule
from priorscope.diffusion.solvers import Step, ddim
from priorscope.diffusion.spacing import spaced_times
from priorscope.errors import InputError

#: How a line of the memory begins.
_LINE = b'{"times": ['
#: Places in the list of candidates, rising.
_Places = tuple[int, ...]


def search_timesteps(
    metric: Callable[[list[float]], Any],
    schedule: Schedule,
    steps: int,
    *,
    candidates: Sequence[float] | None = None,
    first: Sequence[Sequence[float]] = (),
    population: int = 50,
    generations: int = 10,
    parents: int = 10,
    crossovers: int = 25,
    mutations: int = 25,
    mutation_rate: float = 0.1,
    keep_start: bool = True,
    seed: int = 0,
    memory: str | PathLike[str] | None = None,
    progress: bool = False,
) -> list[float]:
    """Find the ``steps`` levels with the lowest ``metric``.

    The first generation is the even spacing (``spaced_times(schedule, steps)``, or what is even among other
    candidates), the lists in ``first``, and random lists. Each further one has children
    of the best lists so far: crossovers take each level from either of two parents, mutations replace levels by
    random ones. No list is tried twice.

    Parameters
    ----------
    metric : callable
        ``metric(times) -> float``, lower is better, for the levels of a run as :func:`~priorscope.diffusion.sample`
        takes them: ``steps`` levels and ``schedule.end``. It must not be random. NaN and infinity count as infinitely
        bad: a run that diverged.
    schedule : Schedule
    steps : int
        Levels at which the network is asked, at least 1.
    candidates : sequence of float, optional
        The levels to choose from, without the end. Default: every step of a discrete schedule, 1000 even ones of a
        continuous one.
    first : sequence of lists, optional
        Other good guesses to begin with, ``steps`` candidates each (an end after them is ignored).
    population : int
        Lists in the first generation.
    generations : int
        Of children; 0 scores the first generation only.
    parents : int
        How many of the best lists so far have children.
    crossovers, mutations : int
        Children a generation. Fewer where no new ones are found.
    mutation_rate : float
        Probability that a mutation replaces a level.
    keep_start : bool
        Every list begins at the first candidate, the noisiest: a fixed noisy sample belongs to that level. False lets
        the search begin a run anywhere; then the metric must scale its noise to ``times[0]``.
    seed : int
        Fixes the whole search, given a metric that is not random.
    memory : path-like, optional
        A file of scores, one JSON line each. A search that was stopped, or is repeated with other settings, takes
        the scores from there instead of asking the metric. It holds the scores of one metric: the metric is asked
        about one of its lists again, and must agree to a thousandth.
    progress : bool
        Show a bar.

    Returns
    -------
    list of float
        ``steps`` levels and the end, from high noise to low. The even spacing is never worse.

    Raises
    ------
    InputError
        Settings that contradict each other; a metric that gives no number, or no finite one for any list of the first
        generation; a memory that cannot be read or written, or holds another metric's scores.

    Notes
    -----
    At most ``population + generations * (crossovers + mutations)`` calls of the metric; the defaults follow the
    official code.
    """
    levels = _levels(schedule, candidates)
    counts = {"population": population, "generations": generations, "crossovers": crossovers, "mutations": mutations}
    _check(len(levels), steps, parents, mutation_rate, counts)
    random = np.random.default_rng(seed)
    kept = 1 if keep_start else 0
    scores: dict[_Places, float] = {}

    def filled(places: Iterable[int]) -> _Places:
        """``places``, with random ones for those that are missing or there twice."""
        whole = set(range(kept)).union(places)
        others = [place for place in range(len(levels)) if place not in whole]
        return _rising([*whole, *random.choice(others, steps - len(whole), replace=False)])

    def crossed(elite: list[_Places]) -> _Places:
        mother, father = (elite[i] for i in random.integers(len(elite), size=2))
        return filled(np.where(random.random(steps) < 0.5, mother, father).tolist())

    def mutated(elite: list[_Places]) -> _Places:
        parent = elite[random.integers(len(elite))]
        stays = random.random(steps) >= mutation_rate
        return filled(place for place, stay in zip(parent, stays, strict=True) if stay)

    def unseen(make: Callable[[], _Places], count: int) -> list[_Places]:
        found: dict[_Places, None] = {}
        for _ in range(20 * count):
            if len(found) == count:
                break
            places = make()
            if places not in scores:
                found[places] = None
        return list(found)

    def best(count: int) -> list[_Places]:
        return sorted(scores, key=lambda places: (scores[places], places))[:count]

    ask = _Scores(metric, memory)
    with _bar(population + generations * (crossovers + mutations), progress) as advance:

        def score(children: Iterable[_Places]) -> None:
            for places in children:
                scores[places] = ask([*(levels[place] for place in places), schedule.end])
                advance()

        even = _even(schedule, levels, steps)
        ask.compare([*(levels[place] for place in even), schedule.end])
        score(dict.fromkeys([even, *(_places(guess, levels, steps, schedule.end, kept) for guess in first)]))
        score(unseen(lambda: filled(()), max(population - len(scores), 0)))
        if not any(map(math.isfinite, scores.values())):
            raise InputError(
                f"the metric of all {len(scores)} lists of {steps} levels is infinite or NaN",
                remedy="Try it on spaced_times(schedule, steps).",
            )
        for _ in range(generations):
            elite = best(parents)
            score(unseen(partial(crossed, elite), crossovers))
            score(unseen(partial(mutated, elite), mutations))
    return [*(levels[place] for place in best(1)[0]), schedule.end]


class DistanceToReference:
    """A metric for :func:`search_timesteps`: how far a run ends from a reference run from the same noise.

    Parameters
    ----------
    model : Model
    x : Tensor (B, ...)
        Noisy samples at the first level: the more, the less the search fits itself to them.
    reference : Tensor (B, ...) or sequence of float
        Where the runs should end; or the levels of a reference run, of many steps with ``reference_step``.
    condition : Condition, optional
    step : solver
        Deterministic: the one whose levels are searched.
    reference_step : solver, optional
        Default: ``step``.
    distance : callable, optional
        ``distance(result, reference) -> float``; a perceptual one for images. Default: root mean square.
    """

    def __init__(
        self,
        model: Model,
        x: torch.Tensor,
        reference: torch.Tensor | Sequence[float],
        *,
        condition: Condition | None = None,
        step: Step = ddim,
        reference_step: Step | None = None,
        distance: Callable[[torch.Tensor, torch.Tensor], Any] | None = None,
    ) -> None:
        if not isinstance(reference, torch.Tensor):
            reference = sample(model, x, reference, step=reference_step or step, condition=condition)
        if reference.shape != x.shape:
            raise InputError(f"a reference of shape {tuple(reference.shape)} for samples of {tuple(x.shape)}")
        self.model, self.x, self.reference, self.condition, self.step = model, x, reference, condition, step
        self.distance = distance or _root_mean_square

    def __call__(self, times: list[float]) -> float:
        result = sample(self.model, self.x, times, step=self.step, condition=self.condition)
        return float(self.distance(result, self.reference))


def save_times(path: str | PathLike[str], times: Sequence[float], *, overwrite: bool = False) -> Path:
    """Write levels as a JSON list of numbers and return the path.

    Raises
    ------
    InputError
        Levels that are not finite numbers, fewer than two, a file that exists already or cannot be written.
    """
    levels = [float(t) for t in times]
    if len(levels) < 2 or not all(map(math.isfinite, levels)):
        raise InputError(f"levels {levels} to save", path=path, remedy="Give at least two finite numbers.")
    return write_text(path, json.dumps(levels) + "\n", overwrite=overwrite)


def load_times(path: str | PathLike[str]) -> list[float]:
    """Read levels that :func:`save_times` wrote: a list for :func:`~priorscope.diffusion.sample`.

    Raises
    ------
    InputError
        No such file, or no JSON list of at least two finite numbers.
    """
    try:
        levels = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path, remedy="Give a file of save_times.") from error
    except ValueError:
        levels = None
    if not isinstance(levels, list) or len(levels) < 2 or not all(_is_finite(t) for t in levels):
        raise InputError("is no JSON list of at least two numbers", path=path, remedy="Give a file of save_times.")
    return [float(t) for t in levels]


class _Scores:
    """The metric with its memory: a file of JSON lines, of which a killed run may have left the last unfinished."""

    def __init__(self, metric: Callable[[list[float]], Any], path: str | PathLike[str] | None) -> None:
        self.metric = metric
        self.path = None if path is None else Path(path)
        self.known: dict[tuple[float, ...], float] = {}
        if self.path is not None and self.path.exists():
            self._load(self.path)

    def _load(self, path: Path) -> None:
        with writing(path):
            text = path.read_bytes()
        *lines, unfinished = text.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                score = math.inf if entry["score"] is None else float(entry["score"])
                self.known[tuple(map(float, entry["times"]))] = score
            except (ValueError, TypeError, KeyError) as error:
                raise self._foreign(path, number) from error
        if unfinished[: len(_LINE)] != _LINE[: len(unfinished)]:
            raise self._foreign(path, len(lines) + 1)
        if unfinished:
            with writing(path):
                os.truncate(path, len(text) - len(unfinished))

    def _foreign(self, path: Path, number: int) -> InputError:
        return InputError(
            f"line {number} is no score of a list of levels",
            path=path,
            remedy="Give a file that search_timesteps wrote, or a new one.",
        )

    def compare(self, times: list[float]) -> None:
        """Refuse a memory in which ``times``, or else its first list of as many, has a score of another metric."""
        alike = [known for known in self.known if len(known) == len(times)]
        if not alike:
            return
        chosen = tuple(times) if tuple(times) in self.known else alike[0]
        known, score = self.known[chosen], self._measure(list(chosen))
        if not math.isclose(score, known, rel_tol=1e-3):
            raise InputError(
                f"holds {known:g} for the levels from {chosen[0]:g}, {chosen[1]:g}, ... on; the metric gives {score:g}",
                path=self.path,
                remedy="Use another file for another metric, and a metric that is not random.",
            )

    def _measure(self, times: list[float]) -> float:
        value = self.metric(times)
        try:
            score = float(value)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the metric gave {str(value)[:80]!r} for {len(times) - 1} levels", remedy="Return one number."
            ) from error
        return score if math.isfinite(score) else math.inf

    def __call__(self, times: list[float]) -> float:
        key = tuple(times)
        if key in self.known:
            return self.known[key]
        self.known[key] = score = self._measure(list(times))
        if self.path is not None:
            line = {"times": times, "score": score if math.isfinite(score) else None}
            with writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
        return self.known[key]


@contextmanager
def _bar(total: int, shown: bool) -> Iterator[Callable[[], None]]:
    if not shown:
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress() as bar:
        task = bar.add_task("timesteps", total=total)
        yield lambda: bar.advance(task)


def _levels(schedule: Schedule, candidates: Sequence[float] | None) -> list[float]:
    """The candidates, noisiest first."""
    if candidates is None:
        return spaced_times(schedule, schedule.num_steps if isinstance(schedule, VPSchedule) else 1000)[:-1]
    levels = {float(t) for t in candidates} - {schedule.end}
    if any(math.isnan(t) for t in levels):
        raise InputError("NaN among the candidates", remedy="Give levels of the schedule.")
    return sorted(levels, key=schedule.log_snr)


def _even(schedule: Schedule, levels: list[float], steps: int) -> _Places:
    """The places of the default spacing where its levels are candidates, else evenly spaced ones."""
    place = {level: index for index, level in enumerate(levels)}
    if not isinstance(schedule, VPSchedule) or steps <= schedule.num_steps:
        named = spaced_times(schedule, int(steps))[:-1]
        if place.keys() >= set(named) and place[named[0]] == 0:
            return _rising(map(place.__getitem__, named))
    return _rising(np.arange(steps) * len(levels) // steps)


def _check(available: int, steps: int, parents: int, mutation_rate: float, counts: dict[str, int]) -> None:
    if not isinstance(steps, Integral) or not 1 <= steps <= available:
        raise InputError(f"{steps} steps out of {available} candidates", remedy="Use a whole number between.")
    for name, count in counts.items():
        if not isinstance(count, Integral) or count < 0:
            raise InputError(f"{name} {count}", remedy="Use a whole number, 0 or more.")
    if not isinstance(parents, Integral) or parents < 1:
        raise InputError(f"{parents} parents", remedy="Use a whole number, 1 or more.")
    if not 0 < mutation_rate <= 1:
        raise InputError(f"a mutation rate of {mutation_rate}", remedy="Use a probability above 0.")


def _places(guess: Sequence[float], levels: list[float], steps: int, end: float, kept: int) -> _Places:
    """Where the levels of a guess lie among the candidates."""
    named = [float(t) for t in guess]
    if named and named[-1] == end:
        named.pop()
    foreign = sorted(set(named) - set(levels))
    if foreign or len(named) != steps or len(set(named)) != steps:
        raise InputError(
            f"a first guess of {len(set(named))} levels"
            + (f", {foreign[:3]} not among the candidates" if foreign else ""),
            remedy=f"Give {steps} different ones of the {len(levels)} candidates.",
        )
    places = _rising(map(levels.index, named))
    if kept and places[0] != 0:
        raise InputError(
            f"a first guess begins at level {levels[places[0]]:g}",
            remedy=f"Begin at {levels[0]:g}, or search with keep_start=False.",
        )
    return places


def _rising(places: Iterable[Any]) -> _Places:
    return tuple(sorted(int(place) for place in places))


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _root_mean_square(result: torch.Tensor, reference: torch.Tensor) -> float:
    return float((result - reference).square().mean().sqrt())
