"""Predictor and corrector on variance-exploding noise."""

from __future__ import annotations

import functools
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.schedule import EDMSchedule, VESchedule, VPSchedule
from priorscope.diffusion.solvers import ddpm_ancestral
from priorscope.diffusion.variance_exploding import (
    discrete_sigmas,
    langevin,
    predictor_corrector,
    reverse_diffusion,
    scale_index,
    ve_times,
)
from priorscope.errors import InputError

MEAN, VARIANCE = 0.4, 0.04


def gaussian(schedule=None):
    """The exact score of pixels that are independent and normal."""
    schedule = schedule or VESchedule()

    def score(x, sigma):
        return -(x - MEAN) / (VARIANCE + sigma.to(x).view(-1, 1, 1, 1) ** 2)

    label = schedule.sigma if isinstance(schedule, VESchedule) else None
    return Denoiser(score, schedule, "score", time_label=label)


def test_golden_mbir_vesde(golden_files):
    for path in golden_files("medical", "mbir_vesde_pc*.safetensors"):
        case = load_file(path)
        names = sorted({name.split(".")[0] for name in case})
        for name in (name for name in names if name.startswith("ve_")):
            _, sigma_max, count = name.split("_")
            schedule, count = VESchedule(0.01, float(sigma_max)), int(count)
            sigmas = discrete_sigmas(schedule, count)
            times = ve_times(count, official=True)
            moves = [
                reverse_diffusion(still, torch.zeros(1, 1), t, -math.inf, None, Noise.recorded([one]), table=count)[0]
                for still, one in [(Denoiser(lambda x, _: 0 * x, schedule, "score"), torch.ones(1, 1))]
                for t in times[:-1]
            ]
            np.testing.assert_allclose(sigmas, case[f"{name}.discrete_sigmas"], rtol=1e-4)
            np.testing.assert_array_equal(np.float32(times[:-1]), case[f"{name}.timesteps"])
            np.testing.assert_array_equal([scale_index(t, count) for t in times[:-1]], case[f"{name}.idx_of_t"])
            np.testing.assert_allclose(schedule.sigma(np.array(times[:-1])), case[f"{name}.marginal_std"], rtol=1e-4)
            np.testing.assert_allclose(torch.cat(moves).flatten(), case[f"{name}.G"], rtol=1e-4)
        model = gaussian(VESchedule(0.01, 378.0))
        for name in (name for name in names if name.startswith("pc")):
            x, t, noise = case[f"{name}.x"], float(case[f"{name}.t"][0]), case[f"{name}.noise"]
            predict = functools.partial(reverse_diffusion, model, x, t, -math.inf, None, table=2000)
            correct = functools.partial(langevin, model, x, t, norms="batch")
            for made, key in ((lambda z, f=predict: f(z)[0], "pred"), (correct, "corr")):
                got = made(Noise.recorded([noise]))
                torch.testing.assert_close(got, case[f"{name}.{key}_x"], rtol=1e-4, atol=0)
                mean = made(Noise.recorded([torch.zeros_like(noise)])) if key == "pred" else None
                if mean is not None:
                    torch.testing.assert_close(mean, case[f"{name}.pred_mean"], rtol=1e-4, atol=0)


def test_times_end_free_of_noise():
    schedule = VESchedule(0.01, 50.0)
    times = ve_times(5)
    assert times == [1.0, 0.75, 0.5, 0.25, 0.0, -math.inf]
    assert schedule(times[-1]) == (1.0, 0.0)
    np.testing.assert_allclose([schedule(t)[1] for t in times[:-1]], discrete_sigmas(schedule, 5).flip(0), rtol=1e-6)
    np.testing.assert_allclose(schedule.sigma(torch.tensor(times)).numpy(), schedule.sigma(np.array(times)))


def test_predictor_is_ddpm_with_the_large_variance():
    model, x = gaussian(), torch.randn(2, 1, 4, 4, dtype=torch.float64) * 30
    z = torch.randn(2, 1, 4, 4)
    for t, s in ((1.0, 0.9), (0.5, 0.49), (0.05, 0.0)):
        expected, _ = ddpm_ancestral(model, x, t, s, None, Noise.recorded([z]), variance="large")
        got, _ = reverse_diffusion(model, x, t, s, None, Noise.recorded([z]))
        torch.testing.assert_close(got, expected)
    last, _ = reverse_diffusion(model, x, 0.0, -math.inf, None, Noise.recorded([z]))
    expected, _ = ddpm_ancestral(model, x, 0.0, -math.inf, None, None, variance="large")
    torch.testing.assert_close(last, expected + 0.01 * z)


def test_the_table_is_the_step_itself_where_both_agree():
    model, x, z = gaussian(), torch.randn(1, 1, 4, 4), torch.randn(1, 1, 4, 4)
    times = ve_times(9)
    for t, s in pairwise(times):
        table, _ = reverse_diffusion(model, x, t, s, None, Noise.recorded([z]), table=9)
        free, _ = reverse_diffusion(model, x, t, s, None, Noise.recorded([z]))
        torch.testing.assert_close(table, free, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", ["corrector-predictor", "predictor-corrector"])
def test_a_run_draws_from_the_prior(order):
    step = functools.partial(predictor_corrector, order=order)
    noise = Noise.shared(3)
    start = 378 * noise.draw((64, 1, 8, 8))
    drawn = sample(gaussian(), start, ve_times(400), step=step, noise=noise)
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.015)
    assert float(drawn.std()) == pytest.approx(VARIANCE**0.5, rel=0.05)


def test_corrector_mends_samples_of_the_wrong_spread():
    """Langevin steps at one level draw towards the density of that level."""
    noise = Noise.shared(5)
    x = MEAN + 0.6 * noise.draw((4, 1, 32, 32))
    for _ in range(150):
        x = langevin(gaussian(), x, 0.3, noise)
    sigma = VESchedule().sigma(0.3)
    assert float(x.std()) == pytest.approx((VARIANCE + sigma**2) ** 0.5, rel=0.03)


@pytest.mark.parametrize("order", ["corrector-predictor", "predictor-corrector"])
def test_an_item_does_not_see_its_batch(order):
    step = functools.partial(predictor_corrector, order=order)
    x = torch.randn(4, 1, 4, 4) * torch.tensor([1.0, 30.0, 300.0, 1e3]).view(-1, 1, 1, 1)
    together, _ = step(gaussian(), x, 0.7, 0.6, None, Noise.per_item(range(4)))
    for i in range(4):
        alone, _ = step(gaussian(), x[i : i + 1], 0.7, 0.6, None, Noise.per_item([i]))
        torch.testing.assert_close(together[i : i + 1], alone)
    official, _ = step(gaussian(), x, 0.7, 0.6, None, Noise.per_item(range(4)), norms="batch")
    assert not torch.allclose(official, together, rtol=1e-2)


def test_corrector_takes_its_norms_over_a_whole_item():
    x, z = torch.randn(2, 1, 4, 4, dtype=torch.float64), torch.randn(2, 1, 4, 4, dtype=torch.float64)
    model = gaussian()
    got = langevin(model, x, 0.4, Noise.recorded([z]), snr=0.2)
    for i in range(2):
        score = -(x[i] - MEAN) / (VARIANCE + VESchedule().sigma(0.4) ** 2)
        e = 2 * (0.2 * z[i].norm() / score.norm()) ** 2
        torch.testing.assert_close(got[i], x[i] + e * score + (2 * e).sqrt() * z[i])


def test_corrector_rests_where_the_score_is_zero():
    x = torch.full((1, 1, 4, 4), MEAN, dtype=torch.float64)
    flat = Denoiser(lambda x, _: torch.zeros_like(x), VESchedule(), "score")
    assert torch.equal(langevin(flat, x, 0.5, Noise.shared(0)), x)


def test_number_of_calls_and_of_draws():
    calls = []
    model = Denoiser(lambda x, label: calls.append(float(label[0])) or -x, VESchedule(), "score")
    x = torch.randn(1, 1, 2, 2)
    drawn = Noise.recorded([torch.randn(1, 1, 2, 2) for _ in range(6)])
    step = functools.partial(predictor_corrector, corrector_steps=2)
    sample(model, x, ve_times(2), step=step, noise=drawn)
    assert calls == [1.0] * 3 + [0.0] * 3
    assert drawn.drawn == 6


def test_it_runs_on_sigmas_as_levels():
    """EDM's schedule counts in sigma and ends at 0."""
    ve, edm, z = VESchedule(), EDMSchedule(0.01, 378.0), torch.randn(2, 1, 4, 4)
    x = 300 * torch.randn(2, 1, 4, 4)
    for t, s in ((1.0, 0.5), (0.0, -math.inf)):
        expected, _ = predictor_corrector(gaussian(ve), x, t, s, None, Noise.recorded([z, z]))
        got, _ = predictor_corrector(gaussian(edm), x, ve.sigma(t), ve.sigma(s), None, Noise.recorded([z, z]))
        torch.testing.assert_close(got, expected)


def test_wrong_input():
    model, x, noise = gaussian(), torch.randn(1, 1, 4, 4), Noise.shared(0)
    for s in (0.5, 0.6):
        with pytest.raises(InputError, match="Levels must fall"):
            reverse_diffusion(model, x, 0.5, s, None, noise)
    with pytest.raises(InputError, match="without noise"):
        reverse_diffusion(model, x, 0.5, 0.4, None, None)
    with pytest.raises(InputError, match="sigma 0"):
        langevin(model, x, -math.inf, noise)
    with pytest.raises(InputError, match="variance-exploding"):
        langevin(Denoiser(lambda x, _: x, VPSchedule.from_betas()), x, 500, noise)
    with pytest.raises(InputError, match="table"):
        reverse_diffusion(gaussian(EDMSchedule()), x, 2.0, 1.0, None, noise, table=10)
    for options in ({"snr": 0.0}, {"snr": math.nan}, {"norms": "all"}, {"order": "both"}, {"corrector_steps": -1}):
        with pytest.raises(InputError):
            predictor_corrector(model, x, 0.5, 0.4, None, noise, **options)
    with pytest.raises(InputError, match="at least two"):
        ve_times(1)
