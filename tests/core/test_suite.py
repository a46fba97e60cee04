"""The suite runner: one bad item, an interrupted run, two processes: the rows stay the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope.evaluation import Failure, RunFolder, conclude, run_items

ITEMS = list(range(11))


def evaluate(batch):
    return [{"square": item * item, "third": np.float32(item) / 3, "companions": len(batch)} for item in batch]


def evaluate_all_but(*bad):
    def evaluated(batch):
        for item in batch:
            if item in bad:
                raise RuntimeError(f"item {item}\nis bad")
        return evaluate(batch)

    return evaluated


def test_rows_in_the_order_of_the_items():
    result = run_items(ITEMS, evaluate, key=str, batch_size=4)
    assert [row["key"] for row in result.rows] == [str(item) for item in ITEMS]
    assert [row["square"] for row in result.rows] == [item * item for item in ITEMS]
    assert [row["companions"] for row in result.rows] == [4] * 8 + [3] * 3
    assert result.failures == []
    assert isinstance(result.rows[1]["third"], float)


def test_only_the_bad_items_fail():
    result = run_items(ITEMS, evaluate_all_but(2, 9), key=str, batch_size=4)
    assert result.failures == [
        Failure("2", "RuntimeError: item 2 is bad"),
        Failure("9", "RuntimeError: item 9 is bad"),
    ]
    assert [row["key"] for row in result.rows] == [str(item) for item in ITEMS if item not in (2, 9)]


def test_an_input_error_is_quoted_without_its_class():
    def fail(batch):
        raise InputError("is empty", path="a.png")

    assert run_items([1], fail, key=str).failures == [Failure("1", "a.png: is empty")]


def test_going_on_after_an_interruption(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    seen = []

    def interrupted(batch):
        if 6 in batch:
            raise KeyboardInterrupt
        seen.extend(batch)
        return evaluate(batch)

    with pytest.raises(KeyboardInterrupt):
        run_items(ITEMS, interrupted, key=str, batch_size=2, run=run)
    assert seen == [0, 1, 2, 3, 4, 5]
    with open(run.items_path, "a") as file:
        file.write('{"key": "6", "squ')  # as kill -9 leaves it

    def rest(batch):
        seen.extend(batch)
        return evaluate(batch)

    result = run_items(ITEMS, rest, key=str, batch_size=2, run=run)
    assert seen == ITEMS
    assert result == run_items(ITEMS, evaluate, key=str, batch_size=2)
    assert [json.loads(line)["key"] for line in run.items_path.read_text().splitlines()] == [
        str(item) for item in ITEMS
    ]


def test_failed_items_are_tried_again(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    first = run_items(ITEMS, evaluate_all_but(3), key=str, run=run)
    assert [failure.key for failure in first.failures] == ["3"]
    second = run_items(ITEMS, evaluate_all_but(*set(ITEMS) - {3}), key=str, run=run)
    assert second == run_items(ITEMS, evaluate, key=str)


def test_two_suites_share_a_folder(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    run_items([1, 2], evaluate, key=lambda item: f"a/{item}", run=run)
    result = run_items([1, 2], evaluate, key=lambda item: f"b/{item}", run=run)
    assert [row["key"] for row in result.rows] == ["b/1", "b/2"]
    kept = [json.loads(line)["key"] for line in run.items_path.read_text().splitlines()]
    assert kept == ["a/1", "a/2", "b/1", "b/2"]


def test_nothing_to_do():
    result = run_items([], evaluate, key=str)
    assert (result.rows, result.failures) == ([], [])


def test_a_bar_with_throughput_and_remaining_time(capsys):
    run_items(ITEMS, evaluate, key=str, progress="squares")
    shown = capsys.readouterr().err
    assert "squares" in shown
    assert "11/11" in shown
    assert "items/s" in shown
    run_items(ITEMS, evaluate, key=str, progress=False)
    assert capsys.readouterr().err == ""


def test_mistakes_of_the_caller():
    with pytest.raises(InputError, match="same key 'x'"):
        run_items([1, 2], evaluate, key=lambda item: "x")
    with pytest.raises(InputError, match="batch_size"):
        run_items([1, 2], evaluate, key=str, batch_size=0)
    with pytest.raises(ValueError, match="1 rows for 2 items"):
        run_items([1, 2], lambda batch: [{}], key=str, batch_size=2)
    with pytest.raises(ValueError, match="calls itself"):
        run_items([1], lambda batch: [{"key": "other"}], key=str)
    with pytest.raises(TypeError, match="object"):
        run_items([1], lambda batch: [{"x": object()}], key=str)


PROGRAM = """
import json, os, sys
from priorscope.evaluation import RunFolder, run_items
folder, how, store, stop = sys.argv[1:5]
rank = int(os.environ["RANK"])
if how == "file":  # a process group that somebody else made
    import torch.distributed as distributed
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    del os.environ["RANK"], os.environ["WORLD_SIZE"]

def evaluate(batch):
    if 7 in batch:
        raise RuntimeError("seven")
    if stop == "stop" and max(batch) > 5:
        os._exit(9)  # as kill -9 would
    return [{"square": item * item, "third": item / 3, "companions": len(batch), "rank": rank} for item in batch]

run = RunFolder.create(folder, {"seed": 1}, resume=True)
result = run_items(list(range(11)), evaluate, key=str, batch_size=3, run=run)
with open(f"{folder}.result{rank}.json", "w") as file:
    json.dump([result.rows, result.failures], file)
if how == "file":
    distributed.barrier()
    distributed.destroy_process_group()
"""


def test_how_a_command_over_inputs_ends(tmp_path, capsys):
    assert conclude([], 3, tmp_path) == 0
    assert capsys.readouterr() == (f"3 of 3 inputs done, results in {tmp_path}\n", "")
    failures = [Failure("a.png", "a.png: is empty."), Failure("b.png", "KeyError: 'x'")]
    assert conclude(failures, 3, tmp_path) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("1 of 3 inputs done")
    assert printed.err == "failed: a.png: is empty.\nfailed: b.png: KeyError: 'x'\n"
    with pytest.raises(InputError, match="is empty"):
        conclude(failures[:1], 1, tmp_path)


def two_processes(folder: Path, launcher: list[str] | None = None, stop: str = "") -> list[int]:
    store = folder.with_suffix(".store")
    how = "file" if launcher is None else "launched"
    if launcher:
        script = folder.with_suffix(".py")
        script.write_text(PROGRAM)
        done = subprocess.run([*launcher, script, folder, how, store, stop], env=environment(), timeout=100)
        return [done.returncode]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, folder, how, store, stop],
            env=environment(RANK=str(rank), WORLD_SIZE="2"),
        )
        for rank in range(2)
    ]
    if stop:  # both have died or wait for one that has
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
    return [process.wait(100) for process in processes]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}


@pytest.mark.parametrize("how", ["file", "accelerate launch"])
def test_two_processes_give_what_one_gives(tmp_path, how, launcher):
    folder = tmp_path / "run"
    assert set(two_processes(folder, None if how == "file" else launcher)) == {0}
    results = [json.loads((tmp_path / f"run.result{rank}.json").read_text()) for rank in range(2)]
    assert results[0] == results[1]
    rows, failures = results[0]
    assert {row.pop("rank") for row in rows} == {0, 1}  # both worked

    def evaluate(batch):
        if 7 in batch:
            raise RuntimeError("seven")
        return [{"square": item * item, "third": item / 3, "companions": len(batch)} for item in batch]

    alone = run_items(list(range(11)), evaluate, key=str, batch_size=3)
    assert rows == alone.rows
    assert [Failure(*failure) for failure in failures] == alone.failures == [Failure("7", "RuntimeError: seven")]
    assert sorted(path.name for path in folder.glob("items*")) == ["items.jsonl"]


def test_two_processes_that_died_go_on(tmp_path):
    folder = tmp_path / "run"
    two_processes(folder, stop="stop")
    (folder.with_suffix(".store")).unlink(missing_ok=True)
    before = [json.loads(line)["key"] for path in folder.glob("items*") for line in path.read_text().splitlines()]
    assert set(before) <= {"0", "1", "2", "3", "4", "5"}
    assert before
    assert two_processes(folder) == [0, 0]
    rows, failures = json.loads((tmp_path / "run.result0.json").read_text())
    assert [row["key"] for row in rows] == [str(item) for item in range(11) if item != 7]
    assert [failure[0] for failure in failures] == ["7"]
