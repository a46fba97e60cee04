"""Multi-step solvers where everything is known: Gaussian data, whose probability-flow ODE has a closed form."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from priorscope import InputError
from priorscope.diffusion import (
    SOLVERS,
    Denoiser,
    EDMSchedule,
    FunctionSchedule,
    Noise,
    Prediction,
    VPSchedule,
    ddim,
    deis,
    dpm_solver_2m,
    dpmpp,
    euler_ancestral,
    ghvb,
    heavy_ball,
    nesterov,
    plms,
    pndm,
    sample,
    spaced_times,
    unipc,
)
from priorscope.diffusion.solvers.multistep import exponential_weights

MEAN, STD = 0.7, 0.5
STOCHASTIC = {"ddpm", "euler-ancestral", "dpmpp-2m-sde", "dpmpp-3m-sde"}

# Schedules whose level is the half log-SNR itself.
VP = FunctionSchedule(lambda t: 1 / np.sqrt(1 + np.exp(-2 * t)), lambda t: 1 / np.sqrt(1 + np.exp(2 * t)))
FLOW = FunctionSchedule(lambda t: 1 / (1 + np.exp(-t)), lambda t: 1 / (1 + np.exp(t)))
EDM = EDMSchedule(0.002, 80.0)


class Gaussian:
    """The exact model of data distributed as N(MEAN, STD^2); counts how often it is asked."""

    def __init__(self, schedule):
        self.schedule = schedule
        self.calls = 0

    def __call__(self, x, t, condition=None, info=None):
        self.calls += 1
        alpha, sigma = self.schedule(t)
        x0 = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)
        return Prediction(x0, (x - alpha * x0) / sigma if sigma else torch.zeros_like(x))


def exact(schedule, x, t, s):
    """Where the probability-flow ODE carries x from level t to level s."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    spread = math.sqrt((alpha_s**2 * STD**2 + sigma_s**2) / (alpha_t**2 * STD**2 + sigma_t**2))
    return alpha_s * MEAN + spread * (x - alpha_t * MEAN)


def uneven(steps):
    """Log-SNRs from -1.5 to 2, denser at the end."""
    u = np.linspace(0, 1, steps + 1)
    return (-1.5 + 3.5 * (u + 0.4 * u * (1 - u))).tolist()


def even_sigmas(steps):
    return np.linspace(3.0, 1.0, steps + 1).tolist()


def measured_order(step, schedule, levels, *, past, counts=(48, 96, 192)):
    """log2 of the error's decrease when the steps are halved; the first ``past`` steps start from exact samples."""
    start = torch.tensor([[-1.0, 0.5, 2.0]], dtype=torch.float64)
    errors = []
    for count in counts:
        times = levels(count)
        exactly = set(times[: past + 1])

        def known(x, t, times=times, exactly=exactly):
            return exact(schedule, start, times[0], t) if t in exactly else x

        result = sample(Gaussian(schedule), start, times, step=step, known=known)
        errors.append(float((result - exact(schedule, start, times[0], times[-1])).abs().max()))
    return [math.log2(coarse / fine) for coarse, fine in pairwise(errors)][-1]


@pytest.mark.parametrize(
    ("step", "order", "past"),
    [
        (partial(dpmpp, order=1), 1, 0),
        (SOLVERS["dpmpp-2m"], 2, 0),
        (dpmpp, 2, 0),
        (SOLVERS["dpmpp-3m"], 3, 2),
        (partial(dpmpp, order=4), 4, 3),
        (partial(dpmpp, order=3, rule="published"), 2, 2),  # the published weights lose an order
        (dpm_solver_2m, 2, 0),
        (deis, 2, 0),
        (partial(deis, order=3), 3, 2),
        (partial(deis, order=4), 4, 3),
        (partial(unipc, order=1), 2, 1),
        (unipc, 3, 2),
        (partial(unipc, variant="bh1"), 3, 2),
        (partial(unipc, order=3), 4, 3),
        (partial(plms, order=4), 2, 3),  # constant weights on uneven levels
        (pndm, 2, 0),
    ],
)
def test_measured_orders_on_uneven_levels(step, order, past):
    assert measured_order(step, VP, uneven, past=past) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(
    ("step", "order", "past"),
    [
        (partial(plms, order=2), 2, 0),
        (partial(plms, order=3), 3, 2),
        (plms, 4, 3),
        (partial(plms, order=5), 5, 4),
        (partial(pndm, start="runge-kutta"), 4, 0),
        (partial(ghvb, order=0.8), 1, 16),
        (ghvb, 2, 16),
        (partial(ghvb, order=2.5), 3, 30),
        (partial(ghvb, order=3.8), 4, 16),
        (partial(heavy_ball, order=3.8), 1, 16),
        (partial(nesterov, order=3.8), 1, 16),
    ],
)
def test_measured_orders_on_even_sigmas(step, order, past):
    assert measured_order(step, EDM, even_sigmas, past=past) == pytest.approx(order, abs=0.25)


def test_exponential_weights_integrate_polynomials():
    """Against closed forms; far-apart nodes, steps of either sign and large ones."""
    for h in (0.01, 1.0, -1.0, 6.0, -6.0):
        nodes = (0.0, -1.3, -2.0, 1.0)
        weights = exponential_weights(h, nodes)
        for power in range(1, 4):
            # I_n = int_0^1 h e^(-(1-u) h) u^n du = 1 - n / h I_(n-1), backwards from its series where h is small
            series = [math.factorial(power) * (-h) ** j / math.factorial(power + j + 1) for j in range(60)]
            integral = h * sum(series)
            assert sum(w * u**power for w, u in zip(weights, nodes, strict=True)) == pytest.approx(
                integral, rel=1e-9, abs=1e-12
            )
        assert abs(sum(weights)) < 1e-9 * max(map(abs, weights))


def moments(step, times):
    """Mean and variance at the end of a stochastic run: it is affine in the start and in every noise."""
    count = len(times) - 1
    rows = count + 2  # row 0: all zero; row 1: the start is 1; row 2 + i: noise i is 1
    x = torch.zeros(rows, 1, dtype=torch.float64)
    x[1] = 1.0
    draws = []
    for i in range(count):
        z = torch.zeros(rows, 1, dtype=torch.float64)
        z[2 + i] = 1.0
        draws.append(z)
    result = sample(Gaussian(VP), x, times, step=step, noise=Noise.recorded(draws))[:, 0]
    alpha, sigma = VP(times[0])
    gains = (result[1:] - result[0]).tolist()
    mean = float(result[0]) + gains[0] * alpha * MEAN
    variance = gains[0] ** 2 * (alpha**2 * STD**2 + sigma**2) + sum(gain**2 for gain in gains[1:])
    return mean, variance


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize(("order", "rule"), [(1, "exact"), (2, "exact"), (2, "published"), (3, "exact")])
def test_sde_solvers_converge_in_distribution(order, rule, eta):
    """The mean is exact for Gaussian data; the variance gains an order with the first value remembered."""
    errors = []
    for count in (32, 64, 128):
        times = uneven(count)
        mean, variance = moments(partial(dpmpp, order=order, rule=rule, eta=eta), times)
        alpha, sigma = VP(times[-1])
        errors.append((abs(mean - alpha * MEAN), abs(variance - (alpha**2 * STD**2 + sigma**2))))
    observed = [math.log2(coarse[1] / fine[1]) for coarse, fine in pairwise(errors)]
    assert errors[-1][0] < 1e-10
    assert observed[-1] > (0.95 if order == 1 else 1.9), (errors, observed)


def test_solvers_know_a_schedule_by_its_log_snr_only():
    """The same run on two schedules of equal log-SNR differs by the factor alpha, to rounding."""
    x = torch.tensor([[-1.0, 0.5, 2.0]], dtype=torch.float64)
    times = uneven(7)
    for name in SOLVERS.keys() - STOCHASTIC:
        results = [
            sample(Gaussian(schedule), schedule(times[0])[0] * x, times, step=SOLVERS[name]) / schedule(times[-1])[0]
            for schedule in (VP, FLOW)
        ]
        torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SOLVERS)
def test_runs_end_clean_start_at_pure_noise_and_stop_at_the_first_level(name):
    """The ends of schedules, where the log-SNR is infinite or the last step is none."""
    step, x = SOLVERS[name], torch.tensor([[-1.0, 0.5, 2.0]], dtype=torch.float64)
    clean = VPSchedule.from_betas()
    model = Gaussian(clean)
    result = sample(model, x, [600.0, -1.0], step=step, noise=Noise.shared(0))
    torch.testing.assert_close(result, model(x, 600.0).x0, rtol=1e-12, atol=1e-12)
    from_noise = Gaussian(VPSchedule.from_betas(zero_terminal_snr=True))
    result = sample(from_noise, x, spaced_times(from_noise.schedule, 60), step=step, noise=Noise.shared(0))
    assert bool(torch.isfinite(result).all())
    if name not in STOCHASTIC:
        assert float((result - (MEAN + STD * x)).abs().max()) < 0.1  # the exact map from pure noise
    first = Gaussian(VPSchedule.from_betas(last="first"))
    result = sample(first, x, [500.0, 300.0, 100.0, 0.0, -1.0], step=step, noise=Noise.shared(0))
    assert bool(torch.isfinite(result).all())


@pytest.mark.parametrize("name", sorted(SOLVERS.keys() - STOCHASTIC))
def test_a_constraint_acts_on_every_solver(name):
    """x0 and eps are held, at values that do not make up x: what comes out is made of them, at every level."""

    def constraint(x, t, prediction, info):
        return Prediction(torch.full_like(x, 2.0), torch.full_like(x, -1.0))

    x = torch.tensor([[-1.0, 0.5]], dtype=torch.float64)
    schedule, times = VPSchedule.from_betas(), [800.0, 500.0, 300.0, 150.0, 50.0, -1.0]
    for last in (2, 5, 6):
        result = sample(Gaussian(schedule), x, times[:last], step=SOLVERS[name], constraint=constraint)
        alpha, sigma = schedule(times[last - 1])
        torch.testing.assert_close(result, torch.full_like(x, 2.0 * alpha - sigma), rtol=1e-12, atol=1e-12)


def test_order_one_is_ddim_and_integer_momentum_is_plms():
    x, times = torch.tensor([[-1.0, 0.5, 2.0]], dtype=torch.float64), uneven(8)

    def run(step):
        return sample(Gaussian(VP), x, times, step=step)

    for step in (dpmpp, deis, plms, pndm, ghvb, heavy_ball, nesterov):
        torch.testing.assert_close(run(partial(step, order=1)), run(ddim), rtol=1e-13, atol=1e-13)
    for step in (ghvb, heavy_ball, nesterov):
        for three in (3, 3.0000000000000004):  # as arithmetic leaves it
            torch.testing.assert_close(
                run(partial(step, order=three)), run(partial(plms, order=3)), rtol=1e-13, atol=1e-13
            )
    torch.testing.assert_close(run(partial(dpmpp, order=2, rule="published")), run(SOLVERS["dpmpp-2m"]))
    assert float((run(partial(dpmpp, order=2)) - run(SOLVERS["dpmpp-2m"])).abs().max()) > 1e-6


@pytest.mark.parametrize("step", [ghvb, partial(heavy_ball, order=1.5), partial(nesterov, order=1.5)])
def test_momentum_starts_from_eps_whatever_the_network_predicts(step):
    schedule = VPSchedule.from_betas()

    def network(kind):
        def output(x, label):
            alpha, sigma = schedule(float(label))
            x0 = MEAN + 0.2 * x
            eps = (x - alpha * x0) / sigma
            return {"epsilon": eps, "v": alpha * eps - sigma * x0, "sample": x0}[kind]

        return Denoiser(output, schedule, kind, time_label=lambda t: torch.tensor([t], dtype=torch.float64))

    x = torch.tensor([[-1.0, 0.5, 2.0]], dtype=torch.float64)
    times = spaced_times(schedule, 10)
    first, *others = [sample(network(kind), x, times, step=step) for kind in ("epsilon", "v", "sample")]
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["dpmpp-3m", "deis", "unipc", "heun", "dpm-solver-2m"])
def test_runs_upwards_return(name):
    x, times = torch.tensor([[-1.0, 0.5, 2.0]], dtype=torch.float64), uneven(64)
    down = sample(Gaussian(VP), x, times, step=SOLVERS[name])
    back = sample(Gaussian(VP), down, times[::-1], step=SOLVERS[name])
    torch.testing.assert_close(back, x, rtol=1e-2, atol=1e-2)
    # a way up and down again: a level met twice is remembered once
    turning = [*times[:40], *times[30:38][::-1], *times[38:]]
    again = sample(Gaussian(VP), x, turning, step=SOLVERS[name])
    torch.testing.assert_close(again, down, rtol=1e-2, atol=1e-2)


def test_fresh_noise_never_exceeds_the_level():
    """With a large eta a step is x0 and noise of the level alone."""
    x, z = torch.tensor([[-1.0, 0.5]], dtype=torch.float64), torch.tensor([[0.3, -2.0]], dtype=torch.float64)
    model = Gaussian(VPSchedule.from_betas())
    alpha, sigma = model.schedule(400.0)
    result, _ = ddim(model, x, 800.0, 400.0, None, Noise.recorded([z]), eta=9.0)
    torch.testing.assert_close(result, alpha * model(x, 800.0).x0 + sigma * z)


def test_network_calls():
    expected = {"pndm": 9, "heun": 15}  # of 8 steps: one more at the start; two a step but the last, to sigma = 0
    for name, step in SOLVERS.items():
        model = Gaussian(EDM)
        sample(model, torch.ones(1, 1), [*np.linspace(5, 0.5, 8).tolist(), 0.0], step=step, noise=Noise.shared(0))
        assert model.calls == expected.get(name, 8), name
    model = Gaussian(EDM)
    sample(model, torch.ones(1, 1), np.linspace(5, 0.5, 9).tolist(), step=partial(pndm, start="runge-kutta"))
    assert model.calls == 3 * 4 + 5


@pytest.mark.parametrize(
    ("scheduler", "options", "step"),
    [
        ("PNDMScheduler", {"skip_prk_steps": False}, partial(pndm, start="runge-kutta")),
        # to a level with noise: diffusers' bh1 gives NaN at sigma = 0
        (
            "UniPCMultistepScheduler",
            {"solver_order": 3, "solver_type": "bh1", "final_sigmas_type": "sigma_min"},
            {"order": 3, "variant": "bh1"},
        ),
        ("UniPCMultistepScheduler", {"solver_order": 3, "solver_type": "bh2"}, {"order": 3}),
    ],
)
def test_agrees_with_diffusers_where_no_golden_case_lies(scheduler, options, step):
    """Pseudo Runge-Kutta starts, and UniPC of order 3 with falling orders at the end."""
    import diffusers

    official = getattr(diffusers, scheduler)(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **options
    )
    official.set_timesteps(10)
    schedule = VPSchedule(official.alphas_cumprod.double().numpy(), "first" if "PNDM" in scheduler else "clean")

    def network(x, label):
        return torch.tanh(1.3 * x + label / 1000) + 0.2 * x

    x = torch.linspace(-2, 2, 12).reshape(1, 12)
    expected = x
    for t in official.timesteps:
        expected = official.step(network(expected, t), t, expected).prev_sample
    if isinstance(step, dict):
        step = partial(unipc, **step, lower_order_final=True)
    # PNDM's own list has the middles of the starting steps too
    levels = np.arange(900.0, -1.0, -100.0) if "PNDM" in scheduler else official.timesteps.tolist()
    times = [*levels, 0.0 if "final_sigmas_type" in options else -1.0]
    result = sample(Denoiser(network, schedule), x, times, step=step)
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "step",
    [
        partial(dpmpp, order=0),
        partial(dpmpp, order=5),
        partial(dpmpp, order=1.5),
        partial(dpmpp, order=2.0),
        partial(dpmpp, order=4, rule="published"),
        partial(dpmpp, rule="midpoint"),
        partial(dpmpp, eta=-1.0),
        partial(dpmpp, eta=math.nan),
        partial(dpmpp, eta=1.0),
        partial(deis, order=5),
        partial(unipc, order=0),
        partial(unipc, variant="bh3"),
        partial(plms, order=7),
        partial(pndm, order=5),
        partial(pndm, start="euler"),
        partial(ghvb, order=0),
        partial(ghvb, order=math.nan),
        partial(heavy_ball, order=-0.5),
        partial(nesterov, order=6.5),
        partial(ddim, eta=-1.0),
        partial(euler_ancestral, eta=math.nan),
    ],
)
def test_wrong_options_are_one_line_errors(step):
    with pytest.raises(InputError) as error:
        sample(Gaussian(EDM), torch.ones(1, 1), [5.0, 3.0, 2.0], step=step)
    assert error.value.remedy
    assert "\n" not in str(error.value)
