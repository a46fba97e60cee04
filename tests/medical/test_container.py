"""The published AAPM checkpoint's container, at full width, through the real command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

RUN = """
import sys, time
import torch
torch.set_num_threads(1)
from priorscope.cli import main
begin = time.perf_counter()
status = main(["medical", "reconstruct", *sys.argv[1:]])
peak = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 2**20
print(f"{time.perf_counter() - begin:.1f} s, peak {peak:.2f} GiB")
raise SystemExit(status)
"""


@pytest.mark.slow
def test_full_size_container_reconstructs(
    tmp_path: Path, golden_files: Callable[[str, str], list[Path]], tiny_volume: Path
) -> None:
    manifest = golden_files("medical", "manifest-mbir-AAPM*")[0]
    generator = torch.Generator().manual_seed(0)
    model = {}
    for row in manifest.read_text().splitlines()[1:]:
        name, sizes, _ = row.split("\t")
        shape = json.loads(sizes)
        weight = torch.randn(shape, generator=generator)
        fan = max(weight[0].numel(), 1) if weight.ndim > 1 else 100
        model[name] = weight / fan**0.5
    order = manifest.with_name(manifest.name.replace("manifest", "ema-order")).with_suffix(".txt").read_text().split()
    ratio = torch.arange(2000, dtype=torch.float64) / 1999
    model["module.sigmas"] = (torch.tensor(378.0).double().log() * (1 - ratio) + torch.tensor(0.01).log() * ratio).exp()
    shadow = [model[f"module.{name.removeprefix('module.')}"] for name in order]
    path = tmp_path / "checkpoint_185.pth"
    average = {"decay": 0.999, "num_updates": 9, "shadow_params": shadow}
    torch.save({"optimizer": {}, "model": model, "ema": average, "step": 9}, path)
    del model, shadow, average
    words = [str(tiny_volume), f"--prior={path}", "--prior-scale=2.5", "--method=mbir", "--steps=2", "--slab", "4", "5"]
    # all of the network's width; 256 pixels would only take longer
    words += ["--size=64", f"--out={tmp_path / 'run'}", "--device=cpu"]
    done = subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout.splitlines()[-1])
    assert float(done.stdout.split("peak ")[1].split()[0]) < 5
    made = nibabel.load(tmp_path / "run/volume.nii.gz")
    assert made.shape == (64, 64, 1)
    assert np.isfinite(made.get_fdata()).all()
