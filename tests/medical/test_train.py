"""``priorscope medical train``: priors of phantoms and of volumes, both networks, resumed, used."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from priorscope.backbones.ncsnpp import NCSNpp
from priorscope.cli import main
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.settings import LoopConfig
from priorscope_medical.configs import SolverConfig, TrainConfig
from priorscope_medical.prior import SlicePrior, SliceValues
from priorscope_medical.score_prior import ScorePrior, load_prior
from priorscope_medical.train import train
from priorscope_medical.training.data import open_source, read_slices, write_slices
from priorscope_medical.training.feed import SliceFeed
from priorscope_medical.training.report import draw_slices
from priorscope_medical.training.score_task import ScorePriorTask
from priorscope_medical.training.task import PriorTask, SlicePriorTask, random_draws
from priorscope_medical.volumes import across, read_volume

LOOP = LoopConfig(
    steps=4, batch_size=4, log_every=1, validate_every=2, checkpoint_every=2, warmup=1, lr=1e-3, device="cpu"
)


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("priorscope_medical.train.write_report", lambda *_: None)


def test_of_phantoms(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    words = ["--phantoms=6", "--size=16", "--pixel=15", "--steps=3", "--batch-size=4", "--warmup=1", "--log-every=1"]
    assert main(["medical", "train", *words, f"--out={out}", "--device=cpu"]) == 0
    printed = capsys.readouterr().out
    assert "6 procedural slices" in printed
    assert "for research use only" in printed
    prior = SlicePrior.from_pretrained(out / "model", device="cpu")
    assert (prior.values.unit, prior.values.size, prior.values.pixel) == ("attenuation", 16, 15)
    report = (out / "report.html").read_text()
    for text in ("slices that the prior makes up", "for research use only", "held-out figures", "--prior"):
        assert text in report
    assert (out / "figures/slices.png").is_file()
    drawn = draw_slices(prior, 2, steps=3)
    assert drawn.shape == (2, 1, 16, 16)
    assert bool(torch.isfinite(drawn).all())
    torch.testing.assert_close(draw_slices(prior, 1, steps=3), drawn[:1], atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("without_report")
def test_stopped_and_resumed_as_if_never_stopped(tmp_path: Path) -> None:
    config = TrainConfig(phantoms=6, size=16, pixel=15.0, out=tmp_path / "whole", loop=LOOP)
    train(config)
    cut = replace(config, out=tmp_path / "cut", loop=replace(LOOP, max_seconds=1e-6))
    assert not train(cut).finished
    with pytest.raises(InputError, match="holds a run already"):
        train(cut)
    with pytest.raises(InputError, match="these keys differ: patch"):
        train(replace(cut, patch=1, loop=replace(LOOP, resume=True)))
    assert train(replace(cut, loop=replace(LOOP, resume=True))).finished
    names = ("loss", "held_out_loss")
    rows = [
        [[row.get(name) for name in names] for row in RunFolder(tmp_path / folder).history()]
        for folder in ("whole", "cut")
    ]
    assert rows[0] == rows[1]
    assert [len(row) for row in rows] == [5, 5]
    assert rows[0][-1][1] < rows[0][0][1]


@pytest.mark.slow
@pytest.mark.usefixtures("without_report")
def test_two_processes_learn_what_one_learns(tmp_path: Path, launcher: list[str]) -> None:
    out, alone = tmp_path / "run", tmp_path / "alone"
    words = ["--phantoms=8", "--size=16", "--pixel=15", "--steps=3", "--batch-size=4", "--warmup=1", "--log-every=1"]
    words += ["--device=cpu", "--lr=0.001"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launcher, "-m", "priorscope_medical.train", *words, f"--out={out}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("8 procedural slices") == 1
    assert done.stdout.count("model: ") == 1
    assert (out / "report.html").is_file()
    assert main(["medical", "train", *words, f"--out={alone}"]) == 0
    rows = [RunFolder(folder).history() for folder in (out, alone)]
    assert [row["step"] for row in rows[0]] == [0, 1, 2, 3]
    names = ("loss", "grad_norm", "held_out_loss")
    for ours, theirs in zip(*rows, strict=True):
        here = [name for name in names if name in theirs]  # before the first step there is a held-out loss alone
        assert here == (["held_out_loss"] if theirs["step"] == 0 else [*names[: 2 + ("held_out_loss" in theirs)]])
        assert [ours[name] for name in here] == pytest.approx([theirs[name] for name in here], rel=1e-4)
    assert rows[0][-1]["held_out_loss"] < rows[0][0]["held_out_loss"]
    # Adam divides by the gradient's size: where that is rounding, so is the step's sign
    weights = [
        SlicePrior.from_pretrained(folder / "model", device="cpu").network.state_dict() for folder in (out, alone)
    ]
    apart = torch.cat([(weights[0][name] - weights[1][name]).abs().flatten() for name in weights[0]])
    assert float(apart.median()) < 1e-6


@pytest.mark.parametrize("network", ["unet", "ncsnpp"])
def test_the_loss_of_a_slice_does_not_depend_on_its_batch(network: Any, tmp_path: Path) -> None:
    """In parts, as processes take it, a batch has the mean loss of the whole."""
    slices = np.random.default_rng(0).random((5, 16, 16), dtype=np.float32)
    feed = SliceFeed(slices, 4, seed=3)
    prior = SlicePrior.new(SliceValues("attenuation", 0.5, 0.625, patch=2, size=16))
    task: PriorTask = SlicePriorTask(prior)
    if network == "ncsnpp":
        small = NCSNpp(image_size=16, channels=8, multipliers=(1, 2), blocks=1, sigma_max=10.0)
        task = ScorePriorTask(ScorePrior.of(small, SliceValues("attenuation", 0.0, 1.0), device=torch.device("cpu")))
    whole = feed.batch(2, range(4))
    parts = [feed.batch(2, range(2)), feed.batch(2, range(2, 4))]
    for name in ("image", "seed"):
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])
    assert len(set(whole["seed"].tolist())) == 4
    task.eval()
    losses = []
    for number, batch in enumerate((whole, *parts)):
        torch.manual_seed(number)  # of another process
        with torch.no_grad():
            losses.append(float(task(batch)["loss"]))
    assert (losses[1] + losses[2]) / 2 == pytest.approx(losses[0], rel=1e-5)
    assert losses[1] != losses[2]
    # the same slice in another pass over the data has other noise
    seeds = [seed for step in range(5) for seed in feed.batch(step, range(4))["seed"].tolist()]
    assert len(set(seeds)) == 20


def test_levels_are_spread_over_the_schedule() -> None:
    prior = SlicePrior.new(SliceValues("attenuation", 0.5, 0.625, patch=2, size=16))
    share, noise = random_draws(torch.arange(2000), torch.empty(2000, 1, 4, 4))
    levels = SlicePriorTask(prior).level_of(share)
    assert torch.equal(levels, levels.round())
    assert 0 <= float(levels.min()) < 5
    assert 995 <= float(levels.max()) <= 999
    assert float(levels.mean()) == pytest.approx(499.5, abs=20)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert abs(float(torch.corrcoef(torch.stack([share, noise[:, 0, 0, 0]]))[0, 1])) < 0.08
    assert float(SlicePriorTask(prior).level_of(torch.tensor([1 - 2**-24])).max()) == 999


@pytest.mark.usefixtures("without_report")
def test_ncsnpp_of_a_volume_is_used(tiny_volume: Path, tmp_path: Path, monkeypatch: Any) -> None:
    config = TrainConfig(
        volumes=(tiny_volume,),
        planes=("axial", "sagittal"),
        size=16,
        network="ncsnpp",
        channels=8,
        blocks=1,
        unit="HU",
        out=tmp_path / "run",
        loop=LOOP,
    )
    result = train(config)
    rows = RunFolder(tmp_path / "run").history()
    assert rows[-1]["held_out_loss"] < rows[0]["held_out_loss"]
    prior = load_prior(SolverConfig(prior=str(result.model), device="cpu"), "attenuation")
    assert isinstance(prior, ScorePrior)
    assert prior.values.pixel == pytest.approx(2.5)
    # noise that hides which slice it was
    assert 1 <= prior.network.config.sigma_max < 16 * 16
    monkeypatch.setattr("priorscope_medical.report.reconstruction_report", lambda *_: None)
    for method in ("mbir", "dds"):
        words = ["medical", "reconstruct", str(tiny_volume), f"--prior={result.model}", f"--method={method}"]
        assert main([*words, "--steps=4", "--slab", "3", "6", f"--out={tmp_path / method}", "--device=cpu"]) == 0
        assert (tmp_path / method / "volume.nii.gz").is_file()


def test_slices_of_volumes(tiny_volume: Path, tmp_path: Path) -> None:
    config = TrainConfig(volumes=(tiny_volume,), planes=("axial", "coronal"), size=16, unit="HU")
    source = open_source(config)
    assert (source.unit, source.pixel) == ("attenuation", pytest.approx(2.5))
    write_slices(source, config, tmp_path)
    slices = read_slices(source, config, tmp_path)
    # a tenth of 9 axial slices is none, of 32 coronal ones 3
    assert slices.read().shape == (9 + 29, 16, 16)
    assert slices.held_out.shape == (3, 16, 16)
    assert float(slices.read().min()) >= 0
    assert float(slices.read().max()) == pytest.approx(1.94, abs=1e-3)
    before = slices.path.stat().st_mtime_ns
    write_slices(source, config, tmp_path)
    assert slices.path.stat().st_mtime_ns == before


def test_volumes_are_held_out_by_name(tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        np.save(tmp_path / f"{name}.npy", np.full((4, 16, 16), number + 1.0, np.float32))
    paths = tuple(tmp_path / f"{name}.npy" for name in "abc")
    config = TrainConfig(volumes=paths, size=16, kind="intensity", unit="intensity", held_out=("b.npy",))
    source = open_source(config)
    write_slices(source, config, tmp_path / "data")
    slices = read_slices(source, config, tmp_path / "data")
    assert (len(slices.read()), len(slices.held_out)) == (8, 4)
    # every volume is divided by its 99.9 % quantile
    assert float(slices.read().max()) == pytest.approx(1)
    with pytest.raises(InputError, match="no volume is called 'd'"):
        open_source(replace(config, held_out=("d",)))
    with pytest.raises(InputError, match="all volumes are held out"):
        open_source(replace(config, held_out=("a.npy", "b.npy", "c.npy")))
    with pytest.raises(InputError, match="X-ray attenuation"):
        open_source(replace(config, kind="attenuation"))


def test_another_plane_is_the_same_volume(tiny_volume: Path) -> None:
    volume = read_volume(tiny_volume, unit="HU")
    side = across(volume, "sagittal")
    assert side.slice_plane == "sagittal"
    assert side.spacing == (1.25, 3.0, 1.25)
    for plane, axis in volume.planes.items():
        here, there = (one.picture(plane, one.data.shape[one.planes[plane]] // 3)[0] for one in (volume, side))
        assert np.array_equal(here, there), axis


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "on volumes or on phantoms"),
        ({"phantoms": 4, "volumes": (Path("x.nii"),)}, "on volumes or on phantoms"),
        ({"phantoms": 4, "kind": "intensity"}, "phantoms are of attenuation"),
        ({"phantoms": -4}, "--phantoms -4"),
        ({"phantoms": 4, "size": 8}, "--size 8"),
        ({"phantoms": 4, "size": 20, "network": "ncsnpp"}, "Use a multiple of 8"),
        ({"phantoms": 4, "planes": ("axial", "axial")}, "Name each plane once"),
        ({"phantoms": 4, "patch": 0}, "--patch 0"),
        ({"phantoms": 4, "pixel": -1.0}, "--pixel -1"),
        ({"phantoms": 4, "loop": replace(LOOP, steps=0)}, "--steps 0"),
        ({"phantoms": 4, "loop": replace(LOOP, lora=4)}, "--lora 4"),
        ({"phantoms": 4, "loop": replace(LOOP, gradient_checkpointing=True)}, "network that has none"),
        ({"volumes": (Path("none.nii"),)}, "no such file"),
    ],
)
def test_mistakes_leave_nothing_behind(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        train(replace(TrainConfig(out=tmp_path / "run", loop=LOOP), **changes))
    assert not (tmp_path / "run").exists()
