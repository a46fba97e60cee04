"""Local spectra, gains and their joint use: equal to Gaussian conditioning where all is Gaussian."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from priorscope.diffusion import Parts, sample
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.solvers import ddim
from priorscope.errors import InputError
from priorscope_medical.ultrasound.gain_network import GainNetwork, LocalSpectrum
from priorscope_medical.ultrasound.joint_gains import JointGains
from priorscope_medical.ultrasound.rf_prior import SCHEDULE, RfNetwork, RfPrior, RfValues
from priorscope_medical.ultrasound.rf_task import RfPriorTask


class White(nn.Module):
    """The exact gains of white Gaussian values of a known variance."""

    def __init__(self, variance):
        super().__init__()
        self.spectrum, self.variance = LocalSpectrum(4), variance

    def forward(self, spectrum, level, top=None):
        gain = self.variance / (self.variance + torch.exp(2 * level))
        return gain[:, None, None, None].expand(spectrum.shape)


def white_prior(part, variance, frames=2):
    return RfPrior._of(
        White(variance), RfValues(part, frames=frames, std=math.sqrt(variance)), None, torch.device("cpu")
    )


@pytest.mark.parametrize("shape", [(1, 2, 16, 16), (2, 3, 13, 9), (1, 1, 4, 5), (1, 2, 1, 6)])
def test_local_spectra_come_back(shape):
    local = LocalSpectrum(8)
    frames = torch.randn(shape, dtype=torch.complex128)
    found = local.forward(frames)
    assert found.shape[:2] == (shape[0], shape[1] * 64)
    torch.testing.assert_close(local.inverse(found, frames.shape), frames)


def test_a_tone_lies_at_its_frequency():
    rows, beams = torch.arange(32)[:, None], torch.arange(32)[None, :]
    tone = torch.exp(2j * math.pi * (3 * rows / 8 + beams / 8))[None, None]
    power = LocalSpectrum(8).forward(tone).abs().square()[..., 4, 4].reshape(8, 8)
    assert divmod(int(power.argmax()), 8) == (3, 1)


def test_white_noise_keeps_its_variance():
    torch.manual_seed(0)
    noise = torch.complex(torch.randn(1, 4, 64, 64), torch.randn(1, 4, 64, 64))
    power = LocalSpectrum(8).forward(noise).abs().square() / 2
    assert float(power.mean()) == pytest.approx(1.0, rel=0.03)
    assert float(power[..., 0, :].mean()) == pytest.approx(1.0, rel=0.1)  # at the rim, too


def test_a_still_sequence_lies_in_the_lowest_slow_frequency():
    still = torch.randn(1, 1, 16, 16, dtype=torch.complex64).expand(1, 4, 16, 16)
    power = LocalSpectrum(4).forward(still).abs().square().reshape(4, -1).sum(1)
    assert float(power[1:].sum()) < 1e-9 * float(power[0])


def test_gains_lie_between_0_and_1_and_know_no_size():
    torch.manual_seed(1)
    network = GainNetwork(frames=2, side=4, width=8, dilations=(1,))
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.2)
    frames = torch.randn(1, 2, 48, 40, dtype=torch.complex64)
    level = torch.tensor([-1.0])
    with torch.no_grad():
        whole = network(network.spectrum.forward(frames), level)
    assert 0 < float(whole.min()) < float(whole.max()) < 1
    top = 16
    part = network(network.spectrum.forward(frames[:, :, top:]), level, torch.tensor([float(top)]))
    # but for the rim, which the part cannot know
    torch.testing.assert_close(part[:, :, 2:], whole[:, :, top // 2 + 2 :], atol=1e-5, rtol=1e-4)
    elsewhere = network(network.spectrum.forward(frames[:, :, top:]), level)
    assert float((elsewhere - part).abs().max()) > 1e-4


@pytest.mark.parametrize("sigma", [0.1, 0.7, 3.0])
def test_the_loss_is_least_for_wieners_gain(sigma, monkeypatch):
    variance = 0.5
    prior = white_prior("tissue", variance)
    monkeypatch.setattr("priorscope_medical.ultrasound.rf_task._RANGE", (sigma, sigma))
    image = math.sqrt(variance) * torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = {"image": image, "seed": torch.arange(64), "top": torch.zeros(64)}
    losses = {}
    for factor in (0.7, 1.0, 1.4):
        prior.network.gains.variance = factor * variance
        losses[factor] = RfPriorTask(prior)(batch)["surprise"]
    assert losses[1.0] < min(losses[0.7], losses[1.4])


def test_joint_estimate_is_that_of_gaussian_conditioning():
    """x ~ N(0, a), h ~ N(0, b), both seen through noise sigma, and y = x + gamma h + noise."""
    a, b, gamma, noise, sigma = 0.5, 2.0, 0.7, 0.1, 0.8
    priors = (white_prior("tissue", a), white_prior("haze", b))
    parts = Parts([(4, 8, 8)] * 2)
    y, state = torch.randn(1, 4, 8, 8), torch.randn(1, 8, 8, 8)
    found = JointGains(priors, parts, y, gamma=gamma, noise=noise)(state, SCHEDULE.level(sigma))
    precision = torch.tensor(
        [
            [1 / a + 1 / sigma**2 + 1 / noise**2, gamma / noise**2],
            [gamma / noise**2, 1 / b + 1 / sigma**2 + gamma**2 / noise**2],
        ],
        dtype=torch.float64,
    )
    x, h = parts.split(state)
    right = torch.stack([x / sigma**2 + y / noise**2, h / sigma**2 + gamma * y / noise**2]).double()
    expected = torch.linalg.solve(precision, right.reshape(2, -1)).reshape(right.shape)
    torch.testing.assert_close(found.x0, torch.cat([*expected], 1).float(), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(found.eps, (state - found.x0) / sigma)


def test_samples_are_those_of_the_posterior():
    a, b, gamma = 0.5, 2.0, 0.7
    parts = Parts([(4, 16, 16)] * 2)
    y = torch.full((1, 4, 16, 16), 1.3)
    model = JointGains((white_prior("tissue", a), white_prior("haze", b)), parts, y, gamma=gamma, noise=1e-3)
    times = [*torch.linspace(1, 0.003, 150).tolist(), 0.0]
    noise = Noise.shared(0)
    x = SCHEDULE(1.0)[1] * noise.like(torch.empty(1, *parts.shape))
    tissue, haze = parts.split(sample(model, x, times, step=lambda *args: ddim(*args, eta=1.0), noise=noise))
    total = a + gamma**2 * b
    assert float(tissue.mean()) == pytest.approx(a / total * 1.3, abs=0.04)
    assert float(tissue.var()) == pytest.approx(a * gamma**2 * b / total, rel=0.15)
    torch.testing.assert_close(tissue + gamma * haze, y, atol=0.02, rtol=0)


def test_a_prior_comes_back_from_its_folder(tmp_path):
    prior = RfPrior.new(RfValues("haze", frames=2), width=16, dilations=(1,))
    nn.init.normal_(prior.network.gains.leave.weight, std=0.1)
    prior.save_pretrained(tmp_path / "prior")
    again = RfPrior.from_pretrained(tmp_path / "prior", device="cpu")
    assert again.values == prior.values
    x = torch.randn(2, 4, 12, 20)
    with torch.no_grad():
        first, second = (one.denoiser(x, 0.4).x0 for one in (prior, again))
    assert torch.equal(first, second)
    settings = tmp_path / "prior/rf_values.json"
    settings.write_text(settings.read_text().replace('"frames"', '"films"'))
    with pytest.raises(InputError, match="unknown settings"):
        RfPrior.from_pretrained(tmp_path / "prior")


@pytest.mark.parametrize(
    ("make", "fact"),
    [
        (lambda: LocalSpectrum(5), "windows of 5"),
        (lambda: RfValues("bone"), "part 'bone'"),
        (lambda: RfValues("haze", frames=0), "positive"),
    ],
)
def test_refusals(make, fact):
    with pytest.raises(InputError, match=fact):
        make()


def test_network_of_other_frames_is_refused(tmp_path):
    prior = RfPrior.new(RfValues("haze", frames=2), width=16, dilations=(1,))
    assert isinstance(prior.network, RfNetwork)
    prior.save_pretrained(tmp_path)
    settings = tmp_path / "rf_values.json"
    settings.write_text(settings.read_text().replace('"frames": 2', '"frames": 3'))
    with pytest.raises(InputError, match="frames"):
        RfPrior.from_pretrained(tmp_path)
