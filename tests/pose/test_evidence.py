"""The evidence's script takes rows of its own plan only."""

from __future__ import annotations

import importlib
import json
import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("evidence_pose")


@pytest.fixture
def begun(script, tmp_path, monkeypatch):
    """The evidence with a copy of the rows that are there; nothing may be trained."""
    rows = tmp_path / "rows.jsonl"

    def never(*_):
        raise AssertionError("a training")

    def make(**changes):
        if not rows.exists():
            shutil.copy(BENCHMARKS / "evidence_pose.jsonl", rows)
            rows.chmod(0o644)
        evidence = script.Evidence(Namespace(rows=rows, max_seconds=60, out=tmp_path, small=False, arm=None))
        evidence.plan = replace(evidence.plan, **changes)
        return evidence

    monkeypatch.setattr(script.Evidence, "trained", never)
    return make


def test_the_rows_that_are_there_are_of_the_plan(begun):
    evidence = begun()
    before = len(evidence.rows)
    evidence.stills()
    evidence.clips()
    assert [(row["kind"], row["of"]) for row in evidence.rows[before:]] == [("plan", "still"), ("plan", "clip")]
    # now they are rows too, and are written once
    again = begun()
    again.stills()
    again.clips()
    assert len(again.rows) == before + 2
    assert json.loads(again.rows_at.read_text().splitlines()[-1])["plan"]["clip_steps"] == again.plan.clip_steps


@pytest.mark.parametrize(
    ("part", "change"),
    [("clips", "clip_steps"), ("clips", "single_steps"), ("stills", "steps"), ("stills", "prior_steps")],
)
def test_rows_of_other_steps_do_not_pass(begun, part, change):
    evidence = begun()
    for more in (-1, 1):
        other = begun(**{change: getattr(evidence.plan, change) + more})
        with pytest.raises(SystemExit, match="rows of another plan"):
            getattr(other, part)()
        assert len(other.rows) == len(evidence.rows)


def test_once_the_plan_is_a_row_all_of_it_counts(begun):
    begun().clips()
    for change in ({"clip_batch": 4}, {"sizes": replace(begun().plan.sizes, clips=300)}):
        with pytest.raises(SystemExit, match="clip rows of another plan"):
            begun(**change).clips()
    begun(seeds=(0, 1)).clips()


def test_a_finished_run_of_other_steps_does_not_pass(script, tmp_path, monkeypatch):
    from priorscope.training.settings import LoopConfig
    from priorscope_pose.configs import TrainConfig

    options = Namespace(rows=tmp_path / "rows.jsonl", max_seconds=60, out=tmp_path, small=True, arm=None)
    evidence = script.Evidence(options)
    run = tmp_path / "runs/video-0"
    run.mkdir(parents=True)
    (run / "finished").touch()
    monkeypatch.setattr(script, "checkpoint_step", lambda path: 4000)
    config = TrainConfig("", loop=LoopConfig(steps=4000))
    assert evidence.trained("video-0", config) == run / "model"
    with pytest.raises(SystemExit, match="video-0 was not trained for 8000 steps"):
        evidence.trained("video-0", replace(config, loop=LoopConfig(steps=8000)))
