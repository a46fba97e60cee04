"""The training loop: it learns what it should, survives what may happen, and refuses what makes no sense."""

from __future__ import annotations

import errno
import math
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors import SafetensorError
from torch import nn

from priorscope import InputError
from priorscope.cli import guarded
from priorscope.evaluation import RunFolder, run_folder
from priorscope.training import (
    MAY_DIFFER,
    LoopConfig,
    Order,
    Place,
    Task,
    WeightAverage,
    add_lora,
    fit,
    make_accelerator,
    rate_factor,
)
from priorscope.training.checkpoint import checkpoint_step, load_checkpoint, save_checkpoint
from priorscope.training.feed import Parts, read_parts
from priorscope.training.lora import without_lora

TRUE_WEIGHT, TRUE_BIAS = torch.tensor([[2.0, -1.0, 0.5]]), 0.25


@dataclass(frozen=True)
class LineFeed:
    """Points of a plane without noise; ``bad`` is the step whose first point is NaN."""

    batch_size: int = 8
    bad: int = -1
    killed_at: int = -1

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        if step == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        places = Order(20, 3).batch(step, self.batch_size)
        x = torch.from_numpy(
            np.stack([places[row].generator(3).standard_normal(3, dtype=np.float32) for row in rows]),
        )
        y = x @ TRUE_WEIGHT.T + TRUE_BIAS
        if step == self.bad:
            x[0] = math.nan
        return {"x": x, "y": y, "key": [f"point-{places[row].item}" for row in rows]}


class Line(Task):
    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 1))
        nn.init.zeros_(self.model.weight)
        nn.init.zeros_(self.model.bias)

    def forward(self, batch):
        error = self.model(batch["x"]) - batch["y"]
        return {"loss": error.square().mean(), "absolute": error.abs().mean()}

    def validate(self, run, step):
        return {"held_out_error": float((self.model.weight - TRUE_WEIGHT).abs().max())}

    def save(self, folder):
        folder.mkdir(parents=True)
        torch.save(self.model.state_dict(), folder / "weights.pt")


def settings(**changes: Any) -> LoopConfig:
    plain = {"steps": 12, "batch_size": 8, "lr": 0.1, "warmup": 2, "log_every": 3, "checkpoint_every": 4}
    return LoopConfig(**plain | {"validate_every": 6, "ema": 0.9, "device": "cpu"} | changes)


def run_line(out: Path, feed: LineFeed | None = None, task: Task | None = None, **changes: Any):
    config = settings(**changes)
    config.check()
    run = RunFolder.create(out, config, resume=config.resume, may_differ=MAY_DIFFER)
    task = task or Line()
    result = fit(task, feed or LineFeed(config.batch_size), config, run, make_accelerator(config))
    return result, task


def rows(out: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name != "examples_per_second"}
        for row in RunFolder(out).history()
    ]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "model/weights.pt", weights_only=True)


def assert_same_run(out: Path, whole: Path) -> None:
    assert rows(out) == rows(whole)
    ours, theirs = weights(out), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert RunFolder(out).metrics() == RunFolder(whole).metrics()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run_line(out)
    return out


# Learning


def test_a_plane_is_learned_exactly(tmp_path):
    result, _ = run_line(
        tmp_path / "run", steps=200, lr=0.05, ema=0.0, weight_decay=0.0, log_every=50, checkpoint_every=200
    )
    assert (result.step, result.finished) == (200, True)
    learned = weights(tmp_path / "run")
    torch.testing.assert_close(learned["weight"], TRUE_WEIGHT, atol=2e-3, rtol=0)
    assert learned["bias"].item() == pytest.approx(TRUE_BIAS, abs=2e-3)


def test_rows_hold_means_since_the_last_row(tmp_path, whole):
    run_line(tmp_path / "each", log_every=1)
    each = {row["step"]: row for row in rows(tmp_path / "each")}
    assert rows(whole)[0] == {"step": 0, "held_out_error": 2.0}  # what training starts from
    assert [row["step"] for row in rows(whole)] == [0, 3, 6, 9, 12]
    for row in rows(whole)[1:]:
        three = [each[row["step"] - ago] for ago in range(3)]
        for name in ("loss", "absolute", "grad_norm"):
            assert row[name] == pytest.approx(np.mean([one[name] for one in three]), rel=1e-5)
        assert row["lr"] == pytest.approx(0.1 * rate_factor(row["step"] - 1, 12, warmup=2))
        assert ("held_out_error" in row) == (row["step"] % 6 == 0)


def test_a_cut_batch_is_the_whole_batch(tmp_path):
    for parts in (1, 2, 4):
        run_line(tmp_path / str(parts), accumulate=parts)
    for parts in (2, 4):
        ours, theirs = weights(tmp_path / str(parts)), weights(tmp_path / "1")
        for name in theirs:
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=1e-5)
        np.testing.assert_allclose(
            [row["loss"] for row in rows(tmp_path / str(parts))[1:]],
            [row["loss"] for row in rows(tmp_path / "1")[1:]],
            rtol=1e-5,
        )


def test_clipping_bounds_the_gradient(tmp_path):
    # a plain gradient step by way of Adam's first: compare the gradients that the optimiser sees
    seen: list[float] = []

    class Watched(Line):
        def __init__(self):
            super().__init__()
            self.model.weight.register_post_accumulate_grad_hook(lambda weight: seen.append(float(weight.grad.norm())))

    for clip in (0.0, 0.01):
        run_line(tmp_path / f"clip{clip}", task=Watched(), steps=1, clip=clip)
    states = [
        torch.load(tmp_path / f"clip{clip}/checkpoints/last.pt", weights_only=True)["parts"]["optimizer"]["state"]
        for clip in (0.0, 0.01)
    ]
    # after one step Adam's first moment is a tenth of the gradient
    norms = [math.sqrt(sum(float(state[i]["exp_avg"].square().sum()) for i in state)) * 10 for state in states]
    reported = [rows(tmp_path / f"clip{clip}")[1]["grad_norm"] for clip in (0.0, 0.01)]
    assert norms[0] == pytest.approx(reported[0], rel=1e-4)
    assert norms[1] == pytest.approx(0.01, rel=1e-3)
    assert reported[0] == reported[1] > 1  # the row tells the norm before clipping
    assert seen[0] == seen[1]


def test_trainings_of_one_process_have_each_its_own_precision(tmp_path):
    kinds = []

    class Watched(Line):
        def forward(self, batch):
            kinds.append(self.model(batch["x"]).dtype)
            return super().forward(batch)

    for number, precision in enumerate(("float32", "bfloat16", "float32")):
        run_line(tmp_path / str(number), task=Watched(), steps=1, precision=precision)
    assert kinds == [torch.float32, torch.bfloat16, torch.float32]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_trainings_of_one_process_have_each_its_own_device():
    for device in ("cpu", "cuda", "cpu"):
        assert make_accelerator(settings(device=device)).device.type == device


def test_tensorboard_gets_the_rows(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_line(tmp_path / "run", tensorboard=True)
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    drawn = [(event.step, event.value) for event in events.Scalars("loss")]
    np.testing.assert_allclose(drawn, [(row["step"], row["loss"]) for row in rows(tmp_path / "run")[1:]], rtol=1e-6)


# The parts


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1]),
        ("cosine", [1, 0.505, 0.01]),
        ("linear", [1, 0.505, 0.01]),
        ("exponential", [1, 0.1, 0.01]),
    ],
)
def test_learning_rates(schedule, expected):
    def at(step):
        return rate_factor(step, 110, schedule=schedule, warmup=10, final=0.01)

    assert [at(step) for step in (10, 60, 110)] == pytest.approx(expected)
    assert at(1000) == pytest.approx(expected[2])
    first = 0 if schedule == "exponential" else 0.1
    assert at(0) == pytest.approx(first)
    rise = [at(step) for step in range(10)]
    assert np.diff(rise) == pytest.approx([0.1] * 9)
    assert max(np.diff([at(step) for step in range(10, 120)])) <= 0


def test_learning_rate_edges():
    assert rate_factor(0, 1) == 1
    assert rate_factor(5, 5, warmup=5) == pytest.approx(1)
    quarter = rate_factor(25, 100, final=0.0)
    assert quarter == pytest.approx(0.5 + 0.5 * math.sqrt(0.5))
    with pytest.raises(InputError, match="stairs"):
        rate_factor(0, 1, schedule="stairs")


def test_one_cycle_is_torchs():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=60, pct_start=0.2)
    for step in range(60):
        ours = 0.5 * rate_factor(step, 60, schedule="one-cycle", warmup=12, final=4e-6)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        if step < 59:
            theirs.step()
    assert rate_factor(0, 5, schedule="one-cycle") == 1
    assert rate_factor(9, 5, schedule="one-cycle", warmup=2, final=0.1) == pytest.approx(0.1)


@pytest.mark.parametrize(("size", "batch"), [(7, 3), (5, 12), (1, 4)])
def test_each_pass_is_a_permutation(size, batch):
    order = Order(size, seed=4)
    steps = 5 * size
    stream = [place for step in range(steps) for place in order.batch(step, batch)]
    assert len(stream) == steps * batch
    for epoch in range(len(stream) // size):
        one = stream[epoch * size : (epoch + 1) * size]
        assert {place.epoch for place in one} == {epoch}
        assert sorted(place.item for place in one) == list(range(size))
    # any position can be asked for alone: that is how a resumed run goes on
    assert Order(size, seed=4).batch(steps - 1, batch) == stream[-batch:]


def test_orders_differ_by_seed_and_pass():
    first = [[Order(30, seed)[epoch * 30 + i].item for i in range(30)] for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(one) for one in first}) == 4
    assert Place(1, 2).generator(3).random() == Place(1, 2).generator(3).random()
    draws = {Place(*place).generator(seed).random() for place in ((0, 1), (1, 0), (1, 1)) for seed in (0, 1)}
    assert len(draws) == 6
    with pytest.raises(InputError, match="empty"):
        Order(0, 0)


def test_the_average_is_what_it_says():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, 0.99)
    expected = 0.0
    for n in range(1, 6):
        with torch.no_grad():
            model.weight.fill_(float(n))
        average.update()
        decay = 0.0 if n == 1 else min(0.99, n / (9 + n))  # (1 + m) / (10 + m) after m = n - 1 updates
        expected = decay * expected + (1 - decay) * n
        with average.in_place():
            assert model.weight.item() == pytest.approx(expected)
        assert model.weight.item() == n
    other = nn.Linear(1, 1, bias=False)
    again = WeightAverage(other, 0.99)
    again.load_state_dict(average.state_dict())
    with again.in_place():
        assert other.weight.item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="other weights"):
        WeightAverage(nn.Linear(2, 1, bias=False), 0.99).load_state_dict(average.state_dict())
    with pytest.raises(RuntimeError, match="inside"), average.in_place():
        raise RuntimeError("inside")
    assert model.weight.item() == 5


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.to_q, self.to_k, self.other = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.other(self.to_q(x) * self.to_k(x))


def test_low_rank_updates_train_alone_and_merge_exactly():
    model, x = Attention(), torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    names = set(model.state_dict())
    frozen = {name: weight.clone() for name, weight in model.named_parameters()}
    before = model(x)
    add_lora(model, 2)
    assert torch.equal(model(x), before)  # starts at zero
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    for name, weight in model.named_parameters():
        if name not in trained:
            assert torch.equal(weight, frozen[name.replace(".base_layer", "")])
    after = model(x)
    assert (after - before).abs().max() > 1e-3
    with without_lora(model):
        assert set(model.state_dict()) == names
        torch.testing.assert_close(model(x), after, atol=1e-6, rtol=1e-5)
    assert torch.equal(model(x), after)  # and nothing was added for good
    with pytest.raises(InputError, match="no attention"):
        add_lora(nn.Sequential(nn.Linear(2, 2)), 1)
    plain = nn.Linear(2, 2)
    with without_lora(plain):
        assert type(plain) is nn.Linear


def test_gradient_checkpointing_needs_a_model_that_has_it(tmp_path):
    class Unable(ModelMixin, ConfigMixin):
        config_name = "config.json"

        @register_to_config
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

    other = Line()
    other.model = Unable()
    for name, task in (("plain", Line()), ("diffusers", other)):
        with pytest.raises(InputError, match="no gradient checkpointing"):
            run_line(tmp_path / name, task=task, gradient_checkpointing=True)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"steps": 0}, "--steps 0"),
        ({"batch_size": -1}, "--batch-size -1"),
        ({"accumulate": 3}, "--accumulate 3"),
        ({"lr": math.nan}, "--lr nan"),
        ({"lr": math.inf}, "--lr inf"),
        ({"lr": 0.0}, "--lr"),
        ({"ema": 1.0}, "--ema"),
        ({"warmup": -1}, "--warmup"),
        ({"workers": -1}, "--workers"),
        ({"seed": -1}, "--seed"),
        ({"clip": math.nan}, "--clip"),
        ({"max_seconds": -1.0}, "--max-seconds"),
        ({"lr_schedule": "exponential", "lr_final": 0.0}, "--lr-final"),
        ({"checkpoint_every": 0}, "--checkpoint-every"),
    ],
)
def test_settings_that_make_no_sense(changes, named):
    with pytest.raises(InputError, match=named) as error:
        settings(**changes).check()
    assert error.value.remedy


def test_low_rank_updates_without_peft_are_refused_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"--lora 4 needs peft.*priorscope\[lora\]"):
        settings(lora=4).check()


def test_what_a_new_network_cannot_use_is_refused():
    settings(gradient_checkpointing=True).check_new(checkpointing=True)
    for changes in ({"lora": 4}, {"gradient_checkpointing": True}, {"steps": 0}):
        with pytest.raises(InputError, match=f"--{next(iter(changes)).replace('_', '-')}"):
            settings(**changes).check_new()


def test_a_batch_is_shared_by_processes_and_parts():
    feed = LineFeed(24)
    everything = feed.batch(5, range(24))["key"]
    found = []
    for part in range(2):
        for rank in range(3):
            parts = Parts(feed, 24, accumulate=2, rank=rank, processes=3)
            found += parts[5 * 2 + part]["key"]
    assert found == everything
    with pytest.raises(InputError, match="--batch-size"):
        Parts(feed, 24, accumulate=2, processes=5)


# Surviving


def arrange(moment: str, count: int) -> None:
    """Let something happen to this process the ``count``-th time that it comes to a certain place."""
    left = [count]

    def due() -> bool:
        left[0] -= 1
        return left[0] == 0

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    forward, save, replace, append = Line.forward, torch.save, os.replace, run_folder.append_jsonl

    def in_a_step(self, batch):
        if due():
            os.kill(os.getpid(), signal.SIGKILL if moment == "step" else signal.SIGTERM)
        return forward(self, batch)

    def half_a_checkpoint(state, file):
        if due():
            file.write(b"PK" * 500)
            file.flush()
            die()
        save(state, file)

    def torn_row(path, row):
        if due():
            path.open("a").write('{"step": 6, "lo')
            die()
        append(path, row)

    if moment in ("step", "term"):
        Line.forward = in_a_step
    elif moment == "checkpoint":
        torch.save = half_a_checkpoint
    elif moment == "flushed":  # whole, but not yet in place
        os.replace = lambda a, b: die() if str(b).endswith("last.pt") and due() else replace(a, b)
    elif moment == "row":
        run_folder.append_jsonl = torn_row
    elif moment == "model":  # the old one is gone, the new one not there yet
        Path.rename = die
    elif moment == "disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (count, count))


@pytest.fixture
def in_child(fork):
    """The run in a process of its own, where ``moment`` is arranged; its status, output and errors."""

    def run(moment: str, count: int, out: Path, **changes: Any) -> tuple[int, str, str]:
        files = [out.with_suffix(".stdout"), out.with_suffix(".stderr")]
        for file in files:
            file.touch()

        def work() -> int:
            sys.stdout, sys.stderr = (file.open("w") for file in files)
            arrange(moment, count)
            status = guarded(lambda: print(run_line(out, **changes)[0]))
            sys.stdout.flush()
            sys.stderr.flush()
            return status

        return fork(work), files[0].read_text(), files[1].read_text()

    return run


@pytest.mark.parametrize(
    ("moment", "count"), [("step", 3), ("checkpoint", 2), ("flushed", 2), ("row", 3), ("model", 1)]
)
def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path, whole, in_child, moment, count):
    out = tmp_path / "run"
    status, _, errors = in_child(moment, count, out)
    assert status == -signal.SIGKILL, errors
    with pytest.raises(InputError, match="--resume"):
        run_line(out)
    torch.manual_seed(9)  # nothing may depend on the state that a process happens to have
    run_line(out, resume=True)
    assert_same_run(out, whole)
    assert not list(out.rglob("*.part*"))


def test_sigterm_ends_after_the_step(tmp_path, whole, in_child):
    out = tmp_path / "run"
    status, output, errors = in_child("term", 5, out)
    assert status == 0, errors
    assert "Stopped at step 5 of 12; --resume goes on." in output
    assert checkpoint_step(out / "checkpoints/last.pt") == 5
    assert RunFolder(out).metrics()["finished"] is False
    run_line(out, resume=True)
    assert_same_run(out, whole)


@pytest.mark.parametrize(
    "changes", [{}, {"ema": 0.0}, {"accumulate": 2}, {"optimizer": "adam", "clip": 0.0}, {"lr_schedule": "exponential"}]
)
def test_a_run_stopped_after_every_step(tmp_path, changes):
    """Most of these steps are neither logged nor due for a checkpoint."""
    run_line(tmp_path / "whole", **changes)
    out = tmp_path / "parts"
    for step in range(1, 12):
        result, _ = run_line(out, resume=True, max_seconds=1e-9, **changes)
        assert (result.step, result.finished) == (step, False)
    assert run_line(out, resume=True, **changes)[0].finished
    assert_same_run(out, tmp_path / "whole")
    run_line(out, resume=True, **changes)  # a finished run has nothing left to do
    assert_same_run(out, tmp_path / "whole")


class Patient(Line):
    """Ends after two looks; the first one counts when training begins."""

    def reason_to_end(self, run):
        looks = [row["step"] for row in run.history() if "held_out_error" in row]
        return f"looks at {looks}" if len(looks) > 2 else ""


def test_a_task_may_end_its_training(tmp_path, capsys):
    out = tmp_path / "run"
    changes = {"steps": 30, "validate_every": 4, "log_every": 3}
    result, _ = run_line(out, task=Patient(), **changes)
    assert (result.step, result.finished) == (8, True)
    assert "Ended at step 8 of 30: looks at [0, 4, 8]." in capsys.readouterr().out
    assert (RunFolder(out).metrics()["step"], RunFolder(out).metrics()["finished"]) == (8, True)
    assert checkpoint_step(out / "checkpoints/last.pt") == 8
    # nothing is left to do for a run that has ended
    before = rows(out), weights(out)
    assert run_line(out, task=Patient(), resume=True, **changes)[0] == result
    assert rows(out) == before[0]
    assert all(torch.equal(weights(out)[name], value) for name, value in before[1].items())
    # a run that was cut on the way ends at the same step; a task without an opinion goes on
    cut = tmp_path / "cut"
    for step in range(1, 8):
        assert run_line(cut, task=Patient(), resume=True, max_seconds=1e-9, **changes)[0].step == step
    assert run_line(cut, task=Patient(), resume=True, **changes)[0].finished
    assert_same_run(cut, out)
    assert run_line(out, resume=True, **changes)[0].step == 30


@pytest.mark.slow
def test_worker_processes_change_nothing(tmp_path, whole):
    out = tmp_path / "run"
    run_line(out, max_seconds=1e-9, workers=1)
    run_line(out, resume=True, workers=2)
    assert_same_run(out, whole)


def test_a_killed_worker_is_named():
    with pytest.raises(InputError, match=r"a process that prepares batches ended: .*DataLoader worker") as error:
        list(read_parts(Parts(LineFeed(8, killed_at=2), 8), 0, 6, workers=1))
    assert "--workers" in error.value.remedy


@dataclass(frozen=True)
class MissingFeed(LineFeed):
    def batch(self, step, rows):
        if step == 2:
            raise InputError("is not a picture", path="a/b.png", remedy="Remove it.")
        return super().batch(step, rows)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_feeds_mistake_arrives_as_it_is(workers):
    with pytest.raises(InputError) as error:
        list(read_parts(Parts(MissingFeed(8), 8), 0, 6, workers=workers))
    assert (error.value.path, error.value.fact, error.value.remedy) == ("a/b.png", "is not a picture", "Remove it.")


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path, monkeypatch, whole):
    out = tmp_path / "run"
    run_line(out, max_seconds=1e-9)
    good = (out / "checkpoints/last.pt").read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="No space left") as error:
            run_line(out, resume=True)
    assert "--resume goes on from step 1" in error.value.remedy
    assert (out / "checkpoints/last.pt").read_bytes() == good
    assert not list(out.rglob("*.part"))
    run_line(out, resume=True)
    assert_same_run(out, whole)


def test_a_real_limit_on_file_size(tmp_path, whole, in_child):
    """The kernel refuses the write in the middle of the checkpoint, and the message is one line."""
    out = tmp_path / "run"
    run_line(out, max_seconds=1e-9)
    size = (out / "checkpoints/last.pt").stat().st_size
    status, _, errors = in_child("disk", size // 2, out, resume=True)
    assert status == 2, errors
    lines = [line for line in errors.splitlines() if line]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert not list(out.rglob("*.part*"))
    assert checkpoint_step(out / "checkpoints/last.pt") == 1
    run_line(out, resume=True)
    assert_same_run(out, whole)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), SafetensorError("I/O error: No space left (os error 28)")]
)
def test_a_model_that_cannot_be_written(tmp_path, whole, error):
    out = tmp_path / "run"

    class Full(Line):
        def save(self, folder):
            folder.mkdir(parents=True)
            (folder / "half").touch()
            raise error

    with pytest.raises(InputError, match="No space left"):
        run_line(out, task=Full())
    assert not list(out.rglob("*.part"))
    run_line(out, resume=True)
    assert_same_run(out, whole)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        run_line(tmp_path / "file" / "run")


def test_rows_that_cannot_be_written(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    run.history_path.mkdir()
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        run.log({"step": 1})


def test_a_loss_that_breaks_down(tmp_path, whole):
    out = tmp_path / "run"
    with pytest.raises(InputError, match="loss became nan at step 7") as error:
        run_line(out, feed=LineFeed(8, bad=6))
    places = Order(20, 3).batch(6, 8)
    assert ", ".join(f"point-{place.item}" for place in places) in error.value.fact
    assert "checkpoint of step 4 is good" in error.value.remedy
    assert checkpoint_step(out / "checkpoints/last.pt") == 4
    assert [row["step"] for row in rows(out)] == [0, 3, 6]
    with pytest.raises(InputError, match="weight_decay"):
        run_line(out, resume=True, weight_decay=0.5)
    result, _ = run_line(out, resume=True, lr=0.05, clip=0.5)
    assert result.finished
    assert rows(out)[:2] == rows(whole)[:2]
    assert rows(out)[-1]["lr"] == pytest.approx(0.05 * rate_factor(11, 12, warmup=2))
    noted = RunFolder(out).environment()["resumed"]
    assert [entry.get("changed") for entry in noted] == [{"lr": [0.1, 0.05], "clip": [1.0, 0.5]}]


def test_without_a_checkpoint_the_advice_is_to_start_again(tmp_path):
    with pytest.raises(InputError, match="Start again") as error:
        run_line(tmp_path / "run", feed=LineFeed(8, bad=0))
    assert "step 1 " in error.value.fact


class BadGradient(Line):
    """The loss is finite, its slope is not: weights become NaN before any loss shows it."""

    def forward(self, batch):
        return {"loss": (self.model(batch["x"] * 0) * 0).abs().sqrt().mean()}


class Thrown(Line):
    """A task whose weights leave the range of floats by a finite gradient."""

    def forward(self, batch):
        return {"loss": self.model.weight.sum() * 1e-3}


def test_broken_weights_are_not_kept(tmp_path):
    with pytest.raises(InputError, match="norm of the gradient became nan at step 1"):
        run_line(tmp_path / "a", task=BadGradient(), checkpoint_every=1)
    with pytest.raises(InputError, match=r"weights are no longer finite after step \d"):
        run_line(tmp_path / "b", task=Thrown(), checkpoint_every=1, lr=3e37, log_every=100)
    for name in "ab":
        path = tmp_path / name / "checkpoints/last.pt"
        assert not path.exists() or all(
            weight.isfinite().all() for weight in torch.load(path)["parts"]["model"].values()
        )


def test_checkpoints_that_do_not_fit(tmp_path):
    model = nn.Linear(2, 2)
    path = tmp_path / "checkpoints/last.pt"
    assert load_checkpoint(path, {"model": model}) == 0
    assert checkpoint_step(path) == 0
    save_checkpoint(path, {"model": model}, 7)
    assert checkpoint_step(path) == 7
    other = nn.Linear(2, 2)
    assert load_checkpoint(path, {"model": other}) == 7
    assert torch.equal(other.weight, model.weight)
    with pytest.raises(InputError, match=r"wanted \['model', 'optimizer'\]"):
        load_checkpoint(path, {"model": model, "optimizer": model})
    assert load_checkpoint(path, {"model": model, "scaler": model}, optional=("scaler",)) == 7
    with pytest.raises(InputError, match="its model does not fit"):
        load_checkpoint(path, {"model": nn.Linear(3, 2)})
    whole = path.read_bytes()
    for damaged in (b"", b"nothing of the kind", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="not a checkpoint that can be read") as error:
            load_checkpoint(path, {"model": model})
        assert str(path) in str(error.value)
        assert error.value.remedy
    torch.save({"weights": 1}, path)
    with pytest.raises(InputError, match="not a checkpoint of a training"):
        load_checkpoint(path, {"model": model})


def test_another_network_or_average_is_refused(tmp_path):
    out = tmp_path / "run"
    run_line(out, max_seconds=1e-9)

    class Wider(Line):
        def __init__(self):
            super().__init__()
            self.model.extra = nn.Parameter(torch.zeros(1))

    with pytest.raises(InputError, match="other weights"):
        run_line(out, task=Wider(), resume=True)
    with pytest.raises(InputError, match="ema"):
        run_line(out, resume=True, ema=0.5)
