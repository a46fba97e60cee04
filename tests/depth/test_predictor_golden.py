"""Lotus and Marigold against outputs of the official code on tiny random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorscope.backbones import AutoencoderSpace, expand_conv_in
from priorscope.diffusion import Condition, Denoiser, Noise, VPSchedule, ddim, spaced_times
from priorscope.predictors import Geometry, ensemble_affine, ensemble_normals
from priorscope_depth.assemble import build_predictor
from priorscope_depth.families import FAMILIES, Recipe
from priorscope_depth.predictor import DepthPredictor


def part(weights, prefix, dtype=torch.float32):
    return {key[len(prefix) :]: value.to(dtype) for key, value in weights.items() if key.startswith(prefix)}


def tiny_parts(pipeline, unet_weights, vae_weights, dtype=torch.float32, **changes):
    from diffusers import AutoencoderKL, UNet2DConditionModel

    config = {key: value for key, value in {**pipeline["unet_config"], **changes}.items() if value is not None}
    unet = UNet2DConditionModel(**config).to(dtype).eval()
    unet.load_state_dict(part(unet_weights, "unet.", dtype))
    vae = AutoencoderKL(**pipeline["vae_config"]).to(dtype).eval()
    vae.load_state_dict(part(vae_weights, "vae.", dtype))
    return unet, AutoencoderSpace(vae)


@pytest.mark.parametrize("mode", ["g", "d"])
def test_golden_lotus(golden_files, read_json, mode):
    pipeline = read_json(golden_files("depth", "lotus_pipeline.json")[0])
    weights = {name: load_file(golden_files("depth", f"lotus_{name}_weights.safetensors")[0]) for name in "gd"}
    for path in golden_files("depth", f"lotus_{mode}_case*"):
        case, stored = pipeline["cases"][path.stem], load_file(path)
        double = path.stem.endswith("float64")
        dtype = torch.float64 if double else torch.float32
        unet, latents = tiny_parts(
            pipeline, weights[mode], weights["g"], dtype, in_channels=pipeline["unet_in_channels"][mode]
        )
        task = "normals" if case["task"] == "normal" else "depth"
        recipe = Recipe(FAMILIES[f"lotus-{mode}"], task, "depth")
        latent = build_predictor(
            unet, latents, stored["prompt_embeds"].to(dtype), recipe, posterior="sample", dtype=dtype
        )
        ours = latent.condition["task"]
        torch.testing.assert_close(ours.float(), stored["task_emb"].float(), atol=1e-7, rtol=0)
        if double:  # the official embedding is float32, widened
            latent.condition = latent.condition.merged(
                Condition({"task": stored["task_emb"].to(dtype)}, shared=["task"])
            )
        geometry = Geometry.lotus(case["processing_res"])
        predictor = DepthPredictor(latent, recipe, geometry=geometry, dtype=dtype)
        image, frame = geometry.prepare(stored["rgb"].to(dtype))
        assert list(image.shape[-2:]) == case["resized"]

        tight = {"atol": 1e-10, "rtol": 0} if double else {"atol": 1e-4, "rtol": 0}
        image_latents = latent.encode(image, Noise.recorded([stored["vae_eps"]]))
        torch.testing.assert_close(image_latents, stored["rgb_latents"].to(dtype), **tight)
        noise = Noise.recorded([stored["noise"]]) if mode == "g" else None
        with torch.no_grad():
            predicted = latent.predict_latents(image_latents, noise)
        torch.testing.assert_close(predicted, stored["unet_out"].to(dtype), **tight)

        # and from the picture in one call
        recorded = Noise.recorded([stored["noise"]]) if mode == "g" else None
        decoded = latent(image, recorded, posterior_noise=Noise.recorded([stored["vae_eps"]]))
        official = (decoded / 2 + 0.5).clamp(0, 1).float()
        if case["match_input_res"]:
            official = geometry.restore(official, frame)
        output = stored["pipeline_output"]
        output = output.permute(0, 3, 1, 2) if output.shape[-1] == 3 else output
        torch.testing.assert_close(official, output.float(), atol=2e-5, rtol=0)
        if "final_depth" in stored:
            depth = geometry.restore(predictor.read(decoded.float()), frame)[0, 0]
            torch.testing.assert_close(depth, stored["final_depth"].float(), atol=2e-5, rtol=0)
        if "final_normal" in stored:
            raw = decoded.float().clamp(-1, 1)
            final = geometry.restore(raw, frame)[0]
            torch.testing.assert_close(final, stored["final_normal"].float(), atol=4e-5, rtol=0)
            # ours: unit length, x to the right where Lotus has it to the left
            ours = predictor.read(decoded.float())[0]
            torch.testing.assert_close(ours.norm(dim=0), torch.ones_like(ours[0]), atol=1e-4, rtol=0)
            assert torch.equal(torch.sign(ours[0]), -torch.sign(raw[0, 0]))


def test_golden_marigold(golden_files, read_json):
    """The whole pipelines: geometry, schedule, steps, decoding, ensembling."""
    pipeline = read_json(golden_files("depth", "lotus_pipeline.json")[0])
    vae_weights = load_file(golden_files("depth", "lotus_g_weights.safetensors")[0])
    weights = load_file(golden_files("depth", "marigold_weights.safetensors")[0])
    golden = read_json(golden_files("depth", "marigold.json")[0])
    unet, latents = tiny_parts(
        pipeline,
        weights,
        vae_weights,
        in_channels=8,
        class_embed_type=None,
        projection_class_embeddings_input_dim=None,
    )
    for path in golden_files("depth", "marigold_[dn]*_[0-9].safetensors"):
        case, stored = golden["cases"][path.stem], load_file(path)
        task = "normals" if "normals" in path.stem else "depth"
        recipe = Recipe(FAMILIES["marigold"], task, "depth")
        latent = build_predictor(
            unet,
            latents,
            stored["text"],
            recipe,
            scheduler=golden["scheduler_configs"][case["scheduler"]],
            steps=case["steps"],
        )
        geometry = Geometry.diffusers(case["processing_resolution"])
        predictor = DepthPredictor(latent, recipe, geometry=geometry)
        image, frame = geometry.prepare(stored["image01"] * 2 - 1)
        torch.testing.assert_close(image, stored["preprocessed"], atol=1e-5, rtol=0)
        assert [frame.padded[i] - frame.processed[i] for i in (0, 1)] == case["padding"]
        ensemble = case["ensemble"]
        with torch.no_grad():
            image_latents = latent.encode(image).repeat_interleave(ensemble, 0)
            predicted = latent.predict_latents(image_latents, Noise.recorded([stored["latents"]]))
        torch.testing.assert_close(predicted, stored["pred_latent"], atol=1e-4, rtol=0)
        decoded = latent(image, Noise.recorded([stored["latents"]]), members=ensemble)
        values = geometry.crop(predictor.read(decoded), frame)
        uncertainty = None
        if ensemble > 1 and task == "depth":
            values, uncertainty = ensemble_affine(values, max_iter=2, tol=1e-3)
        elif ensemble > 1:
            values, uncertainty = ensemble_normals(values, reduction="closest")
        if case["match"]:
            values = geometry.restore(values, frame)
            uncertainty = None if uncertainty is None else geometry.restore(uncertainty, frame)
        if task == "normals":
            values = values / values.norm(dim=1, keepdim=True).clamp(min=1e-6)
        atol = 5e-2 if path.stem == "marigold_depth_1" else 1e-4
        torch.testing.assert_close(values, stored["prediction"], atol=atol, rtol=0)
        if uncertainty is not None:
            torch.testing.assert_close(uncertainty, stored["uncertainty"], atol=atol, rtol=0)


def test_golden_marigold_schedules(golden_files, read_json):
    golden = read_json(golden_files("depth", "marigold.json")[0])
    stored = load_file(golden_files("depth", "marigold_e2eft_misc.safetensors")[0])
    for name, config in golden["scheduler_configs"].items():
        schedule = VPSchedule.from_scheduler_config(config)
        ours = torch.from_numpy(np.array(schedule.alphas_cumprod)).float()
        torch.testing.assert_close(ours, stored[f"alphas_cumprod.{name}"], atol=2e-5, rtol=1e-4)
        assert schedule(999)[0] ** 2 == pytest.approx(golden["alpha_999"][name], abs=2e-6)
        for steps, times in golden["timesteps"][name].items():
            ours_times = spaced_times(schedule, int(steps), config["timestep_spacing"], offset=config["steps_offset"])
            assert ours_times == [*times, -1]
        for steps in (1, 4):
            times = spaced_times(schedule, steps, config["timestep_spacing"], offset=config["steps_offset"])
            model = Denoiser(lambda x, label: stored["ddim.v"], schedule, "v")
            x0 = model(stored["ddim.x"], times[0]).x0
            torch.testing.assert_close(x0, stored[f"ddim.{name}.{steps}.x0"], atol=2e-5, rtol=1e-4)
            previous, _ = ddim(model, stored["ddim.x"], times[0], times[1], None, None)
            torch.testing.assert_close(previous, stored[f"ddim.{name}.{steps}.prev"], atol=2e-5, rtol=1e-4)


def test_golden_marigold_ensembles(golden_files, read_json):
    golden = read_json(golden_files("depth", "marigold.json")[0])
    stored = load_file(golden_files("depth", "marigold_e2eft_misc.safetensors")[0])
    for index in range(4):
        case = golden["cases"][f"ens{index}"]
        assert case["scale_invariant"]
        for code, options in (
            ("diffusers", {"max_iter": 2, "tol": 1e-3}),
            ("preth", {"max_iter": 50, "tol": 1e-6}),
        ):
            prediction, uncertainty = ensemble_affine(
                stored[f"ens{index}.in"],
                shift_invariant=case["shift_invariant"],
                reduction=case["reduction"],
                **options,
            )
            # With scale and shift BFGS stops where the rounding of its cost lets it: on this machine's processor
            # diffusers' own function is 2.2e-2 (median) from the stored result, 5e-3 for the mean's uncertainty.
            # golden/depth/README.md allows 2e-2; the mean itself and scale-only fits do not depend on it.
            shifted = case["shift_invariant"]
            atol = 2e-2 if shifted and case["reduction"] == "median" else 1e-5
            torch.testing.assert_close(prediction, stored[f"ens{index}.{code}"], atol=atol, rtol=0)
            atol = 2e-2 if shifted else 1e-5
            torch.testing.assert_close(uncertainty, stored[f"ens{index}.{code}_unc"], atol=atol, rtol=0)
    for reduction in ("mean", "closest"):
        normals, uncertainty = ensemble_normals(stored["ensN.in"], reduction=reduction)
        torch.testing.assert_close(normals, stored[f"ensN.{reduction}"], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(uncertainty, stored[f"ensN.{reduction}_unc"], atol=2e-5, rtol=1e-4)


def test_golden_marigold_conv_in(golden_files):
    stored = load_file(golden_files("depth", "marigold_e2eft_misc.safetensors")[0])

    class Shell(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv_in = torch.nn.Conv2d(4, 6, 3, padding=1)
            self.conv_in.load_state_dict({"weight": stored["convin.w"], "bias": stored["convin.b"]})

        def register_to_config(self, **changes):
            assert changes == {"in_channels": 8}

    for code, scale_bias in (("lotus", False), ("e2eft", True)):
        shell = Shell()
        expand_conv_in(shell, scale_bias=scale_bias)
        torch.testing.assert_close(shell.conv_in.weight, stored[f"convin.{code}_w"], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(shell.conv_in.bias, stored[f"convin.{code}_b"], atol=2e-5, rtol=1e-4)
    # the widened layer starts out unchanged where both halves agree
    x = torch.randn(1, 4, 5, 5)
    shell = Shell()
    before = shell.conv_in(x)
    expand_conv_in(shell)
    torch.testing.assert_close(shell.conv_in(torch.cat([x, x], 1)), before, atol=1e-5, rtol=1e-4)
