"""The networks that we build have the published keys and shapes, to the last one. Nothing is allocated: meta device."""

from __future__ import annotations

import math

import pytest
import torch

from priorscope.backbones import SD2_UNET, SD_VAE
from priorscope_depth.families import FAMILIES

PARAMETERS = {"lotus-g": 867_568_324, "lotus-d": 867_556_804}  # specs/depth.md 1a; Marigold's stand nowhere


def unet_settings(name):
    family = FAMILIES[name]
    switcher = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
    return {**SD2_UNET, "in_channels": 4 * len(family.inputs), **(switcher if family.task_switcher else {})}


def shapes_of(module):
    return {key: list(value.shape) for key, value in module.state_dict().items()}


def test_golden_manifest_depth(golden_files, read_json, read_manifest):
    from diffusers import AutoencoderKL, UNet2DConditionModel

    manifests = {path.name: read_manifest(path) for path in golden_files("depth", "manifest-[lms][oad]*")}
    published = read_json(golden_files("depth", "unet-configs-full.json")[0])
    assert set(manifests) == {
        "manifest-lotus-d-unet.tsv",
        "manifest-lotus-g-unet.tsv",
        "manifest-marigold-unet.tsv",
        "manifest-sd-vae.tsv",
    }
    for name in ("lotus-g", "lotus-d", "marigold"):
        settings = unet_settings(name)
        with torch.device("meta"):
            unet = UNet2DConditionModel(**settings)
        assert shapes_of(unet) == manifests[f"manifest-{name}-unet.tsv"], name
        count = sum(parameter.numel() for parameter in unet.parameters())
        assert count == PARAMETERS.get(name, count)
        assert count == sum(math.prod(shape) for shape in manifests[f"manifest-{name}-unet.tsv"].values())
        built = {key: list(value) if isinstance(value, tuple) else value for key, value in unet.config.items()}
        # only the size that a pipeline proposes may differ: it changes no weight and no result
        different = {key for key, value in published[name].items() if built[key] != value}
        assert different <= {"sample_size"}, name
    with torch.device("meta"):
        vae = AutoencoderKL(**SD_VAE)
    assert shapes_of(vae) == manifests["manifest-sd-vae.tsv"]


@pytest.mark.parametrize(("name", "channels"), [("e2e-ft", 8), ("e2e-ft-sd", 4), ("genpercept", 4)])
def test_families_without_manifest_are_marigold_or_stable_diffusion(name, channels):
    settings = unet_settings(name)
    assert settings["in_channels"] == channels
    assert "class_embed_type" not in settings
