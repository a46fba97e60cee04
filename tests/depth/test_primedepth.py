"""PrimeDepth as a predictor: sizes, noise, captions, commands, and what a wrong checkpoint or caption says."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from priorscope.backbones.ldm_names import clip_text_name, unet_names, vae_name
from priorscope.cli import main
from priorscope.errors import InputError
from priorscope_depth.families import MODELS
from priorscope_depth.primedepth.architecture import Architecture
from priorscope_depth.primedepth.captions import Captions, TextStates
from priorscope_depth.primedepth.checkpoint import BUFFERS, read_networks, read_text_encoder, vae_config
from priorscope_depth.primedepth.labeller import Labeller, labeller_name
from priorscope_depth.primedepth.model import PrimeDepthModel
from priorscope_depth.primedepth.predictor import PrimeDepthPredictor, official_geometry
from priorscope_depth.primedepth.source import SIZES, find_checkpoint, is_primedepth

PHOTO = np.random.default_rng(0).integers(0, 256, (72, 100, 3), dtype=np.uint8)
TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS = 16, 2, 2
SIZES_SMALL = Architecture(
    unet={
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "attention_head_dim": (2, 4),
        "cross_attention_dim": TEXT_WIDTH,
        "use_linear_projection": True,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
    vae={
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": (32, 32, 32, 32),
        "layers_per_block": 1,
        "scaling_factor": 0.18215,
    },
    text={
        "vocab_size": 49408,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": TEXT_HEADS,
        "max_position_embeddings": 77,
        "hidden_act": "gelu",
    },
    refined=24,
    head={"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1},
)


def published_state(sizes):
    """A state dict as published, with random weights; the segmentation head and the schedule's buffers too."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet, vae = UNet2DConditionModel(**sizes.unet), AutoencoderKL(**vae_config(sizes))
        labeller, text = Labeller(sizes), CLIPTextModel(CLIPTextConfig(**sizes.text))
    names = unet_names(unet.state_dict(), sizes.unet["layers_per_block"])
    state = {name: torch.zeros(1000) for name in sorted(BUFFERS)}
    state |= {f"model.diffusion_model.{names[key]}": value for key, value in unet.state_dict().items()}
    state |= {f"first_stage_model.{vae_name(key)}": value for key, value in vae.state_dict().items()}
    for key, value in labeller.state_dict().items():
        state[f"labeller.{labeller_name(key)}"] = value
        if key.startswith("depth_predictor."):
            state[f"labeller.{labeller_name(key).replace('depth_predictor', 'label_predictor')}"] = value.clone()
    for key, value in list(state.items()):
        if ".attn_1." in key and value.ndim == 2:
            state[key] = value[:, :, None, None]
    tower = {f"cond_stage_model.model.{clip_text_name(key)}": value for key, value in text.state_dict().items()}
    for layer in range(sizes.text["num_hidden_layers"]):
        stem = f"cond_stage_model.model.transformer.resblocks.{layer}"
        for leaf in ("weight", "bias"):
            parts = [tower.pop(f"{stem}.self_attn.{name}_proj.{leaf}") for name in "qkv"]
            tower[f"{stem}.attn.in_proj_{leaf}"] = torch.cat(parts)
    tower["cond_stage_model.model.text_projection"] = torch.zeros(TEXT_WIDTH, TEXT_WIDTH)
    tower["cond_stage_model.model.logit_scale"] = torch.zeros(())
    return {key: value.detach().clone() for key, value in (state | tower).items()}


@pytest.fixture(scope="module")
def state():
    return published_state(SIZES_SMALL)


@pytest.fixture(scope="module")
def checkpoint(state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("primedepth")
    torch.save({"state_dict": state, "epoch": 3, "pytorch-lightning_version": "1.8.5"}, folder / "tiny.ckpt")
    SIZES_SMALL.save(folder / SIZES)
    return folder / "tiny.ckpt"


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return PrimeDepthPredictor.load(checkpoint, device="cpu")


@pytest.fixture
def broken(state, tmp_path):
    """``broken(change)``: a checkpoint whose state dict was changed."""

    def write(change, name="broken.ckpt"):
        changed = dict(state)
        change(changed)
        SIZES_SMALL.save(tmp_path / SIZES)
        torch.save({"state_dict": changed}, tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("size", [(72, 100), (64, 64), (37, 201), (9, 8), (1, 1)])
def test_result_has_the_pictures_size(predictor, size):
    result = predictor(
        PHOTO[: size[0], : size[1]] if size[1] <= 100 else np.tile(PHOTO, (1, 3, 1))[: size[0], : size[1]]
    )
    assert result.values.shape == size
    assert (result.space, result.scale, result.model) == ("disparity", "affine-invariant", "tiny")
    assert result.notes == {"caption": "empty"}
    assert result.values.min() == 0
    if min(size) > 8:
        assert result.values.max() == 1


def test_noise_follows_from_seed_and_name_alone(predictor):
    pair = predictor([PHOTO, PHOTO[::-1]], items=["a", "b"], batch_size=2, seed=1)
    alone = predictor(PHOTO[::-1], items=["b"], seed=1)
    np.testing.assert_allclose(pair[1].values, alone.values, atol=2e-5)
    other = predictor(PHOTO, items=["a"], seed=2)
    assert np.abs(other.values - pair[0].values).max() > 1e-4
    ensemble = predictor(PHOTO, items=["a"], ensemble=3)
    assert ensemble.uncertainty.max() > 0


def test_deterministic(checkpoint):
    predictor = PrimeDepthPredictor.load(checkpoint, device="cpu", deterministic=True)
    first, second = (predictor(PHOTO, items=[name], seed=seed).values for name, seed in (("a", 0), ("b", 1)))
    np.testing.assert_array_equal(first, second)
    with pytest.raises(InputError, match="does not depend on noise"):
        predictor(PHOTO, ensemble=2)


def test_official_geometry_and_tiles(checkpoint, predictor):
    official = PrimeDepthPredictor.load(checkpoint, device="cpu", geometry=official_geometry())
    # where both sides divide by 64, nothing is padded and the two are one
    square = PHOTO[:64, :64]
    np.testing.assert_allclose(official(square).values, predictor(square).values, atol=1e-6)
    assert official(PHOTO[:71, :93]).values.shape == (71, 93)
    with pytest.raises(InputError, match="smaller than one latent pixel"):
        official(PHOTO[:7, :9])
    tiled = predictor(PHOTO, tile=64)
    assert tiled.values.shape == (72, 100)
    assert (tiled.values.min(), tiled.values.max()) == (0, 1)


def test_compiled_depth_head(checkpoint, monkeypatch):
    """Only where it does not stream, as on a GPU; with a backend that runs what was traced, and with one that fails."""
    from torch._dynamo.utils import counters

    def none(graph, inputs):
        raise ValueError("no working C++ compiler")

    compile_module = torch.nn.Module.compile
    found = []
    for backend in (None, "eager", none):
        networks = read_networks(checkpoint, SIZES_SMALL)
        model = PrimeDepthModel(
            networks.unet, networks.latents, networks.labeller, torch.zeros(1, 77, TEXT_WIDTH), noisy=False
        )
        if backend is not None:
            monkeypatch.setattr(
                torch.nn.Module, "compile", lambda module, backend=backend: compile_module(module, backend=backend)
            )
            model.compile()
        if backend is none:
            with pytest.raises(InputError, match=r"cannot be compiled here .*no working C\+\+ compiler"):
                model(torch.zeros(1, 3, 64, 64))
            continue
        before = counters["stats"]["unique_graphs"]
        found.append(model(torch.zeros(1, 3, 64, 64)))
        assert (counters["stats"]["unique_graphs"] > before) == (backend is not None)
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)


def test_safetensors_is_the_same(checkpoint, state, predictor, tmp_path):
    save_file(state, tmp_path / "tiny.safetensors")
    SIZES_SMALL.save(tmp_path / SIZES)
    converted = PrimeDepthPredictor.load(tmp_path, device="cpu")
    for part in (lambda model: model.unet, lambda model: model.latents.vae, lambda model: model.labeller):
        expected, found = (part(of.model).state_dict() for of in (predictor, converted))
        assert found.keys() == expected.keys()
        assert len(found) > 10
        for key, value in expected.items():
            assert torch.equal(found[key], value), key
    # equal weights at other places of memory: how a processor adds them up may depend on their alignment
    np.testing.assert_allclose(converted(PHOTO).values, predictor(PHOTO).values, atol=1e-5)


def test_segmentation_head_is_dropped_and_said(predictor, broken):
    assert predictor.remarks == ("the file's head for segmentation is not loaded",)

    def without(state):
        for key in [key for key in state if "label_predictor" in key]:
            del state[key]

    assert PrimeDepthPredictor.load(broken(without), device="cpu").remarks == ()


UNET_KEY = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop(UNET_KEY), ["1 missing keys", "input_blocks.1.0.in_layers.2.weight"]),
        (lambda state: state.pop("labeller.convs_merge.0.bias"), ["1 missing keys", "convs_merge.0.bias"]),
        (lambda state: state.update({"labeller.extra.weight": torch.zeros(1)}), ["1 unexpected", "extra.weight"]),
        (lambda state: state.update({"labeller.normal_predictor.w": torch.zeros(1)}), ["unexpected", "normal_predict"]),
        (lambda state: state.update({"model_ema.decay": torch.zeros(1)}), ["no known part", "model_ema.decay"]),
        (lambda state: state.update({UNET_KEY: torch.zeros(3, 3)}), ["wrongly shaped", "(3, 3)"]),
        (lambda state: state.update({UNET_KEY: state[UNET_KEY] * torch.nan}), ["not finite"]),
        (
            lambda state: [state.pop(key) for key in list(state) if key.startswith("labeller.")],
            ["has no keys labeller."],
        ),
        (
            lambda state: [state.pop(key) for key in list(state) if key.startswith("cond_stage")],
            ["has no keys cond_stage_model.model."],
        ),
    ],
)
def test_wrong_keys_are_one_line(broken, monkeypatch, tmp_path, change, words):
    monkeypatch.setenv("PRIORSCOPE_CACHE", str(tmp_path / "cache"))
    path = broken(change)
    with pytest.raises(InputError) as caught:
        PrimeDepthPredictor.load(path, device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in [str(path), *words]), message


class Code:
    def __reduce__(self):
        return print, ("this ran",)


def test_wrong_files_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))

    def refused(source, *words):
        with pytest.raises(InputError) as caught:
            PrimeDepthPredictor.load(source, device="cpu")
        message = str(caught.value)
        assert "\n" not in message
        assert all(word in message for word in words), message

    path = tmp_path / "model.ckpt"
    refused(path, "no such checkpoint file")
    path.write_bytes(b"no checkpoint")
    refused(path, "model.ckpt")
    torch.save({"state_dict": {"key": torch.zeros(3000)}}, path)
    path.write_bytes(path.read_bytes()[:2000])
    refused(path, "cannot be read")
    torch.save({"state_dict": Code()}, path)
    refused(path, "its pickle asks for", "pickles can run code")
    assert "this ran" not in capsys.readouterr().out
    for content in ([1], {"weights": {}}, {"state_dict": {"key": 1}}):
        torch.save(content, path)
        refused(path, "state_dict")
    shutil.copy(path, tmp_path / "other.ckpt")
    refused(tmp_path, "2 checkpoint files", "model.ckpt")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "0 checkpoint files")
    refused("primedepth", "CVL-Heidelberg/PrimeDepth", "hf download")


def test_what_lightning_keeps_beside_the_weights(checkpoint, state, tmp_path, monkeypatch):
    """Settings and states of callbacks are objects of Lightning's and OmegaConf's classes; none of them is loaded."""
    import sys
    from argparse import Namespace
    from types import ModuleType

    class AttributeDict(dict):
        __module__ = "pytorch_lightning.utilities.parsing"

    class DictConfig:
        __module__ = "omegaconf.dictconfig"

        def __init__(self):
            self._content = {"lr": 1e-4}

    with monkeypatch.context() as patched:
        for made in (AttributeDict, DictConfig):
            made.__qualname__ = made.__name__
            module = ModuleType(made.__module__)
            setattr(module, made.__name__, made)
            for name in (made.__module__.split(".")[0], made.__module__):
                patched.setitem(sys.modules, name, module)
        content = {
            "state_dict": state,
            "hyper_parameters": AttributeDict(lr=1e-4, config=DictConfig()),
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.1), "args": Namespace(gpus=1)}},
            "optimizer_states": [{"state": {0: {"step": 1, "exp_avg": torch.zeros(3)}}}],
            "epoch": 3,
        }
        torch.save(content, tmp_path / "lightning.ckpt")
    assert not {"pytorch_lightning", "omegaconf.dictconfig"} & set(sys.modules)
    SIZES_SMALL.save(tmp_path / SIZES)
    found = read_networks(tmp_path / "lightning.ckpt", SIZES_SMALL)
    expected = read_networks(checkpoint, SIZES_SMALL)
    for key, value in expected.labeller.state_dict().items():
        assert torch.equal(found.labeller.state_dict()[key], value), key


def test_sources(checkpoint, tmp_path):
    assert is_primedepth("primedepth")
    assert is_primedepth("CVL-Heidelberg/PrimeDepth")
    assert is_primedepth(checkpoint)
    assert is_primedepth(checkpoint.parent)
    assert find_checkpoint(checkpoint.parent) == checkpoint
    for row in MODELS:
        assert is_primedepth(row.source) == (row.loader == "primedepth")
    (tmp_path / "unet").mkdir()
    (tmp_path / "v2-1.ckpt").touch()
    assert not is_primedepth(tmp_path)  # Stable Diffusion's own folder


# ---- captions ---------------------------------------------------------------------------------------------------


def test_text_tower_is_open_clips(checkpoint, state):
    """The tower from its published weights, written out after open_clip's ``TextTransformer``."""
    weights = {
        key.removeprefix("cond_stage_model.model."): value for key, value in state.items() if "cond_stage" in key
    }
    ids = torch.tensor([[49406, 7, 5, 49407] + [0] * 73])
    x = weights["token_embedding.weight"][ids] + weights["positional_embedding"]
    mask = torch.full((77, 77), -torch.inf).triu(1)

    def norm(x, name):
        return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def linear(x, name):
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    for layer in range(TEXT_LAYERS):
        stem = f"transformer.resblocks.{layer}"
        attention = torch.nn.MultiheadAttention(TEXT_WIDTH, TEXT_HEADS, batch_first=True)
        attention.load_state_dict(
            {key.removeprefix(f"{stem}.attn."): value for key, value in weights.items() if f"{stem}.attn." in key}
        )
        given = norm(x, f"{stem}.ln_1")
        x = x + attention(given, given, given, attn_mask=mask, need_weights=False)[0]
        inner = functional.linear(
            norm(x, f"{stem}.ln_2"), *(weights[f"{stem}.mlp.c_fc.{leaf}"] for leaf in ("weight", "bias"))
        )
        x = x + functional.linear(
            functional.gelu(inner), *(weights[f"{stem}.mlp.c_proj.{leaf}"] for leaf in ("weight", "bias"))
        )
    tower = read_text_encoder(checkpoint, SIZES_SMALL)
    with torch.no_grad():
        torch.testing.assert_close(tower(ids).last_hidden_state, norm(x, "ln_final"), atol=1e-5, rtol=1e-4)


class Words:
    """A tokenizer that knows a word a letter."""

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return type("Tokens", (), {"input_ids": [100 + ord(letter) for letter in text if letter != " "]})


@pytest.fixture
def words(monkeypatch):
    monkeypatch.setattr("priorscope_depth.primedepth.captions.load_tokenizer", lambda folder: Words())


def test_captions_change_the_answer_and_are_told_by_name(checkpoint, predictor, words, tmp_path):
    (tmp_path / "captions.json").write_text(json.dumps({"a.png": "a dog", "other/b.jpg": "a cat"}))
    (tmp_path / "captions.tsv").write_text("a.png\ta dog\n\nb\ta cat\n")
    plain = predictor(PHOTO, items=["a"]).values
    for name in ("captions.json", "captions.tsv"):
        captions = Captions.from_file(tmp_path / name)
        told = PrimeDepthPredictor.load(checkpoint, device="cpu", captions=captions)
        both = told([PHOTO, PHOTO, PHOTO], items=["a", "b", "c"], batch_size=3)
        dog = PrimeDepthPredictor.load(checkpoint, device="cpu", captions=Captions("a dog"))
        np.testing.assert_allclose(dog(PHOTO, items=["a"]).values, both[0].values, atol=2e-5)
        np.testing.assert_allclose(predictor(PHOTO, items=["c"]).values, both[2].values, atol=2e-5)
        assert np.abs(both[0].values - plain).max() > 1e-4
    assert [result.notes["caption"] for result in both] == ["a dog", "a cat", "empty"]


def test_captions_of_names_with_dots():
    """Items come without their suffix: what follows a dot in them is none."""
    captions = Captions("else", {"IMG.2024.jpg": "a dog", "sub/IMG.2025": "a cat", "plain.png": "a bird"})
    rgb = torch.zeros(5, 3, 8, 8)
    items = ["IMG.2024", "IMG.2025", "IMG.2026", "plain", "there/plain.png"]
    assert captions.of(rgb, items) == ["a dog", "a cat", "else", "a bird", "a bird"]


def test_frames_have_their_videos_caption():
    captions = Captions("else", {"clip.mp4": "a street", "clip/2": "a dog"})
    assert captions.of(torch.zeros(4, 3, 8, 8), ["clip", "clip/0", "clip/2", "other/0"]) == [
        "a street",
        "a street",
        "a dog",
        "else",
    ]
    # another picture's is neither that of a frame with its number, nor that of the pictures in a folder of its name
    captions = Captions("else", {"clip.mp4": "a street", "3.png": "a dog", "pets.jpg": "a cat", "b.png": "a bird"})
    items = ["clip/3", "3", "a/3", "pets/0", "pets/photo", "a/b"]
    assert captions.of(torch.zeros(6, 3, 8, 8), items) == ["a street", "a dog", "a dog", "else", "else", "a bird"]


def test_states_are_kept(checkpoint, words, monkeypatch, tmp_path):
    monkeypatch.setenv("PRIORSCOPE_CACHE", str(tmp_path))
    first = TextStates(checkpoint, lambda: read_text_encoder(checkpoint, SIZES_SMALL))
    state = first("a dog")
    assert state.shape == (1, 77, TEXT_WIDTH)
    again = TextStates(checkpoint, lambda: pytest.fail("the tower was loaded again"))
    assert torch.equal(again("a dog "), state)
    assert first.token_ids("a") == [49406, 197, 49407] + [0] * 74
    [kept] = (tmp_path / "prompts").iterdir()
    kept.write_bytes(b"no state")
    with pytest.raises(InputError, match="not a stored prompt state"):
        TextStates(checkpoint, lambda: None)("a dog")


def test_caption_mistakes_are_one_line(checkpoint, words, tmp_path, monkeypatch):
    long = Captions("x" * 76)
    with pytest.raises(InputError, match="76 tokens; the text encoder takes 75"):
        PrimeDepthPredictor.load(checkpoint, device="cpu", captions=long)
    assert len(TextStates(checkpoint, lambda: None).token_ids("x" * 75)) == 77
    for name, content, word in (
        ("a.json", "{", "JSON"),
        ("a.json", "[1]", "JSON object"),
        ("a.txt", "a dog", "no tab"),
        ("a.json", "{}", "holds no caption"),
        ("a.txt", "\n", "holds no caption"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=word):
            Captions.from_file(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        Captions.from_file(tmp_path / "none.json")
    with pytest.raises(InputError, match="is a folder"):
        Captions.from_file(tmp_path)


@pytest.fixture
def blip2(tmp_path):
    """A tiny BLIP-2 folder in the published layout that always says the one word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import Blip2Config, Blip2ForConditionalGeneration, PreTrainedTokenizerFast

    small = {"hidden_size": 16, "num_attention_heads": 2}
    config = Blip2Config(
        vision_config={
            **small,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "image_size": 28,
            "patch_size": 14,
        },
        qformer_config={
            **small,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "encoder_hidden_size": 16,
            "vocab_size": 64,
        },
        text_config={
            **small,
            "model_type": "opt",
            "vocab_size": 64,
            "num_hidden_layers": 1,
            "ffn_dim": 32,
            "word_embed_proj_dim": 16,
            "max_position_embeddings": 64,
        },
        num_query_tokens=4,
        image_token_index=63,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Blip2ForConditionalGeneration(config)
    decoder = network.language_model.model.decoder
    with torch.no_grad():
        decoder.final_layer_norm.weight.zero_()
        decoder.final_layer_norm.bias.fill_(1)
        network.get_output_embeddings().weight[5] = 10
    folder = tmp_path / "blip2"
    network.save_pretrained(folder)
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "dog": 5, "<image>": 63}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends).save_pretrained(folder)
    image = {"image_processor_type": "BlipImageProcessor", "size": {"height": 28, "width": 28}}
    (folder / "preprocessor_config.json").write_text(json.dumps(image | {"processor_class": "Blip2Processor"}))
    (folder / "processor_config.json").write_text(
        json.dumps({"processor_class": "Blip2Processor", "num_query_tokens": 4})
    )
    return folder


def test_blip2_describes_the_pictures(checkpoint, blip2, words, predictor):
    told = PrimeDepthPredictor.load(checkpoint, device="cpu", captions=Captions(model=blip2))
    results = told([PHOTO, PHOTO[::-1]], items=["a", "b"], batch_size=2)
    said = " ".join(["dog"] * 20)
    assert [result.notes["caption"] for result in results] == [said, said]
    by_hand = PrimeDepthPredictor.load(checkpoint, device="cpu", captions=Captions(said))
    np.testing.assert_allclose(by_hand(PHOTO, items=["a"]).values, results[0].values, atol=2e-5)
    assert np.abs(predictor(PHOTO, items=["a"]).values - results[0].values).max() > 1e-4


def test_without_tokenizer_and_without_caption_model(checkpoint, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="need CLIP's tokenizer"):
        PrimeDepthPredictor.load(checkpoint, device="cpu", captions=Captions("no other test's"))
    with pytest.raises(InputError, match="no caption model") as caught:
        PrimeDepthPredictor.load(checkpoint, device="cpu", captions=Captions(model=tmp_path / "blip2"))
    assert "\n" not in str(caught.value)


# ---- commands ---------------------------------------------------------------------------------------------------


def test_predict_and_evaluate_by_command(checkpoint, tmp_path, capsys):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    common = ["--model", str(checkpoint), "--device", "cpu", "--out"]
    assert main(["depth", "predict", str(tmp_path / "photo.png"), *common, str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "head for segmentation is not loaded" in said
    assert "caption: empty" in said
    assert np.load(tmp_path / "out" / "photo_disparity.npy").shape == (72, 100)
    side = json.loads((tmp_path / "out" / "photo_disparity.json").read_text())
    assert (side["space"], side["scale"], side["caption"]) == ("disparity", "affine-invariant", "empty")
    tiled = ["--tile", "64", "--formats", "npy", "--out", str(tmp_path / "tiled")]
    assert main(["depth", "predict", str(tmp_path / "photo.png"), *common[:-1], *tiled]) == 0
    assert json.loads((tmp_path / "tiled" / "photo_disparity.json").read_text())["caption"] == "empty"
    # captions that are all of other pictures: none of them would be told
    (tmp_path / "captions.json").write_text(json.dumps({"foto.png": ""}))
    captioned = ["--caption-file", str(tmp_path / "captions.json"), *common, str(tmp_path / "none")]
    capsys.readouterr()
    for words in (["predict", str(tmp_path / "photo.png")], ["evaluate", "scenes", "--limit", "1"]):
        assert main(["depth", *words, *captioned]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "captions.json: names none of the 1 pictures" in error
        assert "foto.png" in error
        assert not (tmp_path / "none").exists()
    out = tmp_path / "evaluated"
    assert main(["depth", "evaluate", "scenes", "--limit", "2", *common, str(out), "--resolution", "64"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert "disparity" in json.dumps(metrics)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--steps", "4"], "--steps 4"),
        (["--task", "normals"], "disparity space"),
        (["--caption", "blip2", "--caption-file", "a.json"], "one of the two"),
        (["--caption", "blip2", "--caption-model", "/none"], "no caption model"),
        (["--ensemble", "2", "--deterministic"], "does not depend on noise"),
        (["--posterior", "sample", "--deterministic"], "which draws"),
    ],
)
def test_mistakes_by_command(checkpoint, tmp_path, capsys, options, word):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    command = [
        "depth",
        "predict",
        str(tmp_path / "photo.png"),
        "--model",
        str(checkpoint),
        "--out",
        str(tmp_path / "o"),
    ]
    assert main([*command, *options]) != 0
    assert word in capsys.readouterr().err


def test_captions_are_of_no_other_family(tmp_path, capsys):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    assert (
        main(["depth", "predict", str(tmp_path / "photo.png"), "--caption", "a dog", "--out", str(tmp_path / "o")]) == 2
    )
    assert "PrimeDepth's" in capsys.readouterr().err
