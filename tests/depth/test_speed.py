"""What makes predictors cheap changes no result: folding, strips, batches of members, compilation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from priorscope.cli import main
from priorscope.errors import InputError
from priorscope_depth.families import FAMILIES
from priorscope_depth.predictor import DepthPredictor
from priorscope_depth.training.save import save_model

OPTIONS = {"task": "depth", "space": "depth", "resolution": 64, "device": "cpu"}


def photo(height=40, width=56, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def load(folder, family, **changes):
    return DepthPredictor.from_pretrained(folder, family=family, **OPTIONS | changes)


def unet_of(predictor):
    return predictor.latent.denoiser.network.unet


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("steps", [None, 1])
def test_folding_changes_no_result(tiny_model, family, steps):
    folder = tiny_model(family)
    folded, plain = load(folder, family, steps=steps), load(folder, family, steps=steps, fold=False)
    several = family == "marigold" and steps is None
    assert getattr(unet_of(folded), "is_folded", False) == (not several)
    assert not getattr(unet_of(plain), "is_folded", False)
    image = torch.rand((2, 3, 40, 56), generator=torch.Generator().manual_seed(0)) * 2 - 1
    ours, theirs = (predictor.raw(image, seed=3, items=["a", "b"]) for predictor in (folded, plain))
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
    if not several:
        assert sum(p.numel() for p in unet_of(folded).parameters()) < sum(
            p.numel() for p in unet_of(plain).parameters()
        )


def test_the_bundled_model_folded():
    ours, theirs = (DepthPredictor.from_pretrained(device="cpu", fold=fold)(photo(96, 128)) for fold in (True, False))
    np.testing.assert_allclose(ours.values, theirs.values, atol=2e-5)


def test_a_folded_model_is_not_saved(tiny_model, tmp_path):
    predictor = load(tiny_model("lotus-d"), "lotus-d")
    with pytest.raises(InputError, match=r"cannot be saved.*fold=False"):
        save_model(predictor, tmp_path / "model")


class Calls:
    """Rows of each call of a predictor's parts."""

    def __init__(self, predictor, monkeypatch):
        self.rows = {"encode": [], "network": [], "decode": []}
        latents, denoiser = predictor.latent.latents, predictor.latent.denoiser
        for owner, name, key in ((latents, "encode", "encode"), (latents, "decode", "decode")):
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name), key))
        monkeypatch.setattr(denoiser, "network", self.counted(denoiser.network, "network"))

    def counted(self, function, key):
        def call(given, *args, **kwargs):
            self.rows[key].append(len(given))
            return function(given, *args, **kwargs)

        return call


@pytest.mark.parametrize("steps", [1, 3])
def test_members_of_an_ensemble_are_one_batch_and_share_the_encoding(tiny_model, monkeypatch, steps):
    predictor = load(tiny_model("marigold"), "marigold", steps=steps)
    calls = Calls(predictor, monkeypatch)
    predictor([photo(seed=i) for i in range(5)], ensemble=4, batch_size=2)
    assert calls.rows["encode"] == [2, 2, 1]
    assert calls.rows["network"] == [8] * steps + [8] * steps + [4] * steps
    assert calls.rows["decode"] == [8, 8, 4]


def test_one_step_is_one_call(tiny_model, monkeypatch):
    for family in ("lotus-d", "lotus-g", "e2e-ft"):
        predictor = load(tiny_model(family), family)
        calls = Calls(predictor, monkeypatch)
        predictor([photo(), photo(seed=1)], batch_size=2)
        assert calls.rows == {"encode": [2], "network": [2], "decode": [2]}


def test_tiled_autoencoder(tiny_model):
    """Smaller than a tile: exact; larger: nearly."""
    whole, tiled = (load(tiny_model("lotus-d"), "lotus-d", resolution=0, tiled_vae=tiled) for tiled in (False, True))
    np.testing.assert_array_equal(tiled(photo(48, 64)).values, whole(photo(48, 64)).values)
    ours, exact = tiled(photo(24, 640)).values, whole(photo(24, 640)).values
    assert ours.shape == exact.shape
    assert 0 < np.abs(ours - exact).mean() < 0.1


def test_a_compiler_that_fails_is_one_line(tiny_model, monkeypatch, capsys, tmp_path):
    """Compiling takes minutes on a CPU; that its failure is understood can be tried with a compiler that is none."""

    def none(graph, inputs):
        raise ValueError("no working C++ compiler")

    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_module(module, backend=none))
    from PIL import Image

    Image.fromarray(photo()).save(tmp_path / "photo.png")
    folder = tiny_model("lotus-d", "lotus-depth-d-v2-0-disparity")
    words = ["depth", "predict", tmp_path / "photo.png", "--model", folder, "--resolution", 64, "--compile"]
    assert main([str(word) for word in [*words, "--device", "cpu", "--out", tmp_path / "out"]]) != 0
    said = capsys.readouterr().err
    assert "cannot be compiled here" in said
    assert "no working C++ compiler" in said
    assert "Leave out --compile" in said
    assert "Traceback" not in said


def test_compiled_equals_plain(tiny_model, monkeypatch):
    """With a backend that runs the traced graph as it is: what a real one optimises."""
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_module(module, backend="eager"))
    folder = tiny_model("lotus-d")
    compiled, plain = load(folder, "lotus-d", compile=True), load(folder, "lotus-d")
    np.testing.assert_allclose(compiled(photo()).values, plain(photo()).values, atol=1e-5)
