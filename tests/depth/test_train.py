"""``priorscope depth train``: every recipe from every start, runs that survive, and mistakes that are named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorscope import InputError
from priorscope.cli import main
from priorscope.evaluation import RunFolder
from priorscope.training import LoopConfig
from priorscope_depth.augmentation import batch_shape
from priorscope_depth.configs import TrainConfig
from priorscope_depth.pairs.pair import TrainingPair
from priorscope_depth.predictor import DepthPredictor
from priorscope_depth.scenes import HELD_OUT_SEED, write_scenes
from priorscope_depth.train import train
from priorscope_depth.training.look import HeldOut
from priorscope_depth.training.recipes import choose_recipe
from priorscope_depth.training.save import save_model
from priorscope_depth.training.start import start_from

LOTUS_D = {"family": "lotus-d", "task": "depth", "space": "disparity"}
LOOP = {"steps": 6, "batch_size": 4, "warmup": 2, "log_every": 2, "checkpoint_every": 3, "device": "cpu"}


@pytest.fixture(scope="module")
def scenes_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, range(16), height=48, width=64, supersample=1, progress=False)
    return folder


@pytest.fixture
def small(scenes_folder, tmp_path):
    """``small(name, **changes)``: a quick configuration; changes of the loop's settings are found by name."""

    def make(name: str, **changes) -> TrainConfig:
        loop = LOOP | {key: changes.pop(key) for key in list(changes) if key in LoopConfig.__dataclass_fields__}
        plain = {"model": "new", "scenes": scenes_folder, "size": 64, "held_out": 0, "loop": LoopConfig(**loop)}
        return TrainConfig(out=tmp_path / name, **plain | changes)

    return make


def going_on(config: TrainConfig, **changes) -> TrainConfig:
    return replace(config, loop=replace(config.loop, resume=True, **changes))


def rows(out: Path) -> list[dict]:
    return [
        {name: value for name, value in row.items() if name != "examples_per_second"}
        for row in RunFolder(out).history()
    ]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model/unet/diffusion_pytorch_model.safetensors")


def assert_same_run(out: Path, whole: Path) -> None:
    assert rows(out) == rows(whole)
    ours, theirs = weights(out), weights(whole)
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.fixture(scope="module")
def whole(scenes_folder, tmp_path_factory):
    """The run of the command below, never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main(command(scenes_folder, out)) == 0
    return out


def command(scenes: Path, out: Path, *more: str) -> list[str]:
    words = f"depth train --out {out} --scenes {scenes} --model new --size 64 --held-out 0 --save-float32".split()
    return [*words, *(f"--{key.replace('_', '-')}={value}" for key, value in LOOP.items()), *more]


# Every recipe from every start


PICTURE = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
STARTS = [
    ("lotus-g", "depth", "lotus"),
    ("lotus-d", "depth", "pixels"),
    ("marigold", "depth", "marigold"),
    ("e2e-ft", "depth", "e2e-ft"),
    ("lotus-d", "normals", "lotus"),
    ("e2e-ft", "normals", "e2e-ft"),
]


def assert_trained(config: TrainConfig, family: str, task: str) -> None:
    result = train(config)
    assert (result.step, result.finished, result.model) == (2, True, config.out / "model")
    assert all(np.isfinite(row["loss"]) for row in rows(config.out))
    loaded = DepthPredictor.from_pretrained(result.model, device="cpu")
    assert (loaded.recipe.family.name, loaded.task, loaded.geometry.resolution) == (family, task, 64)
    values = loaded(PICTURE).values
    assert values.shape == ((40, 64, 3) if task == "normals" else (40, 64))
    assert np.isfinite(values).all()
    assert values.std() > 0


@pytest.mark.parametrize(("family", "task", "recipe"), STARTS)
def test_new_models(small, family, task, recipe):
    config = small("run", family=family, task=task, steps=2)
    start = start_from("new", family=family, task=task)
    assert choose_recipe("auto", start.predictor) is choose_recipe(recipe, start.predictor)
    assert_trained(config, family, task)


@pytest.mark.parametrize(("family", "task", "recipe"), [(f, t, "lotus" if f == "lotus-d" else r) for f, t, r in STARTS])
def test_published_folders(small, tiny_model, family, task, recipe):
    folder = tiny_model(family)
    space = "disparity" if family.startswith("lotus") and task == "depth" else "depth"
    config = small(
        "run", model=str(folder), family=family, task=task, space=space, recipe=recipe, steps=2, save_float32=True
    )
    before = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    assert_trained(config, family, task)
    after = weights(config.out)
    assert set(after) == set(before)
    assert any(not torch.equal(after[name], before[name]) for name in before)
    # the frozen autoencoder is the one that it came with
    ours = load_file(config.out / "model/vae/diffusion_pytorch_model.safetensors")
    theirs = load_file(folder / "vae/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.fixture
def stable_diffusion(tiny_model, tmp_path):
    """A folder as Stable Diffusion 2 is published: four channels in, noise out."""
    folder = tiny_model("e2e-ft-sd", copy=tmp_path / "base")
    path = folder / "unet/config.json"
    if json.loads(path.read_text())["in_channels"] != 4:
        from diffusers import UNet2DConditionModel

        config = json.loads(path.read_text()) | {"in_channels": 4}
        torch.manual_seed(1)
        UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"prediction_type": "epsilon", "timestep_spacing": "leading"})
    )
    return folder


@pytest.mark.parametrize("family", ["lotus-g", "lotus-d", "marigold", "e2e-ft"])
def test_surgery_on_stable_diffusion(stable_diffusion, family):
    start = start_from(str(stable_diffusion), family=family)
    unet = start.predictor.latent.denoiser.network.unet
    base = load_file(stable_diffusion / "unet/diffusion_pytorch_model.safetensors")
    ours = unet.state_dict()
    new = set(ours) - set(base)
    assert new == ({key for key in ours if key.startswith("class_embedding.")} if family.startswith("lotus") else set())
    assert bool(new) == family.startswith("lotus")
    for key, weight in base.items():
        if key != "conv_in.weight":
            assert torch.equal(ours[key], weight)
    inputs = ours["conv_in.weight"].shape[1]
    assert inputs == (4 if family == "lotus-d" else 8)
    # the same picture in both halves is what the base saw
    total = ours["conv_in.weight"].reshape(16, -1, 4, 3, 3).sum(1)
    torch.testing.assert_close(total, base["conv_in.weight"], atol=1e-6, rtol=0)
    if not new:
        from diffusers import UNet2DConditionModel

        plain = UNet2DConditionModel.from_pretrained(stable_diffusion / "unet").eval()
        x, text = torch.randn(1, 4, 8, 8), torch.randn(1, 3, 16)
        with torch.no_grad():
            torch.testing.assert_close(
                unet.eval()(torch.cat([x, x], 1), 500, text).sample, plain(x, 500, text).sample, atol=1e-5, rtol=1e-4
            )


@pytest.mark.parametrize("family", ["lotus-g", "marigold"])
def test_stable_diffusion_becomes_a_depth_model(small, stable_diffusion, family):
    assert_trained(small("run", model=str(stable_diffusion), family=family, steps=2), family, "depth")


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "marigold", "recipe": "lotus"},
        {"family": "lotus-g", "recipe": "pixels"},
        {"family": "lotus-g", "recipe": "e2e-ft"},
        {"family": "lotus-d", "recipe": "marigold"},
        {"family": "lotus-d", "task": "normals", "recipe": "pixels"},
        {"family": "marigold", "space": "disparity", "recipe": "pixels"},
        {"model": "no-such-model"},
        {"size": 5},
        {"held_out": -1},
        {"depth_scale": 0.0},
        {"depth_scale": float("inf")},
        {"depth_scale": 0.01},
        {"pairs_disparity": True},
        {"detail": 0.0},
        {"views": "published"},
        {"shares": (0.5, 0.5)},
        {"steps": 0},
        {"lr": -1.0},
        {"batch_size": 4, "accumulate": 3},
        {"precision": "float16"},
        {"scenes": None},
    ],
)
def test_a_mistake_leaves_nothing_behind(small, changes):
    config = small("run", **changes)
    with pytest.raises(InputError) as error:
        train(config)
    assert "\n" not in str(error.value)
    assert error.value.remedy or error.value.path
    assert not config.out.exists()


def test_models_of_other_kinds_are_called_by_their_name(small, tmp_path):
    for name, file, content, word in (
        ("a", "primedepth.ckpt", "", "is a PrimeDepth model.*train-primedepth"),
        ("b", "config.json", '{"model_type": "depth_pro"}', "no diffusion model of this app's.*not trained"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(content)
        with pytest.raises(InputError, match=word):
            train(small("run", model=str(tmp_path / name)))


def test_a_norm_of_another_space_is_refused(small):
    with pytest.raises(InputError, match="--norm truncnorm"):
        train(small("run", norm="truncnorm"))


def test_low_rank_updates_of_new_weights_are_refused_before_data_are_read(small, tmp_path):
    with pytest.raises(InputError, match="--lora 2 for a network that begins with random weights"):
        train(small("run", scenes=tmp_path / "none", lora=2))


def test_a_sampled_encoding_of_patches_is_refused(small):
    with pytest.raises(InputError, match=r"--posterior sample.*patches of pixels"):
        train(small("run", posterior="sample"))


def test_held_out_scenes_are_not_trained_on(small, tmp_path):
    write_scenes(tmp_path / "scenes", [HELD_OUT_SEED], height=48, width=64, supersample=1, progress=False)
    with pytest.raises(InputError, match="held-out"):
        train(small("run", scenes=tmp_path / "scenes", batch_size=1))


# Surviving


def killed_at(arguments: list[str], step: int) -> Callable[[], int]:
    """The command, in a process that is to be killed while it writes the checkpoint of a step."""

    def work() -> int:
        save = torch.save

        def half(state, file):
            if state["step"] == step:
                file.write(b"PK" * 500)
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            save(state, file)

        torch.save = half
        return main(arguments)

    return work


def test_a_killed_command_goes_on_with_resume(scenes_folder, tmp_path, whole, capsys, fork):
    out = tmp_path / "run"
    assert fork(killed_at(command(scenes_folder, out), 3)) == -signal.SIGKILL  # before any checkpoint
    assert fork(killed_at(command(scenes_folder, out), 6)) == -signal.SIGKILL  # so it was begun again
    assert main(command(scenes_folder, out)) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "--resume" in message
    assert main(command(scenes_folder, out, "--resume")) == 0
    assert_same_run(out, whole)
    assert not list(out.rglob("*.part*"))
    assert (out / "report.html").is_file()


@pytest.mark.parametrize("changes", [{"family": "lotus-g"}, {"lora": 2, "ema": 0.0}])
def test_stops_between_rows(small, tiny_model, changes):
    if "lora" in changes:
        changes = changes | {"model": str(tiny_model("lotus-d")), **LOTUS_D}
    first = small("whole", steps=4, save_float32=True, **changes)
    train(first)
    parts = replace(first, out=first.out.with_name("parts"))
    for step in (1, 2, 3):
        assert train(going_on(parts, max_seconds=1e-9)).step == step
    assert train(going_on(parts)).finished
    assert_same_run(parts.out, first.out)


@pytest.mark.slow
def test_worker_processes_change_nothing(scenes_folder, tmp_path, whole):
    out = tmp_path / "run"
    assert main(command(scenes_folder, out, "--workers=1")) == 0
    assert_same_run(out, whole)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(scenes_folder, tmp_path, launcher):
    out = tmp_path / "run"
    # every pixel counts in Lotus' loss: its mean over a batch is that of the parts' means
    arguments = [*launcher, "-m", "priorscope_depth.train", *command(scenes_folder, out, "--recipe=lotus")[2:]]
    alone = tmp_path / "alone"
    assert main(command(scenes_folder, alone, "--recipe=lotus")) == 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for ours, theirs in zip(rows(out), rows(alone), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    # Adam divides by the gradient's size: where that is rounding, so is the step's sign
    ours, theirs = weights(out), weights(alone)
    apart = torch.cat([(ours[name].float() - theirs[name].float()).abs().flatten() for name in theirs])
    assert apart.median() < 1e-5


def test_low_rank_updates_are_saved_as_plain_weights(small, tiny_model):
    folder = tiny_model("lotus-d")
    config = small("run", model=str(folder), lora=2, steps=2, ema=0.0, lr=1e-2, save_float32=True, **LOTUS_D)
    train(config)
    before, after = load_file(folder / "unet/diffusion_pytorch_model.safetensors"), weights(config.out)
    assert set(after) == set(before)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".to_" in name and name.endswith("weight") for name in changed)


def test_gradient_checkpointing_changes_no_gradient(small, tiny_model):
    folder = str(tiny_model("lotus-d"))
    for name, on in (("off", False), ("on", True)):
        train(small(name, model=folder, steps=2, gradient_checkpointing=on, save_float32=True, **LOTUS_D))
    off, on = (small(name).out for name in ("off", "on"))
    assert [row["grad_norm"] for row in rows(on)] == pytest.approx([row["grad_norm"] for row in rows(off)], rel=1e-5)
    assert all(torch.allclose(weights(on)[name], weights(off)[name], atol=1e-6) for name in weights(off))


def write_pairs(folder: Path, count: int = 8) -> Path:
    from PIL import Image

    draw = np.random.default_rng(0)
    for name in ("images", "depth"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        picture = draw.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"images/{number}.png")
        np.save(folder / f"depth/{number}.npy", draw.uniform(1, 9, (48, 64)).astype(np.float32))
    return folder


def test_a_damaged_image_is_named(small, tmp_path):
    folder = write_pairs(tmp_path / "pairs")
    damaged = folder / "images/5.png"
    damaged.write_bytes(damaged.read_bytes()[:300])
    config = small("run", pairs=(folder,), scenes=None, batch_size=8)
    with pytest.raises(InputError, match=r"5\.png") as error:
        train(config)
    assert "\n" not in str(error.value)


def test_depth_of_another_unit_is_named_by_the_look():
    depth = np.full((40, 64), 5000.0, np.float32)
    pair = TrainingPair(PICTURE, depth, depth > 0, depth < 0, None, "garden")
    predictor = start_from("new").predictor
    with pytest.raises(InputError, match=r"garden.*--depth-scale"):
        HeldOut([pair]).look(predictor, RunFolder("unused"), 1)


def test_a_look_leaves_figures(small):
    config = small("run", held_out=1, steps=2, validate_every=2)
    train(config)
    last = rows(config.out)[-1]
    assert 0 < last["held_out_abs_rel"] < 10
    assert 0 <= last["held_out_delta1"] <= 1
    assert (config.out / "figures/step-0000002.png").is_file()
    metrics = RunFolder(config.out).metrics()
    assert metrics == last | {"finished": True}


# The result


def test_a_saved_model_is_the_model(tmp_path):
    predictor = start_from("new", seed=3).predictor
    before = predictor(PICTURE).values
    whole = save_model(predictor, tmp_path / "whole", half=False)
    np.testing.assert_allclose(DepthPredictor.from_pretrained(whole, device="cpu")(PICTURE).values, before, atol=1e-5)
    half = save_model(predictor, tmp_path / "half")
    assert sum(file.stat().st_size for file in half.rglob("*") if file.is_file()) < 3_500_000
    np.testing.assert_allclose(predictor(PICTURE).values, before, atol=1e-6)  # saving changed nothing


def test_training_learns(small):
    config = small("run", steps=30, batch_size=8, warmup=5, lr=2e-3, log_every=5, checkpoint_every=50)
    train(config)
    curve = [row["loss"] for row in rows(config.out) if "loss" in row]
    assert np.mean(curve[-2:]) < 0.8 * curve[0]


def test_shapes_of_views():
    shapes = {batch_shape(192, 256, np.random.default_rng(i), 16) for i in range(40)}
    assert shapes == {(192, 256), (192, 192), (144, 256), (112, 256)}
