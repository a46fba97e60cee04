"""PrimeDepth's whole checkpoint in its published container, with random weights, by the real command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
#: Peak resident memory of the whole command over the bytes of the file, at most; 0.86 was measured.
PEAK_BOUND = 1.1
COMMAND = """
import sys
from priorscope.cli import main
status = main(sys.argv[1:])
print("peak", int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) * 1024)
sys.exit(status)
"""


@pytest.fixture
def checkpoint(tmp_path, golden_files, read_manifest, random_weights, fork):
    """The .ckpt, 7 GB; gone after the test."""
    import torch

    shapes = read_manifest(golden_files("depth", "manifest-primedepth-full.tsv")[0])
    path = tmp_path / "primedepth.ckpt"

    def write() -> int:
        state = {}
        for key, shape in shapes.items():
            value = torch.empty(shape)
            flat, begin = value.view(-1).numpy(), 0
            for piece in random_weights(key, shape):
                flat[begin : begin + len(piece)] = piece
                begin += len(piece)
            state[key] = value
        torch.save({"epoch": 0, "global_step": 0, "pytorch-lightning_version": "1.8.5", "state_dict": state}, path)
        return 0

    assert fork(write) == 0  # its gigabytes are its own
    yield path
    path.unlink()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_full_size_container(checkpoint, tmp_path):
    photo, out = tmp_path / "photo.png", tmp_path / "out"
    Image.fromarray(PHOTO).save(photo)
    words = ["depth", "predict", str(photo), "--model", str(checkpoint), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words, "--device", "cpu"],
        env={**os.environ, "PRIORSCOPE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    peak = re.search(r"^peak (\d+)$", done.stdout, re.MULTILINE)
    assert peak is not None
    size = checkpoint.stat().st_size
    print(f"PrimeDepth: checkpoint {size / 1e9:.2f} GB, peak {int(peak[1]) / 1e9:.2f} GB")
    assert "head for segmentation is not loaded" in done.stderr
    values = np.load(out / "photo_disparity.npy")
    assert values.shape == (40, 56)
    assert np.isfinite(values).all()
    assert values.std() > 0
    side = json.loads((out / "photo_disparity.json").read_text())
    assert (side["space"], side["scale"], side["caption"]) == ("disparity", "affine-invariant", "empty")
    assert size == pytest.approx(6.85e9, rel=0.01)
    assert int(peak[1]) < PEAK_BOUND * size
