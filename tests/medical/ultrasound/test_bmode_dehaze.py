"""Posterior sampling of B-mode, the square, and the smooth map of haze."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from priorscope.errors import InputError
from priorscope_medical.ultrasound.bmode_dehaze import BmodeSampling, haze_free, windows
from priorscope_medical.ultrasound.bmode_frame import Smoothing, Square, guided_coefficients, guided_haze, over_time
from priorscope_medical.ultrasound.bmode_pipeline import BmodeSettings, dehaze_frames, working_size
from priorscope_medical.ultrasound.bmode_prior import EchoPrior, EchoValues, load_echo_prior
from priorscope_medical.ultrasound.bmode_trust import from_mask, trust_map


class GaussianNetwork(torch.nn.Module):
    """The noise in samples of a Gaussian prior N(mean, spread^2), which is known exactly."""

    def __init__(self, mean=-0.8, spread=0.2):
        super().__init__()
        self.config, self.levels = SimpleNamespace(image_channels=1), 0
        self.mean, self.spread = mean, spread

    def forward(self, x, label):
        variance = label.reshape(-1, 1, 1, 1)
        alpha, sigma = (1 - variance).sqrt(), variance.sqrt()
        gain = alpha * self.spread**2 / (alpha**2 * self.spread**2 + variance)
        x0 = self.mean + gain * (x - alpha * self.mean)
        return (x - alpha * x0) / sigma


def gaussian_prior(spread):
    return EchoPrior(GaussianNetwork(-0.8, spread), EchoValues(size=32), device=torch.device("cpu"))


@pytest.fixture
def gaussian():
    return gaussian_prior(0.5)


def pictures(frames=3, size=32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(frames, size, size, generator=draw)


def test_the_sample_follows_the_picture_more_with_more_weight(gaussian):
    y = pictures()
    errors = [
        float((haze_free(y, gaussian, BmodeSampling("dps", steps=20, start=0.5, omega=omega)) - y).square().mean())
        for omega in (0.0, 50.0, 200.0)
    ]
    assert errors[0] > 2 * errors[1] > 20 * errors[2]


def test_without_weight_the_prior_decides():
    """From nearly pure noise: the prior's mean, and the spread of the clean estimate at the last level but one.

    There x is alpha x0 + sigma eps, and the estimate alone spreads as s^2 alpha / sqrt(alpha^2 s^2 + sigma^2).
    """
    spread, alpha, sigma = 0.2, 0.95, (1 - 0.95**2) ** 0.5
    expected = spread**2 * alpha / (alpha**2 * spread**2 + sigma**2) ** 0.5
    how = BmodeSampling("dps", steps=60, start=1.0, omega=0.0)
    found = 2 * haze_free(torch.ones(1, 64, 64), gaussian_prior(spread), how) - 1
    assert float(found.mean()) == pytest.approx(-0.8, abs=0.02)
    assert float(found.std()) == pytest.approx(expected, rel=0.1)


def test_trust_decides_pixel_by_pixel(gaussian):
    y = torch.full((1, 32, 32), 0.6)
    trust = torch.ones_like(y)
    trust[:, :, 16:] = 0.05
    found = haze_free(y, gaussian, BmodeSampling("semantic", steps=20, start=0.5, omega=150.0), trust=trust)
    left, right = (found[:, :, half] - y[:, :, half] for half in (slice(16), slice(16, None)))
    assert float(left.square().mean()) < 0.02 * float(right.square().mean())


@pytest.mark.parametrize("method", ["smooth", "dps", "semantic"])
def test_results_depend_on_the_seed_not_on_the_batch(gaussian, method):
    y = pictures(5)
    trust = torch.full_like(y, 0.7) if method == "semantic" else None

    def run(seed, batch):
        how = BmodeSampling(method, steps=4, batch_size=batch, seed=seed)
        return haze_free(y, gaussian, how, trust=trust)

    torch.testing.assert_close(run(0, 5), run(0, 2), rtol=0, atol=1e-5)
    assert torch.equal(run(0, 5), run(0, 5))
    assert not torch.allclose(run(0, 5), run(1, 5))


def test_nuclear_leaves_a_still_background_out(gaussian):
    """A bright layer that stands still goes to the background; moving blobs stay."""
    draw = np.random.default_rng(0)
    still = 0.4 * torch.ones(8, 32, 32)
    moving = torch.zeros(8, 32, 32)
    for index in range(8):
        row = int(draw.integers(2, 26))
        moving[index, row : row + 4, 8:24] = 0.2
    how = BmodeSampling("nuclear", steps=40, start=0.3, omega=150.0, gamma=1.0, share=0.5, batch_size=8)
    found = haze_free(still + moving, gaussian, how)
    plain = haze_free(still + moving, gaussian, BmodeSampling("dps", steps=40, start=0.3, omega=150.0))
    away = moving == 0
    assert float(found[away].mean()) < float(plain[away].mean())


def test_windows_reach_back_to_their_full_length():
    assert [(part.start, part.stop) for part in windows(7, 3)] == [(0, 3), (3, 6), (4, 7)]
    assert [(part.start, part.stop) for part in windows(2, 5)] == [(0, 2)]


def test_the_square_holds_the_sector_and_gives_it_back():
    sector = np.zeros((120, 160), bool)
    sector[20:100, 50:110] = True
    square = Square.around(sector, 64)
    y, x = torch.meshgrid(torch.linspace(0, 1, 120), torch.linspace(0, 1, 160), indexing="ij")
    picture = (0.3 + 0.2 * torch.sin(5 * x) * torch.cos(4 * y))[None]
    small = square.taken(picture)
    assert small.shape == (1, 64, 64)
    back = square.put_back(small, (120, 160))
    assert (back - picture)[0, torch.from_numpy(sector)].abs().max() < 5e-3
    beyond = Square.around(np.ones((40, 80), bool), 64).taken(torch.ones(1, 40, 80))
    assert float(beyond[0, 0, 32]) == 0.0  # a wide sector leaves the square's top empty
    assert float(beyond[0, 32, 32]) == 1.0


def test_guided_haze_is_smooth_linear_and_never_more_than_the_picture():
    smoothing = Smoothing(radius=3, floor=1e-8, frames=0.0)
    guide = pictures(2, 32)
    slope, offset = guided_coefficients(0.3 * guide + 0.1, guide, smoothing)
    torch.testing.assert_close(slope, torch.full_like(slope, 0.3), rtol=0, atol=1e-3)
    torch.testing.assert_close(offset, torch.full_like(offset, 0.1), rtol=0, atol=1e-3)
    flat = torch.full((2, 32, 32), 0.5)
    slope, offset = guided_coefficients(flat * 0.4, flat, smoothing)
    torch.testing.assert_close(slope * flat + offset, flat * 0.4)
    square = Square(0.0, 0.0, 32.0, 32)
    off = guided_haze(guide * 5, guide, guide, square, smoothing)
    assert bool((off <= guide).all())
    assert float(off.min()) >= 0.0
    frames = torch.zeros(9, 2, 2)
    frames[4] = 1.0
    spread_out = over_time(frames, 1.0)
    assert float(spread_out.sum()) == pytest.approx(4.0, rel=1e-5)
    assert float(spread_out[4, 0, 0]) == pytest.approx(0.399, abs=0.01)


def test_nothing_outside_of_the_sector_and_nothing_kept_is_touched(gaussian):
    grey = pictures(3, 48).numpy()
    sector = np.zeros((48, 48), bool)
    sector[8:44, 6:40] = True
    kept = ~sector
    kept[20:24, 20:24] = True
    found = dehaze_frames(grey, sector, gaussian, BmodeSettings(BmodeSampling("dps", steps=2)), kept=kept)
    np.testing.assert_array_equal(found.clean[:, kept], grey[:, kept])
    assert (found.clean <= grey).all()
    assert float((grey - found.clean)[:, ~kept].mean()) > 0.01
    none = dehaze_frames(grey, sector, gaussian, BmodeSettings(BmodeSampling("dps", steps=2), strength=0.0))
    np.testing.assert_array_equal(none.clean, grey)


def test_trust_is_least_in_still_grey_between_black_and_walls():
    grey = np.zeros((8, 64, 64), np.float32)
    grey[:, 8:28, 8:56] = 0.3  # a still layer
    grey[:, 36:48, 8:56] = 0.9  # a wall
    found = trust_map(grey, np.ones((64, 64), bool))
    assert found[:, 12:24, 16:48].max() < 0.4
    assert found[:, 40:44, 16:48].min() > 0.9
    assert found[:, 54:, 16:48].min() > 0.9
    moving = grey * np.where(np.arange(8) % 2, 1.0, 0.1)[:, None, None].astype(np.float32)
    assert trust_map(moving, np.ones((64, 64), bool))[:, 12:24, 16:48].min() > 0.5
    given = from_mask(grey[0] > 0.5, 2)
    assert given[0, 42, 32] > 0.95
    assert given[0, 18, 32] == pytest.approx(0.2, abs=1e-3)


def test_a_prior_comes_back_as_it_was_written(tiny_echo, tmp_path):
    prior = load_echo_prior(str(tiny_echo), device="cpu")
    assert prior.values == EchoValues(size=32, patch=2)
    assert (prior.multiple, working_size(prior, None), working_size(prior, 51)) == (4, 32, 52)
    made = EchoPrior.new(prior.values, (8, 8), depth=1, seed=0, device="cpu")
    made.network.eval()
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(prior.denoiser(x, 0.5).eps, made.denoiser(x, 0.5).eps)
    (tiny := tmp_path / "broken").mkdir()
    (tiny / "values.json").write_text('{"sides": 3}')
    (tiny / "unet").mkdir()
    with pytest.raises(InputError, match="does not describe"):
        load_echo_prior(str(tiny), device="cpu")


@pytest.mark.parametrize(
    ("source", "fact"),
    [
        ("hf://tristan-deep/semantic-diffusion-echo-dehazing", "semantic-diffusion"),
        ("zea-echo-dehazing", "semantic-diffusion"),
        ("tiny-ekko", "no model is called"),
        ("tiny-ct", "does not describe a prior of B-mode"),
    ],
)
def test_priors_that_are_not_here_or_of_something_else_give_one_line(source, fact):
    with pytest.raises(InputError, match=fact) as caught:
        load_echo_prior(source, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "fact"),
    [
        (lambda: BmodeSampling("median"), "method"),  # type: ignore[arg-type]
        (lambda: BmodeSampling("dps", steps=0), "steps"),
        (lambda: BmodeSampling("dps", start=0.0), "level"),
        (lambda: BmodeSampling("dps", omega=-1.0), "weight"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, fact):
    with pytest.raises(InputError, match=fact):
        make()


def test_pictures_and_priors_that_do_not_fit_are_refused(gaussian, tiny_echo):
    with pytest.raises(InputError, match="map of trust"):
        haze_free(pictures(), gaussian, BmodeSampling("semantic"))
    with pytest.raises(InputError, match="multiples of 4"):
        haze_free(pictures(1, 30), load_echo_prior(str(tiny_echo)), BmodeSampling("dps"))
    with pytest.raises(InputError, match="channels"):
        EchoPrior(GaussianNetwork(), EchoValues(patch=2), device=torch.device("cpu"))
    with pytest.raises(InputError, match="strength"):
        dehaze_frames(pictures(1).numpy(), np.ones((32, 32), bool), gaussian, BmodeSettings(strength=3.0))
