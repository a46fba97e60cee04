"""Guidance by a measurement: the official values, and Gaussian data, where the posterior is known."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from safetensors.torch import load_file

from priorscope import InputError
from priorscope.diffusion import (
    Denoiser,
    FlowSchedule,
    Noise,
    Prediction,
    StepInfo,
    VESchedule,
    VPSchedule,
    ddim,
    euler_ancestral,
    sample,
    spaced_times,
)
from priorscope.inverse import OfficialParallelBeam, ParallelBeam
from priorscope.inverse.admm import ADMMTV
from priorscope.inverse.dds import DDS, DDSTV, renoise
from priorscope.inverse.diffpir import DiffPIR
from priorscope.inverse.dps import DPS
from priorscope.inverse.guidance import back_solve, clean_variance, corrected
from priorscope.inverse.pigdm import PiGDM
from priorscope.inverse.projection import KnownMeasurement, Projection
from priorscope.inverse.tv import total_variation

VP = VPSchedule.from_betas("linear", beta_start=1e-4, beta_end=0.02)
SCHEDULES = {"vp": VP, "ve": VESchedule(0.002, 80.0)}


class Matrix:
    def __init__(self, matrix):
        self.matrix = matrix

    def forward(self, x):
        return x @ self.matrix.T

    def adjoint(self, y):
        return y @ self.matrix


class BlockMean:
    """RED-diff's super-resolution: the mean of each block, flattened; its pseudo-inverse repeats."""

    def __init__(self, factor):
        self.factor = factor

    def forward(self, x):
        return torch.nn.functional.avg_pool2d(x, self.factor).flatten(1)

    def adjoint(self, y):
        side = math.isqrt(y.shape[1] // 3)
        blocks = y.reshape(-1, 3, side, side)
        return blocks.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3) / self.factor**2


class Same:
    def forward(self, x):
        return x.flatten(1)

    def adjoint(self, y):
        return y.reshape(-1, 3, 16, 16)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gaussian(schedule, mean, cov):
    """The exact denoiser of N(mean, cov)."""
    values, basis = torch.linalg.eigh(cov)

    def network(x, label):
        alpha, sigma = schedule(float(label[0]))
        gain = basis * (values * alpha / (alpha**2 * values + sigma**2)) @ basis.T
        x0 = mean + (x - alpha * mean) @ gain
        return (x - alpha * x0) / sigma

    return Denoiser(network, schedule, time_label=lambda t: t)


def posterior(matrix, y, noise, mean, cov):
    gain = cov @ matrix.T @ torch.linalg.inv(matrix @ cov @ matrix.T + noise**2 * torch.eye(len(matrix)))
    return mean + (y - mean @ matrix.T) @ gain.T, cov - gain @ matrix @ cov


def fake_net(schedule):
    """The noise predictor that the golden files of RED-diff were made with."""

    def network(x, label):
        a = schedule(float(label[0]))[0] ** 2
        return math.sqrt(1 - a) * (x - math.sqrt(a) * 0.1) / (0.09 * a + 1 - a) + 0.02 * torch.sin(5 * x)

    return network


def red_diff_cases(golden_files, read_json, prefixes):
    for path in golden_files("medical", "reddiff.safetensors"):
        data = load_file(path)
        schedule = VPSchedule(data["alphas"][1:].double().numpy())
        for case in read_json(path.with_suffix(".json"))["cases"]:
            if case["name"].startswith(prefixes):
                yield case, data, schedule


def operator_of(case):
    degradation = case["cfg"]["deg"]
    return BlockMean(int(degradation[2:])) if degradation.startswith("sr") else Same()


def test_golden_reddiff_baselines(golden_files, read_json):
    seen = set()
    for case, data, schedule in red_diff_cases(golden_files, read_json, ("ddim", "pgdm", "dps")):
        name, cfg = case["name"], case["cfg"]
        operator, y = operator_of(case), data[f"{name}.y0"]
        draws = [data[f"{name}.noise_{index:03d}"] for index in range(case["n_noise"])]
        times = [float(t) for t in reversed(case["ts"])] + [-1.0]
        alpha, sigma = schedule(times[0])
        kind = name.split("_")[0]
        seen.add(kind)
        openings = {}
        start = draws[0]
        if kind != "ddim":
            start = alpha * data[f"{name}.Hpinv_y0"] + sigma * draws[0]
        if kind == "pgdm":
            openings["constraint"] = PiGDM(operator, y, schedule, weight=cfg["grad_term_weight"], official=True)
        if kind == "dps":
            dps = DPS(operator, y, step=cfg["grad_term_weight"])
            openings = {"constraint": dps, "correct": dps.correct}
        model = Denoiser(fake_net(schedule), schedule)
        step = functools.partial(ddim, eta=cfg["eta"])
        out = sample(model, start, times, step=step, noise=Noise.recorded(draws[1:]), **openings)
        torch.testing.assert_close(out, data[f"{name}.out"], rtol=1e-4, atol=1e-5)
    assert seen == {"ddim", "pgdm", "dps"}


def test_golden_dds(golden_files):
    for path in golden_files("medical", "dds_admm.safetensors"):
        data = load_file(path)
        y = data["y"]
        operator = OfficialParallelBeam(data["x0"].shape[-1], [180 * view / y.shape[-1] for view in range(y.shape[-1])])
        admm = ADMMTV(operator, y, weight=0.04, rho=10.0, boundary="periodic", cg_iterations=5)
        constraint, x = DDSTV(admm), data["x0"]
        for index in range(1, sum(key.startswith("x_") for key in data) + 1):
            eps = randn(*x.shape, dtype=torch.float32)
            x, kept = constraint(x, 0.0, Prediction(x, eps), StepInfo())
            assert torch.equal(kept, eps)
            for key, value in (("x", x), ("z", admm.split[0]), ("u", admm.dual[0])):
                torch.testing.assert_close(value, data[f"{key}_{index}"], rtol=1e-3, atol=2e-5)
        assert index == 3
        for t, alpha_squared in zip((0, 20, 980), data["alpha_t_0_20_980"].flatten().tolist(), strict=True):
            assert VP(t)[0] ** 2 == pytest.approx(alpha_squared, rel=1e-3)
        assert VP(-1)[0] ** 2 == data["alpha_t_m1"].item()


N, M, NOISE = 6, 3, 0.4
A = randn(M, N, seed=1)
MEAN = randn(N, seed=2)
Y = randn(1, M, seed=3)
I6 = torch.eye(N, dtype=torch.float64)


def affine_map(model, schedule, steps, make):
    """Where a deterministic run sends the start's mean, and the covariance of what it makes of the start's noise."""
    times = spaced_times(schedule, steps, "linspace")
    alpha, sigma = schedule(times[0])
    starts = torch.cat([torch.zeros(1, N, dtype=torch.float64), I6]) * sigma + alpha * MEAN
    ends = sample(model, starts, times, constraint=make(len(starts)))
    jacobian = ends[1:] - ends[:1]
    return ends[0], jacobian.T @ jacobian


@pytest.mark.parametrize("name", SCHEDULES)
def test_pigdm_samples_the_posterior_of_unit_gaussian_data(name):
    schedule = SCHEDULES[name]
    model = gaussian(schedule, MEAN, I6)
    mean, cov = affine_map(
        model, schedule, 400, lambda n: PiGDM(Matrix(A), Y.expand(n, -1), schedule, noise=NOISE, tolerance=1e-10)
    )
    expected_mean, expected_cov = posterior(A, Y, NOISE, MEAN, I6)
    assert (mean - expected_mean[0]).norm() < 0.01 * expected_mean.norm()
    assert (cov - expected_cov).norm() < 0.05 * expected_cov.norm()
    # the prior alone is somewhere else
    assert (MEAN - expected_mean[0]).norm() > 0.1 * expected_mean.norm()


def test_pigdm_knows_the_spread_of_the_data():
    std, schedule = 0.3, SCHEDULES["ve"]
    model = gaussian(schedule, MEAN, std**2 * I6)
    mean, cov = affine_map(
        model,
        schedule,
        400,
        lambda n: PiGDM(Matrix(A), Y.expand(n, -1), schedule, noise=NOISE, prior_std=std, tolerance=1e-10),
    )
    expected_mean, expected_cov = posterior(A, Y, NOISE, MEAN, std**2 * I6)
    assert (mean - expected_mean[0]).norm() < 0.01 * expected_mean.norm()
    assert (cov - expected_cov).norm() < 0.06 * expected_cov.norm()


def at(schedule, t, model, constraint, seed=5, count=4):
    x = schedule(t)[1] * randn(count, N, seed=seed) + MEAN
    x.requires_grad_(getattr(constraint, "needs_grad", False))
    prediction = model(x, t)
    corrected = constraint(x, t, prediction, StepInfo())
    return x.detach(), prediction, corrected


@pytest.mark.parametrize("t", [100.0, 600.0])
def test_dds_is_the_posterior_mean_for_its_gamma(t):
    """With gamma = r^2 / noise^2 and unit Gaussian data, x0 becomes E[x0 | x_t, y]."""
    alpha, sigma = VP(t)
    variance = clean_variance(alpha, sigma, 1.0)
    constraint = DDS(Matrix(A), Y.expand(4, -1), gamma=variance / NOISE**2, iterations=N)
    _, prediction, (x0, eps) = at(VP, t, gaussian(VP, MEAN, I6), constraint)
    expected, _ = posterior(A, Y, NOISE, prediction.x0, variance * I6)
    torch.testing.assert_close(x0, expected, rtol=1e-8, atol=1e-8)
    assert torch.equal(eps, prediction.eps)


def test_dds_without_gamma_goes_to_the_nearest_solution():
    constraint = DDS(Matrix(A), Y.expand(4, -1), iterations=M)
    _, prediction, (x0, _) = at(VP, 300.0, gaussian(VP, MEAN, I6), constraint)
    nearest = prediction.x0 + (Y - prediction.x0 @ A.T) @ torch.linalg.pinv(A).T
    torch.testing.assert_close(x0, nearest, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_diffpir_is_the_posterior_mean_where_nothing_else_is_known(name):
    schedule, t = SCHEDULES[name], {"vp": 300.0, "ve": 0.6}[name]
    wide = 1e10 * I6
    constraint = DiffPIR(Matrix(A), Y.expand(4, -1), schedule, noise=NOISE, tolerance=1e-12)
    x, prediction, (x0, eps) = at(schedule, t, gaussian(schedule, MEAN, wide), constraint)
    alpha, sigma = schedule(t)
    expected, _ = posterior(A, Y, NOISE, x / alpha, (sigma / alpha) ** 2 * I6)
    torch.testing.assert_close(x0, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(alpha * x0 + sigma * eps, x, rtol=1e-9, atol=1e-9)
    # and at a noise-free level nothing moves
    still = DiffPIR(Matrix(A), Y.expand(4, -1), VP, noise=NOISE)(x, -1.0, prediction, StepInfo())
    torch.testing.assert_close(still.x0, prediction.x0, rtol=1e-12, atol=1e-12)


def test_dps_moves_by_the_gradient_of_each_items_own_misfit():
    t, cov = 300.0, torch.arange(1.0, 7.0, dtype=torch.float64)
    model = gaussian(VP, MEAN, torch.diag(cov))
    dps = DPS(Matrix(A), Y.expand(4, -1), step=0.7)
    x, prediction, _ = at(VP, t, model, dps)
    alpha, sigma = VP(t)
    residual = Y - prediction.x0.detach() @ A.T
    gain = cov * alpha / (alpha**2 * cov + sigma**2)
    expected = -2 * gain * (residual @ A) / residual.norm(dim=1, keepdim=True)
    torch.testing.assert_close(dps.gradient, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(dps.correct(x, 0.0), x - 0.7 * expected)
    with pytest.raises(InputError, match="before it has seen"):
        dps.correct(x, 0.0)
    exact = DPS(Matrix(A), prediction.x0.detach() @ A.T)
    at(VP, t, model, exact)
    assert (exact.gradient == 0).all()  # not NaN where the misfit is 0


def test_dps_takes_nonlinear_measurements_and_reduces_their_misfit():
    truth = randn(3, N, seed=7)
    y = torch.tanh(0.3 * truth @ A.T)
    model, times = gaussian(VP, MEAN, I6), spaced_times(VP, 50)

    def misfit(step):
        dps = DPS(lambda x: torch.tanh(0.3 * x @ A.T), y, step=step)
        out = sample(model, randn(3, N, seed=8), times, constraint=dps, correct=dps.correct)
        assert not out.requires_grad
        return (torch.tanh(0.3 * out @ A.T) - y).norm()

    assert misfit(0.3) < 0.3 * misfit(0.0)


class Mask:
    """Some coordinates, as they are."""

    def __init__(self, kept):
        self.kept = torch.as_tensor(kept)

    def forward(self, x):
        return x[:, self.kept]

    def adjoint(self, y):
        return y.new_zeros(len(y), N).index_copy(1, self.kept, y)


def test_projection_replaces_what_is_known_and_leaves_the_rest():
    mask, times = Mask([0, 2, 5]), spaced_times(VP, 30)
    start = randn(4, N, seed=9)
    model = gaussian(VP, MEAN, I6)  # independent coordinates: the rest must not notice
    free = sample(model, start, times)
    y = randn(4, 3, seed=10)
    for eps in ("kept", "derived"):
        out = sample(model, start, times, constraint=Projection(mask, y, VP, eps=eps))
        torch.testing.assert_close(out[:, [0, 2, 5]], y, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(out[:, [1, 3, 4]], free[:, [1, 3, 4]], rtol=1e-9, atol=1e-9)


def test_projection_trusts_a_noisy_measurement_less_and_less():
    x, prediction, _ = at(VP, 0.0, gaussian(VP, MEAN, I6), lambda x, t, p, i: p)
    y = randn(4, M, seed=10)
    moves = []
    for t in (900.0, 300.0, 0.0, -1.0):
        x0 = Projection(Matrix(A), y, VP, noise=NOISE)(x, t, prediction, StepInfo()).x0
        share = (x0 - prediction.x0) @ A.T / (y - prediction.x0 @ A.T)
        alpha, sigma = VP(t)
        assert share == pytest.approx(sigma**2 / (sigma**2 + alpha**2 * NOISE**2), abs=1e-6)
        moves.append(float(share.mean()))
    assert moves == sorted(moves, reverse=True)


def test_known_measurement_overwrites_at_the_level_of_the_noise():
    n = 4000
    x, y = randn(n, N, seed=11), Y.expand(n, -1)
    opening = KnownMeasurement(Matrix(A), y, VP, Noise.shared(0), noise=0.1)
    measured = (opening(x, 400.0)) @ A.T
    alpha, sigma = VP(400.0)
    assert (measured.mean(0) - alpha * Y[0]).abs().max() < 0.1
    expected = (sigma**2 - (alpha * 0.1) ** 2) * (A @ A.T)
    assert (measured.T.cov() - expected).norm() < 0.1 * expected.norm()
    # the part that A does not see is as it was
    hidden = torch.linalg.svd(A).Vh[M:]
    torch.testing.assert_close(opening(x, 400.0) @ hidden.T, x @ hidden.T, rtol=1e-7, atol=1e-7)
    assert opening(x, 0.0) is x  # the level is quieter than the measurement
    exact = KnownMeasurement(Matrix(A), y, VP, Noise.shared(0))
    torch.testing.assert_close(exact(x, -1.0) @ A.T, y, rtol=1e-6, atol=1e-6)


def test_back_solve_is_the_pseudo_inverse():
    residual = randn(2, M, seed=4)
    torch.testing.assert_close(back_solve(Matrix(A), residual), residual @ torch.linalg.pinv(A).T, rtol=1e-6, atol=1e-6)


def test_renoise_keeps_the_level_of_noise():
    model, x = gaussian(VP, MEAN, I6), randn(2, N, seed=1)
    x0, eps = model(x, 500.0)
    alpha, sigma = VP(300.0)
    z = randn(2, N, seed=2)
    out, _ = renoise(model, x, 500.0, 300.0, None, Noise.recorded([z]), eta=0.85)
    torch.testing.assert_close(out, alpha * x0 + sigma * (math.sqrt(1 - 0.85**2) * eps + 0.85 * z))
    torch.testing.assert_close(
        renoise(model, x, 500.0, 300.0, None, None, eta=0.0)[0], ddim(model, x, 500.0, 300.0, None, None)[0]
    )
    assert torch.equal(renoise(model, x, 20.0, 0.0, None, None, bare_at=0.0)[0], model(x, 20.0).x0)
    with pytest.raises(InputError, match="without noise"):
        renoise(model, x, 500.0, 300.0, None, None)
    with pytest.raises(InputError, match="eta"):
        renoise(model, x, 500.0, 300.0, None, None, eta=1.5)


def volume_model(schedule):
    """The exact denoiser of independent pixels around 0.5."""

    def network(x, label):
        alpha, sigma = schedule(float(label[0]))
        return 0.5 + 0.09 * alpha / (0.09 * alpha**2 + sigma**2) * (x - 0.5 * alpha)

    return Denoiser(network, schedule, "sample", time_label=lambda t: t)


@pytest.mark.parametrize("opening", ["constraint", "correct"])
def test_admm_tv_couples_the_slices_of_a_volume(opening):
    """As DDS has it on the clean estimate, and as DiffusionMBIR has it on the noisy sample."""
    truth = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0)).expand(6, -1, -1, -1)
    operator = ParallelBeam(12, [180 * view / 6 for view in range(6)])
    y = operator.forward(truth)
    schedule = VESchedule(0.01, 10.0)
    times = spaced_times(schedule, 60)
    start = 10 * randn(6, 1, 12, 12, dtype=torch.float32)

    admm = ADMMTV(operator, y, weight=1.0, rho=10.0, data_weight=math.pi / 12, cg_iterations=3)

    def run(**openings):
        noise = Noise.shared(0)
        x = sample(volume_model(schedule), start, times, step=euler_ancestral, noise=noise, **openings)
        misfit = (operator.forward(x) - y).norm() / y.norm()
        return float(misfit), float(total_variation(x, (0,))), float((x - truth).norm())

    alone = run()
    coupled = run(**{opening: DDSTV(admm) if opening == "constraint" else admm})
    assert coupled[0] < 0.1 * alone[0]
    assert coupled[1] < 0.1 * alone[1]
    assert coupled[2] < 0.6 * alone[2]


@pytest.mark.parametrize("name", ["projection", "dps", "pigdm", "dds", "diffpir"])
def test_items_do_not_see_each_other(name):
    y = randn(3, M, seed=12)
    start = randn(3, N, seed=13)
    model, times = gaussian(VP, MEAN, torch.diag(torch.arange(1.0, 7.0, dtype=torch.float64))), spaced_times(VP, 10)

    def run(rows):
        constraint = {
            "projection": lambda: Projection(Matrix(A), y[rows], VP, noise=0.1),
            "dps": lambda: DPS(Matrix(A), y[rows]),
            "pigdm": lambda: PiGDM(Matrix(A), y[rows], VP, noise=NOISE),
            "dds": lambda: DDS(Matrix(A), y[rows], gamma=1.0),
            "diffpir": lambda: DiffPIR(Matrix(A), y[rows], VP, noise=NOISE),
        }[name]()
        return sample(model, start[rows], times, constraint=constraint, correct=getattr(constraint, "correct", None))

    together = run(slice(0, 3))
    for item in range(3):
        torch.testing.assert_close(together[item : item + 1], run(slice(item, item + 1)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("y", [torch.full((1, M), torch.nan), torch.ones(1, M, dtype=torch.long), torch.ones(0, M)])
def test_wrong_measurements(y):
    for make in (
        lambda: DPS(Matrix(A.float()), y),
        lambda: DDS(Matrix(A.float()), y),
        lambda: PiGDM(Matrix(A.float()), y, VP),
        lambda: Projection(Matrix(A.float()), y, VP),
        lambda: DiffPIR(Matrix(A.float()), y, VP, noise=0.1),
        lambda: KnownMeasurement(Matrix(A.float()), y, VP, Noise.shared(0)),
    ):
        with pytest.raises(InputError):
            make()


def test_wrong_settings():
    a = Matrix(A)
    for make in (
        lambda: DPS(a, Y, step=-1.0),
        lambda: DDS(a, Y, gamma=0.0),
        lambda: DDS(a, Y, iterations=0),
        lambda: PiGDM(a, Y, VP, prior_std=0.0),
        lambda: PiGDM(a, Y, VP, noise=0.1, pseudo_inverse=a.adjoint),
        lambda: PiGDM(a, Y, VP, noise=-0.1),
        lambda: Projection(a, Y, VP, eps="new"),
        lambda: DiffPIR(a, Y, VP, noise=0.0),
    ):
        with pytest.raises(InputError):
            make()
    zero_snr = VPSchedule.from_betas(zero_terminal_snr=True)
    x = randn(1, N)
    with pytest.raises(InputError, match="alpha = 0"):
        PiGDM(a, Y, zero_snr)(x, 999.0, Prediction(x, x), StepInfo())


def test_eps_is_derived_except_where_there_is_no_noise():
    schedule, x, x0, eps = FlowSchedule(), randn(3, 4), randn(3, 4, seed=1), randn(3, 4, seed=2)
    levels = torch.tensor([0.75, 0.0, 0.25], dtype=torch.float64)
    found = corrected(x, levels, schedule, x0, eps)
    expected = torch.stack([(x[0] - 0.25 * x0[0]) / 0.75, eps[1], (x[2] - 0.75 * x0[2]) / 0.25])
    torch.testing.assert_close(found.eps, expected)
    assert found.x0 is x0
    for item, level in enumerate(levels.tolist()):
        torch.testing.assert_close(corrected(x, level, schedule, x0, eps).eps[item], expected[item])
