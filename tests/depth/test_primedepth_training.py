"""A decoder and a head on a frozen network: what is cached, what is saved, and that it learns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from priorscope.cli import main
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import read_jsonl
from priorscope.predictors.geometry import Geometry
from priorscope_depth.configs import ModelConfig
from priorscope_depth.pairs.scenes import StreamedScenes
from priorscope_depth.predict import load_other
from priorscope_depth.primedepth.backbone import load_backbone, load_trained, save_trained
from priorscope_depth.primedepth.configs import TrainPrimeDepthConfig
from priorscope_depth.primedepth.labeller import Labeller
from priorscope_depth.primedepth.predictor import PrimeDepthPredictor
from priorscope_depth.primedepth.train import train_primedepth
from priorscope_depth.primedepth.training import PreimageCache, ViewFeed

PHOTO = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
SMALL = {"scenes": 3, "views": 1, "height": 32, "width": 64, "held_out": 2}


def loop(**changes):
    from priorscope.training.settings import LoopConfig

    return LoopConfig(**{"steps": 4, "batch_size": 2, "warmup": 0, "log_every": 1, "device": "cpu"} | changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    return train_primedepth(TrainPrimeDepthConfig(out, pretrain=2, loop=loop(validate_every=4), **SMALL))


def test_run_pretrains_then_learns_depth_and_is_used_by_name(trained, tmp_path, capsys):
    rows = [json.loads(line) for line in (trained.model.parent / "metrics.jsonl").read_text().splitlines()]
    rebuilt = {row["step"] for row in rows if "rebuilding" in row}
    painted = {row["step"] for row in rows if "relative" in row}
    assert len(rebuilt) == len(painted) == 2
    assert max(rebuilt) < min(painted)
    assert any("held_out_abs_rel" in row for row in rows)
    predictor = PrimeDepthPredictor.load(trained.model, device="cpu")
    result = predictor(PHOTO)
    assert result.values.shape == (50, 70)
    assert (result.space, predictor.geometry.resolution, predictor.geometry.multiple) == ("disparity", 64, 32)
    with pytest.raises(InputError, match="the empty prompt only"):
        main_predict(trained.model, tmp_path, "--caption", "a dog", debug=True)


def main_predict(model, tmp_path, *options, debug=False):
    from PIL import Image

    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    command = ["depth", "predict", str(tmp_path / "photo.png"), "--model", str(model), "--out", str(tmp_path / "out")]
    return main([*(["--debug"] if debug else []), *command, *options])


@pytest.fixture(scope="module")
def on_stable_diffusion(tiny_model, tmp_path_factory):
    """A model of ours, untrained, on a network with an autoencoder."""
    backbone = load_backbone(tiny_model("lotus-d", "lotus-depth-d-v2-0-disparity"))
    architecture = backbone.architecture()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = backbone.model(Labeller(architecture))
    folder = tmp_path_factory.mktemp("on-sd") / "model"
    save_trained(model, architecture, Geometry(64, upscale=True, multiple=64), folder)
    return folder


def test_precision_is_that_of_the_frozen_network(trained):
    plain, low = (PrimeDepthPredictor.load(trained.model, device="cpu", precision=p) for p in ("auto", "bfloat16"))
    assert (plain.network.dtype, low.network.dtype) == (torch.float32, torch.bfloat16)
    difference = np.abs(low(PHOTO).values - plain(PHOTO).values)
    assert 0 < difference.max() < 0.2


def test_compile_is_of_the_depth_head(trained, monkeypatch, tmp_path, capsys):
    """With a backend that runs what was traced, and with one that fails."""
    from torch._dynamo.utils import counters

    def none(graph, inputs):
        raise ValueError("no working C++ compiler")

    plain = PrimeDepthPredictor.load(trained.model, device="cpu")(PHOTO).values
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_module(module, backend="eager"))
    compiled = PrimeDepthPredictor.load(trained.model, device="cpu", compile=True)
    before = counters["stats"]["unique_graphs"]
    np.testing.assert_allclose(compiled(PHOTO).values, plain, atol=1e-5)
    assert counters["stats"]["unique_graphs"] > before
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_module(module, backend=none))
    assert main_predict(trained.model, tmp_path, "--compile", "--device", "cpu") == 2
    assert "cannot be compiled here" in capsys.readouterr().err


def test_a_run_folder_names_its_model(trained, tmp_path, capsys):
    run = trained.model.parent
    assert main_predict(run, tmp_path, "--device", "cpu") == 2
    assert f"--model {run / 'model'}" in capsys.readouterr().err


def test_options_that_cannot_act_are_refused(trained, on_stable_diffusion, tmp_path, capsys):
    for model, option, word in (
        (trained.model, "--tiled-vae", "patches of pixels"),
        (trained.model, "--official-geometry", "sees pictures as it was trained"),
        ("tiny-depth", "--official-geometry", "sees pictures as it was trained"),
        (on_stable_diffusion, "--compile", "strips of rows"),
    ):
        assert main_predict(model, tmp_path, option, "--device", "cpu") == 2
        error = capsys.readouterr().err
        assert option in error
        assert word in error
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()
    # asked of the first of two models, they are left out of the second
    together = ["--tiled-vae", "--compile", "--device", "cpu", "--ensemble-with", str(trained.model), "--debug"]
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "compile", lambda module: seen.append(type(module).__name__))
        assert main_predict("tiny-depth", tmp_path, *together) in (0, 1)  # untrained models may contradict each other
    assert seen


def test_a_sampled_encoding_of_patches_is_refused(trained, on_stable_diffusion, tmp_path, capsys):
    sampled = ["--posterior", "sample", "--device", "cpu"]
    for model in (trained.model, "tiny-depth"):
        assert main_predict(model, tmp_path, *sampled) == 2
        error = capsys.readouterr().err
        assert "--posterior" in error
        assert "patches of pixels" in error
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()
    # asked of models that are compared, it is left to those that have a spread
    settings = ModelConfig(device="cpu")
    for model, expected in ((str(trained.model), "mode"), (str(on_stable_diffusion), "sample")):
        assert load_other(settings, model, posterior="sample").model.posterior == expected
    assert load_other(settings, "tiny-depth", posterior="sample").latent.posterior == "mode"


def test_its_autoencoder_is_lean_and_tiled_on_request(on_stable_diffusion):
    photo = np.tile(PHOTO, (1, 8, 1))
    own = load_trained(on_stable_diffusion, noisy=False)[0]
    plain, tiled = (
        PrimeDepthPredictor.load(on_stable_diffusion, device="cpu", resolution=0, deterministic=True, tiled_vae=tiled)
        for tiled in (False, True)
    )
    assert plain.model.latents.streamed
    image, frame = plain.geometry.prepare(torch.from_numpy(photo).permute(2, 0, 1)[None] / 127.5 - 1)
    raw = plain.geometry.restore(plain.geometry.crop(own(image).mean(1, keepdim=True), frame), frame)[0, 0].numpy()
    expected = (raw - raw.min()) / (raw.max() - raw.min())
    np.testing.assert_allclose(plain(photo).values, expected, atol=1e-4)
    # pictures wider than a tile of 320 pixels are encoded in several, each with statistics of its own
    assert 1e-6 < np.abs(tiled(photo).values - plain(photo).values).max() < 0.5


def test_frozen_network_stays_as_it_was(trained):
    backbone = load_backbone("tiny-depth")
    model = PrimeDepthPredictor.load(trained.model, device="cpu").model
    for key, value in backbone.unet.state_dict().items():
        torch.testing.assert_close(model.unet.state_dict()[key], value.half().float(), atol=1e-6, rtol=1e-3)


def test_preimages_are_computed_once_and_equal():
    backbone = load_backbone("tiny-depth")
    model = backbone.model(Labeller(backbone.architecture()))
    images = torch.rand(3, 3, 32, 64) * 2 - 1
    cache = PreimageCache(model, seed=0, limit=10**9)
    first = cache(images, [4, 7, 9])
    again = cache(images[[2, 0]], [9, 4])
    assert cache.computed == 3
    size = cache.used // 3
    twice = cache(images[[1, 0, 1]], [5, 4, 5])  # at the seam of two passes
    assert (cache.computed, cache.used) == (4, 4 * size)
    for value in twice.values():
        assert torch.equal(value[0], value[2])
    for name, value in first.items():
        assert torch.equal(again[name], value[[2, 0]])
    with torch.autocast("cpu", torch.bfloat16):  # as in a training with --precision bfloat16
        mixed = cache(images, [4, 7, 11])
    for name, value in first.items():
        assert torch.equal(mixed[name][:2], value[:2])
    none = PreimageCache(model, seed=0, limit=0)
    for name, value in none(images[:1], [4]).items():
        torch.testing.assert_close(value, first[name][:1], atol=2e-3, rtol=2e-3)
    none(images[:1], [4])
    assert (none.computed, none.used) == (2, 0)


def test_only_labelled_pictures_after_the_pretraining():
    feed = ViewFeed(
        StreamedScenes(4, height=32, width=64),
        labelled=1,
        pretrain=4,
        views=2,
        shape=(32, 64),
        batch_size=4,
        seed=0,
    )
    before = {view for step in range(4) for view in feed.batch(step, range(4))["view"].tolist()}
    after = {view for step in range(4, 8) for view in feed.batch(step, range(4))["view"].tolist()}
    assert before == set(range(8))
    assert after == {0, 1}
    batch = feed.batch(5, range(2))
    assert torch.equal(batch["image"], feed.batch(5, range(4))["image"][:2])
    assert batch["target"].shape == batch["depth"].shape == (2, 1, 32, 64)


def test_pretraining_may_end_between_two_rows_of_the_log(tmp_path):
    config = TrainPrimeDepthConfig(tmp_path / "run", **SMALL | {"pretrain": 1, "loop": loop(log_every=2)})
    train_primedepth(config)
    rows = read_jsonl(tmp_path / "run/metrics.jsonl")
    first, last = (next(row for row in rows if row["step"] == step and "loss" in row) for step in (2, 4))
    assert first["rebuilding"] > 0
    assert last["loss"] > 0
    assert "rebuilding" not in last


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"pretrain": 4}, "--pretrain 4"),
        ({"height": 40}, "multiples of 32"),
        ({"height": 0}, "--height 0"),
        ({"width": -32}, "--width -32"),
        ({"height": 8192}, "16 to 4096"),
        ({"depth_scale": 0.0}, "--depth-scale 0"),
        ({"depth_scale": float("inf")}, "--depth-scale inf"),
        ({"depth_scale": 0.01}, "--depth-scale without --pairs"),
        ({"pairs": Path("mine")}, "--scenes with --pairs"),
        ({"backbone": "primedepth"}, "has a decoder already"),
        ({"backbone": "depthpro"}, "no diffusion model"),
        ({"labelled": 9}, "--labelled 9 of 3"),
        ({"views": 0}, "--views 0"),
        ({"ratio": 0.0}, "--ratio"),
        ({"ratio": 0.001}, "0.001 times as wide"),
        ({"loop": loop(lora=4)}, "--lora"),
        ({"loop": loop(gradient_checkpointing=True)}, "--gradient-checkpointing"),
    ],
)
def test_senseless_options_leave_nothing_behind(tmp_path, changes, word):
    config = TrainPrimeDepthConfig(tmp_path / "run", **SMALL | {"pretrain": 1, "loop": loop()} | changes)
    with pytest.raises(InputError, match=word):
        train_primedepth(config)
    assert not (tmp_path / "run").exists()


def test_networks_that_take_noise_are_refused(tiny_model):
    with pytest.raises(InputError, match="takes image and x"):
        load_backbone(tiny_model("lotus-g", "lotus-depth-g-v1-0"))
