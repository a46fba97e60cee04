"""``priorscope depth evaluate scenes``, killed at several moments: resumed, it ends with a whole run's figures."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from priorscope.cli import main
from priorscope.evaluation import RunFolder, suite
from priorscope_depth import held_out
from priorscope_depth.scenes import render_scene
from priorscope_depth.training.save import save_model
from priorscope_depth.training.start import start_from


@pytest.fixture(scope="module", autouse=True)
def small_scenes():
    """Scenes of a few pixels: what is measured does not matter here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "render_scene", lambda seed, **_: render_scene(seed, height=48, width=64))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(start_from("new").predictor, tmp_path_factory.mktemp("new") / "model")


def command(model: Path, out: Path, *more: str) -> list[str]:
    return ["depth", "evaluate", "scenes", f"--model={model}", f"--out={out}", "--limit=4", "--device=cpu", *more]


def killed_at(arguments: list[str], moment: str) -> Callable[[], int]:
    """The command, in a process that is to be killed."""

    def work() -> int:
        append = suite.append_jsonl
        count = 0

        def torn(path, row):
            nonlocal count
            count += 1
            if count == 3:
                if moment == "in a row":
                    path.open("a").write('{"key": "torn')
                os.kill(os.getpid(), signal.SIGKILL)
            append(path, row)

        def late(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        if moment == "before the figures":
            RunFolder.write_metrics = late
        else:
            suite.append_jsonl = torn
        return main(arguments)

    return work


def test_killed_evaluations_end_with_the_same_figures(model, tmp_path, fork):
    whole = tmp_path / "whole"
    assert main(command(model, whole)) == 0
    figures = RunFolder(whole).metrics()
    for moment in ("between rows", "in a row", "before the figures"):
        out = tmp_path / moment.replace(" ", "-")
        assert fork(killed_at(command(model, out), moment)) == -signal.SIGKILL
        assert main(command(model, out)) == 2  # not silently over it
        assert main(command(model, out, "--resume")) == 0
        assert json.dumps(RunFolder(out).metrics()) == json.dumps(figures)
        assert (out / "items.jsonl").read_text() == (whole / "items.jsonl").read_text()
        assert (out / "report.html").is_file()
