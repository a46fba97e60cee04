"""The parts of dehazing together: simulated RF, companding, two priors, patches and a late start."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from priorscope.diffusion import Denoiser, Noise, Parts, ProductDenoiser, SimpleVESchedule, ddim, late_start, sample
from priorscope.inverse import JointPiGDM, JointProjection
from priorscope.predictors import Patched
from priorscope_medical.ultrasound.companding import companded_sum, compress, expand
from priorscope_medical.ultrasound.echo_lines import LineScan
from priorscope_medical.ultrasound.multipath_haze import Haze
from priorscope_medical.ultrasound.rf_simulator import simulate_cine
from priorscope_medical.ultrasound.scan_conversion import Sector

SCHEDULE = SimpleVESchedule()
SIZE = (96, 48)
GAMMA = 0.7


def spectral_prior(examples):
    """The exact denoiser of stationary Gaussian images with the examples' power spectrum."""
    power = torch.fft.fft2(examples).abs().square().mean(0) / (examples.shape[-2] * examples.shape[-1])

    def network(x, label):
        variance = SCHEDULE(float(label[0]))[1] ** 2
        gain = power / (power + variance)
        x0 = torch.fft.ifft2(gain * torch.fft.fft2(x)).real
        return (x - x0) / math.sqrt(variance)

    return Denoiser(network, SCHEDULE), float(power.mean().sqrt())


@pytest.fixture(scope="module")
def scene():
    """Companded tissue and haze for training, and a hazy frame whose tissue is known."""
    scan = LineScan(Sector((20e-3, 27.4e-3), (-0.5, 0.5)), samples=SIZE[0], beams=SIZE[1])
    haze = Haze(level=0.0, smear=20.0, memory=0.5, lower=0.0)
    cines = [simulate_cine(seed, frames=8, scan=scan, haze=haze, noise=-60, density=2e7) for seed in range(3)]
    scale = max(np.abs(cine.hazy(GAMMA)).max() for cine in cines)
    tissue, clutter = (
        compress(torch.from_numpy(np.concatenate([getattr(cine, name) for cine in cines]) / scale)[:, None])
        for name in ("tissue", "haze")
    )
    y = compress(torch.from_numpy(cines[0].hazy(GAMMA)[:1] / scale)[:, None])
    return tissue, clutter, y


def error(estimate, truth):
    """Relative error of the echoes themselves."""
    return float((expand(estimate) - expand(truth)).norm() / expand(truth).norm())


def guided(name, measurement, y, stds):
    """The opening of a method."""
    if name == "projection":
        return {"correct": JointProjection(measurement, y, SCHEDULE, Noise.shared(1))}
    through = name == "pigdm"
    return {"constraint": JointPiGDM(measurement, y, SCHEDULE, noise=0.02, prior_stds=stds, through_network=through)}


@pytest.mark.parametrize("blend", [None, "feather", "replace"])
@pytest.mark.parametrize("name", ["pigdm", "pigdm without gradients", "projection"])
def test_tissue_comes_apart_from_haze(scene, name, blend):
    """Even priors that know no more than power spectra take away a part of the haze."""
    tissue, clutter, y = scene
    size = SIZE if blend is None else (64, 32)
    (first, first_std), (second, second_std) = (
        spectral_prior(examples[..., : size[0], : size[1]]) for examples in (tissue, clutter)
    )
    parts = Parts([(1, *SIZE)] * 2)
    model = ProductDenoiser([first, second], parts)
    if blend is not None:
        model = ProductDenoiser([Patched(prior, size, (16, 8), blend=blend) for prior in (first, second)], parts)
    times = [*np.linspace(1, 0.02, 80).tolist(), 0.0]
    x, rest = late_start(torch.cat([y, y], 1), times, SCHEDULE, 0.1, Noise.shared(0))
    assert len(rest) < 10
    openings = guided(name, companded_sum(parts, GAMMA), y, (first_std, second_std))
    out = sample(model, x, rest, step=ddim, **openings)
    assert error(out[:, :1], tissue[:1]) < 0.88 * error(y, tissue[:1])


def test_more_strength_takes_more_away(scene):
    tissue, clutter, y = scene
    (first, first_std), (second, second_std) = spectral_prior(tissue), spectral_prior(clutter)
    parts = Parts([(1, *SIZE)] * 2)
    times = [*np.linspace(0.1, 0.02, 8).tolist(), 0.0]
    kept = []
    for gamma in (0.1, 0.4, 0.7):
        openings = guided("pigdm", companded_sum(parts, gamma), y, (first_std, second_std))
        out = sample(ProductDenoiser([first, second], parts), torch.cat([y, y], 1), times, step=ddim, **openings)
        kept.append(float(expand(out[:, :1]).norm()))
    assert kept[0] > kept[1] > kept[2]
