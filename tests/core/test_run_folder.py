"""Run folders: what was asked can be read back, nothing is overwritten, a killed run loses no whole line."""

from __future__ import annotations

import enum
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope.evaluation import RunFolder, load_config
from priorscope.evaluation.demo_folder import demo_folder
from priorscope.evaluation.run_folder import append_jsonl, read_jsonl


class Kind(enum.Enum):
    FAST = 1
    EXACT = 2


@dataclass(frozen=True)
class Optimiser:
    rate: float = 3e-5
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class Config:
    data: Path
    name: str | None = None
    steps: int = 10
    rate: Annotated[float, "learning rate"] = 1.0
    mode: Literal["a", "b"] = "a"
    kind: Kind = Kind.FAST
    sizes: list[int] = field(default_factory=lambda: [3, 4])
    weights: dict[str, float] = field(default_factory=lambda: {"x": 0.5})
    optimiser: Optimiser = field(default_factory=Optimiser)
    either: int | Path | None = None
    notes: dict[str, Any] = field(default_factory=lambda: {"any": [1, "two", None]})
    seed: int = 7
    resume: bool = False


@pytest.fixture
def config(tmp_path):
    return Config(
        data=tmp_path / "data",
        name="ünïcode: yes",
        kind=Kind.EXACT,
        mode="b",
        optimiser=Optimiser(1e-4, (0.5, 0.25)),
        either=Path("x/y"),
    )


def test_config_is_fed_back(tmp_path, config):
    run = RunFolder.create(tmp_path / "new/run", config)
    assert load_config(run.path, Config) == config
    assert load_config(run.config_path, Config) == config
    plain = RunFolder.create(tmp_path / "dict", {"seed": np.int64(3), "lr": np.float32(0.5), "at": Path("q")})
    assert "lr: 0.5\nat: q\n" in plain.config_path.read_text()
    assert plain.environment()["seed"] == 3


@pytest.mark.parametrize(
    ("config", "seed"),
    [
        ({"seed": 1, "settings": {"seed": 2}}, 1),
        ({"data": "x", "settings": {"device": "cpu", "seed": 2}}, 2),
        ({"split": {"split_seed": 5}, "loop": {"seed": 4}}, 4),
        ({"solver": {"steps": 5}}, None),
    ],
)
def test_the_seed_is_found_where_the_command_keeps_it(tmp_path, config, seed):
    assert RunFolder.create(tmp_path / "run", config).environment()["seed"] == seed


def test_the_folder_and_its_environment(tmp_path, config):
    run = RunFolder.create(tmp_path / "run", config)
    assert run.figures.is_dir()
    assert run.checkpoints.is_dir()
    noted = run.environment()
    assert noted["seed"] == 7
    assert noted["python"] == ".".join(map(str, sys.version_info[:3]))
    assert noted["versions"]["numpy"] == np.__version__
    assert noted["versions"]["torch"]
    assert noted["cpu_count"] == os.cpu_count()
    if noted["git"] is not None:
        assert len(noted["git"]["commit"]) == 40


def test_an_existing_run_is_not_touched(tmp_path, config):
    run = RunFolder.create(tmp_path / "run", config)
    before = run.config_path.read_bytes(), run.environment_path.read_bytes()
    with pytest.raises(InputError, match="--resume"):
        RunFolder.create(run.path, config)
    with pytest.raises(InputError, match="--resume"):
        RunFolder.create(run.path, replace(config, steps=99))
    assert (run.config_path.read_bytes(), run.environment_path.read_bytes()) == before


def test_a_folder_with_other_things_is_refused(tmp_path, config):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").touch()
    (tmp_path / "file").touch()
    for resume in (False, True):
        with pytest.raises(InputError, match=r"no config\.yaml"):
            RunFolder.create(tmp_path / "full", config, resume=resume)
        with pytest.raises(InputError, match="is a file"):
            RunFolder.create(tmp_path / "file", config, resume=resume)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/config.yaml").write_text("data: mine\n")
    with pytest.raises(InputError, match="holds a run already"):
        RunFolder.create(tmp_path / "theirs", config)
    (tmp_path / "empty").mkdir()
    assert RunFolder.create(tmp_path / "empty", config).config_path.is_file()


def test_a_start_that_was_killed_can_be_repeated(tmp_path, config):
    run = RunFolder.create(tmp_path / "run", config)
    run.config_path.rename(run.path / ".config.01234567.part.yaml")
    assert load_config(RunFolder.create(tmp_path / "run", config).path, Config) == config


@dataclass(frozen=True)
class Loop:
    steps: int = 10
    lr: float = 0.1
    seed: int = 3


@dataclass(frozen=True)
class Training:
    data: str
    loop: Loop = field(default_factory=Loop)


def failed(path, config, *, files=(), rows=()):
    """A run that has ended without a checkpoint: nobody holds its folder."""
    run = RunFolder.create(path, config)
    for row in rows:
        run.log(row)
    for name in files:
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text("")


def test_a_run_that_failed_before_it_wrote_anything_is_started_anew(tmp_path, config):
    failed(tmp_path / "run", config)
    other = replace(config, steps=99)
    assert load_config(RunFolder.create(tmp_path / "run", other).path, Config) == other


@pytest.mark.parametrize("changes", [{}, {"lr": 0.01}])
def test_a_training_without_a_checkpoint_is_begun_again(tmp_path, capsys, changes):
    config = Training("stars")
    failed(
        tmp_path / "run",
        config,
        rows=[{"step": 0}, {"step": 50}],
        files=["data/drawn.npy", "figures/step-0.png", "checkpoints/.last.pt.123.part"],
    )
    again = replace(config, loop=replace(config.loop, **changes))
    run = RunFolder.create(tmp_path / "run", again, may_differ=("loop.lr",))
    assert "left no checkpoint" in capsys.readouterr().out
    assert load_config(run.path, Training) == again  # what is trained now, from the first step on
    assert (run.path / "data/drawn.npy").is_file()
    with pytest.raises(InputError, match="--resume"):  # it is being written now
        RunFolder.create(tmp_path / "run", again, may_differ=("loop.lr",))


@pytest.mark.parametrize("file", ["checkpoints/last.pt", "model/weights.safetensors", "metrics.json"])
def test_a_training_that_left_something_is_not_begun_again(tmp_path, file):
    failed(tmp_path / "run", Training("stars"), files=[file])
    with pytest.raises(InputError, match="Resume it"):
        RunFolder.create(tmp_path / "run", Training("stars"))


def test_another_training_than_the_failed_one_is_told_that_there_is_no_checkpoint(tmp_path):
    failed(tmp_path / "run", Training("stars"), rows=[{"step": 0}])
    with pytest.raises(InputError, match=r"other.*differ: data.*left no checkpoint.*delete"):
        RunFolder.create(tmp_path / "run", Training("stones"))


def test_an_evaluation_with_rows_is_not_begun_again(tmp_path, config):
    failed(tmp_path / "run", config, files=["items.jsonl"])
    with pytest.raises(InputError, match="Resume it"):
        RunFolder.create(tmp_path / "run", config)


def test_a_run_that_goes_on_in_another_process_is_not_begun_again(tmp_path):
    program = (
        "import sys; from priorscope.evaluation import RunFolder\n"
        "run = RunFolder.create(sys.argv[1], {'loop': {'seed': 1}})\n"
        "print('made', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "made\n"
    for resume in (False, True):  # two processes would write the same files
        with pytest.raises(InputError, match="holds a run already, and a process of this machine") as error:
            RunFolder.create(tmp_path / "run", {"loop": {"seed": 1}}, resume=resume)
        assert error.value.remedy is not None
        assert "--resume" not in error.value.remedy
    at_other(tmp_path / "run")  # where a lock says nothing: it may be that of a machine that has died
    RunFolder.create(tmp_path / "run", {"loop": {"seed": 1}}, resume=True)
    (tmp_path / "run/demo.txt").touch()
    with pytest.raises(InputError, match="a process of this machine"):
        demo_folder(tmp_path / "run", {"size": 1}, "priorscope x demo")
    assert (tmp_path / "run/demo.txt").is_file()
    process.kill()
    process.communicate()
    assert RunFolder.create(tmp_path / "run", {"loop": {"seed": 1}}).config_path.is_file()
    assert demo_folder(tmp_path / "run", {"size": 1}, "priorscope x demo").config_path.is_file()


def at_other(path):
    """As if the run was started on another machine."""
    run = RunFolder(path)
    noted = run.environment() | {"host": "elsewhere"}
    run.environment_path.write_text(json.dumps(noted))


@pytest.mark.parametrize("rows", [[], [{"step": 0}]])
def test_a_run_of_another_machine_is_not_begun_again(tmp_path, rows):
    """It may go on there: not all file systems tell of locks."""
    failed(tmp_path / "run", Training("stars"), rows=rows)
    at_other(tmp_path / "run")
    with pytest.raises(InputError, match="Resume it"):
        RunFolder.create(tmp_path / "run", Training("stars"))
    RunFolder.create(tmp_path / "run", Training("stars"), resume=True)  # and so it is here now
    RunFolder.create(tmp_path / "run", Training("stars"))


def test_a_checkpoint_behind_a_link_counts(tmp_path, config):
    failed(tmp_path / "run", config)
    (tmp_path / "run/checkpoints").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/last.pt").touch()
    (tmp_path / "run/checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="Resume it"):
        RunFolder.create(tmp_path / "run", replace(config, steps=99))


def test_a_large_folder_is_refused_at_its_first_file(tmp_path, config, monkeypatch):
    for number in range(200):
        (tmp_path / f"{number}.txt").touch()
    looked = []
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: looked.append(path) or is_file(path))
    with pytest.raises(InputError, match=r"no config\.yaml"):
        RunFolder.create(tmp_path, config)
    assert len(looked) < 10


def test_resuming(tmp_path, config):
    run = RunFolder.create(tmp_path / "run", config, resume=True)  # nothing there yet: a start
    run.log({"step": 1})
    again = RunFolder.create(run.path, replace(config, resume=True), resume=True)
    again.log({"step": 2})
    assert again.history() == [{"step": 1}, {"step": 2}]
    assert len(again.environment()["resumed"]) == 1
    assert load_config(run.path, Config) == config
    other = replace(config, steps=11, optimiser=Optimiser(1e-4, (0.5, 0.3)))
    with pytest.raises(InputError, match=r"keys differ: steps, optimiser\.betas\."):
        RunFolder.create(run.path, other, resume=True)
    RunFolder.create(run.path, other, resume=True, may_differ=("steps", "optimiser.betas", "resume"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: x\nstepz: 3\n", "unknown keys: stepz"),
        ("steps: 3\n", "data"),
        ("data: x\nsteps: many\n", "steps is 'many', expected int"),
        ("data: x\nsteps: true\n", "steps is True"),
        ("data: x\nsteps: 1.5\n", "steps is 1.5"),
        ("data: 5\n", "data is 5, expected Path"),
        (f"data: x\nrate: 1{400 * '0'}\n", "rate is larger than any"),
        (f"data: x\nrate: 1{5000 * '0'}\n", "rate|YAML"),
        ("data: x\nmode: c\n", "mode is 'c'"),
        ("data: x\nkind: SLOW\n", "kind is 'SLOW'"),
        ("data: x\nsizes: [1, two]\n", r"sizes\[1\] is 'two'"),
        ("data: x\noptimiser: {rate: 1, betas: [1]}\n", r"optimiser\.betas"),
        ("data: x\noptimiser: {momentum: 1}\n", r"optimiser\.momentum"),
        ("data: x\noptimiser: 3\n", "optimiser"),
        ("- 1\n", "mapping"),
        ("", "mapping"),
        ("a: [1\n", "YAML"),
        ("!!python/object/apply:os.system ['true']\n", "YAML"),
    ],
)
def test_wrong_configurations(tmp_path, text, said):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        load_config(path, Config)
    assert "config.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_config(tmp_path, Config)
    with pytest.raises(InputError, match="has the run finished"):
        RunFolder(tmp_path).metrics()


def test_whole_numbers_are_floats_too(tmp_path):
    (tmp_path / "config.yaml").write_text("data: x\nrate: 1\n")
    rate = load_config(tmp_path, Config).rate
    assert rate == 1.0
    assert isinstance(rate, float)


def test_metrics_are_replaced_whole(tmp_path, config):
    run = RunFolder.create(tmp_path / "run", config)
    run.write_metrics({"abs_rel": np.float32(0.5), "per_set": {"nyu": np.arange(2)}})
    run.write_metrics({"abs_rel": 0.25, "count": 3})
    assert run.metrics() == {"abs_rel": 0.25, "count": 3}
    with pytest.raises(TypeError):
        run.write_metrics({"bad": object()})
    assert run.metrics() == {"abs_rel": 0.25, "count": 3}
    assert {path.name for path in run.path.iterdir()} == {
        "config.yaml", "environment.json", "metrics.json", "figures", "checkpoints",
    }  # fmt: skip


def test_history_can_be_cut_to_a_checkpoint(tmp_path, config):
    run = RunFolder.create(tmp_path / "run", config)
    for step in range(6):
        run.log({"step": step, "loss": 1 / (step + 1)})
    run.drop_history_after(3)
    assert [row["step"] for row in run.history()] == [0, 1, 2, 3]


@pytest.mark.parametrize("torn", [b'{"step": 2, "lo', b"{", b'{"step": 2}'])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 0}\n{"step": 1}\n' + torn)
    assert [row["step"] for row in read_jsonl(path)] == [0, 1]
    append_jsonl(path, {"step": 5})
    assert [row["step"] for row in read_jsonl(path)] == [0, 1, 5]


def test_a_broken_line_in_the_middle_is_told(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 0}\noops\n{"step": 1}\n')
    with pytest.raises(InputError, match="line 2"):
        read_jsonl(path)


def test_nan_and_large_integers_survive(tmp_path):
    append_jsonl(tmp_path / "a.jsonl", {"x": float("nan"), "y": 2**60, "z": 0.1, "s": "é\n"})
    (row,) = read_jsonl(tmp_path / "a.jsonl")
    assert np.isnan(row["x"])
    assert (row["y"], row["z"], row["s"]) == (2**60, 0.1, "é\n")


def test_rows_survive_kill_minus_nine(tmp_path):
    program = (
        "import sys, itertools; from priorscope.evaluation import RunFolder\n"
        "run = RunFolder.create(sys.argv[1], {'seed': 1})\n"
        "for step in itertools.count():\n"
        "    run.log({'step': step}); print(step, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if int(line) >= 50:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = RunFolder.create(tmp_path / "run", {"seed": 1}, resume=True)
    steps = [row["step"] for row in run.history()]
    assert steps == list(range(len(steps)))
    assert len(steps) > 50


def test_torch_is_not_needed(tmp_path):
    program = (
        "import sys; from priorscope.evaluation import RunFolder, run_items\n"
        "run = RunFolder.create(sys.argv[1], {'seed': 1})\n"
        "run_items([1], lambda batch: [{'x': 1}], key=str, run=run)\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "run")], check=True)
    assert json.loads((tmp_path / "run/items.jsonl").read_text()) == {"key": "1", "x": 1}


def test_a_demo_replaces_a_demo_and_nothing_else(tmp_path):
    first = demo_folder(tmp_path / "demo", {"size": 1}, "priorscope x demo")
    (first.path / "old.png").write_text("")
    assert "priorscope x demo" in (first.path / "demo.txt").read_text()
    second = demo_folder(tmp_path / "demo", {"size": 2}, "priorscope x demo")
    assert second.config_path.is_file()
    assert not (second.path / "old.png").exists()
    RunFolder.create(tmp_path / "work", {"size": 1})
    with pytest.raises(InputError, match="holds a run already"):
        demo_folder(tmp_path / "work", {"size": 1}, "priorscope x demo")
