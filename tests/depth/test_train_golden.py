"""Training steps of Lotus and losses of E2E-FT against the official code on tiny random weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from priorscope.backbones import AutoencoderSpace
from priorscope.diffusion import Noise
from priorscope.training import rate_factor
from priorscope_depth.assemble import build_predictor
from priorscope_depth.families import FAMILIES, Recipe
from priorscope_depth.losses import angular_loss, fit_scale_shift, ssi_loss
from priorscope_depth.training.lotus import lotus_losses
from priorscope_depth.training.task import latent_mask


def part(weights, prefix):
    return {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}


@pytest.fixture(scope="module")
def lotus_latent(golden_files, read_json):
    """Build the golden Lotus-G or -D model as a LatentPredictor."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    pipeline = read_json(golden_files("depth", "lotus_pipeline.json")[0])
    weights = {mode: load_file(golden_files("depth", f"lotus_{mode}_weights.safetensors")[0]) for mode in "gd"}
    prompt = load_file(golden_files("depth", "lotus_g_case0_float32.safetensors")[0])["prompt_embeds"]

    def build(mode, task):
        config = {key: value for key, value in pipeline["unet_config"].items() if value is not None}
        unet = UNet2DConditionModel(**config | {"in_channels": pipeline["unet_in_channels"][mode]})
        unet.load_state_dict(part(weights[mode], "unet."))
        vae = AutoencoderKL(**pipeline["vae_config"]).eval().requires_grad_(False)
        vae.load_state_dict(part(weights["g"], "vae."))
        recipe = Recipe(FAMILIES[f"lotus-{mode}"], task, "depth")
        return build_predictor(unet, AutoencoderSpace(vae), prompt, recipe, posterior="sample")

    return build


@pytest.mark.parametrize("mode", ["g", "d"])
@pytest.mark.parametrize("task", ["depth", "normal"])
def test_golden_lotus_train(golden_files, read_json, lotus_latent, mode, task):
    stored = part(load_file(golden_files("depth", "lotus_train.safetensors")[0]), f"train_{mode}_{task}.")
    figures = read_json(golden_files("depth", "lotus_train.json")[0])[f"train_{mode}_{task}"]
    latent = lotus_latent(mode, "normals" if task == "normal" else "depth")
    image = stored["pixel_values"]
    if task == "depth":
        annotation = stored["depth_values"]
        # the sky is known to be far
        counts = stored["valid_mask_values"].bool() | stored["sky_mask_values"].bool()
    else:
        annotation = stored["normal_values"]
        # its latent mask is all True in these cases
        counts = torch.ones_like(image[:, :1], dtype=torch.bool)
    draws = [stored["eps_rgb"], stored["eps_target"]] + ([stored["noise"]] if mode == "g" else [])

    known = latent_mask(counts, latent.latents.factor)
    assert torch.equal(known.expand(-1, 4, -1, -1), stored["valid_mask_down"].bool())
    assert known.float().mean().item() == pytest.approx(figures["mask_frac"], abs=1e-6)
    seen = {}
    unet = latent.denoiser.network.unet
    unet.register_forward_hook(lambda _, given, out: seen.update(given=given[0], out=out[0]))
    losses = lotus_losses(latent, image, annotation, counts, Noise.recorded(draws))
    losses["loss"].backward()

    close = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(seen["given"], stored["unet_input" if mode == "g" else "rgb_latents"], **close)
    torch.testing.assert_close(seen["out"], stored["model_pred"], **close)
    for ours, theirs in {"loss": "loss", "annotation": "anno_loss", "reconstruction": "rgb_loss"}.items():
        assert losses[ours].item() == pytest.approx(figures[theirs], abs=1e-5)
    torch.testing.assert_close(unet.conv_in.weight.grad, stored["grad_conv_in"], **close)
    first = unet.class_embedding.linear_1.weight.grad
    torch.testing.assert_close(first, stored["grad_class_embedding.linear_1.weight"], **close)
    norm = torch.nn.utils.get_total_norm([w.grad for w in unet.parameters() if w.grad is not None])
    assert norm.item() == pytest.approx(figures["total_grad_norm"], abs=1e-5)


def test_without_the_detail_preserver_only_the_annotation_is_asked(golden_files, lotus_latent):
    stored = part(load_file(golden_files("depth", "lotus_train.safetensors")[0]), "train_d_depth.")
    counts = stored["valid_mask_values"].bool() | stored["sky_mask_values"].bool()
    draws = [stored["eps_rgb"][:2], stored["eps_target"][:2]]
    latent = lotus_latent("d", "depth")
    losses = lotus_losses(
        latent, stored["pixel_values"], stored["depth_values"], counts, Noise.recorded(draws), detail=0
    )
    assert set(losses) == {"loss", "annotation"}
    both = lotus_losses(
        latent,
        stored["pixel_values"],
        stored["depth_values"],
        counts,
        Noise.recorded([stored["eps_rgb"], stored["eps_target"]]),
    )
    torch.testing.assert_close(losses["loss"], both["annotation"])


def test_golden_marigold_e2eft_losses(golden_files):
    """The gradients, too: they flow through the fit of the scale- and shift-invariant loss."""
    stored = load_file(golden_files("depth", "marigold_e2eft_misc.safetensors")[0])
    for name, loss, mask in (("ssi", ssi_loss, slice(None)), ("ang", angular_loss, slice(0, 1))):
        predicted = stored[f"{name}.pred"].clone().requires_grad_()
        valid = stored[f"{name}.mask"].bool()[:, mask]
        value = loss(predicted, stored[f"{name}.target"], valid)
        value.backward()
        torch.testing.assert_close(value, stored[f"{name}.loss"], atol=1e-5, rtol=0)
        torch.testing.assert_close(predicted.grad, stored[f"{name}.grad"], atol=1e-7, rtol=1e-4)
    scale, shift = fit_scale_shift(stored["ssi.pred"], stored["ssi.target"], stored["ssi.mask"].bool())
    torch.testing.assert_close(scale, stored["ssi.scale"], atol=1e-5, rtol=0)
    torch.testing.assert_close(shift, stored["ssi.shift"], atol=1e-5, rtol=0)


def test_golden_marigold_learning_rate(golden_files, read_json):
    stored = read_json(golden_files("depth", "marigold.json")[0])["iter_exponential_20000_0.01_100"]
    for step, factor in stored.items():
        ours = rate_factor(int(step), 20_000, schedule="exponential", warmup=100, final=0.01)
        assert ours == pytest.approx(factor, rel=1e-9, abs=1e-12)
