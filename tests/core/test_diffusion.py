"""The diffusion core against the one case where everything is known: Gaussian data."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from priorscope import InputError
from priorscope.diffusion import (
    SOLVERS,
    ClassifierFreeGuidance,
    Condition,
    Denoiser,
    EDMSchedule,
    FlowSchedule,
    FunctionSchedule,
    Noise,
    Prediction,
    StepInfo,
    VESchedule,
    VPSchedule,
    ddim,
    ddpm_ancestral,
    dpmpp_2m,
    euler_ancestral,
    heun,
    item_seed,
    sample,
    spaced_times,
)

MEAN, STD = 0.7, 0.5

SCHEDULES = {
    "vp": VPSchedule.from_betas("scaled_linear"),
    "vp-cosine": VPSchedule.from_betas("cosine"),
    "ve": VESchedule(0.01, 50.0),
    "edm": EDMSchedule(0.002, 80.0),
    "flow": FlowSchedule(),
    "angle": FunctionSchedule(np.cos, np.sin, start=math.pi / 2, end=0.0),
}
# Levels between which the orders are measured: signal and noise at both ends.
RANGES = {
    "vp": (900.0, 50.0),
    "vp-cosine": (900.0, 50.0),
    "ve": (0.8, 0.2),
    "edm": (5.0, 0.1),
    "flow": (0.9, 0.1),
    "angle": (1.4, 0.1),
}


def gaussian_network(schedule, prediction_type):
    """The exact network for data distributed as N(MEAN, STD^2), in any parametrisation."""

    def network(x, label):
        alpha, sigma = schedule.coefficients(label, x)
        x0 = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)
        eps = (x - alpha * x0) / sigma
        return {
            "epsilon": eps,
            "v": alpha * eps - sigma * x0,
            "sample": x0,
            "score": -eps / sigma,
            "flow": eps - x0,
        }[prediction_type]

    return Denoiser(
        network,
        schedule,
        prediction_type,
        time_label=lambda t: torch.full((1,), float(t), dtype=torch.float64),
    )


def exact_map(schedule, x, t, s):
    """Where the probability-flow ODE carries x from level t to level s."""
    alpha_t, sigma_t = schedule(t)
    alpha_s, sigma_s = schedule(s)
    spread = math.sqrt((alpha_s**2 * STD**2 + sigma_s**2) / (alpha_t**2 * STD**2 + sigma_t**2))
    return alpha_s * MEAN + spread * (x - alpha_t * MEAN)


def levels(schedule, name, steps):
    """Levels evenly spaced in log-SNR between the two of RANGES: smooth for every solver."""
    t, s = RANGES[name]
    grid = np.linspace(t, s, 20001)
    alpha, sigma = schedule.coefficients(torch.from_numpy(grid), torch.empty(1).double())
    log_snr = torch.log(alpha / sigma).numpy()
    return np.interp(np.linspace(log_snr[0], log_snr[-1], steps + 1), log_snr, grid).tolist()


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpmpp-2m", 2)])
def test_solvers_converge_at_their_order(name, solver, order):
    schedule = SCHEDULES[name]
    model = gaussian_network(schedule, "v")
    x = torch.linspace(-2, 2, 7, dtype=torch.float64).reshape(1, 7)
    errors = []
    for steps in (64, 128, 256, 512):
        times = levels(schedule, name, steps)
        result = sample(model, x, times, step=SOLVERS[solver])
        errors.append(float((result - exact_map(schedule, x, times[0], times[-1])).abs().max()))
    observed = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert observed[-1] == pytest.approx(order, abs=0.2), (errors, observed)


@pytest.mark.parametrize("name", ["vp", "ve", "flow"])
@pytest.mark.parametrize("solver", ["ddpm", "euler-ancestral"])
def test_ancestral_solvers_converge_in_distribution(name, solver):
    """The step is affine in x and in its noise, so mean and variance follow exactly from two probes."""
    schedule = SCHEDULES[name]
    model = gaussian_network(schedule, "epsilon")
    step = SOLVERS[solver]
    errors = []
    for steps in (64, 128, 256):
        times = levels(schedule, name, steps)
        alpha, sigma = schedule(times[0])
        mean, var = alpha * MEAN, alpha**2 * STD**2 + sigma**2
        for t, s in pairwise(times):
            zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
            offset, _ = step(model, zero, t, s, None, Noise.recorded([zero]))
            gain = step(model, one, t, s, None, Noise.recorded([zero]))[0] - offset
            fresh = step(model, zero, t, s, None, Noise.recorded([one]))[0] - offset
            mean, var = float(gain) * mean + float(offset), float(gain) ** 2 * var + float(fresh) ** 2
        alpha, sigma = schedule(times[-1])
        errors.append((abs(mean - alpha * MEAN), abs(var - (alpha**2 * STD**2 + sigma**2))))
    # DDPM's mean is exact for Gaussian data; the variance converges with order 1
    assert errors[-1][0] < 1e-10
    assert math.log2(errors[-2][1] / errors[-1][1]) == pytest.approx(1.0, abs=0.2), errors


def test_one_step_to_a_clean_level_returns_x0():
    x = torch.randn(2, 3, dtype=torch.float64)
    for name, schedule in SCHEDULES.items():
        if name == "ve":
            continue  # ends at sigma_min
        model = gaussian_network(schedule, "v")
        t = RANGES[name][0]
        for solver in (ddim, heun, dpmpp_2m):
            result = sample(model, x, [t, schedule.end], step=solver)
            torch.testing.assert_close(result, model(x, t).x0, rtol=1e-12, atol=1e-12)


def test_pure_noise_start_is_legal_for_v_and_sample_only():
    schedule = VPSchedule.from_betas(zero_terminal_snr=True)
    assert schedule(999) == (0.0, 1.0)
    x = torch.randn(2, 5, dtype=torch.float64)
    times = spaced_times(schedule, 50)
    for kind in ("v", "sample"):
        for solver in (ddim, heun, dpmpp_2m):
            result = sample(gaussian_network(schedule, kind), x, times, step=solver)
            assert torch.isfinite(result).all()
            # from pure noise the exact map is MEAN + STD x
            assert float((result - (MEAN + STD * x)).abs().max()) < 0.1
    for kind in ("epsilon", "score"):
        with pytest.raises(InputError, match="alpha = 0"):
            sample(gaussian_network(schedule, kind), x, times)


@pytest.mark.parametrize("kind", ["epsilon", "v", "sample", "score", "flow"])
def test_prediction_types_agree_and_targets_invert(kind):
    x0, eps = torch.randn(4, 3, 2, dtype=torch.float64), torch.randn(4, 3, 2, dtype=torch.float64)
    for name, schedule in SCHEDULES.items():
        for t in (RANGES[name][0], torch.linspace(*RANGES[name], 4), torch.full((4, 1, 2), RANGES[name][1])):
            x = schedule.add_noise(x0, t, eps)
            model = Denoiser(lambda x, label: None, schedule, kind)
            alpha, sigma = schedule.coefficients(t, x)
            prediction = model.split(model.target(x0, eps, t), x, alpha, sigma)
            torch.testing.assert_close(prediction.x0, x0, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(prediction.eps, eps, rtol=1e-9, atol=1e-9)


def test_ancestral_names_are_one_step():
    """Euler-ancestral in k-diffusion's own formula equals DDPM's posterior and DDIM with eta = 1."""
    schedule = SCHEDULES["vp"]
    model = gaussian_network(schedule, "epsilon")
    x, noise, t, s = torch.randn(1, 6).double(), torch.randn(1, 6).double(), 700.0, 400.0
    first = euler_ancestral(model, x, t, s, None, Noise.recorded([noise]))[0]
    second = ddpm_ancestral(model, x, t, s, None, Noise.recorded([noise]))[0]
    third = ddim(model, x, t, s, None, Noise.recorded([noise]), eta=1.0)[0]
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    high, low = sigma_t / alpha_t, sigma_s / alpha_s
    up = min(low, math.sqrt(low**2 * (high**2 - low**2) / high**2))
    down = math.sqrt(low**2 - up**2)
    prediction = model(x, t)
    scaled = x / alpha_t + prediction.eps * (down - high) + noise * up
    for value in (first, second, third):
        torch.testing.assert_close(value, alpha_s * scaled, rtol=1e-12, atol=1e-12)


def test_ddpm_variances_are_those_of_the_paper():
    schedule = SCHEDULES["vp"]
    model = gaussian_network(schedule, "epsilon")
    zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
    bar = schedule.alphas_cumprod
    beta = 1 - bar[500] / bar[499]
    for variance, expected in (("large", beta), ("small", beta * (1 - bar[499]) / (1 - bar[500]))):
        steps = [
            ddpm_ancestral(model, zero, 500, 499, None, Noise.recorded([n]), variance=variance)[0] for n in (zero, one)
        ]
        assert float(steps[1] - steps[0]) ** 2 == pytest.approx(expected, rel=1e-9)


def test_ddim_inversion_returns():
    schedule = SCHEDULES["vp"]
    model = gaussian_network(schedule, "epsilon")
    x = torch.randn(1, 4).double()
    times = levels(schedule, "vp", 400)
    back = sample(model, sample(model, x, times), times[::-1])
    torch.testing.assert_close(back, x, rtol=0.01, atol=0.01)


def test_betas_agree_with_diffusers():
    from diffusers import DDIMScheduler

    for config in (
        {
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "set_alpha_to_one": False,
        },
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "rescale_betas_zero_snr": True,
        },
    ):
        official = DDIMScheduler(**config)
        ours = VPSchedule.from_scheduler_config(dict(official.config))
        np.testing.assert_allclose(ours.alphas_cumprod, official.alphas_cumprod.numpy(), atol=2e-6)
        assert ours(-1)[0] ** 2 == pytest.approx(float(official.final_alpha_cumprod), abs=1e-6)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 4, 10, 50, 1000])
def test_spacings_agree_with_diffusers(spacing, steps):
    from diffusers import DDIMScheduler

    offset = 1 if spacing == "leading" and steps < 1000 else 0
    official = DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    official.set_timesteps(steps)
    times = spaced_times(VPSchedule.from_betas("linear"), steps, spacing, offset=offset)
    assert times == [*official.timesteps.tolist(), -1]


def test_continuous_spacings():
    assert spaced_times(FlowSchedule(), 4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    karras = spaced_times(EDMSchedule(0.002, 80.0), 5, "karras")
    assert karras[0] == pytest.approx(80.0)
    assert karras[-2] == pytest.approx(0.002)
    assert karras[-1] == 0.0
    assert spaced_times(FlowSchedule(), [0.9, 0.3]) == [0.9, 0.3, 0.0]
    for wrong in (
        lambda: spaced_times(FlowSchedule(), 0),
        lambda: spaced_times(FlowSchedule(), []),
        lambda: spaced_times(FlowSchedule(), [0.9, math.nan]),
        lambda: spaced_times(FlowSchedule(), 50.0),
        lambda: spaced_times(FlowSchedule(), "50"),
        lambda: spaced_times(FlowSchedule(), 3, "karras"),
        lambda: spaced_times(VPSchedule.from_betas(), 1001),
        lambda: spaced_times(VPSchedule.from_betas(), 5, "karras"),
    ):
        with pytest.raises(InputError):
            wrong()


def test_levels_outside_a_schedule_are_refused():
    vp = VPSchedule.from_betas()
    for schedule, t in ((vp, 1000), (vp, -0.5), (vp, math.nan), (FlowSchedule(), 1.1), (EDMSchedule(), -1)):
        with pytest.raises(InputError):
            schedule(t)
    assert vp(-1) == (1.0, 0.0)
    first = VPSchedule.from_betas(last="first")
    assert first(-1) == first(0)
    # between two steps the log-SNR is interpolated
    assert vp.log_snr(10.5) == pytest.approx((vp.log_snr(10) + vp.log_snr(11)) / 2)


def test_noise_of_an_item_does_not_depend_on_its_batch():
    together = Noise.for_items(7, ["a", "b", 3]).draw((3, 4, 5))
    alone = Noise.for_items(7, ["b"]).draw((1, 4, 5))
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=0)
    assert item_seed(7, "a") != item_seed(8, "a")
    assert item_seed(7, 3) != item_seed(7, "3")
    assert not torch.equal(together[0], together[1])
    generator = torch.Generator().manual_seed(5)
    shared = Noise.shared(generator).draw((2, 3))
    torch.testing.assert_close(shared, torch.randn(2, 3, generator=torch.Generator().manual_seed(5)))
    recorded = Noise.recorded([shared])
    assert torch.equal(recorded.draw((2, 3)), shared)
    with pytest.raises(InputError):
        recorded.draw((2, 3))
    with pytest.raises(InputError):
        Noise.recorded([shared]).draw((3, 2))
    with pytest.raises(InputError):
        Noise.per_item([1, 2]).draw((3, 1))


def test_conditions_index_repeat_and_join():
    text = torch.randn(1, 2, 8)
    condition = Condition({"image": torch.arange(6.0).reshape(3, 2), "text": text}, shared=["text"])
    assert condition.select(slice(1, 3))["image"].tolist() == [[2, 3], [4, 5]]
    assert condition.select([0])["text"] is text
    assert condition.repeat(2)["image"][:, 0].tolist() == [0, 0, 2, 2, 4, 4]
    assert condition.expand(3)["text"].shape == (3, 2, 8)
    joined = Condition.cat([(condition, 3), (condition.select([0]), 1)])
    assert joined["image"].shape == (4, 2)
    assert joined.shared == {"text"}
    other = Condition({"image": torch.zeros(1, 2), "text": torch.zeros(1, 2, 8)}, shared=["text"])
    joined = Condition.cat([(condition, 3), (other, 1)])
    assert joined.shared == frozenset()
    assert joined["text"].shape == (4, 2, 8)
    assert joined["text"][3].abs().max() == 0
    labels = Condition({"label": torch.tensor([1, 2])}).to(torch.float64)
    assert labels["label"].dtype == torch.int64
    for wrong in (
        lambda: Condition({"a": torch.zeros(2), "b": torch.zeros(3)}),
        lambda: Condition({"a": torch.zeros(2)}, shared=["a"]),
        lambda: Condition({"a": torch.zeros(2)}, shared=["b"]),
        lambda: condition.expand(4),
        lambda: Condition.cat([(condition, 3), (Condition({"image": torch.zeros(1, 2)}), 1)]),
    ):
        with pytest.raises(InputError):
            wrong()


@pytest.mark.parametrize("batched", [True, False])
def test_classifier_free_guidance_is_linear_in_the_output(batched):
    schedule = SCHEDULES["vp"]

    def network(x, label, shift):
        return 0.3 * x + shift

    x = torch.randn(2, 3).double()
    condition = Condition({"shift": torch.ones(2, 3).double()})
    free = Condition({"shift": torch.full((1, 3), -2.0).double()}, shared=["shift"])
    model = Denoiser(network, schedule, "v")
    guided = ClassifierFreeGuidance(model, free, 4.0, batched=batched)(x, 300.0, condition)
    alpha, sigma = schedule(300.0)
    output = 0.3 * x - 2 + 4.0 * 3.0
    torch.testing.assert_close(guided.x0, alpha * x - sigma * output)
    torch.testing.assert_close(guided.eps, sigma * x + alpha * output)
    with pytest.raises(InputError):
        ClassifierFreeGuidance(model, free, 4.0)(x, 300.0)


def test_the_three_openings_are_called_in_order():
    schedule = FlowSchedule()
    calls = []

    def known(x, t):
        calls.append(("known", t))
        return x

    def constraint(x, t, prediction, info):
        calls.append(("constraint", t, info.index, info.total, info.call))
        return Prediction(torch.full_like(prediction.x0, 2.0), prediction.eps)

    def correct(x, s):
        calls.append(("correct", s))
        return x

    model = gaussian_network(schedule, "flow")
    x = torch.randn(1, 2).double()
    result = sample(
        model, x, [0.9, 0.4, 0.0], step=heun, constraint=constraint, known=known, correct=correct,
        callback=lambda info, x, s: calls.append(("callback", s)),
    )  # fmt: skip
    torch.testing.assert_close(result, torch.full_like(result, 2.0))
    assert calls == [
        ("known", 0.9), ("constraint", 0.9, 0, 2, 0), ("constraint", 0.4, 0, 2, 1),
        ("correct", 0.4), ("callback", 0.4),
        ("known", 0.4), ("constraint", 0.4, 1, 2, 0), ("correct", 0.0), ("callback", 0.0),
    ]  # fmt: skip
    with pytest.raises(InputError):
        sample(model, x, [0.9])
    with pytest.raises(InputError, match="noise"):
        sample(model, x, [0.9, 0.4], step=euler_ancestral)


def test_a_constraint_may_differentiate_through_the_network():
    """Guidance by the gradient of a measurement: exact for a linear denoiser, and nothing leaks out."""

    class Pull:
        needs_grad = True

        def __call__(self, x, t, prediction, info):
            loss = (prediction.x0 - 1.0).square().flatten(1).sum(1)
            (gradient,) = torch.autograd.grad(loss.sum(), x)
            return Prediction(prediction.x0 - gradient, prediction.eps)

    schedule = SCHEDULES["vp"]
    model = gaussian_network(schedule, "sample")
    x = torch.randn(3, 2).double()
    t = 400.0
    alpha, sigma = schedule(t)
    gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
    x0 = model(x, t).x0
    result = sample(model, x, [t, schedule.end], constraint=Pull())
    torch.testing.assert_close(result, x0 - 2 * gain * (x0 - 1.0))
    assert not result.requires_grad


def test_what_the_network_is_told_is_apart_from_where_the_schedule_stands():
    seen = {}

    def network(x, label):
        seen["x"], seen["label"] = x, label
        return torch.zeros_like(x)

    schedule = EDMSchedule()
    model = Denoiser(
        network,
        schedule,
        "epsilon",
        time_label=999,
        input_scale=lambda alpha, sigma: 1 / (sigma**2 + 1) ** 0.5,
    )
    x = torch.ones(2, 3)
    model(x, 3.0, None, StepInfo())
    assert seen["label"].tolist() == [999.0, 999.0]
    torch.testing.assert_close(seen["x"], x / math.sqrt(10))


def test_the_level_after_the_last_step_is_told_as_step_zero():
    """Heun asks at s too; with last="first" that level has noise, but no network was trained on step -1."""
    told = []

    def network(x, label):
        told.append(label.tolist())
        return torch.zeros_like(x)

    schedule = VPSchedule.from_betas(last="first")
    sample(Denoiser(network, schedule, "v"), torch.ones(1, 2), spaced_times(schedule, np.int64(2)), step=heun)
    assert told == [[999.0], [499.0], [499.0], [0.0]]
    # one level an item, shaped to broadcast, is told as (B,)
    Denoiser(network, schedule, "v")(torch.ones(2, 3, 4), torch.tensor([5.0, -1.0]).reshape(2, 1, 1))
    assert told[-1] == [5.0, 0.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: VPSchedule(np.array([0.5, 0.6])),
        lambda: VPSchedule(np.array([1.5, 0.6])),
        lambda: VPSchedule(np.array([0.9, 0.6]), last="zero"),
        lambda: VPSchedule.from_betas("quadratic"),
        lambda: VESchedule(1.0, 0.5),
        lambda: Denoiser(lambda x, t: x, FlowSchedule(), "noise"),
    ],
)
def test_wrong_arguments_are_one_line_errors(make):
    with pytest.raises(InputError) as error:
        make()
    assert "\n" not in str(error.value)
