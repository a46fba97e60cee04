"""GalaxySD against what its official code computed, and its networks' names against the published ones."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load_file

from priorscope.diffusion.noise import Noise
from priorscope.training.learning_rate import rate_factor
from priorscope_astro.conditions.emphasis import emphasis_runs
from priorscope_astro.galaxysd.levels import denoiser_of, noise_levels
from priorscope_astro.galaxysd.names import from_hcp, to_hcp
from priorscope_astro.galaxysd.pool import start_from_references
from priorscope_astro.galaxysd.text import token_weights, weighted_states


def toy_offsets(text):
    """The golden case's tokenizer, without its braces: runs of letters and digits, single other characters."""
    return [match.span() for match in re.finditer(r"[A-Za-z0-9]+|[^\sA-Za-z0-9]", text)]


def test_golden_galaxysd(golden_files, read_json):
    for path in golden_files("astro_accel", "misc.safetensors"):
        notes, tensors = read_json(path.with_suffix(".json")), load_file(path)
        close = {"atol": notes["tolerance"]["atol"], "rtol": 1e-4}
        assert len(notes["prompt_weights"]) >= 7
        for case in notes["prompt_weights"]:
            runs = emphasis_runs(case["prompt"])
            clean = "".join(text for text, _ in runs)
            assert clean == case["clean"]
            assert token_weights(runs, toy_offsets(clean)) == pytest.approx(case["per_token"])
        states = weighted_states(tensors["mult.emb"][:1], [tensors["mult.w0"].tolist()])
        torch.testing.assert_close(states, tensors["mult.out0"], **close)
        for step, rate in zip(notes["onecycle_index"], tensors["onecycle.lr"].tolist(), strict=True):
            ours = 1.6e-6 * rate_factor(step, 10_000, schedule="one-cycle", warmup=400, final=4e-6)
            assert ours == pytest.approx(rate, rel=1e-6)
        sigmas, labels = noise_levels()
        torch.testing.assert_close(torch.tensor(sigmas), tensors["i2i.sigmas"], **close)
        torch.testing.assert_close(torch.tensor(labels), tensors["i2i.timesteps"], **close)
        start = start_from_references(tensors["i2i.x0"], sigmas[0], Noise.recorded([tensors["i2i.noise"]]))
        torch.testing.assert_close(start, tensors["i2i.start"], **close)
        seen = denoiser_of(lambda x, label: torch.cat([x.flatten(), label])).raw(start, sigmas[0])
        torch.testing.assert_close(seen[:-1].view_as(start), tensors["i2i.model_input"], **close)
        assert seen[-1].item() == pytest.approx(999)


def test_golden_manifest_astro(golden_files, read_json, read_manifest):
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    for path in golden_files("astro_accel", "manifest-sd15-configs.json"):
        configs = read_json(path)
        with torch.device("meta"):
            networks = {
                "unet": UNet2DConditionModel(**configs["unet"]),
                "text-encoder": CLIPTextModel(CLIPTextConfig(**configs["text_encoder"])),
            }
        for name, network in networks.items():
            published = read_manifest(path.with_name(f"manifest-sd15-{name}.tsv"))
            shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
            assert shapes == published
            for kind in ("base", "base_ema"):
                text = name == "text-encoder"
                stored = to_hcp(shapes, kind, text_encoder=text)
                assert all(key.startswith(f"{kind}:text_model." if text else f"{kind}:") for key in stored)
                assert from_hcp(stored, kind) == shapes
