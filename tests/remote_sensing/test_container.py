"""DiffusionSat folders, SatDiFuser checkpoints and our own model folders: what loads, and what is one line.

The slow test does it at full width, with random weights in the true published layouts.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import resource
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from priorscope.backbones import SD2_UNET, SD_VAE, prompt_state
from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError
from priorscope.features import Viewer, tapped
from priorscope_remote_sensing.backbone import DiffusionSat
from priorscope_remote_sensing.checkpoint import load_official_decoder, read_checkpoint
from priorscope_remote_sensing.data.bands import RECIPES
from priorscope_remote_sensing.decoder import DecoderConfig
from priorscope_remote_sensing.metadata import Metadata
from priorscope_remote_sensing.models import build_decoder
from priorscope_remote_sensing.satdifuser import SatDiFuserModel, save_step_levels
from priorscope_remote_sensing.satunet import SatUNet
from priorscope_remote_sensing.settings import SatDiFuserSettings

UNET = "checkpoint-150000/unet"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
#: The blocks of the published network, narrow.
TINY_UNET = {
    **SD2_UNET,
    "block_out_channels": (8, 16, 16, 16),
    "attention_head_dim": (2, 2, 2, 2),
    "cross_attention_dim": 12,
    "norm_num_groups": 4,
    "sample_size": 8,
}
TINY_TAPS = ((8,) * 6, (16,) * 6, (16,) * 6, (16,) * 3)
TINY_DECODER = {"taps": TINY_TAPS, "projection_dim": 16, "norm_groups": 2, "channels": 8, "experts": 3}


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_pipeline_files(folder):
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    parts = {"scheduler": "DDIMScheduler", "unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
    index = {name: ["diffusers", cls] for name, cls in parts.items()}
    write_json(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline", **index})


@pytest.fixture(scope="module")
def tiny_root(tmp_path_factory):
    """DiffusionSat's layout with small networks: <root>/resolution256."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel

    root = tmp_path_factory.mktemp("diffusionsat")
    folder = root / "resolution256"
    write_pipeline_files(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        SatUNet(**TINY_UNET).save_pretrained(folder / UNET)
        small = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "layers_per_block": 1}
        AutoencoderKL(**{**SD_VAE, **small}).save_pretrained(folder / "vae")
        sizes = {"hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        CLIPTextModel(CLIPTextConfig(**sizes, vocab_size=49408)).save_pretrained(folder / "text_encoder")
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    write_json(folder / "tokenizer" / "vocab.json", {"!": 0, "<|startoftext|>": 49406, "<|endoftext|>": 49407})
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    settings = {"model_max_length": 77, "pad_token": "!", "tokenizer_class": "CLIPTokenizer", **ends}
    write_json(folder / "tokenizer" / "tokenizer_config.json", settings)
    return root


def load(root, **options):
    return DiffusionSat.from_pretrained(root, **{"resolution": 256, "device": "cpu", **options})


def settings(task="classification", **changes):
    values = {"classes": ("water", "forest", "field"), "bands": RECIPES["sentinel2-rgb"], "backbone": "diffusionsat"}
    return SatDiFuserSettings(task, **{**values, "image_size": 64, **changes})


def tiny_decoder(fuser="gw", head="classification", **changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_decoder(DecoderConfig(fuser, head, 3, **{**TINY_DECODER, **changes})).eval()


def features_of(backbone, model, images, text, metadata=None):
    """Encoder, U-Net and taps as an extractor runs them."""
    schedule = backbone.denoiser.schedule
    viewer = Viewer(backbone.denoiser, tapped(backbone.unet, "satdifuser"), backbone.condition(text, metadata))
    with torch.no_grad():
        latents = backbone.latents.encode(model.preprocess(images))
        taken = model.mode(schedule)(viewer, latents, Noise.per_item(range(len(images))).like(latents))
    return model.by_save_step(taken, schedule)


# ---- DiffusionSat -----------------------------------------------------------------------------------------------


def test_published_folder_from_image_to_probabilities(tiny_root):
    backbone = load(tiny_root)
    assert backbone.denoiser.prediction_type == "v"
    text = prompt_state(backbone.folder, "A satellite image", padding="max_length")
    assert text.shape == (1, 77, 12)
    images = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    for mode in ("levels", "inversion", "official"):
        model = SatDiFuserModel(tiny_decoder(), settings(mode=mode))
        features = features_of(backbone, model, images, text)
        assert [tuple(scale.shape[1:]) for scale in features[40]] == [(48, 6, 8), (96, 3, 4), (96, 2, 2), (48, 1, 1)]
        for task in ("classification", "multi-label", "segmentation"):
            model = SatDiFuserModel(tiny_decoder(head=settings(task).head), settings(task, mode=mode))
            probabilities = model.probabilities(features, (40, 56))
            assert probabilities.shape == ((2, 3, 40, 56) if task == "segmentation" else (2, 3))
            assert bool(((probabilities > 0) & (probabilities < 1)).all())
            if task != "multi-label":
                torch.testing.assert_close(probabilities.sum(1), torch.ones_like(probabilities[:, 0]))


def test_metadata_reaches_the_features(tiny_root):
    known = Metadata(longitude=14.5, latitude=46.0, gsd=10.0, year=2019, month=7)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = SatDiFuserModel(tiny_decoder(), settings())
    told = load(tiny_root)
    text = prompt_state(told.folder, padding="max_length")
    one = features_of(told, model, images, text, known)[47][0]
    torch.testing.assert_close(features_of(told, model, images, text, [known, None])[47][0][0], one[0])
    unknown = features_of(told, model, images, text)[47][0]
    torch.testing.assert_close(features_of(told, model, images, text, [known, None])[47][0][1], unknown[1])
    bare = load(tiny_root, use_metadata=False)
    silent = features_of(bare, model, images, text)[47][0]
    for a, b in ((one, unknown), (unknown, silent), (one, silent)):
        assert not torch.allclose(a, b, atol=1e-4)
    with pytest.raises(InputError, match="use_metadata=True"):
        bare.condition(text, known)


def test_root_and_folder_and_own_layout(tiny_root, tmp_path):
    import shutil

    assert load(tiny_root / "resolution256").folder == load(tiny_root).folder
    own = shutil.copytree(tiny_root / "resolution256", tmp_path / "own")
    (own / UNET).rename(own / "unet")
    (own / "checkpoint-150000").rmdir()
    assert load(own).unet.config.use_metadata
    shutil.copytree(own / "unet", own / "unet_ema")
    assert load(own, ema=True).unet.config.num_metadata == 7


def test_wrong_folders_are_one_line(tiny_root, tmp_path):
    import shutil

    copy = shutil.copytree(tiny_root / "resolution256", tmp_path / "copy")
    for source, options, words in (
        (tmp_path, {}, ["13756199", "resolution256"]),
        (tmp_path, {"resolution": 512}, ["13751498"]),
        (tmp_path / "nothing", {}, ["nothing", "13756199"]),
        (tiny_root, {"resolution": 768}, ["512 and 256"]),
        (copy, {"ema": True}, ["unet_ema", "is missing"]),
        (copy, {"device": "gpu"}, ["device 'gpu'"]),
    ):
        refused(source, words, **options)
    weights = load_file(copy / UNET / WEIGHTS)
    save_file({k: v for k, v in weights.items() if "metadata_embedding.0" not in k}, copy / UNET / WEIGHTS)
    refused(copy, ["metadata_embedding.0", "missing keys"])
    os.truncate(copy / UNET / WEIGHTS, 500)
    refused(copy, [UNET])
    write_json(copy / "scheduler" / "scheduler_config.json", {**SCHEDULER, "prediction_type": "flow"})
    refused(copy, ["prediction_type 'flow'"])


def refused(source, words, **options):
    with pytest.raises(InputError) as caught:
        load(source, **options)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


# ---- SatDiFuser's checkpoints -----------------------------------------------------------------------------------


@pytest.fixture
def omegaconf(monkeypatch):
    """Classes that pickle as OmegaConf's do: a container holds nodes under _content, a node its value under _val."""
    package = types.ModuleType("omegaconf")
    for module, names in (("dictconfig", ["DictConfig"]), ("listconfig", ["ListConfig"]), ("nodes", ["AnyNode"])):
        part = types.ModuleType(f"omegaconf.{module}")
        for name in names:
            setattr(part, name, type(name, (), {"__module__": part.__name__}))
        monkeypatch.setitem(sys.modules, part.__name__, part)
        setattr(package, module, part)
    monkeypatch.setitem(sys.modules, "omegaconf", package)

    def wrap(value):
        if isinstance(value, dict):
            node = package.dictconfig.DictConfig()
            node._content = {key: wrap(part) for key, part in value.items()}
        elif isinstance(value, list):
            node = package.listconfig.ListConfig()
            node._content = [wrap(part) for part in value]
        else:
            node = package.nodes.AnyNode()
            node._val = value
        node._parent = None
        return node

    return wrap


def official_content(decoder, config=None):
    optimizer = torch.optim.Adam(decoder.parameters())
    return {
        "epoch": 7,
        "global_step": 1234,
        "config": config,
        "decoder_net": decoder.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "lr_scheduler": {"last_epoch": 7},
    }


ALL = [(fuser, head) for fuser in ("gw", "lw", "moe") for head in ("classification", "segmentation")]


@pytest.mark.parametrize(("fuser", "head"), ALL)
def test_official_checkpoint(tmp_path, omegaconf, fuser, head):
    decoder = tiny_decoder(fuser, head, **({"first_tap_only": True} if fuser == "lw" else {}))
    config = omegaconf({"decoder": {"save_timesteps": [47, 45, 40], "num_norm_groups": 2, "top_k": 2}, "lr": 0.01})
    torch.save(official_content(decoder, config), tmp_path / "best.pth")
    found = read_checkpoint(tmp_path / "best.pth")
    assert (found.epoch, found.global_step) == (7, 1234)
    assert found.config["decoder"]["save_timesteps"] == [47, 45, 40]
    assert found.config["lr"] == 0.01
    assert set(found.stubbed) == {
        "omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.nodes.AnyNode",
    }  # fmt: skip
    again = load_official_decoder(tmp_path / "best.pth", taps=TINY_TAPS)
    assert (again.config.fuser, again.config.head) == (fuser, head)
    if fuser == "moe":
        decoder.end_warmup()
    features = {s: [torch.randn(2, sum(t), 4, 4) for t in TINY_TAPS] for s in (47, 45, 40)}
    with torch.no_grad():
        assert torch.equal(again(features), decoder(features))


def test_checkpoint_without_foreign_classes_needs_no_shells(tmp_path):
    content = official_content(tiny_decoder(), {"save_timesteps": [47, 45, 40]})
    content["decoder_net"] = {f"module.{key}": value for key, value in content["decoder_net"].items()}
    torch.save(content, tmp_path / "plain.pth")
    assert read_checkpoint(tmp_path / "plain.pth").stubbed == ()
    assert load_official_decoder(tmp_path / "plain.pth", taps=TINY_TAPS, norm_groups=2).config.projection_dim == 16


class Hostile:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_nothing_in_a_checkpoint_runs(tmp_path, capfd):
    for function, argument in ((os.system, f"touch {tmp_path}/ran"), (eval, "1 + 1"), (pickle.loads, b"")):
        torch.save(official_content(tiny_decoder(), Hostile(function, argument)), tmp_path / "bad.pth")
        if function is pickle.loads:  # unknown, hence a shell
            assert any(name.endswith("pickle.loads") for name in read_checkpoint(tmp_path / "bad.pth").stubbed)
            continue
        with pytest.raises(InputError, match="no checkpoint needs") as caught:
            read_checkpoint(tmp_path / "bad.pth")
        assert "bad.pth" in str(caught.value)
    assert not (tmp_path / "ran").exists()
    weights = {"decoder_net": Hostile(print, "ran")}
    torch.save(weights, tmp_path / "bad.pth")
    with pytest.raises(InputError, match="decoder_net"):
        read_checkpoint(tmp_path / "bad.pth")
    assert "ran" not in capfd.readouterr().out


def test_a_checkpoint_changes_no_function_of_torch(tmp_path):
    rebuild = torch._utils._rebuild_tensor_v2
    before = rebuild.__doc__, rebuild.__defaults__
    torch.save({"decoder_net": {"weight": torch.zeros(1)}}, tmp_path / "good.pth")
    # GLOBAL unknown class (so that torch's own reader declines), GLOBAL function, BUILD with attributes
    content = b"\x80\x02}(U\x01acfoo\nBar\nU\x01bctorch._utils\n_rebuild_tensor_v2\nN}U\x07__doc__U\x07changeds\x86bu."
    with zipfile.ZipFile(tmp_path / "good.pth") as good, zipfile.ZipFile(tmp_path / "bad.pth", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, content if name.endswith("data.pkl") else good.read(name))
    with pytest.raises(InputError, match="decoder_net"):
        read_checkpoint(tmp_path / "bad.pth")
    assert (rebuild.__doc__, rebuild.__defaults__) == before


def test_damaged_checkpoints(tmp_path):
    path = tmp_path / "best.pth"

    def fails(word, **options):
        with pytest.raises(InputError, match=word) as caught:
            load_official_decoder(path, **options)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    fails("no such file")
    path.write_bytes(b"")
    fails("cannot|can be read|not a checkpoint")
    torch.save(official_content(tiny_decoder()), path)
    fails("do not fit", norm_groups=2)  # full-size taps
    fails("norm groups", taps=TINY_TAPS)  # 32 of 16 channels
    fails("do not fit", taps=TINY_TAPS, norm_groups=2, save_steps=(47, 45))
    os.truncate(path, path.stat().st_size // 2)
    fails("can be read")
    torch.save([1], path)
    fails("decoder_net")
    torch.save({"decoder_net": {"weight": torch.zeros(1)}}, path)
    fails("no SatDiFuser decoder")


# ---- our own folder ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fuser", "head"), ALL)
def test_model_folder(tmp_path, fuser, head):
    decoder = tiny_decoder(fuser, head, warmup_steps=5)
    if fuser == "moe":
        decoder.updates_done.fill_(3)
    prompt = torch.randn(1, 77, 12)
    model = SatDiFuserModel(decoder, settings(head, mode="inversion", no_data=2), prompt=prompt)
    model.save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "half", half=True)
    again = SatDiFuserModel.from_pretrained(tmp_path / "model")
    assert again.settings == model.settings
    assert again.decoder.config == decoder.config
    torch.testing.assert_close(again.prompt, prompt, atol=0, rtol=0)
    features = {s: [torch.randn(2, sum(t), 4, 4) for t in TINY_TAPS] for s in (47, 45, 40)}
    expected = model.probabilities(features)
    assert torch.equal(again.probabilities(features), expected)
    half = SatDiFuserModel.from_pretrained(tmp_path / "half")
    torch.testing.assert_close(half.probabilities(features), expected, atol=5e-3, rtol=0)
    sizes = [(tmp_path / name / "decoder.safetensors").stat().st_size for name in ("model", "half")]
    assert sizes[1] < 0.75 * sizes[0]
    with pytest.raises(InputError, match="would be overwritten"):
        model.save_pretrained(tmp_path / "model")


def test_a_save_that_was_cut_short_is_no_model_and_can_be_repeated(tmp_path, monkeypatch):
    model = SatDiFuserModel(tiny_decoder(), settings())

    def full(*_):
        raise OSError("full")

    with monkeypatch.context() as patch:
        patch.setattr("priorscope_remote_sensing.satdifuser.save_file", full)
        with pytest.raises(OSError, match="full"):
            model.save_pretrained(tmp_path / "model")
    with pytest.raises(InputError):
        SatDiFuserModel.from_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    SatDiFuserModel.from_pretrained(tmp_path / "model")


def test_the_count_of_updates_is_a_number(tmp_path):
    SatDiFuserModel(tiny_decoder("moe"), settings()).save_pretrained(tmp_path)
    whole = json.loads((tmp_path / "priorscope.json").read_text())
    for wrong in ("x", None, 1.5):
        (tmp_path / "priorscope.json").write_text(json.dumps({**whole, "updates_done": wrong}))
        with pytest.raises(InputError, match="updates_done"):
            SatDiFuserModel.from_pretrained(tmp_path)


def test_damaged_model_folder(tmp_path):
    SatDiFuserModel(tiny_decoder(), settings()).save_pretrained(tmp_path)
    whole = json.loads((tmp_path / "priorscope.json").read_text())
    for change, word in (
        ({"model": "depth"}, "no SatDiFuser"),
        ({"settings": None}, "no settings"),
        ({"settings": {**whole["settings"], "colour": 1}}, "colour"),
        ({"settings": {**whole["settings"], "bands": 3}}, "TypeError"),
        ({"settings": {**whole["settings"], "classes": ["a"]}}, "does not serve"),
        ({"settings": {**whole["settings"], "classes": ["a", "a", "b"]}}, "repeat"),
        ({"settings": {**whole["settings"], "classes": "abc"}}, "lists of names"),
        ({"settings": {**whole["settings"], "mean": None}}, "TypeError"),
        ({"settings": {**whole["settings"], "mode": "guess"}}, "mode"),
        ({"decoder": {**whole["decoder"], "fuser": "lw"}}, "do not fit"),
        ({"decoder": {**whole["decoder"], "projection_dim": "wide"}}, "projection_dim|decoder"),
    ):
        write_json(tmp_path / "priorscope.json", {**whole, **change})
        with pytest.raises(InputError, match=word) as caught:
            SatDiFuserModel.from_pretrained(tmp_path)
        assert str(tmp_path) in str(caught.value)
    write_json(tmp_path / "priorscope.json", whole)
    os.truncate(tmp_path / "decoder.safetensors", 100)
    with pytest.raises(InputError, match=r"decoder.safetensors: cannot be read"):
        SatDiFuserModel.from_pretrained(tmp_path)
    (tmp_path / "decoder.safetensors").unlink()
    with pytest.raises(InputError, match="is missing"):
        SatDiFuserModel.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="is missing"):
        SatDiFuserModel.from_pretrained(tmp_path / "nothing")


def test_preprocessing():
    model = SatDiFuserModel(tiny_decoder(), settings())
    for size, expected in (((64, 64), (64, 64)), ((13, 13), (64, 64)), ((30, 70), (24, 64)), ((500, 3), (64, 8))):
        out = model.preprocess(torch.ones(1, 3, *size))
        assert tuple(out.shape[-2:]) == expected
        torch.testing.assert_close(out, torch.ones_like(out))
    torch.testing.assert_close(model.preprocess(torch.zeros(1, 3, 64, 64)), -torch.ones(1, 3, 64, 64))
    for images, word in (
        (torch.rand(1, 12, 64, 64), "B04, B03, B02"),
        (torch.rand(3, 64, 64), r"expected \(B, 3, H, W\)"),
        (torch.rand(1, 3, 0, 64), "expected"),
        (torch.full((1, 3, 8, 8), torch.nan), "NaN"),
    ):
        with pytest.raises(InputError, match=word):
            model.preprocess(images)


@pytest.mark.parametrize("mode", ["levels", "inversion", "official"])
def test_extractor_of_a_model(tiny_root, tmp_path, mode):
    """Five lines from images to probabilities; with the cache and without, one image at a time or all."""
    backbone = load(tiny_root)
    model = SatDiFuserModel(tiny_decoder(), settings(mode=mode))
    extractor = model.extractor(backbone, metadata=Metadata(gsd=10.0), cache=tmp_path / "cache")
    assert model.prompt.shape == (1, 77, 12)
    assert extractor.posterior == ("sample" if mode == "official" else "mode")
    images = torch.rand(2, 3, 21, 40, generator=torch.Generator().manual_seed(0))
    whole = model.features(extractor, images)
    expected = model.probabilities(whole)
    assert torch.equal(model.probabilities(model.features(extractor, images)), expected)  # from the cache
    plain = model.extractor(backbone, metadata=Metadata(gsd=10.0))
    alone = torch.cat([model.probabilities(model.features(plain, image[None])) for image in images])
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=0)
    if mode == "inversion":
        direct = features_of(backbone, model, images, model.prompt, Metadata(gsd=10.0))
        for a, b in zip(whole[40], direct[40], strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_model_of_many_bands():
    """A prior of ours on all Sentinel-2 bands: pixels for latents, no autoencoder, not three channels."""
    from priorscope.backbones.latents import PatchSpace
    from priorscope.diffusion.denoiser import Denoiser
    from priorscope.diffusion.schedule import VPSchedule
    from priorscope_remote_sensing.backbone import SatNetwork

    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = SatUNet(**{**TINY_UNET, "in_channels": 13 * 4, "out_channels": 13 * 4}).eval()
    denoiser = Denoiser(SatNetwork(unet), VPSchedule.from_betas(), "v")
    backbone = DiffusionSat(denoiser, PatchSpace(2, 13), None, torch.device("cpu"))
    chosen = settings(bands=RECIPES["sentinel2"], image_size=32, mean=0.2, std=0.3)
    model = SatDiFuserModel(tiny_decoder(), chosen, prompt=torch.zeros(1, 2, 12))
    extractor = model.extractor(backbone)
    images = 1.5 * torch.rand(3, 13, 20, 20, generator=torch.Generator().manual_seed(0))
    expected = model.probabilities(model.features(extractor, images))
    assert expected.shape == (3, 3)
    last = model.probabilities(model.features(extractor, images[2:]))
    torch.testing.assert_close(last, expected[2:], atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="B01, B02"):
        model.features(extractor, images[:, :3])


def test_images_beyond_the_range_of_three_bands(tiny_root):
    model = SatDiFuserModel(tiny_decoder(), settings())
    extractor = model.extractor(load(tiny_root))
    with pytest.raises(InputError, match=r"outside \[0, 1\]"):
        model.features(extractor, 255 * torch.rand(1, 3, 64, 64))


def test_features_that_cannot_be_used(tiny_root):
    backbone = load(tiny_root)
    text = torch.zeros(1, 77, 12)
    model = SatDiFuserModel(tiny_decoder(), settings(image_size=32))
    with pytest.raises(InputError, match="3 different sizes, but the decoder takes 4"):
        features_of(backbone, model, torch.rand(1, 3, 32, 32), text)
    features = {s: [torch.randn(2, sum(t), 4, 4) for t in TINY_TAPS] for s in (47, 45, 40)}
    features[45][1][0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        model.probabilities(features)


def test_levels_of_the_published_save_steps(tiny_root):
    schedule = load(tiny_root).denoiser.schedule
    assert save_step_levels((47, 45, 40), schedule) == [21, 61, 161]
    with pytest.raises(InputError, match="no level"):
        save_step_levels((49,), schedule)
    with pytest.raises(InputError, match=r"no features at \[161"):
        SatDiFuserModel(tiny_decoder(), settings()).by_save_step({21: {}, 61: {}}, schedule)


# ---- full width -------------------------------------------------------------------------------------------------


def hashed(shapes, dtype):
    """Random weights that depend on the key only: matrices of unit gain, norms 1, the rest 0."""
    block = np.random.Generator(np.random.Philox(0)).standard_normal(1 << 22, dtype=np.float32)
    import zlib

    for key, shape in shapes.items():
        count = math.prod(shape)
        if key.endswith("num_batches_tracked"):
            yield key, torch.zeros(shape, dtype=torch.int64)
        elif len(shape) < 2:
            one = key.endswith(("norm.weight", "running_var", "temperature")) or re.search(r"norm\d?\.weight$", key)
            one = one or (key.endswith(".weight") and len(shape) == 1)
            yield key, torch.full(shape, float(bool(one)), dtype=dtype)
        else:
            begin = zlib.crc32(key.encode()) % len(block)
            values = np.resize(np.roll(block, -begin)[: min(count, len(block))], count).reshape(shape)
            yield key, torch.from_numpy(values / math.sqrt(math.prod(shape[1:]))).to(dtype)


def manifest(golden_files, name):
    rows = [line.split("\t") for line in golden_files("features", name)[0].read_text().splitlines()[1:]]
    return {key: [int(side) for side in shape.split("x") if side] for key, shape, _ in rows}


COMMAND = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("containers", sys.argv[1])
module = module_from_spec(spec)
spec.loader.exec_module(module)
module.run_full_size(sys.argv[2], sys.argv[3:])
"""


def run_full_size(root, checkpoints):
    """Image to prediction with full-size networks; prints shapes and peak memory. In a process of its own."""
    torch.set_num_threads(1)
    backbone = DiffusionSat.from_pretrained(root, resolution=256, device="cpu", precision="bfloat16")
    text = torch.zeros(1, 77, 1024)
    images = torch.rand(1, 3, 64, 72, generator=torch.Generator().manual_seed(0))
    features = None
    for path in checkpoints:
        decoder = load_official_decoder(path)
        task = decoder.config.head
        classes = tuple(f"class {index}" for index in range(decoder.config.num_classes))
        model = SatDiFuserModel(decoder, settings(task, classes=classes))
        if features is None:
            features = features_of(backbone, model, images, text, Metadata(longitude=10, latitude=50))
            print("features", [tuple(scale.shape) for scale in features[47]])
        out = model.probabilities(features, (64, 72))
        print("out", decoder.config.fuser, task, tuple(out.shape), float(out.std()) > 0, bool(out.isfinite().all()))
        del decoder, model
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


@pytest.mark.slow
def test_full_size_container(golden_files, read_manifest, tmp_path, omegaconf):
    """DiffusionSat at 880 million parameters and the six decoders, float16 files, from image to prediction."""
    root = tmp_path / "diffusionsat"
    folder = root / "resolution256"
    write_pipeline_files(folder)
    unet = dict(hashed(manifest(golden_files, "manifest-diffusionsat-satunet.tsv"), torch.float16))
    (folder / UNET).mkdir(parents=True)
    save_file(unet, folder / UNET / WEIGHTS, {"format": "pt"})
    write_json(
        folder / UNET / "config.json", {"_class_name": "SatUNet", **SD2_UNET, "use_metadata": True, "num_metadata": 7}
    )
    del unet
    vae = dict(hashed(read_manifest(golden_files("depth", "manifest-sd-vae.tsv")[0]), torch.float16))
    (folder / "vae").mkdir()
    save_file(vae, folder / "vae" / WEIGHTS, {"format": "pt"})
    write_json(folder / "vae" / "config.json", {"_class_name": "AutoencoderKL", **SD_VAE})
    del vae
    config = omegaconf({"decoder": {"save_timesteps": [47, 45, 40], "num_norm_groups": 32, "top_k": 2}})
    paths = []
    for name in ("gw_cls", "gw_seg", "lw_cls", "lw_seg", "moe_cls", "moe_seg"):
        weights = dict(hashed(manifest(golden_files, f"manifest-satdifuser-{name}.tsv"), torch.float16))
        paths.append(tmp_path / f"{name}.pth")
        torch.save({"epoch": 40, "global_step": 1, "config": config, "decoder_net": weights}, paths[-1])
        del weights
    words = [__file__, str(root), *map(str, paths)]
    done = subprocess.run([sys.executable, "-c", COMMAND, *words], capture_output=True, text=True, check=False)
    for path in [*tmp_path.rglob("*.safetensors"), *paths]:
        path.unlink()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    print(done.stdout)
    expected = "[(1, 1920, 7, 8), (1, 3840, 4, 4), (1, 7680, 2, 2), (1, 3840, 1, 1)]"
    assert lines[0] == f"features {expected}"
    assert len([line for line in lines if line.startswith("out") and line.endswith("True True")]) == 6
    assert int(lines[-1].split()[1]) < 7e9
