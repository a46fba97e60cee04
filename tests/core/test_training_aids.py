"""Training aids in the loop: a run that is cut off and resumed is the run that was not; ``--help`` needs no torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from priorscope import InputError
from priorscope.diffusion import Condition, Denoiser, VPSchedule, denoising_loss
from priorscope.evaluation import RunFolder
from priorscope.training import (
    MAY_DIFFER,
    Alignment,
    AlignmentConfig,
    CurriculumConfig,
    DifficultyCurriculum,
    LoopConfig,
    Perturbation,
    PerturbationConfig,
    RoutingConfig,
    Task,
    add_routing,
    fit,
    make_accelerator,
)

SCHEDULE = VPSchedule.from_betas(num_steps=40)


@dataclass(frozen=True)
class TokenFeed:
    """Sequences of tokens with an embedding; the batch of step ``broken`` cannot be read."""

    broken: int = -1

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        if step == self.broken:
            raise InputError("the disk is gone")
        draw = torch.Generator().manual_seed(step)
        x, c = torch.randn(8, 5, 6, generator=draw), torch.randn(8, 1, 6, generator=draw)
        return {"x": x[rows.start : rows.stop], "c": c[rows.start : rows.stop]}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.transformer_blocks = nn.ModuleList([Residual(), Residual()])

    def forward(self, x, timestep, c):
        for block in self.transformer_blocks:
            x = block(x + c)
        return x


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x):
        return x + torch.tanh(self.linear(x))


class Everything(Task):
    """All aids at once."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = Network()
            super().__init__(network)
            config = AlignmentConfig(features=0.5, warmup=3, stop=15, fade=True)
            self.alignment = Alignment(config, network.transformer_blocks[0], 6, 4, hidden=8)
        add_routing(network, RoutingConfig(tasks=40))
        self.denoiser = Denoiser(network, SCHEDULE)
        self.perturbation = Perturbation(PerturbationConfig("gaussian"))
        self.curriculum = DifficultyCurriculum(SCHEDULE, CurriculumConfig(5, patience=1))
        self.steps: list[int] = []
        self.joined: list[int] = []

    def forward(self, batch):
        self.steps.append(self.step)
        self.joined.append(self.curriculum.joined)
        x0 = batch["x"]
        condition = Condition({"c": self.perturbation(batch["c"])})
        t = self.curriculum.draw(len(x0))
        loss = denoising_loss(self.denoiser, x0, torch.randn(x0.shape), t, condition)
        needed = self.alignment.config.weights(self.step).features > 0
        return self.alignment(self.step, loss, features=x0[..., :4] if needed else None)

    def told(self, means):
        self.curriculum.told(means["denoising"])

    def checkpoint_parts(self):
        return {"curriculum": self.curriculum, "head": self.alignment.head}

    def save(self, folder):
        folder.mkdir(parents=True)
        torch.save(self.model.state_dict(), folder / "weights.pt")


def run(out, feed=None, *, task=None, **changes):
    plain = {"steps": 24, "batch_size": 4, "accumulate": 2, "lr": 0.01, "warmup": 0, "log_every": 2, "device": "cpu"}
    config = LoopConfig(**plain | {"checkpoint_every": 5, "validate_every": 100, "ema": 0.9} | changes)
    folder = RunFolder.create(out, config, resume=config.resume, may_differ=MAY_DIFFER)
    task = task or Everything()
    fit(task, feed or TokenFeed(), config, folder, make_accelerator(config))
    return task


def test_a_run_that_is_cut_off_goes_on_exactly(tmp_path):
    whole = run(tmp_path / "whole")
    assert whole.steps == [step for step in range(24) for _ in range(2)]  # two parts a step
    assert whole.joined[0] == 1
    assert whole.joined[-1] > 2
    with pytest.raises(InputError, match="the disk is gone"):
        run(tmp_path / "cut", TokenFeed(broken=13))
    resumed = run(tmp_path / "cut", resume=True)
    assert resumed.steps == whole.steps[20:]  # from the checkpoint of step 10
    assert resumed.joined == whole.joined[20:]
    assert resumed.curriculum.state_dict() == whole.curriculum.state_dict()
    weights = [torch.load(tmp_path / name / "model/weights.pt", weights_only=True) for name in ("cut", "whole")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    heads = [task.alignment.head.state_dict() for task in (resumed, whole)]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[1])
    rows = [
        [
            {name: value for name, value in row.items() if name != "examples_per_second"}
            for row in RunFolder(out).history()
        ]
        for out in (tmp_path / "cut", tmp_path / "whole")
    ]
    assert rows[0] == rows[1]
    assert [row["feature_alignment"] < 0 or row["feature_alignment"] > 0 for row in rows[1]] == [True] * 8 + [False] * 4


def test_a_checkpoint_of_other_aids_is_refused(tmp_path):
    class Plain(Everything):
        def checkpoint_parts(self):
            return {}

    run(tmp_path / "run", steps=4)
    with pytest.raises(InputError, match="wanted"):
        run(tmp_path / "run", task=Plain(), resume=True, steps=4)


def test_settings_need_no_torch():
    code = "import sys; import priorscope.training.aids; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
