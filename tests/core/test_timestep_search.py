"""The search over timesteps against brute force, and on a mixture whose denoiser is known; its memory and mistakes."""

from __future__ import annotations

import json
import math
from itertools import combinations

import numpy as np
import pytest
import torch

from priorscope import InputError
from priorscope.diffusion import (
    SOLVERS,
    DistanceToReference,
    EDMSchedule,
    FlowSchedule,
    Noise,
    Prediction,
    VPSchedule,
    load_times,
    sample,
    save_times,
    search_timesteps,
    spaced_times,
)

VP = VPSchedule.from_betas()
SMALL = {"population": 8, "generations": 3, "parents": 4, "crossovers": 4, "mutations": 4}


class Mixture:
    """The exact model of two narrow Gaussians at -1 and 1: its ODE bends where the sides part."""

    def __init__(self, schedule):
        self.schedule = schedule

    def __call__(self, x, t, condition=None, info=None):
        alpha, sigma = self.schedule(t)
        variance = (0.1 * alpha) ** 2 + sigma**2
        side = torch.tanh(alpha * x / variance)
        x0 = side + alpha * 0.1**2 / variance * (x - alpha * side)
        return Prediction(x0, (x - alpha * x0) / sigma)


def rough(times):
    """A metric with many local minima: each level counts, and so do its neighbours."""
    values = np.asarray(times)
    return float(np.sum(np.sin(values * 1.7)) + np.sum(np.cos(np.diff(values) * 0.9)))


def test_finds_the_best_of_all_lists_where_they_can_be_counted():
    candidates = list(np.arange(0.0, 600.0, 50.0))
    found = search_timesteps(rough, VP, 3, candidates=candidates, keep_start=False, population=100)
    best = min(([*sorted(some, reverse=True), -1.0] for some in combinations(candidates, 3)), key=rough)
    assert found == best
    # with a fixed start, among fewer
    found = search_timesteps(rough, VP, 3, candidates=candidates, seed=3)
    best = min(([550.0, *sorted(some, reverse=True), -1.0] for some in combinations(candidates[:-1], 2)), key=rough)
    assert found == best
    assert search_timesteps(rough, VP, 12, candidates=candidates) == [*candidates[::-1], -1.0]
    assert search_timesteps(rough, VP, np.int64(1), candidates=candidates) == [550.0, -1.0]


def test_beats_random_lists_for_the_same_number_of_trials():
    def far(times):  # a smooth target among C(998, 7) lists
        return float(np.square(np.asarray(times[1:-1]) - [700, 450, 300, 180, 90, 40, 10]).sum())

    tried = []

    def counted(times):
        tried.append(times)
        return far(times)

    found = search_timesteps(counted, VP, 8, seed=1)
    assert len(tried) <= 550
    assert len(tried) == len({tuple(times) for times in tried})
    assert all(times[0] == 999.0 and times[-1] == -1.0 and times == sorted(times, reverse=True) for times in tried)
    assert all(len(times) == 9 for times in tried)
    assert found == min(tried, key=far)
    random = search_timesteps(far, VP, 8, population=550, generations=0, seed=1)
    assert far(found) < far(random) < far(spaced_times(VP, 8))


def test_fewer_steps_of_every_solver_take_what_is_found(tmp_path):
    """The error of four steps falls to less than half of the even spacing's; the list is JSON that all solvers take."""
    model = Mixture(VP)
    start = Noise.shared(0).draw((64, 1)).double()
    metric = DistanceToReference(model, start, spaced_times(VP, 200))
    found = search_timesteps(metric, VP, 4, **SMALL, seed=0)
    assert metric(found) < 0.5 * metric(spaced_times(VP, 4))
    path = save_times(tmp_path / "levels" / "four.json", found)
    assert json.loads(path.read_text()) == found
    assert load_times(path) == found
    assert spaced_times(VP, load_times(path)) == found
    for step in SOLVERS.values():
        result = sample(model, start[:2], load_times(path), step=step, noise=Noise.shared(0))
        assert bool(torch.isfinite(result).all())
    with pytest.raises(InputError, match="exists"):
        save_times(path, found)
    assert load_times(save_times(path, [3, 1, -1], overwrite=True)) == [3.0, 1.0, -1.0]


def test_distance_to_reference():
    model, start = Mixture(VP), Noise.shared(0).draw((5, 1)).double()
    times = spaced_times(VP, 3)
    end = sample(model, start, times)
    assert DistanceToReference(model, start, end)(times) == 0.0
    shifted = DistanceToReference(model, start, end + 2.0)
    assert shifted(times) == pytest.approx(2.0)
    largest = DistanceToReference(model, start, end + 2.0, distance=lambda a, b: (a - b).abs().max() ** 2)
    assert largest(times) == pytest.approx(4.0)
    with pytest.raises(InputError, match="shape"):
        DistanceToReference(model, start, end[:3])


@pytest.mark.parametrize("schedule", [FlowSchedule(), EDMSchedule(0.01, 10.0)], ids=["flow", "edm"])
def test_continuous_schedules(schedule):
    metric = DistanceToReference(Mixture(schedule), schedule.start * torch.ones(3, 1), spaced_times(schedule, 50))
    found = search_timesteps(metric, schedule, 3, **SMALL)
    assert found[0] == schedule.start
    assert found[-1] == schedule.end
    assert len(found) == 4
    assert metric(found) <= metric(spaced_times(schedule, 3))


def test_a_search_is_fixed_by_its_seed_and_begins_with_good_guesses():
    one = search_timesteps(rough, VP, 5, **SMALL, seed=5)
    assert search_timesteps(rough, VP, 5, **SMALL, seed=5) == one
    assert search_timesteps(rough, VP, 5, **SMALL, seed=6) != one
    for steps in (3, 5, 7, 18, 48):  # most of them no divisors of 1000
        asked = []
        search_timesteps(lambda times, asked=asked: asked.append(times) or 0.0, VP, steps, population=1, generations=0)
        assert asked == [spaced_times(VP, steps)]
    seen = []
    guess = [999.0, 600.0, 300.0, 100.0, 20.0]

    def metric(times):
        seen.append(times)
        return 0.0 if times == [*guess, -1.0] else 1.0

    assert search_timesteps(metric, VP, 5, first=[[*guess, -1.0]], **SMALL) == [*guess, -1.0]
    assert seen[:2] == [spaced_times(VP, 5), [*guess, -1.0]]


def test_a_killed_search_goes_on_from_its_memory(tmp_path):
    whole = search_timesteps(rough, VP, 5, **SMALL, memory=tmp_path / "whole.jsonl")
    calls = []

    def dies(times):
        calls.append(times)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return rough(times)

    path = tmp_path / "new" / "memory.jsonl"
    with pytest.raises(KeyboardInterrupt):
        search_timesteps(dies, VP, 5, **SMALL, memory=path)
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 9
    path.write_text("".join(lines)[:-7])  # the last line was not written to its end
    assert search_timesteps(dies, VP, 5, **SMALL, memory=path) == whole
    # one list is asked about again, to see that the scores are of this metric
    assert len(calls) == 10 + len((tmp_path / "whole.jsonl").read_text().splitlines()) - 8 + 1
    before, calls[:] = path.read_bytes(), []
    assert search_timesteps(dies, VP, 5, **SMALL, memory=path) == whole
    assert calls == [spaced_times(VP, 5)]
    assert path.read_bytes() == before


def test_runs_that_diverge_are_bad_and_remembered(tmp_path):
    def metric(times):
        return math.nan if times[1] > 700 else rough(times)

    path = tmp_path / "memory.jsonl"
    found = search_timesteps(metric, VP, 5, **SMALL, memory=path)
    assert found[1] <= 700
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert any(entry["score"] is None for entry in entries)
    calls = []
    assert search_timesteps(lambda times: calls.append(times) or metric(times), VP, 5, **SMALL, memory=path) == found
    assert len(calls) == 1


def test_a_metric_that_is_never_finite_is_given_up_after_the_first_generation():
    calls = []
    with pytest.raises(InputError, match="all 8 lists"):
        search_timesteps(lambda times: calls.append(times) or math.nan, VP, 5, **SMALL)
    assert len(calls) == 8


def test_a_memory_of_another_metric_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "memory.jsonl"
    found = search_timesteps(rough, VP, 5, **SMALL, memory=path)
    before = path.read_bytes()
    for other in (lambda times: 1.01 * rough(times), lambda times: math.nan):
        for settings in (SMALL, {**SMALL, "candidates": range(0, 1000, 3)}):  # another even spacing
            with pytest.raises(InputError, match=r"memory\.jsonl.*another metric"):
                search_timesteps(other, VP, 5, **settings, memory=path)
    assert path.read_bytes() == before
    # rounding, as on another machine, is no other metric
    assert search_timesteps(lambda times: (1 + 1e-5) * rough(times), VP, 5, **SMALL, memory=path) == found
    assert search_timesteps(lambda times: -rough(times), VP, 6, **SMALL, memory=path)  # scores nothing of 5 levels


@pytest.mark.parametrize("text", ["no scores", "[1, 2]\n", '{"times": 3, "score": 1}\n', '{"score": 1}\n', "\n"])
def test_a_memory_of_something_else_is_refused_and_left_alone(tmp_path, text):
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"notes\.txt.*line 1"):
        search_timesteps(rough, VP, 5, **SMALL, memory=path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"steps": 1001},
        {"steps": 4.0},
        {"population": -1},
        {"generations": 2.5},
        {"parents": 0},
        {"mutation_rate": 0.0},
        {"mutation_rate": math.nan},
        {"candidates": [900.0, 1000.0]},
        {"candidates": [900.0, math.nan]},
        {"candidates": [0.9, 0.5, 0.3, math.nan], "schedule": FlowSchedule()},
        {"candidates": [900.0, 900.0, 5.0]},
        {"first": [[999.0, 5.0]]},
        {"first": [[999.0, 5.5, 1.0]]},
        {"first": [[998.0, 5.0, 1.0]]},
        {"metric": lambda times: "low"},
        {"metric": lambda times: None},
        {"memory": "/proc/none/memory.jsonl"},
    ],
)
def test_wrong_settings_are_one_line_errors(change):
    settings = {"metric": rough, "schedule": VP, "steps": 3, **SMALL, **change}
    with pytest.raises(InputError) as error:
        search_timesteps(**settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[1]", "[1, null]", "[1, true]", '{"times": [2, 1]}', "[2, NaN]", "[2, 1"])
def test_files_that_hold_no_levels_are_refused(tmp_path, text):
    path = tmp_path / "levels.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"levels\.json"):
        load_times(path)
    with pytest.raises(InputError, match="none"):
        load_times(tmp_path / "none.json")
    with pytest.raises(InputError):
        save_times(tmp_path / "new.json", [1.0, math.inf])
    assert not (tmp_path / "new.json").exists()
