"""Features against outputs of the official code on tiny random weights."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load_file

from priorscope.backbones import UNetNetwork
from priorscope.diffusion import Condition, Denoiser, EDMSchedule, VPSchedule, spaced_times
from priorscope.features import (
    PUBLISHED,
    AtLevels,
    DDAEUNet,
    Generation,
    Inversion,
    Tap,
    Tapped,
    Viewer,
    by_scale,
    ddae_denoiser,
)
from priorscope.features.modes import shared_noise


@pytest.fixture(scope="module")
def load_unet(read_json):
    """``load_unet(path of unet_tiny_*.safetensors, dtype)``, each once."""
    from diffusers import UNet2DConditionModel

    loaded = {}

    def load(path, dtype=torch.float32):
        if (path, dtype) not in loaded:
            unet = UNet2DConditionModel(**read_json(path.with_suffix(".json"))["config"]).eval()
            unet.load_state_dict({key[2:]: value for key, value in load_file(path).items()})
            loaded[path, dtype] = unet.to(dtype).requires_grad_(False)
        return loaded[path, dtype]

    return load


def official_schedule(last="first"):
    """Stable Diffusion's schedule in float32, as the official code had it: at t = 0 its sigma is off by 4e-5."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return VPSchedule(torch.cumprod(1 - betas, 0).double().numpy(), last)


def viewer_of(unet, taps, context, prediction_type="epsilon"):
    schedule = official_schedule()
    condition = Condition({"text": context}, shared=["text"])
    return Viewer(Denoiser(UNetNetwork(unet), schedule, prediction_type), Tapped(unet, taps), condition)


def batched(viewer, mode, latents, noise, size, **kwargs):
    """The maps of ``mode`` in batches of ``size``."""
    parts = []
    for begin in range(0, len(latents), size):
        rows = slice(begin, begin + size)
        parts.append(mode(viewer, latents[rows], None if noise is None else noise[rows], **kwargs))
    return {key: {name: torch.cat([part[key][name] for part in parts]) for name in parts[0][key]} for key in parts[0]}


@pytest.mark.parametrize("batch", [1, 3])
def test_golden_dift(golden_files, read_json, load_unet, batch):
    for path in golden_files("features", "dift_*.safetensors"):
        case, stored = read_json(path.with_suffix(".json")), load_file(path)
        taps = [Tap(f"up_blocks.{block}", name=f"up_ft.{block}") for block in range(4)]
        viewer = viewer_of(load_unet(path.parent / case["weights"]), taps, stored["context"])
        exact = VPSchedule.from_scheduler_config(case["scheduler"])
        assert exact.alphas_cumprod == pytest.approx(viewer.denoiser.schedule.alphas_cumprod, rel=1e-5)
        latents = stored["z_sample"] * case["scaling_factor"]
        levels = tuple(case["timesteps"])
        for level in levels:
            x = viewer.denoiser.schedule.add_noise(latents, level, stored["noise"])
            torch.testing.assert_close(x, stored[f"t{level}.x_t"], atol=2e-5, rtol=1e-4)
        seen = batched(viewer, AtLevels(levels), latents, stored["noise"], batch)
        for level in levels:
            for name, value in seen[level].items():
                expected = stored[f"t{level}.{name}"]
                torch.testing.assert_close(value, expected, atol=2e-5, rtol=1e-4)
                mean = stored[f"t{level}.{name.replace('up_ft', 'dift')}"]
                torch.testing.assert_close(value.mean(0, keepdim=True), mean, atol=2e-5, rtol=1e-4)


def test_golden_odise_taps(golden_files, read_json, load_unet):
    for path in golden_files("features", "odise_taps_*.safetensors"):
        case, stored = read_json(path.with_suffix(".json")), load_file(path)
        viewer = viewer_of(load_unet(path.parent / case["weights"]), "odise", stored["context"])
        noise = shared_noise(stored["latents"].shape[-2:])
        torch.testing.assert_close(noise, stored["shared_noise_resized"], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(shared_noise((64, 64)), stored["shared_noise_64"], atol=0, rtol=0)
        maps = AtLevels((100,))(viewer, stored["latents"], noise)[100]
        assert list(maps) == ["s5", "s4", "s3", "s2"]
        for name, value in maps.items():
            torch.testing.assert_close(value, stored[name], atol=2e-5, rtol=1e-4)


def collected_tap(name):
    """A tap by the name that SatDiFuser's extractor gives a layer."""
    block, kind, number = re.fullmatch(r"(\w+?_block(?:s_\d|))(?:_0)?_(\w+)_(\d)", name).groups()
    block = block.replace("blocks_", "blocks.")
    if kind == "conv2":
        return Tap(f"{block}.resnets.{number}", "branch", name=name)
    return Tap(f"{block}.attentions.{number}.transformer_blocks.0.{kind}", name=name)


@pytest.mark.parametrize("batch", [1, 3])
def test_golden_satdifuser_extract(golden_files, read_json, load_unet, batch):
    for path in golden_files("features", "satdifuser_extract_*.safetensors"):
        case, stored = read_json(path.with_suffix(".json")), load_file(path)
        config = case["cfg"]
        whole = batch > 1  # the last call: whole, with the predicted clean latent, or truncated
        # x0 at t = 751 magnifies rounding, and what the official run lost of its precision is most of the tolerance
        dtype = torch.float64 if whole else torch.float32
        unet = load_unet(path.parent / case["weights"], dtype)
        taps = [collected_tap(name) for name in case["collected_layers"]]
        viewer = viewer_of(unet, taps, stored["context"].to(dtype))
        if config["layer_idxs"] == {"up_blocks": {"attn1": "all", "conv2": "all"}}:
            assert sorted(Tapped(unet, "satdifuser").names) == sorted(case["collected_layers"])
        mode = (Inversion if config["mode"] == "inversion" else Generation)(
            steps=config["num_timesteps"], save=tuple(config["save_timesteps"]), official=True
        )
        assert spaced_times(viewer.denoiser.schedule, mode.steps, mode.spacing, offset=1)[:-1] == sorted(
            set(case["scheduler_timesteps"]), reverse=True
        )
        if case["scheduler"] == "PNDMScheduler":
            mode = Inversion(mode.steps, mode.save, timesteps=tuple(case["scheduler_timesteps"]), official=True)
        latents = stored["latents"].to(dtype)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(42)).to(dtype)
        labels = []
        hook = unet.register_forward_pre_hook(lambda module, args, labels=labels: labels.append(float(args[1][0])))
        seen = batched(viewer, mode, latents, noise, batch, x0=whole)
        hook.remove()
        # after its last map the official code goes on; with PNDM it looks for a save step that never comes
        calls = len(labels) * min(batch, 2) // 2
        assert labels[:calls] == case["unet_timesteps"][:calls]
        assert calls == len(case["unet_timesteps"]) - (case["scheduler"] == "PNDMScheduler")
        assert set(seen) == set(case["feat_keys"])
        for step, maps in seen.items():
            if whole:
                torch.testing.assert_close(maps.pop("x0").float(), stored[f"x0.{step}"], atol=5e-5, rtol=1e-4)
            scales = by_scale(maps)
            assert len(scales) == len(case["collected_dims"])
            for index, value in enumerate(scales):
                expected = stored[f"feats.{step}.{index}"]
                assert value.shape[1] == sum(case["collected_dims"][str(value.shape[-1])])
                torch.testing.assert_close(value[: len(expected)], expected, atol=5e-5, rtol=1e-4)


def test_golden_ddae(golden_files, read_json):
    for path in golden_files("features", "ddae_features.safetensors"):
        config, stored = read_json(path.with_suffix(".json"))["config"], load_file(path)
        unet = DDAEUNet(**config).eval()
        unet.load_state_dict({key[2:]: value.float() for key, value in stored.items() if key.startswith("w.")})
        x, noise = stored["x01"] * 2 - 1, stored["noise"]
        sigmas = spaced_times(EDMSchedule(), 18, "karras")
        torch.testing.assert_close(torch.tensor(sigmas, dtype=torch.float64), stored["edm.sigmas18"], atol=0, rtol=1e-6)
        cases = {key.rsplit(".", 1)[0] for key in stored if key.endswith("x_noised")}
        assert len(cases) == 6
        # the published step, 11 of 1 ... 1000, as a level of ours
        assert ddae_denoiser(unet, "ddpm").time_label(PUBLISHED["ddae"].levels[0]) == 11 / 1000
        for case in cases:
            kind, step = case.split(".t")
            level = sigmas[::-1][int(step)] if kind == "edm" else int(step) - 1
            if kind == "edm":
                assert level == pytest.approx(float(stored[f"{case}.sigma"]), rel=1e-6)
            denoiser = ddae_denoiser(unet, kind)
            noised = denoiser.schedule.add_noise(x, level, noise)
            torch.testing.assert_close(noised, stored[f"{case}.x_noised"], atol=1e-5, rtol=0)
            with torch.no_grad():
                rows = see_rows(unet, denoiser, noised, level)
                maps = AtLevels((level,))(Viewer(denoiser, Tapped(unet, "ddae")), x, noise)[level]
            for name, value in rows.items():
                tolerance = 1e-5 if name == "net_t" else 1e-6
                torch.testing.assert_close(value, stored[f"{case}.{name}"].expand_as(value), atol=tolerance, rtol=0)
            assert list(maps) == [key.rsplit(".", 1)[1] for key in sorted(stored) if key.startswith(f"{case}.out_")]
            for name, value in maps.items():
                torch.testing.assert_close(value.mean((2, 3)), stored[f"{case}.{name}"], atol=1e-5, rtol=0)


def see_rows(unet, denoiser, x, level):
    """What the time embedding of a DDAE network is told, makes of it, and gives."""
    rows = {}
    hooks = [
        unet.time_emb.register_forward_hook(lambda m, args, out: rows.update(net_t=args[0], time_emb=out)),
        unet.time_emb.lin1.register_forward_pre_hook(lambda m, args: rows.update(sinusoid=args[0])),
    ]
    denoiser.raw(x, level)
    for hook in hooks:
        hook.remove()
    return rows
