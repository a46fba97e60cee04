"""Runs that begin late."""

from __future__ import annotations

import pytest
import torch

from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.schedule import VPSchedule
from priorscope.diffusion.simple_sde import SimpleVESchedule, euler_maruyama
from priorscope.diffusion.spacing import spaced_times
from priorscope.diffusion.warm_start import late_start
from priorscope.errors import InputError

SIMPLE = SimpleVESchedule()
VP = VPSchedule.from_betas("linear", beta_start=1e-4, beta_end=0.02)


def test_golden_dehaze_companded_levels(golden_files):
    """The paper's 200 steps begin at t = 0.8, whose noise is sigma(0.8)."""
    from safetensors.torch import load_file

    for path in golden_files("medical", "dehaze_companded*.safetensors"):
        data = load_file(path)
        assert SIMPLE(0.8)[1] == pytest.approx(float(data["ccdf.std_at_0.8"]), rel=1e-10)
        assert SIMPLE(1.0)[1] == pytest.approx(float(data["simple.std_at_1"]), rel=1e-10)
        grid = data["ccdf.t_grid_T200"].tolist()
        _, rest = late_start(torch.zeros(1, 2), sorted(grid, reverse=True), SIMPLE, 0.8, Noise.shared(0))
        assert rest[0] == 0.8
        assert len(rest) <= 161


@pytest.mark.parametrize("schedule", [SIMPLE, VP])
def test_the_sample_has_the_levels_noise_and_fewer_steps_follow(schedule):
    times = [*torch.linspace(1, 0.01, 50).tolist(), 0.0] if schedule is SIMPLE else spaced_times(VP, 50, "linspace")
    level = 0.5 * (times[10] + times[11])
    estimate = torch.full((2000, 3), 0.7)
    x, rest = late_start(estimate, times, schedule, level, Noise.shared(0))
    alpha, sigma = schedule(level)
    assert rest == [level, *times[11:]]
    assert x.mean() == pytest.approx(0.7 * alpha, abs=4 * sigma / 6000**0.5)
    assert x.std() == pytest.approx(sigma, rel=0.03)


def test_from_an_estimate_near_the_truth_a_late_start_ends_where_the_prior_is():
    def score(x, label):
        return -(x - 0.3) / (0.04 + SIMPLE(float(label[0]))[1] ** 2)

    model, times = Denoiser(score, SIMPLE, "score"), [*torch.linspace(1, 1e-3, 400).tolist(), 0.0]
    x, rest = late_start(torch.full((2000, 1), 0.3), times, SIMPLE, 0.4, Noise.shared(0))
    assert len(rest) < 0.45 * len(times)
    out = sample(model, x, rest, step=euler_maruyama, noise=Noise.shared(1))
    assert out.mean() == pytest.approx(0.3, abs=0.02)
    assert out.std() == pytest.approx(0.2, rel=0.1)


def test_a_level_below_the_last_leaves_nothing():
    with pytest.raises(InputError, match="leaves no step"):
        late_start(torch.zeros(1, 2), [0.9, 0.5, 0.1], SIMPLE, 0.1, Noise.shared(0))
