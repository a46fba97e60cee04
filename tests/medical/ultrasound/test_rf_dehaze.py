"""RF in, tissue and haze out: with priors that know the power spectra of a simulated cine, and nothing else."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from priorscope.errors import InputError
from priorscope_medical.ultrasound.echo_lines import LineScan
from priorscope_medical.ultrasound.gain_network import LocalSpectrum
from priorscope_medical.ultrasound.multipath_haze import Haze
from priorscope_medical.ultrasound.quadrature import Quadrature, carrier_of
from priorscope_medical.ultrasound.rf_dehaze import dehaze_rf, frame_windows, noise_levels
from priorscope_medical.ultrasound.rf_prior import SCHEDULE, RfPrior, RfValues
from priorscope_medical.ultrasound.rf_simulator import simulate_cine
from priorscope_medical.ultrasound.scan_conversion import Sector

FRAMES = 3
SCAN = LineScan(Sector((20e-3, 45e-3), (-0.5, 0.5)), samples=340, beams=32)


class Known(nn.Module):
    """Gains of a mean local spectrum (bins, 1, 1)."""

    def __init__(self, power):
        super().__init__()
        self.spectrum, self.power = LocalSpectrum(8), nn.Parameter(power, requires_grad=False)

    def forward(self, spectrum, level, top=None):
        gain = self.power / (self.power + torch.exp(2 * level)[:, None, None, None])
        return gain.expand(spectrum.shape)


@pytest.fixture(scope="module")
def cine():
    haze = Haze(level=2.0, smear=9.0, memory=0.99, lower=0.1, reach=80e-3)
    return simulate_cine(3, frames=FRAMES, scan=SCAN, haze=haze, noise=-60, density=1e7, begin=0.2)


@pytest.fixture(scope="module")
def priors(cine):
    hazy = torch.from_numpy(cine.hazy())
    way = Quadrature(SCAN.samples, carrier_of(hazy))
    scale = way.forward(hazy).abs().square().mean().sqrt()

    def prior(part, rf):
        power = LocalSpectrum(8).forward(way.forward(torch.from_numpy(rf))[None] / scale).abs().square() / 2
        return RfPrior._of(
            Known(power.mean((0, 2, 3))[:, None, None]), RfValues(part, frames=FRAMES), None, torch.device("cpu")
        )

    return prior("tissue", cine.clean), prior("haze", cine.haze)


def error(found, truth):
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


@pytest.mark.parametrize("guidance", ["gains", "pigdm", "projection"])
def test_tissue_comes_apart_from_haze(cine, priors, guidance):
    hazy = cine.hazy()
    found = dehaze_rf(hazy, *priors, steps=12, guidance=guidance, noise=0.02, eta=0.0, samples=2, device="cpu")
    np.testing.assert_allclose(found.tissue + found.haze, hazy, atol=1e-5)
    assert error(found.tissue, cine.clean) < 0.8 * error(hazy, cine.clean)
    assert error(found.haze, cine.haze) < 0.8


def test_many_samples_are_wieners_filter(cine, priors):
    """Of Gaussian priors the posterior mean is linear: a filter with gains S / (S + N)."""
    hazy = cine.hazy()
    lines = torch.from_numpy(hazy)
    way = Quadrature(SCAN.samples, carrier_of(lines))
    local = LocalSpectrum(8)
    rows = way.forward(lines)[None]
    tissue, haze = (prior.network.gains.power for prior in priors)
    expected = way.inverse(local.inverse(haze / (tissue + haze) * local.forward(rows), rows.shape)[0])
    first = dehaze_rf(hazy, *priors, steps=1, noise=0.0, device="cpu")
    assert error(first.haze, expected.numpy()) < 0.08  # one call at the highest level: all but the filter
    mean = dehaze_rf(hazy, *priors, steps=30, eta=1.0, samples=12, noise=0.0, device="cpu")
    assert error(mean.haze, expected.numpy()) < 0.3


def test_strength(cine, priors):
    hazy = cine.hazy()
    kept = []
    for gamma in (0.0, 0.3, 1.0):
        found = dehaze_rf(hazy, *priors, gamma=gamma, steps=4, device="cpu")
        np.testing.assert_allclose(found.tissue + gamma * found.haze, hazy, atol=1e-5)
        kept.append(float(np.linalg.norm(found.tissue)))
    assert kept[0] == pytest.approx(float(np.linalg.norm(hazy)), rel=1e-6)
    assert kept[0] > kept[1] > kept[2]


def test_a_seed_fixes_it_whatever_the_batch_and_the_unit(cine, priors):
    hazy = np.concatenate([cine.hazy(), cine.hazy()[::-1]])
    first = dehaze_rf(hazy, *priors, steps=4, batch_size=1, device="cpu").tissue
    np.testing.assert_allclose(
        dehaze_rf(hazy, *priors, steps=4, batch_size=8, device="cpu").tissue, first, atol=1e-4 * np.abs(first).max()
    )
    louder = dehaze_rf(1000 * hazy, *priors, steps=4, device="cpu").tissue
    np.testing.assert_allclose(louder / 1000, first, atol=1e-4 * np.abs(first).max())
    other = dehaze_rf(hazy, *priors, steps=4, seed=1, device="cpu").tissue
    assert error(other, first) > 1e-3


def test_companded_priors_take_the_published_guidance(cine, priors):
    hazy = cine.hazy()
    companded = [
        RfPrior._of(
            Known(prior.network.gains.power / 30),
            RfValues(prior.values.part, frames=FRAMES, std=0.3, mu=255.0, loudest=6.0),
            None,
            torch.device("cpu"),
        )
        for prior in priors
    ]
    for guidance in ("pigdm", "projection"):
        found = dehaze_rf(hazy, *companded, steps=8, guidance=guidance, device="cpu")
        assert np.isfinite(found.tissue).all()
        np.testing.assert_allclose(found.tissue + found.haze, hazy, atol=1e-5)
        assert 0 < float(np.linalg.norm(found.haze)) < 2 * float(np.linalg.norm(hazy))
    with pytest.raises(InputError, match="companded"):
        dehaze_rf(hazy, *companded, device="cpu")


def test_windows_cover_all_frames_and_a_short_cine_goes_forth_and_back():
    assert frame_windows(6, 6) == [tuple(range(6))]
    assert frame_windows(3, 6) == [(0, 1, 2, 1, 0, 1)]
    assert frame_windows(1, 4) == [(0, 0, 0, 0)]
    windows = frame_windows(20, 6)
    assert sorted({frame for window in windows for frame in window}) == list(range(20))
    assert windows[-1] == tuple(range(14, 20))
    assert len(set(windows)) == len(windows)
    assert all(b[0] - a[0] <= 3 for a, b in pairwise(windows))


def test_levels_fall_and_cost_what_was_asked():
    for start in (1.0, 0.4):
        levels = noise_levels(start, 7)
        assert len(levels) == 8
        assert all(a > b for a, b in pairwise(levels))
        assert (levels[0], levels[-1]) == (pytest.approx(1.0), 0.0)
    assert SCHEDULE(noise_levels(0.4, 7)[1])[1] == pytest.approx(SCHEDULE(0.4)[1])
    assert noise_levels(0.4, 1) == [pytest.approx(1.0), 0.0]
    late = noise_levels(0.6, 5, 0.2, True)
    assert len(late) == 6
    sigmas = [SCHEDULE(level)[1] for level in late[:-1]]
    assert sigmas == pytest.approx(np.geomspace(SCHEDULE(0.6)[1], 0.2, 5))


def test_a_late_run_begins_from_the_estimate(cine, priors):
    """At a level of little noise the result stays near the estimate, right or wrong; at a high one it leaves it."""
    hazy, clean = cine.hazy(), cine.clean
    options = {"steps": 1, "noise": 0.02, "device": "cpu"}
    right = [
        error(dehaze_rf(hazy, *priors, start=level, estimate=clean, **options).tissue, clean) for level in (0.01, 1)
    ]
    assert right[0] < 0.3 < right[1]
    wrong = [error(dehaze_rf(hazy, *priors, start=level, estimate=hazy, **options).tissue, hazy) for level in (0.01, 1)]
    assert wrong[0] < 0.3 < wrong[1]
    plain = dehaze_rf(hazy, *priors, steps=6, device="cpu")
    late = dehaze_rf(hazy, *priors, steps=2, start=0.3, last=0.2, estimate=plain.tissue, device="cpu")
    np.testing.assert_allclose(late.tissue + late.haze, hazy, atol=1e-5)
    assert error(late.tissue, clean) < 1.1 * error(plain.tissue, clean)


def test_an_estimate_is_cut_into_the_windows_of_the_cine(cine, priors):
    """And shares the unit of the RF, which may be any."""
    hazy = np.concatenate([cine.hazy(), cine.hazy()[::-1]])
    guess = np.concatenate([cine.clean, cine.clean[::-1]])
    options = {"steps": 2, "start": 0.3, "last": 0.2, "device": "cpu"}
    first = dehaze_rf(hazy, *priors, estimate=guess, batch_size=1, **options).tissue
    other = dehaze_rf(100 * hazy, *priors, estimate=100 * guess, batch_size=8, **options).tissue / 100
    np.testing.assert_allclose(other, first, atol=1e-4 * np.abs(first).max())


RF = np.random.default_rng(0).normal(size=(2, 200, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("rf", "options", "fact"),
    [
        (RF[0], {}, "shape"),
        (RF.astype(np.complex64), {}, "complex lines"),
        (np.full_like(RF, np.nan), {}, "not finite"),
        (np.zeros_like(RF), {}, "without a signal"),
        (RF.transpose(0, 2, 1), {}, "another order"),
        (RF, {"steps": 0}, "0 steps"),
        (RF, {"start": 0.0}, "start 0"),
        (RF, {"last": 0.0}, "last level"),
        (RF, {"estimate": RF[:1]}, "estimate of shape"),
        (RF, {"estimate": np.full_like(RF, np.nan)}, "estimate of shape"),
        (RF, {"gamma": -1.0}, "gamma -1"),
        (RF, {"guidance": "wish"}, "guidance 'wish'"),
        (RF, {"carrier": 0.4}, "0.4 cycles"),
    ],
)
def test_refusals(priors, rf, options, fact):
    with pytest.raises(InputError, match=fact):
        dehaze_rf(rf, *priors, device="cpu", **options)


def test_priors_must_fit_together(priors):
    with pytest.raises(InputError, match="haze and tissue"):
        dehaze_rf(RF, *priors[::-1], device="cpu")
    other = RfPrior._of(priors[1].network.gains, RfValues("haze", frames=4), None, torch.device("cpu"))
    with pytest.raises(InputError, match="other sequences"):
        dehaze_rf(RF, priors[0], other, device="cpu")


def test_bundled_priors_take_haze_from_a_cine_that_they_have_not_seen():
    """Convolved, of a seed that no training has had; not the evidence, which is benchmarks/dehazing.py."""
    scan = LineScan(
        Sector((10e-3, 60e-3), (-0.6, 0.6)), samples=640, beams=48, carrier=2.43e6, bandwidth=0.66, beam_width=1.5
    )
    haze = Haze(level=3.0, smear=6.0, reach=40e-3)
    cine = simulate_cine(12345, frames=6, scan=scan, haze=haze, density=6e6, begin=0.2)
    hazy = cine.hazy()
    bundled = [RfPrior.from_pretrained(f"tiny-rf-{part}", device="cpu") for part in ("tissue", "haze")]
    found = dehaze_rf(hazy, *bundled, steps=8, eta=100.0, device="cpu").tissue
    assert error(found, cine.clean) < 0.6 * error(hazy, cine.clean)
