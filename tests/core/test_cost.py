"""Costs of calls: what is counted, where it is written, and that it leaves no trace."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from priorscope.evaluation import CostLog, RunFolder
from priorscope.features import tapped


class Slow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)

    def forward(self, x, level=None):
        time.sleep(0.02)
        return self.outer(self.inner(x))


def test_a_row_a_call(tmp_path):
    run, network = RunFolder.create(tmp_path / "run", {"seed": 0}), Slow()
    cost = CostLog(run, network)
    assert cost.sentence() == ""
    with cost.call(images=2):
        for _ in range(4):
            network(torch.zeros(6, 1, 2, 2))
        time.sleep(0.05)
    with cost.call(images=1):
        network(x=torch.zeros(3, 1, 2, 2))
    network(torch.zeros(9, 1, 2, 2))  # outside: not counted
    first, second = run.history()
    assert (first["images"], first["network_passes"], first["network_items"]) == (2, 4, 24)
    assert (second["images"], second["network_passes"], second["network_items"]) == (1, 1, 3)
    assert first["seconds"] >= 4 * 0.02 + 0.05
    assert 0.02 <= first["seconds_per_step"] < first["seconds"] - 0.05
    assert "seconds_per_step" not in second
    assert not network._forward_pre_hooks
    sentence = cost.sentence()
    assert sentence.startswith("3 images took ")
    assert "5 passes of the network, in which each image was computed 9 times on average; " in sentence  # 12 and 3


@pytest.mark.parametrize(("rows", "words"), [(2, "computed once"), (8, "computed 4 times")])
def test_images_that_all_cost_as_much(tmp_path, rows, words):
    run, network = RunFolder.create(tmp_path / "run", {"seed": 0}), Slow()
    cost = CostLog(run, network)
    for share in (1, 2):  # the last batch is smaller
        with cost.call(images=2 // share):
            network(torch.zeros(rows // share, 1, 2, 2))
    assert f"2 passes of the network, in which each image was {words} (metrics.jsonl)." in cost.sentence()


def test_passes_that_taps_leave_count(tmp_path):
    run, network = RunFolder.create(tmp_path / "run", {"seed": 0}), Slow()
    look = tapped(network, ["inner"])
    with CostLog(run, network).call(images=1):
        look(torch.zeros(2, 1, 2, 2))
    assert [row["network_items"] for row in run.history()] == [2]


def test_a_call_that_fails_leaves_no_row(tmp_path):
    run, network = RunFolder.create(tmp_path / "run", {"seed": 0}), Slow()
    with pytest.raises(ValueError, match="broken"), CostLog(run, network).call(images=1):
        raise ValueError("broken")
    assert run.history() == []
    assert not network._forward_pre_hooks
