"""DDS on a volume: exact for Gaussian data, the same for every batch size, resumed where it was cut off."""

from __future__ import annotations

import pytest
import torch

from priorscope.diffusion.denoiser import Prediction, StepInfo
from priorscope.diffusion.schedule import VPSchedule
from priorscope.diffusion.spacing import spaced_times
from priorscope.errors import InputError
from priorscope.inverse.operator import LinearOperator
from priorscope_medical.dds import MeasuredVolume, dds
from priorscope_medical.volume_state import VolumeState

SCHEDULE = VPSchedule.from_betas("linear", beta_start=1e-4, beta_end=0.02)


class Matrix(LinearOperator):
    """A dense matrix on slices of 1 x 3 x 3."""

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__((1, 3, 3), (matrix.shape[0],))
        self.matrix = matrix

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.matrix.T.to(x)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return (y @ self.matrix.to(y)).unflatten(1, (1, 3, 3))


class Gaussian:
    """The exact model of independent pixels of deviation 0.7 around 0.2."""

    schedule = SCHEDULE
    mean, std = 0.2, 0.7

    def __call__(self, x, t, condition=None, info=None):
        alpha, sigma = self.schedule(float(t))
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        x0 = self.mean + gain * (x - alpha * self.mean)
        return Prediction(x0, (x - alpha * x0) / sigma)


@pytest.fixture
def problem() -> tuple[Matrix, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(5, 9, generator=generator, dtype=torch.float64)
    x = 0.2 + 0.7 * torch.randn(6, 9, generator=generator, dtype=torch.float64)
    return Matrix(matrix), x @ matrix.T


def test_the_constraint_gives_the_posterior_mean_of_gaussian_data(problem):
    """E[x0 | x_t, y] in closed form: data of precision r^-2 around the model's x0, and the measurement."""
    operator, y = problem
    model = Gaussian()
    x = torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    given = {"noise": 0.3, "rho": 1.0, "prior_std": 0.7, "boundary": "neumann"}
    constraint = MeasuredVolume(operator, y, SCHEDULE, weight=0.0, cg_iterations=30, **given)
    before = model(x, 300.0)
    after = constraint(x, 300.0, before, StepInfo())
    alpha, sigma = SCHEDULE(300.0)
    precision = alpha**2 / sigma**2 + 1 / 0.7**2
    a = operator.matrix
    right = before.x0.flatten(1) * precision + y @ a / 0.3**2
    expected = torch.linalg.solve(a.T @ a / 0.3**2 + precision * torch.eye(9, dtype=torch.float64), right.T).T
    assert torch.allclose(after.x0.flatten(1), expected, atol=1e-8)
    assert torch.equal(after.eps, before.eps)


def test_duals_keep_their_meaning_from_level_to_level(problem):
    """At the minimiser of misfit and variation no anchor pulls, so that it stays where it is whatever the level."""
    _, y = problem
    operator = Matrix(torch.eye(9, dtype=torch.float64))
    y = torch.cat([y, y[:, :4]], 1)
    given = {"noise": 0.3, "weight": 4.0, "rho": 1.0, "prior_std": 0.7, "boundary": "neumann"}
    constraint = MeasuredVolume(operator, y, SCHEDULE, cg_iterations=10, **given)

    def corrected(x, t):
        return constraint(x, t, Prediction(x, x), StepInfo(0, 1, 0)).x0

    x = y.unflatten(1, (1, 3, 3))
    for _ in range(300):
        x = corrected(x, 500.0)
    assert float((x - y.view_as(x)).abs().max()) > 0.1
    for level in (200.0, 20.0, 700.0):
        torch.testing.assert_close(corrected(x, level), x, atol=1e-5, rtol=0)


def test_many_samples_agree_with_the_posterior_of_gaussian_data(problem):
    operator, y = problem
    copies = 2000
    drawn = dds(
        Gaussian(),
        operator,
        y[:1].repeat(copies, 1).float(),
        noise=0.3,
        steps=60,
        prior_std=0.7,
        cg_iterations=12,
        batch_size=copies,
    ).flatten(1)
    a = operator.matrix
    covariance = torch.linalg.inv(a.T @ a / 0.3**2 + torch.eye(9, dtype=torch.float64) / 0.49)
    mean = covariance @ (a.T @ y[0] / 0.3**2 + 0.2 / 0.49)
    # the mean is that of the posterior; the spread is that of an approximate sampler, and of its order
    assert float((drawn.double().mean(0) - mean).norm() / mean.norm()) < 0.05
    ratio = float(drawn.var(0).sum() / covariance.diagonal().sum())
    assert 0.5 < ratio < 1.5


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_the_result_does_not_depend_on_the_batch_size(problem, weight):
    operator, y = problem
    results = [
        dds(Gaussian(), operator, y.float(), noise=0.1, steps=8, weight=weight, batch_size=size) for size in (1, 4, 6)
    ]
    for other in results[1:]:
        assert torch.allclose(results[0], other, atol=1e-5 * float(results[0].abs().max()))


def test_a_run_goes_on_where_it_was_cut_off(problem):
    operator, y = problem
    states: list[VolumeState] = []
    given = {"noise": 0.1, "steps": 8, "weight": 2.0, "seed": 3}
    whole = dds(Gaussian(), operator, y.float(), callback=states.append, **given)
    assert [state.step for state in states] == list(range(1, 9))
    assert torch.equal(dds(Gaussian(), operator, y.float(), resume=states[4], **given), whole)


def test_variation_between_slices_falls_with_its_weight(problem):
    operator, y = problem
    found = []
    for weight in (0.0, 3.0, 100.0):
        x = dds(Gaussian(), operator, y[:1].repeat(6, 1).float(), noise=0.3, steps=20, weight=weight)
        found.append(float((x[1:] - x[:-1]).abs().mean()))
    assert found[0] > found[1] > found[2]


def test_variation_within_slices_falls_with_its_weight_alone(problem):
    operator, y = problem
    found = []
    for in_plane in (0.0, 3.0, 100.0):
        x = dds(Gaussian(), operator, y.float(), noise=0.3, steps=20, in_plane=in_plane)
        within = float((x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean())
        found.append((within, x))
    assert found[0][0] > found[1][0] > found[2][0]
    # slices do not know of each other: without the first the others stay as they are, but for rounding
    rest = dds(Gaussian(), operator, y[1:].float(), noise=0.3, steps=20, in_plane=3.0, slices=range(1, 6))
    torch.testing.assert_close(rest, found[1][1][1:], atol=1e-5, rtol=0)


def test_quadratic_levels_are_distinct_and_reach_both_ends():
    for steps in (1, 2, 5, 40, 400, 1000):
        times = spaced_times(SCHEDULE, steps, "quadratic")
        assert (times[0], times[-1]) == (999, -1)
        assert len(set(times)) == steps + 1
        assert times == sorted(times, reverse=True)
        if steps > 1:
            assert times[-2] == 0


def test_wrong_input_is_refused(problem):
    operator, y = problem
    y = y.float()
    with pytest.raises(InputError, match="noise 0"):
        dds(Gaussian(), operator, y, noise=0.0)
    with pytest.raises(InputError, match=r"weights 0.0 and -1.0"):
        dds(Gaussian(), operator, y, noise=0.1, in_plane=-1.0)
    with pytest.raises(InputError, match="2 names for 6 slices"):
        dds(Gaussian(), operator, y, noise=0.1, slices=["a", "b"])
    with pytest.raises(InputError):
        dds(Gaussian(), operator, torch.full_like(y, torch.nan), noise=0.1)
    state = VolumeState(3, torch.zeros(2, 1, 3, 3), {})
    with pytest.raises(InputError, match="2 slices after 3 of 8 steps, for 6"):
        dds(Gaussian(), operator, y, noise=0.1, steps=8, resume=state)
