"""Weighted particles against posteriors that are known: Gaussian data, linear measurements."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from priorscope import InputError
from priorscope.diffusion import Condition, Denoiser, EDMSchedule, Noise, VPSchedule, spaced_times
from priorscope.inverse.particles import Particles, sample_particles, systematic

VARIANCE = 0.5


class Matrix:
    def __init__(self, matrix):
        self.matrix = matrix

    def forward(self, x):
        return x @ self.matrix.T

    def adjoint(self, y):
        return y @ self.matrix

    def closed_form(self, noise):
        """A solve by the eigenvectors of A A^T."""
        values, basis = torch.linalg.eigh(self.matrix @ self.matrix.T)
        return lambda residual, variance: (residual @ basis / (variance * values + noise**2)) @ basis.T


def gaussian(schedule, mean, variance=VARIANCE):
    """The exact denoiser of N(mean, variance)."""

    def network(x, label):
        alpha, sigma = schedule(float(label[0]))
        return mean + variance * alpha / (alpha**2 * variance + sigma**2) * (x - alpha * mean)

    return Denoiser(network, schedule, "sample")


def posterior(matrix, y, noise, mean, variance=VARIANCE):
    inner = variance * matrix @ matrix.T + noise**2 * torch.eye(len(matrix), dtype=matrix.dtype)
    gain = variance * matrix.T @ torch.linalg.inv(inner)
    return mean + gain @ (y[0] - matrix @ mean), variance * (torch.eye(len(mean), dtype=matrix.dtype) - gain @ matrix)


def errors(found: Particles, mean, cov):
    """Relative errors of mean and covariance, in the Euclidean and the Frobenius norm."""
    weighted = torch.cov(found.x.double().T, aweights=found.weights)
    off = found.mean().double() - mean.double()
    return float(off.norm() / mean.norm()), float((weighted - cov.double()).norm() / cov.norm())


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_golden_afdps(golden_files):
    """The analytic posterior: mean within 2 %, covariance within 10 %."""
    for path in golden_files("medical", "afdps.safetensors"):
        data = load_file(path)
        operator, y, noise = Matrix(data["A"]), data["y"][None], 0.3
        expected = posterior(data["A"].double(), y.double(), noise, data["mu0"].double())
        torch.testing.assert_close(data["posterior_mean"], expected[0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(data["posterior_cov"], expected[1], rtol=1e-10, atol=1e-10)
        schedule = EDMSchedule(0.02, 20.0)
        found = sample_particles(
            gaussian(schedule, data["mu0"]),
            operator,
            y,
            spaced_times(schedule, 150, "karras"),
            noise=noise,
            draws=Noise.shared(0),
            particles=16000,
            threshold=0.8,
            solve=operator.closed_form(noise),
        )
        mean_error, cov_error = errors(found, data["posterior_mean"], data["posterior_cov"])
        assert mean_error < 0.02
        assert cov_error < 0.10
        assert found.resampled.any()
        assert found.ess.min() > 0.5
        # a sample of the prior fails both by far
        assert (data["mu0"] - data["posterior_mean"]).norm() > 0.2 * data["posterior_mean"].norm()
        assert (VARIANCE * torch.eye(12) - data["posterior_cov"]).norm() > 0.5 * data["posterior_cov"].norm()


A, MEAN = randn(2, 4, seed=1), randn(4, seed=2)
Y = randn(1, 2, seed=3) + 2


def run(variant="stochastic", steps=100, particles=8000, schedule=None, y=Y, noise=0.5, seed=0, **settings):
    schedule = schedule or EDMSchedule(0.02, 20.0)
    times = spaced_times(schedule, steps, "karras" if isinstance(schedule, EDMSchedule) else "trailing")
    return sample_particles(
        gaussian(schedule, MEAN),
        Matrix(A),
        y,
        times,
        noise=noise,
        draws=Noise.shared(seed),
        particles=particles,
        variant=variant,
        **settings,
    )


def test_conjugate_gradients_serve_as_the_closed_form_does():
    pair = [run(particles=200, steps=20, solve=solve) for solve in (None, Matrix(A).closed_form(0.5))]
    torch.testing.assert_close(pair[0].x, pair[1].x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pair[0].ess, pair[1].ess, rtol=1e-4, atol=1e-4)


class Complex(Matrix):
    """Real images, complex measurements; the adjoint's real part counts."""

    def forward(self, x):
        return x.to(self.matrix.dtype) @ self.matrix.T

    def adjoint(self, y):
        return (y @ self.matrix.conj()).real


def test_complex_measurements_are_pairs_of_real_ones():
    row = torch.complex(A[:1], A[1:])
    schedule = EDMSchedule(0.02, 20.0)
    found = sample_particles(
        gaussian(schedule, MEAN),
        Complex(row),
        torch.complex(Y[:, :1], Y[:, 1:]),
        spaced_times(schedule, 200, "karras"),
        noise=0.5,
        draws=Noise.shared(0),
        particles=3000,
    )
    mean_error, cov_error = errors(found, *posterior(A, Y, 0.5, MEAN))
    assert mean_error < 0.04
    assert cov_error < 0.10


def test_a_vp_schedule_is_as_good():
    found = run(
        schedule=VPSchedule.from_betas("linear", beta_start=1e-4, beta_end=0.02),
        steps=500,
        particles=4000,
        solve=Matrix(A).closed_form(0.5),
    )
    mean_error, cov_error = errors(found, *posterior(A, Y, 0.5, MEAN))
    assert mean_error < 0.03
    assert cov_error < 0.10


@pytest.mark.parametrize("noise", [0.02, 3.0])
def test_sharp_and_blunt_measurements(noise):
    mean, cov = posterior(A, Y, noise, MEAN)
    solve = Matrix(A).closed_form(noise)
    found = run(noise=noise, steps=200, threshold=0.8, solve=solve)
    mean_error, cov_error = errors(found, mean, cov)
    assert mean_error < 0.03
    assert cov_error < 0.10
    assert found.ess.min() > 0.5
    if noise < 1:  # what the softened likelihood is for
        assert run(noise=noise, steps=200, softening=0.0, particles=1000, solve=solve).ess.min() < 0.1


def test_the_ode_weighs_prior_samples():
    found = run("ode", noise=1.0, particles=20000, solve=Matrix(A).closed_form(1.0))
    mean_error, cov_error = errors(found, *posterior(A, Y, 1.0, MEAN))
    assert mean_error < 0.05
    assert cov_error < 0.10
    assert not found.resampled.any()
    # telescoped: the weights are the likelihood of where the particles ended
    likelihood = (-(Y - found.x @ A.T).square().sum(1) / 2).log_softmax(0)
    torch.testing.assert_close(found.log_weights, likelihood, rtol=1e-6, atol=1e-6)


def test_seeds_fix_the_result_and_chunks_do_not_change_it():
    one, two, other = run(particles=50, steps=10), run(particles=50, steps=10), run(particles=50, steps=10, seed=1)
    assert torch.equal(one.x, two.x)
    assert not torch.equal(one.x, other.x)
    torch.testing.assert_close(run(particles=50, steps=10, batch_size=7).x, one.x, rtol=1e-10, atol=1e-10)


def test_systematic_resampling():
    weights = torch.tensor([0.05, 0.5, 0.0, 0.45], dtype=torch.float64)
    counts = torch.zeros(4, dtype=torch.float64)
    for seed in range(400):
        indices = systematic(weights, 10, torch.Generator().manual_seed(seed))
        now = torch.bincount(indices, minlength=4)
        assert ((now - 10 * weights).abs() < 1).all()
        counts += now
    assert (counts / 4000 - weights).abs().max() < 0.01
    even = systematic(torch.full((6,), 1 / 6), 6, torch.Generator().manual_seed(0))
    assert even.tolist() == list(range(6))


def test_what_particles_say():
    log_weights = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log()
    x = torch.tensor([[0.0, 4.0], [2.0, 0.0], [-2.0, 0.0]])
    cloud = Particles(x, log_weights, torch.ones(1), torch.zeros(1, dtype=torch.bool))
    assert cloud.mean().tolist() == [0.0, 2.0]
    assert cloud.std().tolist() == pytest.approx([math.sqrt(2), 2.0])
    assert cloud.best().tolist() == [0.0, 4.0]
    assert sorted(cloud.draw(4, seed=3)[:, 1].tolist()) == [0, 0, 4, 4]


@pytest.mark.parametrize(
    "wrong",
    [
        {"y": Y * torch.nan},
        {"y": Y.expand(2, -1)},
        {"y": Y.long()},
        {"noise": 0.0},
        {"noise": -1.0},
        {"particles": 0},
        {"batch_size": 0},
        {"variant": "euler"},
        {"threshold": 1.5},
        {"softening": -0.1},
        {"schedule": VPSchedule.from_betas(zero_terminal_snr=True)},
    ],
)
def test_wrong_input(wrong):
    with pytest.raises(InputError):
        run(**({"particles": 3, "steps": 2} | wrong))


def test_a_run_needs_two_levels():
    with pytest.raises(InputError, match="two levels"):
        sample_particles(gaussian(EDMSchedule(), MEAN), Matrix(A), Y, [1.0], noise=1.0, draws=Noise.shared(0))


def test_complex_particles_have_a_real_spread():
    x = torch.complex(randn(6, 3), randn(6, 3, seed=1))
    even = torch.full((6,), -math.log(6), dtype=torch.float64)
    cloud = Particles(x, even, torch.ones(1), torch.zeros(1, dtype=torch.bool))
    torch.testing.assert_close(cloud.mean(), x.mean(0))
    torch.testing.assert_close(cloud.std(), (x.real.var(0, correction=0) + x.imag.var(0, correction=0)).sqrt())


@pytest.mark.parametrize("shared", [(), ("place",)])
def test_a_condition_of_one_item_holds_for_all_particles(shared):
    condition = Condition({"place": MEAN[None]}, shared)

    def run_with(network, condition):
        model = Denoiser(network, EDMSchedule(), "sample")
        draws, times = Noise.shared(0), [20.0, 5.0, 1.0, 0.0]
        found = sample_particles(
            model, Matrix(A), Y, times, noise=0.5, draws=draws, particles=5, batch_size=2, condition=condition
        )
        return found.x

    def told(x, label, place):
        assert place.shape == x.shape
        return place.to(x)

    torch.testing.assert_close(run_with(told, condition), run_with(lambda x, label: MEAN.expand_as(x).to(x), None))
