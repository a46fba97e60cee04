"""The demo from end to end, on a few slices, and the bundled priors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from priorscope.backbones.loading import model_folder
from priorscope.cli import main
from priorscope_medical.configs import SolverConfig
from priorscope_medical.phantoms import ct_slices
from priorscope_medical.prior import SlicePrior
from priorscope_medical.score_prior import load_prior
from priorscope_medical.table import MODELS
from priorscope_medical.volumes import read_volume


def test_demo(tmp_path, capsys):
    out = tmp_path / "demo"
    words = ["medical", "demo", "--out", str(out), "--slab", "90", "93", "--samples", "1", "--size", "32"]
    words += ["--device", "cpu"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "a real brain" in printed
    assert "research use only" in printed
    rows = json.loads((out / "metrics.json").read_text())["tasks"]["cs-mri-4"]
    assert [row["method"] for row in rows] == ["dds", "tv", "zero-filled"]
    assert all(row["psnr axial"] > 10 for row in rows)
    name = "mni_icbm152_t1_tal_nlin_sym_09a_converted"
    made = read_volume(out / "volumes" / name / "cs-mri-4-dds.nii.gz", unit="intensity", slices="axial")
    assert made.data.shape == (3, 32, 32)
    assert "SIMULATED MEASUREMENTS" in (out / "report.html").read_text()
    assert "priorscope medical demo" in (out / "demo.txt").read_text()
    # replaced, unless it is somebody's
    assert main(words) == 0
    (out / "demo.txt").unlink()
    capsys.readouterr()
    assert main(words) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_a_mistake_leaves_the_earlier_demo(tmp_path, capsys):
    for name in ("config.yaml", "demo.txt"):
        (tmp_path / name).write_text("")
    words = ["medical", "demo", "--out", str(tmp_path), "--device", "cpu"]
    for wrong in (["--slab", "90", "90"], ["--acceleration", "0"], ["--samples", "0"], ["--prior", "nix"]):
        assert main([*words, *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "config.yaml").exists()


def test_priors_that_have_to_be_fetched_by_hand(capsys, tmp_path):
    words = ["medical", "reconstruct", str(tmp_path), "--prior", "mbir-aapm"]
    assert main(words) == 2
    assert "checkpoint_185.pth" in capsys.readouterr().err


@pytest.mark.parametrize(("unit", "name"), [("attenuation", "tiny-ct"), ("intensity", "tiny-mr")])
def test_the_default_is_the_bundled_prior(unit, name):
    prior = load_prior(SolverConfig(device="cpu"), unit)
    assert prior.values.unit == unit
    folder = model_folder(name, ("values.json", "unet", "scheduler"), MODELS)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 3.2e6
    card = (Path(folder) / "README.md").read_text()
    assert "research use only" in card.lower()


def test_the_bundled_ct_prior_denoises_what_it_has_not_seen():
    """It explains most of the variance of drawn slices of another seed at a moderate noise level."""
    prior = SlicePrior.from_pretrained("tiny-ct", device="cpu")
    values = prior.values
    clean = torch.from_numpy(ct_slices(8, 12345, size=values.size, pixel=values.pixel))[:, None]
    x0 = values.to_network(clean)
    eps = torch.from_numpy(np.random.default_rng(0).standard_normal(x0.shape).astype(np.float32))
    alpha, sigma = prior.denoiser.schedule(400.0)
    with torch.no_grad():
        found = prior.denoiser(alpha * x0 + sigma * eps, 400.0).x0
    # the best linear guess without knowledge of neighbours shrinks every pixel towards the mean
    mean, variance = x0.mean(), x0.var()
    gain = alpha * variance / (alpha**2 * variance + sigma**2)
    linear = mean + gain * (alpha * (x0 - mean) + sigma * eps)
    assert (found - x0).square().mean() < 0.2 * (linear - x0).square().mean()
