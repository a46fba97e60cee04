"""The command ``priorscope``: quick to answer, and one line for what the user can mend."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from priorscope import __version__, cli
from priorscope.cli import guarded, main, parse_verbs, run_training
from priorscope.errors import InputError

HEAVY = ("torch", "diffusers", "transformers", "matplotlib", "scipy")
_IMPORTED_AS = {"scikit-learn": "sklearn", "gym-pusht": "gym_pusht", "faster-coco-eval": "faster_coco_eval"}


class FakeApp:
    """An entry point whose app does what a test wants."""

    name = "fake"

    def __init__(self, command):
        self.main = command

    def load(self):
        return self


@pytest.fixture
def with_app(monkeypatch):
    def install(command):
        monkeypatch.setattr(cli, "entry_points", lambda group: [FakeApp(command)])

    return install


def in_a_process(*words):
    """Run the command; returns the exit status, what it printed and which heavy modules it imported."""
    code = f"""
import json, sys
from priorscope.cli import main
try:
    status = main({list(words)!r})
except SystemExit as stop:
    status = stop.code or 0
print(json.dumps([status, [name for name in {HEAVY!r} if name in sys.modules]]), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, heavy = json.loads(done.stderr.splitlines()[-1])
    return status, done.stdout, heavy


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--help"], ["usage: priorscope APP VERB", "depth", "models", "--debug"]),
        ([], ["usage: priorscope APP VERB"]),
        (["--version"], [__version__]),
        (["depth", "--help"], ["predict", "evaluate", "train", "demo"]),
        (["pose", "--help"], ["predict", "people"]),
        (["detection", "--help"], ["simulate", "predict", "train", "evaluate", "demo"]),
        (["astro", "--help"], ["simulate", "plan", "train", "train-classifier", "generate"]),
        (["astro", "generate", "--help"], ["--model", "--pool", "--resume", "--out", "--batch-size"]),
        (["pose", "predict", "--help"], ["--boxes", "--detector", "--crop", "--formats", "--out", "--batch-size"]),
        (["depth", "predict", "--help"], ["--model", "--device", "--precision", "--seed", "--out", "--batch-size"]),
        (["models"], ["lotus-depth-d-v2-0-disparity", "tiny-depth", "Apache-2.0", "in the package"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_answers_without_importing_anything_heavy(words, shown):
    status, printed, heavy = in_a_process(*words)
    assert status == 0
    for word in shown:
        assert word in printed
    assert heavy == []


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, priorscope, priorscope_depth; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_installed_command_is_this_one():
    from importlib.metadata import entry_points

    (entry,) = entry_points(group="console_scripts", name="priorscope")
    assert entry.load() is main


def test_models_of_one_app(capsys):
    assert main(["models", "depth"]) == 0
    everything = capsys.readouterr().out
    assert "genpercept-depth" in everything
    # whoever may run it, and where it comes from, is never left out
    assert re.search(r"lotus-depth-g-v1-0\s.*Apache-2\.0.*jingheya/lotus-depth-g-v1-0", everything)
    assert main(["models", "--help"]) == 0
    assert main(["models", "zebra"]) == 2
    assert "zebra" in capsys.readouterr().err


@pytest.mark.parametrize(("word", "hint"), [("dept", "Did you mean depth?"), ("model", "models?"), ("zzz", "Apps: ")])
def test_unknown_app(capsys, word, hint):
    assert main([word]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert f"no app is called {word!r}" in captured.err
    assert hint in captured.err
    assert captured.out == ""


def test_input_error_is_one_line_and_status_2(capsys, with_app):
    def command(words):
        raise InputError("is\nempty", path="a.png", remedy="Copy it again.")

    with_app(command)
    assert main(["fake"]) == 2
    assert capsys.readouterr().err == "error: a.png: is empty. Copy it again.\n"


def test_debug_shows_the_traceback_wherever_it_stands(with_app):
    def command(words):
        raise InputError(f"given {words}")

    with_app(command)
    for words in (["--debug", "fake", "x"], ["fake", "x", "--debug"]):
        with pytest.raises(InputError, match=r"given \['x'\]"):
            main(words)


def test_debug_in_a_process_ends_with_a_traceback(tmp_path):
    words = ["depth", "predict", str(tmp_path / "none.png")]
    command = [sys.executable, "-m", "priorscope.cli", *words]
    short = subprocess.run(command, capture_output=True, text=True, check=False)
    assert short.returncode == 2
    assert [line for line in short.stderr.splitlines() if line.startswith("error: ")] == short.stderr.splitlines()
    assert "none.png" in short.stderr
    full = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert full.returncode == 1
    assert "Traceback" in full.stderr
    assert "none.png" in full.stderr.splitlines()[-1]


def lacks(module):
    def command(*_):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    return command


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("av", "depth"),
        ("h5py", "depth"),
        ("trimesh", "depth"),
        ("embreex.rtcore", "depth"),
        ("rasterio", "remote-sensing"),
        ("pyogrio", "remote-sensing"),
        ("shapely.geometry", "detection"),
        ("sklearn.ensemble", "remote-sensing"),
    ],
)
def test_missing_extra_says_what_to_install(capsys, with_app, module, extra):
    with_app(lacks(module))
    assert main(["fake"]) == 2
    assert capsys.readouterr().err == f"error: this needs {module}: pip install 'priorscope[{extra}]'\n"


def test_of_several_extras_that_of_the_app_is_named(capsys):
    for app in ("depth", "remote-sensing"):
        assert guarded(lacks("h5py"), app=app) == 2
        assert f"'priorscope[{app}]'" in capsys.readouterr().err


def test_all_that_the_extras_bring_is_known():
    """A module of an extra that the message does not know would end in a traceback."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(cli._MODULES_OF) <= set(extras)
    for extra, modules in cli._MODULES_OF.items():
        names = {re.match(r"[\w-]+", requirement)[0] for requirement in extras[extra]}
        assert {_IMPORTED_AS.get(name, name) for name in names} == modules


def test_a_training_names_its_model_once(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("RANK", raising=False)
    assert run_training(lambda: tmp_path, app="depth") == 0
    assert capsys.readouterr().out == f"model: {tmp_path}\n"
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run_training(lambda: tmp_path, app="depth") == 0
    assert capsys.readouterr().out == ""
    assert run_training(lacks("h5py"), app="remote-sensing") == 2
    assert "'priorscope[remote-sensing]'" in capsys.readouterr().err


def test_a_missing_module_of_ours_is_a_bug_and_not_hidden(with_app):
    def command(words):
        raise ModuleNotFoundError("No module named 'priorscope.nothing'", name="priorscope.nothing")

    with_app(command)
    with pytest.raises(ModuleNotFoundError):
        main(["fake"])


def test_other_errors_are_not_hidden(with_app):
    with_app(lambda words: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["fake"])


def test_statuses_pass_through(with_app):
    with_app(lambda words: 1)
    assert main(["fake"]) == 1
    with_app(lambda words: None)
    assert main(["fake"]) == 0


def test_interrupt(capsys):
    def command():
        raise KeyboardInterrupt

    assert guarded(command) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_reader_that_goes_away(tmp_path):
    """``priorscope models | head -1`` ends quietly."""
    command = f"{sys.executable} -m priorscope.cli models | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_wrong_options_are_told(capsys):
    assert main(["depth", "predict"]) == 2
    assert "no input" in capsys.readouterr().err
    for words in (
        ["depth", "predict", "x.png", "--ensemble", "two"],
        ["depth", "predict", "--zoom"],
        ["depth", "paint"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        captured = capsys.readouterr()
        assert captured.err + captured.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["depth", "evaluate", "nosuch"], "for argument 'dataset'"),
        (["depth", "train", "--lr"], "'--lr'"),
        (["robotics", "train"], "robomimic's *.hdf5"),
    ],
)
def test_a_wrong_option_is_named_as_the_user_knows_it(capsys, words, said):
    """Not as tyro keeps it (`__tyro-dummy-inner__.dataset`)."""
    with pytest.raises(SystemExit):
        main(words)
    captured = capsys.readouterr()
    shown = " ".join((captured.err + captured.out).replace("│", "").split())
    assert said in shown
    assert "dummy" not in shown


@dataclass(frozen=True)
class Paint:
    """Paint a wall."""

    colour: str
    """Of the wall."""
    coats: int = 1


@dataclass(frozen=True)
class Wash:
    """Wash it off."""


@pytest.mark.parametrize(
    "words",
    [
        ["astro", "evaluate", "generated", "survey"],
        ["depth", "predict", "x.png"],
        ["detection", "predict", "frames"],
        ["medical", "simulate", "x.nii", "--task", "cs-mri"],
        ["pose", "predict", "x.png"],
        ["remote-sensing", "predict", "x.tif", "--model", "m"],
        ["robotics", "rollout", "policy", "pusht"],
    ],
)
def test_no_app_takes_a_negative_seed(capsys, tmp_path, words):
    assert main([*words, "--out", str(tmp_path / "out"), "--seed", "-1"]) == 2
    assert capsys.readouterr().err == "error: --seed -1. Use 0 or more.\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["astro", "train", "x"],
        ["depth", "train", "--pairs", "x"],
        ["detection", "train", "x"],
        ["medical", "train", "--volumes", "x"],
        ["pose", "train", "x"],
        ["remote-sensing", "train", "--data", "x"],
        ["robotics", "train", "x"],
    ],
)
def test_every_app_names_the_options_of_a_training_alike(capsys, tmp_path, words):
    """The app's options hold the loop's without a name before them: --seed and not --loop.seed."""
    assert main([*words, "--out", str(tmp_path / "out"), "--seed", "-1"]) == 2
    assert capsys.readouterr().err == "error: --seed -1. Use 0 or more.\n"


def test_verbs_of_an_app(capsys):
    verbs = {"paint": Paint, "wash": Wash}
    assert parse_verbs("house", verbs, ["paint", "--colour=red"], summary="walls") == Paint("red", 1)
    assert parse_verbs("house", verbs, ("wash",), summary="walls") == Wash()
    with pytest.raises(SystemExit) as stop:
        parse_verbs("house", verbs, ["--help"], summary="walls of houses")
    assert not stop.value.code
    shown = " ".join(capsys.readouterr().out.split())
    assert "usage: priorscope house" in shown
    assert "Walls of houses." in shown
    assert "Wash it off." in shown
