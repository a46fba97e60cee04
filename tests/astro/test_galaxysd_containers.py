"""GalaxySD at full size, in both of its containers, by the real command: random weights in the published layouts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from priorscope.backbones import SD_VAE
from priorscope_astro.conditions.condition import Condition
from priorscope_astro.galaxysd.names import to_hcp
from priorscope_astro.plan import Plan, PlanRow, row_seed

PROMPT = "sdss, in-between round galaxy, {dust lane:1.3}"
PLAN_ID = "00000000000000aa"
COMMAND = """
import sys
from priorscope.cli import main
status = main(sys.argv[1:])
print("peak", int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) * 1024)
sys.exit(status)
"""


def write_config(path, kind, config):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"_class_name": kind, **config}))


@pytest.fixture
def published(tmp_path, golden_files, read_json, read_manifest, write_random_weights, write_tokenizer):
    """``published(container)`` -> (options for the command, bytes of the weights); its gigabytes are removed."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    (path,) = golden_files("astro_accel", "manifest-sd15-configs.json")
    configs = read_json(path)
    unet = read_manifest(path.with_name("manifest-sd15-unet.tsv"))
    text = read_manifest(path.with_name("manifest-sd15-text-encoder.tsv"))
    with torch.device("meta"):
        vae = {key: list(value.shape) for key, value in AutoencoderKL(**SD_VAE).state_dict().items()}
    base = tmp_path / "stable-diffusion-v1-5"
    files = []

    def write(target, shapes):
        files.append(target)
        return write_random_weights(target, shapes)

    def make(container):
        write_config(base / "unet/config.json", "UNet2DConditionModel", configs["unet"])
        write_config(base / "vae/config.json", "AutoencoderKL", SD_VAE)
        encoder = {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", **configs["text_encoder"]}
        (base / "text_encoder").mkdir()
        (base / "text_encoder/config.json").write_text(json.dumps(encoder))
        write_tokenizer(base / "tokenizer", first_end=49406)  # where the published vocabulary has them
        size = write(base / "vae/diffusion_pytorch_model.safetensors", vae)
        if container == "diffusers":
            size += write(base / "unet/diffusion_pytorch_model.safetensors", unet)
            old = {f"text_model.{key}": shape for key, shape in text.items()}
            return ["--model", str(base)], size + write(base / "text_encoder/model.safetensors", old)
        folder = tmp_path / "ckpts"
        size += write(folder / "unet-10000.safetensors", to_hcp(unet))
        size += write(folder / "text_encoder-10000.safetensors", to_hcp(text, text_encoder=True))
        return ["--model", str(folder), "--base", str(base)], size

    yield make
    for file in files:
        file.unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("container", ["diffusers", "hcp"])
def test_full_size_container(published, tmp_path, container):
    options, size = published(container)
    pool = tmp_path / "pool"
    pool.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 60, (424, 424, 3), dtype=np.uint8)).save(pool / "152242.png")
    row = PlanRow(0, "dust_lane", PROMPT, Condition(), row_seed(PLAN_ID, 0), reference_id="587722982")
    row = PlanRow(**{**vars(row), "reference_image": "152242.png"})
    Plan(PLAN_ID, (row,), "none").write(tmp_path / "plan.ecsv")
    out = tmp_path / "out"
    # the last norm of random weights has no bias, so that the mean that is published to be kept would be 0
    words = ["astro", "generate", str(tmp_path / "plan.ecsv"), *options, "--pool", str(pool), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words, "--steps", "2", "--device", "cpu", "--rescale", "rms"],
        env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    match = re.search(r"^peak (\d+)$", done.stdout, re.MULTILINE)
    assert match is not None
    peak = int(match[1])
    print(f"GalaxySD {container}: weights {size / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB")
    assert size == pytest.approx(4.27e9, rel=0.01)
    with Image.open(out / f"images/{PLAN_ID}-000000.png") as image:
        assert image.size == (424, 424)
        assert np.asarray(image).std() > 0
        assert image.text["REFERENCE_ID"] == "587722982"
        assert image.text["PROMPT"] == PROMPT
