"""SDPose models on disk: folders and the single file load to the last key, and a wrong one is one line.

The slow tests do it at full size, with random weights in the published layouts, by the real predictor on one crop.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from priorscope.backbones import SD2_UNET, SD_VAE
from priorscope.backbones.table import find_published
from priorscope.errors import InputError
from priorscope_pose.published import FILES, MODELS
from priorscope_pose.sdpose.checkpoint import load_network, save_network
from priorscope_pose.sdpose.head import HeatmapHead
from priorscope_pose.sdpose.settings import PUBLISHED
from priorscope_pose.sdpose.single_file import TASK_SWITCHER, read_single_file
from priorscope_pose.sdpose.small import new_model

#: The published architecture, a fortieth as wide.
UNET = SD2_UNET | {
    "block_out_channels": (8, 16, 16, 16),
    "attention_head_dim": (1, 2, 2, 2),
    "norm_num_groups": 4,
    "cross_attention_dim": 1024,
}
VAE = SD_VAE | {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4}
CHANNELS = {17: 8, 133: 16}
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
VAE_FILE = "vae/diffusion_pytorch_model.safetensors"
HEAD_FILE = "decoder/decoder.safetensors"


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def write_weights(path, weights):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in weights.items()}, path, {"format": "pt"})


def write_config(path, kind, config):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"_class_name": kind, "_diffusers_version": "0.28.0.dev0", **config}))


@pytest.fixture(scope="module")
def weights():
    """Weights of both small networks and heads, by part."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {
            "unet": UNet2DConditionModel(**UNET, **TASK_SWITCHER).state_dict(),
            "vae": AutoencoderKL(**VAE).state_dict(),
            **{count: HeatmapHead(channels, count).state_dict() for count, channels in CHANNELS.items()},
        }


@pytest.fixture
def folder(tmp_path, weights):
    """``folder(keypoints)``: a published folder without text encoder, whose unet/config.json has no class embedding."""

    def make(keypoints=17):
        root = tmp_path / f"SDPose-{keypoints}"
        write_config(root / "unet/config.json", "UNet2DConditionModel", UNET)
        write_config(root / "vae/config.json", "AutoencoderKL", VAE)
        write_weights(root / UNET_FILE, weights["unet"])
        write_weights(root / VAE_FILE, weights["vae"])
        write_weights(root / HEAD_FILE, weights[keypoints])
        return root

    return make


def refused(source, *words, load=load_network):
    with pytest.raises(InputError) as caught:
        load(source)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(source), *words):
        assert word in message
    return message


@pytest.mark.parametrize("keypoints", [17, 133])
def test_published_folder(folder, weights, keypoints):
    network = load_network(folder(keypoints))
    assert network.settings == PUBLISHED[keypoints]
    for part, state in (("unet", network.unet), ("head", network.head), ("vae", network.latents.vae)):
        expected = weights[keypoints if part == "head" else part]
        assert {
            key: bool(torch.equal(value, expected[key])) for key, value in state.state_dict().items()
        } == dict.fromkeys(expected, True)
    assert not network.training
    assert network(draw(1, 4, 16, 8)).shape == (1, keypoints, 32, 16)


def test_stored_prompt_is_the_published_one(folder, golden_files):
    stored = load_network(folder()).prompt
    published = load_file(golden_files("pose", "sdpose_empty_text_embed.safetensors")[0])["empty_text_embed"]
    assert torch.equal(stored, published)


def test_prompt_of_the_folder_wins(folder):
    root = folder()
    save_file({"state": draw(1, 2, 1024)}, root / "empty_prompt.safetensors")
    assert torch.equal(load_network(root).prompt, draw(1, 2, 1024))


def test_text_encoder_of_the_folder_is_asked(folder, write_random_weights):
    root = folder()
    stored = load_network(root).prompt
    write_tokenizer(root / "tokenizer")
    write_text_encoder(write_random_weights, root / "text_encoder", layers=2)
    prompt = load_network(root).prompt
    assert prompt.shape == stored.shape
    assert (prompt - stored).abs().max() > 0.1
    shutil.rmtree(root / "tokenizer")
    os.utime(root / "text_encoder/model.safetensors", (1, 1))
    refused(root, "tokenizer")


def test_old_names_in_the_autoencoder(folder, weights):
    root = folder()
    write_weights(root / VAE_FILE, {old_attention(key): value for key, value in weights["vae"].items()})
    state = load_network(root).latents.vae.state_dict()
    assert all(torch.equal(value, weights["vae"][key]) for key, value in state.items())


def old_attention(key):
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        key = key.replace(f".{new}.", f".{old}.")
    return key


def without(key):
    return lambda weights: {name: value for name, value in weights.items() if name != key}


DAMAGES = {
    "unet lacks its class embedding": (UNET_FILE, without("class_embedding.linear_1.weight"), "1 missing keys"),
    "unet has more": (UNET_FILE, lambda weights: weights | {"other": torch.ones(1)}, "1 unexpected keys (other)"),
    "vae lacks a key": (VAE_FILE, without("quant_conv.bias"), "quant_conv.bias"),
    "vae has more": (VAE_FILE, lambda weights: weights | {"other": torch.ones(1)}, "other"),
    "head lacks a key": (HEAD_FILE, without("conv_layers.0.bias"), "lacks conv_layers.0.bias"),
    "head has more": (HEAD_FILE, lambda weights: weights | {"deconv_layers.1.bias": torch.ones(8)}, "unexpected"),
    "head of another model": (HEAD_FILE, lambda _: HeatmapHead(16, 17).state_dict(), "has 8 channels"),
    "head of 5 keypoints": (
        HEAD_FILE,
        lambda _: HeatmapHead(8, 5).state_dict(),
        "the published models have 17 and 133",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_wrong_folder_is_one_line(folder, damage):
    root = folder()
    name, change, word = DAMAGES[damage]
    write_weights(root / name, change(load_file(root / name)))
    assert str(root) in refused(root, word)


def test_incomplete_folder(folder):
    root = folder()
    os.truncate(root / HEAD_FILE, 200)
    refused(root, HEAD_FILE, "no safetensors file")
    (root / HEAD_FILE).unlink()
    refused(root, HEAD_FILE, "downloaded completely")


def test_names_that_are_not_here(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for row in MODELS:
        if not row.bundled:
            with pytest.raises(InputError, match=f"hf download {row.source}"):
                load_network(row.name)
    with pytest.raises(InputError, match="Did you mean sdpose-body"):
        load_network("sdpos-body")
    assert {row.source for row in MODELS if row.loader == "sdpose-file"} == set(FILES)
    assert find_published("teemosliang/SDPose-Wholebody", MODELS).name == "sdpose-wholebody"


# ---- our own folders --------------------------------------------------------------------------------------------


def test_saved_model_is_the_same(tmp_path):
    network = new_model("tiny", input_size=(32, 48), tap="up_blocks.1", skeleton="jhmdb", sigma=1.5).eval()
    save_network(network, tmp_path / "model")
    again = load_network(tmp_path / "model")
    assert again.settings == network.settings
    assert torch.equal(again.prompt, network.prompt)
    expected = network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in again.state_dict().items())
    latents = draw(1, 48, 12, 8)
    torch.testing.assert_close(again(latents), network(latents))
    half = load_network(save_network(network, tmp_path / "half", half=True))
    assert half.unet.dtype == torch.float32
    torch.testing.assert_close(half(latents), network(latents), atol=1e-3, rtol=0)
    assert torch.equal(half.head.final_layer.weight, network.head.final_layer.weight)
    with pytest.raises(InputError, match="would be overwritten"):
        save_network(network, tmp_path / "model")
    again.fold()
    with pytest.raises(InputError, match="folded"):
        save_network(again, tmp_path / "folded")
    assert not (tmp_path / "folded").exists()


def test_saved_published_model_is_the_same(folder, tmp_path):
    network = load_network(folder())
    again = load_network(save_network(network, tmp_path / "copy"))
    for first, second in ((network, again), (network.latents.vae, again.latents.vae)):
        expected = first.state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in second.state_dict().items())
    # which kernels run depends on where in memory a file's tensors begin
    latents = draw(1, 4, 16, 8)
    torch.testing.assert_close(again(latents), network(latents))


def test_saved_skeleton_must_fit(tmp_path):
    root = save_network(new_model("tiny", input_size=(32, 48)), tmp_path / "model")
    settings = json.loads((root / "priorscope.json").read_text())
    (root / "priorscope.json").write_text(json.dumps(settings | {"skeleton": "crowdpose"}))
    refused(root, "17 keypoints", "crowdpose")


# ---- the single file --------------------------------------------------------------------------------------------


def unet_ldm(key, layers=2):
    """A key of the U-Net as latent diffusion calls it: blocks are numbered through, layers within them by place."""
    fixed = {
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "class_embedding.linear_1": "label_emb.0.0",
        "class_embedding.linear_2": "label_emb.0.2",
    }
    stem, _, leaf = key.rpartition(".")
    if stem in fixed:
        return f"{fixed[stem]}.{leaf}"
    block, rest = re.match(r"(down_blocks\.\d+|up_blocks\.\d+|mid_block)\.(.*)", key).groups()
    number = int(block.rpartition(".")[2]) if block != "mid_block" else 0
    kind, place, rest = rest.split(".", 2)
    place = int(place)
    if kind == "resnets":
        names = {
            "norm1": "in_layers.0",
            "conv1": "in_layers.2",
            "time_emb_proj": "emb_layers.1",
            "norm2": "out_layers.0",
            "conv2": "out_layers.3",
            "conv_shortcut": "skip_connection",
        }
        rest = ".".join([names[rest.rpartition(".")[0]], leaf])
    if block == "mid_block":
        return f"middle_block.{2 * place if kind == 'resnets' else 1}.{rest}"
    if block.startswith("down"):
        if kind == "downsamplers":
            return f"input_blocks.{1 + number * (layers + 1) + layers}.0.op.{leaf}"
        return f"input_blocks.{1 + number * (layers + 1) + place}.{0 if kind == 'resnets' else 1}.{rest}"
    if kind == "upsamplers":
        return f"output_blocks.{number * (layers + 1) + layers}.{1 if number == 0 else 2}.conv.{leaf}"
    return f"output_blocks.{number * (layers + 1) + place}.{0 if kind == 'resnets' else 1}.{rest}"


def vae_ldm(key):
    """A key of the autoencoder as latent diffusion calls it; up-blocks are numbered from the other end."""
    key = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", key)
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = key.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_shortcut", "nin_shortcut")
    key = key.replace("conv_norm_out", "norm_out").replace("group_norm", "norm")
    return re.sub(r"to_([qkv])\.", r"\1.", key).replace("to_out.0", "proj_out")


def vae_ldm_value(key, value):
    """Attention layers of latent diffusion's autoencoder are 1 x 1 convolutions."""
    return value[..., None, None] if "attentions" in key and value.ndim == 2 else value


def ldm_file(weights, head, prefix="model.diffusion_model.heatmap_head."):
    return (
        {f"model.diffusion_model.{unet_ldm(key)}": value for key, value in weights["unet"].items()}
        | {f"first_stage_model.{vae_ldm(key)}": vae_ldm_value(key, value) for key, value in weights["vae"].items()}
        | {f"{prefix}{key}": value for key, value in weights[head].items()}
    )


def diffusers_file(weights, head):
    return (
        {f"unet.{key}": value for key, value in weights["unet"].items()}
        | {f"vae.{old_attention(key)}": value for key, value in weights["vae"].items()}
        | {f"heatmap_head.{key}": value for key, value in weights[head].items()}
    )


def read(path):
    return read_single_file(path, unet_config=UNET, vae_config=VAE)


@pytest.mark.parametrize("layout", [ldm_file, diffusers_file])
@pytest.mark.parametrize("keypoints", [17, 133])
def test_single_file(tmp_path, weights, layout, keypoints):
    path = tmp_path / "sdpose.safetensors"
    write_weights(path, {key: value.half() for key, value in layout(weights, keypoints).items()})
    for part, module in zip(("unet", "vae", keypoints), read(path), strict=True):
        module = getattr(module, "vae", module)
        state = module.state_dict()
        assert set(state) == set(weights[part])
        for key, value in state.items():
            assert value.dtype == torch.float32
            assert torch.equal(value, weights[part][key].half().float()), key
        assert not module.training


def test_published_file_has_the_size_it_is_said_to_have(golden_files):
    """1.92 GB: U-Net, whole autoencoder and whole-body head in float16, and nothing else."""
    manifests = [
        golden_files("pose", f"manifest-sdpose-{part}.tsv")[0] for part in ("unet", "vae", "decoder-wholebody")
    ]
    size = 2 * sum(math.prod(shape) for path in manifests for shape in manifest(path).values())
    assert size == pytest.approx(1.92e9, rel=0.005)


def test_wrong_single_file_is_one_line(tmp_path, weights):
    path = tmp_path / "sdpose.safetensors"
    good = ldm_file(weights, 17)
    changes = (
        (lambda key: key.startswith("first_stage_model."), {}, "no weights of the vae"),
        (lambda key: "heatmap_head" in key, {}, "no weights of the head"),
        (lambda key: key.endswith("label_emb.0.2.bias"), {}, "label_emb.0.2.bias"),
        (lambda key: key.endswith("output_blocks.11.0.in_layers.0.weight"), {}, "up_blocks.3.resnets.2.norm1.weight"),
        (lambda key: False, {"model.diffusion_model.other.weight": torch.ones(2)}, "1 unexpected keys (other.weight)"),
        (lambda key: False, {"first_stage_model.loss.weight": torch.ones(2)}, "1 unexpected keys (loss.weight)"),
        (lambda key: False, {"cond_stage_model.weight": torch.ones(2)}, "1 keys of no known part (cond_stage_model"),
        (lambda key: False, {"model.diffusion_model.heatmap_head.x": torch.ones(2)}, "unexpected x"),
        (lambda key: False, {"model.diffusion_model.out.2.bias": torch.ones(5)}, "wrongly shaped (conv_out.bias (5,)"),
        (lambda key: False, {"model.diffusion_model.out.2.bias": torch.ones(4) / 0}, "not finite (conv_out.bias)"),
    )
    for drop, more, word in changes:
        write_weights(path, {key: value for key, value in good.items() if not drop(key)} | more)
        refused(path, word, load=read)
    path.write_bytes(b"nothing")
    refused(path, "no safetensors file")


# ---- full size --------------------------------------------------------------------------------------------------


def manifest(path):
    """Key -> shape of a manifest of this folder: 320x4x3x3."""
    with open(path, newline="") as file:
        return {row[0]: [int(side) for side in row[1].split("x")] for row in csv.reader(file, delimiter="\t")}


def write_text_encoder(write_random_weights, folder, layers=23, shapes=None):
    """A text encoder of Stable Diffusion 2's width, with the keys' published prefix."""
    config = {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_act": "gelu",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": layers,
        "max_position_embeddings": 77,
        "projection_dim": 512,
        "vocab_size": 49408 if shapes else 8,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "layer_norm_eps": 1e-05,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shapes is None:
        from transformers import CLIPTextConfig, CLIPTextModel

        with torch.device("meta"):
            state = CLIPTextModel(CLIPTextConfig(**config)).state_dict()
        shapes = {f"text_model.{key.removeprefix('text_model.')}": list(value.shape) for key, value in state.items()}
    write_random_weights(folder / "model.safetensors", shapes)


def write_tokenizer(folder, vocabulary=8):
    """A tokenizer that knows the two ends of a text only."""
    folder.mkdir(parents=True)
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "!", **ends}
    words = {"!": 0, ends["bos_token"]: vocabulary - 2, ends["eos_token"]: vocabulary - 1}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "special_tokens_map.json").write_text(json.dumps({**ends, "pad_token": "!"}))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


COMMAND = """
import sys
import numpy as np
from skimage.data import astronaut
from priorscope_pose.sdpose.predictor import SDPosePredictor
predictor = SDPosePredictor.from_pretrained(sys.argv[1], device="cpu")
poses = predictor(astronaut(), [[90, 0, 420, 511]], flip_test=False)
np.savez(sys.argv[2], keypoints=poses.keypoints, scores=poses.scores)
peak = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) * 1024
print(poses.skeleton, poses.crop, "peak", peak)
"""


def predict_apart(model, out):
    """The real predictor in a process of its own, on one crop of 768 x 1024: poses and peak memory in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(model), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    name, crop, _, peak = done.stdout.split()
    assert crop == "evaluated"
    return name, np.load(out), int(peak)


def check_result(found, count):
    assert found["keypoints"].shape == (1, count, 2)
    assert np.isfinite(found["keypoints"]).all()
    assert np.isfinite(found["scores"]).all()
    assert found["scores"].std() > 0
    # the crop shows the box enlarged, so all its pixels lie round the picture of 512 x 512
    assert found["keypoints"].min() > -200
    assert found["keypoints"].max() < 712


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_full_size_folder(tmp_path, golden_files, monkeypatch, write_random_weights):
    """The body model's folder in float32, with a text encoder, silent on the class embedding in unet/config.json."""
    monkeypatch.setenv("PRIORSCOPE_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "SDPose-Body"
    shapes = {
        path.stem.removeprefix("manifest-sdpose-"): manifest(path) for path in golden_files("pose", "manifest-*.tsv")
    }
    write_config(root / "unet/config.json", "UNet2DConditionModel", SD2_UNET)
    write_config(root / "vae/config.json", "AutoencoderKL", SD_VAE)
    try:
        size = write_random_weights(root / UNET_FILE, shapes["unet"])
        vae = {old_attention(key): shape for key, shape in shapes["vae"].items()}
        size += write_random_weights(root / VAE_FILE, vae)
        size += write_random_weights(root / HEAD_FILE, shapes["decoder-body"])
        write_tokenizer(root / "tokenizer", 49408)
        write_text_encoder(write_random_weights, root / "text_encoder", shapes=shapes["text_encoder"])
        name, found, peak = predict_apart(root, tmp_path / "out.npz")
    finally:
        shutil.rmtree(root)
    print(f"SDPose-Body folder: weights {size / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB")
    assert name == "coco"
    assert size == pytest.approx(3.81e9, rel=0.01)
    check_result(found, 17)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_full_size_single_file(tmp_path, golden_files, write_random_weights):
    """The whole-body model in one float16 file, in latent diffusion's names. (The published file was not seen.)"""
    shapes = {
        path.stem.removeprefix("manifest-sdpose-"): manifest(path) for path in golden_files("pose", "manifest-*.tsv")
    }
    keys = {f"model.diffusion_model.{unet_ldm(key)}": shape for key, shape in shapes["unet"].items()}
    for key, shape in shapes["vae"].items():
        keys[f"first_stage_model.{vae_ldm(key)}"] = shape + [1, 1] * ("attentions" in key and len(shape) == 2)
    keys |= {f"model.diffusion_model.heatmap_head.{key}": shape for key, shape in shapes["decoder-wholebody"].items()}
    path = tmp_path / "sdpose_wholebody_fp16.safetensors"
    try:
        size = write_random_weights(path, keys, np.float16)
        name, found, peak = predict_apart(path, tmp_path / "out.npz")
    finally:
        path.unlink(missing_ok=True)
    print(f"SDPose-Wholebody file: {size / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB")
    assert name == "coco_wholebody"
    assert size == pytest.approx(1.92e9, rel=0.005)
    check_result(found, 133)
