"""What may help the training of a slice prior along: weights of the loss, a curriculum, task routing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.aids import CurriculumConfig, RoutingConfig
from priorscope.training.settings import LoopConfig
from priorscope_medical.configs import AidsConfig, TrainConfig
from priorscope_medical.prior import SlicePrior, SliceValues
from priorscope_medical.train import train
from priorscope_medical.training.task import SlicePriorTask

VALUES = SliceValues("attenuation", 0.5, 0.625, patch=2, size=16)
LOOP = LoopConfig(
    steps=6, batch_size=4, log_every=1, validate_every=3, checkpoint_every=2, warmup=1, lr=1e-3, device="cpu"
)
CURRICULUM = AidsConfig(curriculum=CurriculumConfig(clusters=4, patience=1))


@pytest.fixture(autouse=True)
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("priorscope_medical.train.write_report", lambda *_: None)


def small(out: Path, **changes: Any) -> TrainConfig:
    return replace(TrainConfig(phantoms=6, size=16, pixel=15.0, out=out, loop=LOOP), **changes)


@pytest.mark.parametrize("level", [20, 400, 900])
def test_min_snr_weighs_training_and_not_held_out_figures(level: int) -> None:
    """For v-prediction, of x = alpha x0 + sigma eps, min(SNR, 5) times the error of x0 is min(alpha^2, 5 sigma^2)."""
    prior = SlicePrior.new(VALUES)
    draw = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 1, 16, 16, generator=draw), torch.randn(2, 1, 16, 16, generator=draw)
    t = torch.full((2,), float(level))
    plain, weighted = SlicePriorTask(prior), SlicePriorTask(prior, aids=AidsConfig("min-snr"))
    alpha, sigma = prior.denoiser.schedule(level)
    with torch.no_grad():
        whole = float(plain.loss(x0, eps, t))
        assert float(weighted.loss(x0, eps, t)) == pytest.approx(min(alpha**2, 5 * sigma**2) * whole, rel=1e-4)
        weighted.eval()  # and with it the network of both, whose last bits may differ then
        assert float(weighted.loss(x0, eps, t)) == float(plain.loss(x0, eps, t))


def test_levels_join_from_the_noisiest() -> None:
    task = SlicePriorTask(SlicePrior.new(VALUES), aids=CURRICULUM)
    share = torch.cat([torch.rand(200, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1 - 2**-24])])
    for joined in range(1, 5):
        levels = task.level_of(share)
        assert torch.equal(levels, levels.round())
        assert (float(levels.min()), float(levels.max())) == (1000 - 250 * joined, 999)
        task.told({"loss": 1.0})
        task.told({"loss": 1.0})  # no better: the next joins
    assert torch.equal(task.level_of(share), SlicePriorTask(SlicePrior.new(VALUES)).level_of(share))


def test_a_curriculum_goes_on_where_it_was(tmp_path: Path) -> None:
    config = small(tmp_path / "whole", aids=CURRICULUM)
    train(config)
    cut = replace(config, out=tmp_path / "cut", loop=replace(LOOP, max_seconds=1e-6))
    assert not train(cut).finished
    assert train(replace(cut, loop=replace(LOOP, resume=True))).finished
    rows = [
        [[row.get(name) for name in ("loss", "held_out_loss")] for row in RunFolder(tmp_path / folder).history()]
        for folder in ("whole", "cut")
    ]
    assert rows[0] == rows[1]
    kept = torch.load(tmp_path / "cut/checkpoints/last.pt", weights_only=False)
    assert kept["parts"]["task.curriculum"]["joined"] > 1


def test_routing_is_kept_with_the_model(tmp_path: Path) -> None:
    prior = SlicePrior.new(VALUES, routing=RoutingConfig())
    prior.network.eval()
    x, label = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([3.0, 700.0])
    prior.save_pretrained(tmp_path)
    with torch.no_grad():
        routed = prior.network(x, label)
        again = SlicePrior.from_pretrained(tmp_path, device="cpu")
        torch.testing.assert_close(again.network(x, label), routed, atol=1e-5, rtol=0)
        # same weights without it
        assert not torch.allclose(SlicePrior.new(VALUES).network.eval()(x, label), routed, atol=1e-3)
    result = train(small(tmp_path / "run", aids=AidsConfig(task_routing=True)))
    assert SlicePrior.from_pretrained(result.model, device="cpu").network.unet.config["task_routing"]["beta"] == 0.8


def test_a_run_that_is_older_than_the_aids_goes_on(tmp_path: Path) -> None:
    config = small(tmp_path, loop=replace(LOOP, max_seconds=1e-6))
    train(config)
    noted = yaml.safe_load((tmp_path / "config.yaml").read_text())
    del noted["aids"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(noted))
    resumed = replace(config, loop=replace(LOOP, resume=True))
    with pytest.raises(InputError, match="these keys differ: aids"):
        train(replace(resumed, aids=AidsConfig("min-snr")))
    assert train(resumed).finished


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"network": "ncsnpp", "aids": AidsConfig("min-snr")}, "with NCSN"),
        ({"aids": AidsConfig(curriculum=CurriculumConfig(clusters=0))}, "a curriculum of 0 groups"),
        ({"aids": AidsConfig(curriculum=CurriculumConfig(clusters=2000))}, "leave some without a step"),
    ],
)
def test_mistakes_leave_nothing_behind(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        train(small(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()
