"""Joint posterior sampling where the posterior is known: two Gaussian parts and a noisy sum of them."""

from __future__ import annotations

import pytest
import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser, Prediction, StepInfo
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.product import Parts, ProductDenoiser
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.schedule import VESchedule, VPSchedule
from priorscope.diffusion.simple_sde import SimpleVESchedule, euler_maruyama
from priorscope.diffusion.spacing import spaced_times
from priorscope.errors import InputError
from priorscope.inverse.joint_measurement import PixelwiseMeasurement, WeightedSum, pull_back
from priorscope.inverse.pigdm import PiGDM
from priorscope.inverse.two_priors import JointDPS, JointPiGDM, JointProjection

VP = VPSchedule.from_betas("linear", beta_start=1e-4, beta_end=0.02)
SCHEDULES = {"vp": VP, "ve": VESchedule(0.002, 80.0)}
N, NOISE = 4, 0.3
MEANS, STDS, WEIGHTS = (0.4, -0.2), (1.0, 0.5), (1.0, 0.7)
FLAT = Parts([(N,), (N,)])


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Y = randn(1, N, seed=3)
MIX = torch.randn(3, N, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


class Matrix:
    def __init__(self, matrix):
        self.matrix = matrix

    def forward(self, x):
        return x @ self.matrix.T

    def adjoint(self, y):
        return y @ self.matrix


def gaussian(schedule, mean, std):
    """The exact denoiser of independent normal values."""

    def network(x, label):
        alpha, sigma = schedule(float(label[0]))
        gain = std**2 * alpha / (alpha**2 * std**2 + sigma**2)
        return (x - alpha * (mean + gain * (x - alpha * mean))) / sigma

    return Denoiser(network, schedule, time_label=lambda t: t)


def both(schedule, stds=STDS):
    return ProductDenoiser([gaussian(schedule, m, s) for m, s in zip(MEANS, stds, strict=True)], FLAT)


def posterior(matrix, y, stds=STDS):
    mean = torch.cat([torch.full((N,), m, dtype=torch.float64) for m in MEANS])
    cov = torch.diag(torch.cat([torch.full((N,), s**2, dtype=torch.float64) for s in stds]))
    gain = (
        cov
        @ matrix.T
        @ torch.linalg.inv(matrix @ cov @ matrix.T + NOISE**2 * torch.eye(len(matrix), dtype=torch.float64))
    )
    return mean + (y[0] - matrix @ mean) @ gain.T, cov - gain @ matrix @ cov


def sum_matrix(first=None):
    eye = torch.eye(N, dtype=torch.float64)
    return torch.cat(
        [WEIGHTS[0] * (eye if first is None else first), WEIGHTS[1] * eye[: 3 if first is not None else N]], 1
    )


def affine_map(schedule, make, stds=STDS, steps=300):
    """Where a deterministic run sends the start's mean, and the covariance of what it makes of the start's noise."""
    times = spaced_times(schedule, steps, "linspace")
    alpha, sigma = schedule(times[0])
    mean = torch.cat([torch.full((N,), m, dtype=torch.float64) for m in MEANS])
    starts = torch.cat([torch.zeros(1, 2 * N), torch.eye(2 * N)]).double() * sigma + alpha * mean
    ends = sample(both(schedule, stds), starts, times, constraint=make(len(starts)))
    jacobian = ends[1:] - ends[:1]
    return ends[0], jacobian.T @ jacobian


@pytest.mark.parametrize("through_network", [True, False])
@pytest.mark.parametrize("kind", ["sum", "pixelwise"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_joint_pigdm_samples_the_posterior_of_both_parts(name, kind, through_network):
    schedule = SCHEDULES[name]
    measurement = (
        WeightedSum(FLAT, WEIGHTS)
        if kind == "sum"
        else PixelwiseMeasurement(FLAT, lambda x, n: WEIGHTS[0] * x + WEIGHTS[1] * n)
    )

    def make(count):
        y = Y.expand(count, -1)
        options = {"noise": NOISE, "prior_stds": STDS, "through_network": through_network}
        return JointPiGDM(measurement, y, schedule, tolerance=1e-10, **options)

    mean, cov = affine_map(schedule, make)
    expected_mean, expected_cov = posterior(sum_matrix(), Y)
    assert (mean - expected_mean).norm() < 0.01 * expected_mean.norm()
    assert (cov - expected_cov).norm() < 0.05 * expected_cov.norm()
    # the parts are coupled: what one does not explain the other does
    assert (cov[:N, N:].diagonal() < -0.05).all()


def test_joint_pigdm_follows_operators_and_equals_pigdm_for_equal_priors():
    x = randn(3, 2 * N, seed=8).requires_grad_(True)
    y = randn(3, N, seed=9)
    measurement, t = WeightedSum(FLAT, WEIGHTS), 300.0
    prediction = both(VP, (0.8, 0.8))(x, t)
    ours = JointPiGDM(measurement, y, VP, noise=NOISE, prior_stds=(0.8, 0.8), tolerance=1e-12)
    other = PiGDM(measurement, y, VP, noise=NOISE, prior_std=0.8, tolerance=1e-12)
    info = StepInfo()
    for first, second in zip(ours(x, t, prediction, info), other(x, t, both(VP, (0.8, 0.8))(x, t), info), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)


def test_joint_pigdm_with_a_matrix_before_one_part():
    parts = Parts([(N,), (3,)])
    measurement = WeightedSum(parts, WEIGHTS, [Matrix(MIX), None])
    assert measurement.range == (3,)
    assert measurement.adjoint_error() < 1e-12
    y = randn(1, 3, seed=4)
    x0 = torch.cat([torch.full((1, N), MEANS[0]), torch.full((1, 3), MEANS[1])], 1).double()
    t = 400.0
    alpha, sigma = VP(t)
    # at x_t = alpha x0 with eps = 0 the guided estimate is the posterior mean around x0 with variances r_i^2
    variances = [(s * sigma) ** 2 / ((s * alpha) ** 2 + sigma**2) for s in STDS]
    cov = torch.diag(torch.tensor([variances[0]] * N + [variances[1]] * 3, dtype=torch.float64))
    matrix = torch.cat([WEIGHTS[0] * MIX, WEIGHTS[1] * torch.eye(3, dtype=torch.float64)], 1)
    gain = cov @ matrix.T @ torch.linalg.inv(matrix @ cov @ matrix.T + NOISE**2 * torch.eye(3, dtype=torch.float64))
    expected = x0 + (y - x0 @ matrix.T) @ gain.T
    guidance = JointPiGDM(measurement, y, VP, noise=NOISE, prior_stds=STDS, through_network=False, tolerance=1e-12)
    got, eps = guidance(alpha * x0, t, Prediction(x0, torch.zeros_like(x0)), StepInfo())
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(alpha * got + sigma * eps, alpha * x0)


def coupled(schedule, seed):
    """A network whose Jacobian is no diagonal: every value looks at its neighbour."""
    matrix = 0.3 * randn(N, N, seed=seed)

    def network(x, label):
        return torch.tanh(x @ matrix) + 0.1 * x

    return Denoiser(network, schedule)


def test_joint_dps_takes_the_exact_vector_jacobian_product():
    t, steps = 300.0, (0.7, 0.2)
    model = ProductDenoiser([coupled(VP, 1), coupled(VP, 2)], FLAT)
    measurement = PixelwiseMeasurement(FLAT, lambda x, n: torch.tanh(x + 0.5 * n))
    y, x = randn(3, N, seed=6), randn(3, 2 * N, seed=7).requires_grad_(True)
    guidance = JointDPS(measurement, y, steps=steps)
    prediction = guidance(x, t, model(x, t), StepInfo())
    jacobians = torch.autograd.functional.jacobian(lambda v: model(v[None], t).x0[0], x[0].detach())
    measured, slopes = measurement.slopes(prediction.x0.detach())
    residual = y[0] - measured[0]
    gradient = -2 * jacobians.T @ (slopes[0] * torch.cat([residual, residual])) / residual.norm()
    step = torch.tensor([steps[0]] * N + [steps[1]] * N, dtype=torch.float64)
    torch.testing.assert_close(guidance.correct(x, 0.0)[0], x[0] - step * gradient, rtol=1e-9, atol=1e-9)
    # the published shortcut, J^T 1 times the residual, is something else
    shortcut = jacobians.sum(0) * slopes[0] * torch.cat([residual, residual])
    assert (shortcut / residual.norm() + gradient / 2).norm() > 0.1 * gradient.norm()


def test_projection_ends_on_the_measurement():
    schedule = SimpleVESchedule()
    model, times = both(schedule), [*torch.linspace(1, 1e-3, 40).tolist(), 0.0]
    y = randn(5, N, seed=2)
    for measurement in (
        WeightedSum(FLAT, WEIGHTS),
        PixelwiseMeasurement(FLAT, lambda x, n: WEIGHTS[0] * x + WEIGHTS[1] * n),
    ):
        opening = JointProjection(measurement, y, schedule, Noise.shared(0))
        start = schedule(1.0)[1] * randn(5, 2 * N, seed=1)
        out = sample(model, start, times, step=euler_maruyama, noise=Noise.shared(1), correct=opening)
        torch.testing.assert_close(measurement.forward(out), y, rtol=1e-9, atol=1e-9)
        free = sample(model, start, times, step=euler_maruyama, noise=Noise.shared(1))
        assert (measurement.forward(free) - y).norm() > 0.3 * y.norm()


def test_projection_has_the_noise_of_its_level():
    count, s = 4000, 0.5
    schedule = SimpleVESchedule()
    y = Y.expand(count, -1)
    opening = JointProjection(WeightedSum(FLAT, WEIGHTS), y, schedule, Noise.shared(0))
    measured = WeightedSum(FLAT, WEIGHTS).forward(opening(torch.zeros(count, 2 * N).double(), s))
    expected = schedule(s)[1] * (WEIGHTS[0] ** 2 + WEIGHTS[1] ** 2) ** 0.5
    assert measured.std(0).mean() == pytest.approx(expected, rel=0.03)
    assert (measured.mean(0) - Y[0]).abs().max() < 0.1 * expected
    half = JointProjection(WeightedSum(FLAT, WEIGHTS), Y, schedule, Noise.shared(0), weights=(0.5, 0.5))
    assert torch.allclose(WeightedSum(FLAT, WEIGHTS).forward(half(torch.zeros(1, 2 * N).double(), 0.0)), 0.5 * Y)


def test_projection_refuses_pixelwise_measurements_of_scaled_states():
    opening = JointProjection(PixelwiseMeasurement(FLAT, lambda x, n: x + n), Y, VP, Noise.shared(0))
    with pytest.raises(InputError, match="scaled"):
        opening(randn(1, 2 * N), 300.0)


def test_pull_back_is_minus_half_the_gradient_of_the_misfit():
    x = randn(2, 2 * N).requires_grad_(True)
    for measurement in (WeightedSum(FLAT, WEIGHTS), PixelwiseMeasurement(FLAT, lambda a, b: torch.sin(a) * b)):
        (gradient,) = torch.autograd.grad((Y - measurement.forward(x)).square().sum(), x)
        torch.testing.assert_close(pull_back(measurement, x.detach(), Y), -gradient / 2)


def test_parts_are_stacked_or_flattened_and_come_back():
    stacked, flat = Parts([(1, 4, 3), (2, 4, 3)]), Parts([(1, 4, 3), (5,)])
    assert stacked.shape == (3, 4, 3)
    assert flat.shape == (17,)
    for parts in (stacked, flat):
        pieces = [randn(2, *shape, seed=index) for index, shape in enumerate(parts.shapes)]
        state = parts.join(pieces)
        for piece, back in zip(pieces, parts.split(state), strict=True):
            assert torch.equal(piece, back)
        doubled = parts.split(parts.factors((2.0, 3.0), state) * state)
        assert torch.equal(doubled[0], 2 * pieces[0])
        assert torch.equal(doubled[1], 3 * pieces[1])
        with pytest.raises(InputError, match="a state of shape"):
            parts.split(state[:, 1:])


def test_product_denoiser_asks_each_about_its_own_part():
    told = []

    def network(x, label, **condition):
        told.append((tuple(x.shape), label.tolist(), sorted(condition)))
        return x

    parts = Parts([(1, 2, 2), (3, 2, 2)])
    a, b = Denoiser(network, VP), Denoiser(network, VP, "sample")
    model = ProductDenoiser([a, b], parts, [Condition({"depth": torch.zeros(2, 1)}), None])
    x = randn(2, 4, 2, 2).float()
    answer = model(x, torch.tensor([10.0, 20.0]))
    assert told == [((2, 1, 2, 2), [10.0, 20.0], ["depth"]), ((2, 3, 2, 2), [10.0, 20.0], [])]
    torch.testing.assert_close(answer.eps[:, :1], x[:, :1])
    torch.testing.assert_close(answer.x0[:, 1:], x[:, 1:])


@pytest.mark.parametrize(
    ("make", "fact"),
    [
        (lambda: ProductDenoiser([gaussian(VP, 0, 1)], FLAT), "1 models for 2 parts"),
        (lambda: ProductDenoiser([gaussian(VP, 0, 1), gaussian(SCHEDULES["ve"], 0, 1)], FLAT), "different schedules"),
        (lambda: WeightedSum(FLAT, (1.0,)), "1 weights"),
        (lambda: WeightedSum(Parts([(4,), (3,)]), (1, 1)), "cannot be added"),
        (lambda: PixelwiseMeasurement(Parts([(4,), (3,)]), torch.add), "parts of shapes"),
        (lambda: JointPiGDM(WeightedSum(FLAT, (1, 1)), Y, VP, prior_stds=(1.0, 0.0)), "prior_stds"),
        (lambda: JointPiGDM(WeightedSum(FLAT, (1, 1)), Y * float("nan"), VP), "measurement"),
        (lambda: JointDPS(WeightedSum(FLAT, (1, 1)), Y, steps=(1.0, -1.0)), "steps"),
        (lambda: JointProjection(WeightedSum(FLAT, (1, 1)), Y, VP, Noise.shared(0), weights=(1.0,)), "weights"),
        (lambda: SimpleVESchedule(0.5), "base"),
    ],
)
def test_refusals(make, fact):
    with pytest.raises(InputError, match=fact):
        make()


def test_simple_schedule_inverts_its_levels():
    schedule = SimpleVESchedule()
    for t in (0.0, 0.1, 0.5, 1.0):
        assert schedule.level(schedule(t)[1]) == pytest.approx(t, abs=1e-12)
    # it is the variance of what dx = base^t dw adds, as a sum over small steps
    steps = torch.linspace(0, 0.8, 20001, dtype=torch.float64)
    middle = (steps[1:] + steps[:-1]) / 2
    assert schedule(0.8)[1] ** 2 == pytest.approx(float((25.0 ** (2 * middle)).sum() * 0.8 / 20000), rel=1e-6)
    with pytest.raises(InputError, match="Levels must fall"):
        euler_maruyama(both(schedule), randn(1, 2 * N), 0.2, 0.3, None, Noise.shared(0))
