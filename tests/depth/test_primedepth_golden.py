"""PrimeDepth against its official code: attention maps, tiny networks with hashed weights, the full size."""

from __future__ import annotations

import fnmatch
import math
import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.noise import Noise
from priorscope.features import cross_attention_map, pooling_matrix, self_attention_map
from priorscope_depth.primedepth.architecture import Architecture
from priorscope_depth.primedepth.checkpoint import PREFIXES, read_networks, split_parts
from priorscope_depth.primedepth.labeller import Labeller
from priorscope_depth.primedepth.model import PrimeDepthModel

#: Sizes of the queries' grid of each attention case (notes of golden/depth/README.md).
GRIDS = [(8, 8), (16, 24), (5, 7), (12, 20), (9, 16), (4, 4)]

#: Weights are made in pieces that stay in a processor's cache.
PIECE = 1 << 17


def hashed(key, shape):
    """The weights of the cases: uniform numbers that follow from the key (primedepth.json, "weights")."""
    count = math.prod(shape)
    values = np.empty(count, np.float32)
    for begin in range(0, count, PIECE):
        x = 2 * hashed_uniform(key, begin, min(begin + PIECE, count)) - 1
        if len(shape) == 1:
            x = 1 + 0.1 * x if key.endswith(".weight") else 0.1 * x
        elif len(shape) >= 2:
            x *= math.sqrt(3 / math.prod(shape[1:]))
        values[begin : begin + PIECE] = x
    return torch.from_numpy(values.reshape(shape))


def hashed_uniform(key, begin, end):
    """Elements ``begin`` to ``end`` of a key's uniform numbers, float64."""
    z = np.arange(begin, end, dtype=np.uint64)
    z += np.uint64(((zlib.crc32(key.encode()) << 32) + 0x9E3779B97F4A7C15) % 2**64)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) * 2.0**-53


def architecture_of(config):
    """Our sizes from the official configuration of a case."""
    unet = config["unet_config"]["params"]
    label = config["label_stage_config"]["params"]
    vae = config["first_stage_config"]["params"]["ddconfig"]
    head = label["label_decoder_config"]
    widths = [unet["model_channels"] * times for times in unet["channel_mult"]]
    attends = [2**level in unet["attention_resolutions"] for level in range(len(widths))]
    return Architecture(
        unet={
            "in_channels": unet["in_channels"],
            "out_channels": unet["out_channels"],
            "block_out_channels": tuple(widths),
            "layers_per_block": unet["num_res_blocks"],
            "attention_head_dim": tuple(width // unet["num_head_channels"] for width in widths),
            "cross_attention_dim": unet["context_dim"],
            "use_linear_projection": unet["use_linear_in_transformer"],
            "down_block_types": tuple("CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attends),
            "up_block_types": tuple("CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attends)),
        },
        vae={
            "in_channels": vae["in_channels"],
            "out_channels": vae["out_ch"],
            "latent_channels": vae["z_channels"],
            "block_out_channels": tuple(vae["ch"] * times for times in vae["ch_mult"]),
            "layers_per_block": vae["num_res_blocks"],
            "scaling_factor": config["scale_factor"],
        },
        text=None,
        tokens=label["n_ca_maps"],
        ratio=label["refiner_model_ratio"],
        head_channels=label["num_head_channels"],
        refined=label["channels2predictor"],
        head={
            "block_out_channels": tuple(head["ch"] * times for times in head["ch_mult"]),
            "layers_per_block": head["num_res_blocks"],
        },
    )


def hashed_checkpoint(path, manifest):
    """A checkpoint in the published container with the weights of the cases; the text tower's stub is left out."""
    state = {key: hashed(key, shape) for key, shape in manifest.items() if not key.startswith("cond_stage_model.emb")}
    torch.save({"state_dict": state, "global_step": 0}, path)
    return path


def assert_close(ours, golden, name):
    """The cases' tolerance: 2e-4 of the spread and 1e-4 of the value."""
    bound = 2e-4 * golden.std() + 1e-4 * golden.abs()
    worst = ((ours - golden).abs() / bound).max()
    assert ours.shape == golden.shape, name
    assert worst <= 1, f"{name}: {worst:.2f} of the tolerance"


def check_attention(case):
    for number, (height, width) in enumerate(GRIDS):
        name = f"attn{number}"
        if f"{name}.self_in" in case:
            weights = case[f"{name}.self_in"]
        else:
            generator = torch.Generator().manual_seed(1)
            weights = (torch.randn(2, 3, height * width, height * width, generator=generator) * 2).softmax(-1)
        pooled = self_attention_map(weights @ pooling_matrix(height, width), (height, width))
        assert_close(pooled, case[f"{name}.self_out"], f"{name}.self")
        cross = cross_attention_map(case[f"{name}.cross_in"], (height, width), blocks=5)
        assert_close(cross, case[f"{name}.cross_out"], f"{name}.cross")


@torch.no_grad()
def check_network(case, model):
    """Every stored stage of a case, each from the official stage before it, and the whole from the picture."""
    rgb = case["rgb_u8"].permute(2, 0, 1)[None].float() / 255 * 2 - 1
    space, text = model.latents, case["context"]
    distribution = space.posterior(rgb)
    assert_close(distribution.mean, case["vae_mean"] * space.scaling, "vae_mean")
    std = (0.5 * case["vae_logvar"]).exp() * space.scaling
    assert_close(distribution.std, std, "vae_std")
    assert_close(distribution.mean + distribution.std * case["vae_eps"], case["z"], "z")
    assert_close(model.noised(case["z"], Noise.recorded([case["noise"]])), case["x_noisy"], "x_noisy")
    assert_close(model.denoiser.raw(case["x_noisy"], 1.0, Condition({"text": text})), case["unet_out"], "unet_out")

    seen = {}
    labeller = model.labeller
    hooks = [
        conv.register_forward_pre_hook(lambda module, args, name=name: seen.update({f"attn_in{name}": args[0]}))
        for name, conv in labeller.convs_attentions.items()
    ]
    hooks += [
        conv.register_forward_hook(lambda module, args, out, name=name: seen.update({f"merge{name}": out}))
        for name, conv in labeller.convs_merge.items()
    ]
    hooks.append(
        labeller.refiner.out.register_forward_pre_hook(lambda module, args: seen.update(refiner_feat_in=args[0]))
    )
    refined = labeller.refine(model.preimage(case["x_noisy"], text), text, model.embedding(text))
    for hook in hooks:
        hook.remove()
    stored = [name for name in case if fnmatch.fnmatch(name, "attn_in*") or fnmatch.fnmatch(name, "merge*")]
    assert len(stored) > len(labeller.steps)
    for name in (*stored, "refiner_feat_in"):
        assert_close(seen[name], case[name], name)
    assert_close(refined, case["refiner_out"], "refiner_out")

    model.posterior = "sample"
    depth = model(rgb, Noise.recorded([case["noise"]]), posterior_noise=Noise.recorded([case["vae_eps"]]), text=text)
    assert_close(depth, case["depth"], "depth")
    assert_close(depth.mean(1), case["depth_ssi"], "depth_ssi")


def test_golden_primedepth(golden_files, read_json, read_manifest, tmp_path):
    names = {path.stem: path for path in golden_files("depth", "primedepth_*.safetensors")}
    companion = next(iter(names.values())).parent
    settings = read_json(companion / "primedepth.json")
    checked = 0
    for name, path in names.items():
        if name == "primedepth_full_hashed":
            continue  # test_golden_primedepth_full_size
        case = load_file(path)
        checked += 1
        if name == "primedepth_attnmaps":
            check_attention(case)
            continue
        size = name.removeprefix("primedepth_").rstrip("0123456789")
        manifest = read_manifest(path.parent / f"manifest-primedepth-{size}.tsv")
        checkpoint = hashed_checkpoint(tmp_path / f"{size}.ckpt", manifest)
        networks = read_networks(checkpoint, architecture_of(settings["cases"][size]["config"]))
        model = PrimeDepthModel(networks.unet, networks.latents, networks.labeller, case["context"])
        check_network(case, model)
    assert checked


def test_golden_manifest_primedepth(golden_files, read_json, read_manifest):
    """Every key of every size is read, or is one of those that we say are not."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from priorscope.backbones.ldm_names import clip_text_name, split_attention, take, unet_names, vae_name
    from priorscope_depth.primedepth.checkpoint import vae_config
    from priorscope_depth.primedepth.labeller import labeller_name

    paths = golden_files("depth", "manifest-primedepth-*.tsv")
    settings = read_json(golden_files("depth", "primedepth.json")[0])["cases"]
    for path in paths:
        size = path.stem.removeprefix("manifest-primedepth-")
        sizes = Architecture() if size == "full" else architecture_of(settings[size]["config"])
        manifest = {key: shape for key, shape in read_manifest(path).items() if key != "cond_stage_model.emb"}
        parts = split_parts({key: torch.empty(shape, device="meta") for key, shape in manifest.items()})
        levels = len(sizes.vae["block_out_channels"])
        with torch.device("meta"):
            unet = UNet2DConditionModel(**sizes.unet)
            modules = [
                (unet, "unet", unet_names(unet.state_dict(), sizes.unet["layers_per_block"]).__getitem__),
                (AutoencoderKL(**vae_config(sizes)), "vae", lambda key, levels=levels: vae_name(key, levels)),
                (Labeller(sizes), "labeller", labeller_name),
            ]
            if size == "full":
                parts["text"] = split_attention(parts["text"])
                for name in ("text_projection", "logit_scale"):
                    del parts["text"][name]
                modules.append((CLIPTextModel(CLIPTextConfig(**sizes.text)), "text", clip_text_name))
        for module, part, name in modules:
            keys = module.state_dict()
            own = take(keys, parts[part], name)
            assert {key: value.shape for key, value in own.items()} == {k: v.shape for k, v in keys.items()}, part
        counts = {part: sum(value.numel() for value in parts[part].values()) for part in PREFIXES}
        if size == "full":
            assert counts["unet"] == 865_910_724  # Stable Diffusion 2's, as everyone counts it
            assert round(counts["labeller"] / 1e6) == 356
        else:
            heads = sum(value.numel() for value in parts["segmentation"].values())
            assert counts["unet"] == settings[size]["params"]["model"]
            assert counts["vae"] == settings[size]["params"]["first_stage_model"]
            assert counts["labeller"] + heads == settings[size]["params"]["labeller"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@torch.no_grad()
def test_golden_primedepth_full_size(golden_files, read_manifest):
    """The published size with the cases' hashed weights: 5 GB of them, without autoencoder and text tower."""
    from diffusers import UNet2DConditionModel

    from priorscope.backbones.latents import PixelSpace
    from priorscope.backbones.ldm_names import take, unet_names
    from priorscope.backbones.state_dict import filled
    from priorscope_depth.primedepth.labeller import labeller_name

    path = golden_files("depth", "primedepth_full_hashed.safetensors")[0]
    case = load_file(path)
    manifest = read_manifest(path.parent / "manifest-primedepth-full.tsv")
    sizes = Architecture()
    with torch.device("meta"):
        unet, labeller = UNet2DConditionModel(**sizes.unet), Labeller(sizes)
    names = unet_names(unet.state_dict())
    for module, part, name in ((unet, "unet", names.__getitem__), (labeller, "labeller", labeller_name)):
        prefix = PREFIXES[part]
        state = {
            key.removeprefix(prefix): hashed(key, shape)
            for key, shape in manifest.items()
            if key.startswith(prefix) and "label_predictor" not in key
        }
        filled(module, take(module.state_dict(), state, name), path)
    text = torch.from_numpy((-1.7 + 3.4 * hashed_uniform("context", 0, 77 * 1024)).astype(np.float32)).reshape(
        1, 77, 1024
    )
    model = PrimeDepthModel(unet, PixelSpace(), labeller, text)
    x = case["x_noisy"]
    seen = {}
    # "refiner_in" is 8 x 8, as only what enters the decoder's last layers is
    hook = labeller.refiner.out.register_forward_pre_hook(lambda module, args: seen.update(refined_in=args[0]))
    refined = labeller.refine(model.preimage(x, text), text, model.embedding(x))
    hook.remove()
    unet_out = model.denoiser.raw(x, 1.0, Condition({"text": text}))
    depth = labeller.depth_predictor(refined)
    for name, ours in (
        ("unet_out", unet_out),
        ("refiner_in_0_16", seen["refined_in"][:, :16]),
        ("refiner_out_0_16", refined[:, :16]),
        ("depth", depth),
    ):
        worst = (ours - case[name]).abs().max() / case[name].std()
        print(f"{name}: {worst:.1e} of the spread")
        assert worst <= 1e-3, name  # primedepth_full_hashed.json: "atol 1e-3*std"
    mean = refined.mean((-1, -2))
    assert (mean - case["refiner_out_mean"]).abs().max() <= 1e-3 * case["refiner_out_mean"].std()
