"""RED-diff: the official values, and its fixed point on Gaussian data."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from priorscope import InputError
from priorscope.diffusion import Denoiser, Noise, VPSchedule
from priorscope.inverse.guidance import back_solve
from priorscope.inverse.reddiff import WEIGHTS, red_diff
from priorscope.inverse.tv import total_variation

VP = VPSchedule.from_betas("linear", beta_start=1e-4, beta_end=0.02)


class BlockMean:
    def __init__(self, factor):
        self.factor = factor

    def forward(self, x):
        return torch.nn.functional.avg_pool2d(x, self.factor).flatten(1)

    def adjoint(self, y):
        side = math.isqrt(y.shape[1] // 3)
        blocks = y.reshape(-1, 3, side, side)
        return blocks.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3) / self.factor**2


class Flat:
    def forward(self, x):
        return x.flatten(1)

    def adjoint(self, y):
        side = math.isqrt(y.shape[1] // 3)
        return y.reshape(-1, 3, side, side)


def fake_net(schedule):
    """The noise predictor that the golden file was made with, in float32."""
    table = torch.tensor(schedule.alphas_cumprod).float()

    def network(x, label):
        a = table[label.long()][:, None, None, None]
        return (1 - a).sqrt() * (x - a.sqrt() * 0.1) / (0.09 * a + 1 - a) + 0.02 * torch.sin(5 * x)

    return network


def test_golden_reddiff(golden_files, read_json):
    for path in golden_files("medical", "reddiff.safetensors"):
        data = load_file(path)
        schedule = VPSchedule(data["alphas"][1:].double().numpy())
        seen = 0
        for case in read_json(path.with_suffix(".json"))["cases"]:
            name, cfg = case["name"], case["cfg"]
            if not name.startswith("red_"):
                continue
            seen += 1
            degradation = cfg["deg"]
            result = red_diff(
                Denoiser(fake_net(schedule), schedule),
                BlockMean(int(degradation[2:])) if degradation.startswith("sr") else Flat(),
                data[f"{name}.y0"],
                data[f"{name}.Hpinv_y0"],
                [float(t) for t in reversed(case["ts"])],
                noise=Noise.recorded([data[f"{name}.noise_{index:03d}"] for index in range(case["n_noise"])]),
                weight=cfg["denoise_term_weight"],
                prior_weight=cfg["grad_term_weight"],
                obs_weight=cfg["obs_weight"],
                learning_rate=cfg["lr"],
                sigma_x0=cfg["sigma_x0"],
                batch_mean=True,
            )
            # Adam turns rounding into steps of the learning rate where the measurement fixes less than the image
            close = {"rtol": 1e-3, "atol": 5e-3 if degradation.startswith("sr") else 1e-3}
            torch.testing.assert_close(result.mu, data[f"{name}.out_mu"], **close)
            torch.testing.assert_close(result.before_last, data[f"{name}.out_x0_pred"], **close)
        assert seen >= 7


class Separable:
    """X -> H X H^T on each channel, flattened."""

    def __init__(self, matrix):
        self.matrix = matrix

    def forward(self, x):
        return (self.matrix @ x @ self.matrix.T).flatten(1)

    def adjoint(self, y):
        size = self.matrix.shape[1]
        return self.matrix.T @ y.reshape(len(y), -1, size, size) @ self.matrix


class Grey:
    """RED-diff's colorisation: one mixture of the channels."""

    weights = torch.tensor([0.3333, 0.3334, 0.3333], dtype=torch.float64)

    def forward(self, x):
        return torch.einsum("c,bchw->bhw", self.weights, x).flatten(1)

    def adjoint(self, y):
        side = math.isqrt(y.shape[1])
        return torch.einsum("c,bhw->bchw", self.weights, y.reshape(-1, side, side))


def test_golden_reddiff_pseudo_inverses(golden_files):
    """The closed-form pseudo-inverses of the official degradations, by conjugate gradients."""
    for path in golden_files("medical", "reddiff.safetensors"):
        data = {key: value.double() for key, value in load_file(path).items() if key.startswith("deg.")}
        x = data["deg.x"]
        for name in sorted({key.split(".")[1] for key in data if key.count(".") == 2} - {"hdr"}):
            tag = "_separable" if name.startswith("deblur") else ""  # the official deblurring mixes the channels
            operator, iterations = Flat(), 20
            if name.startswith("sr"):
                operator = BlockMean(int(name[2:]))
            elif name == "color":
                operator = Grey()
            elif tag:
                u, values, v = torch.linalg.svd(data[f"deg.{name}.H1"])
                operator, iterations = Separable((u * torch.where(values < 3e-2, 0.0, values)) @ v), 3000
            y = operator.forward(x)
            torch.testing.assert_close(y, data[f"deg.{name}.y{tag}"], rtol=0, atol=1e-5)
            found = back_solve(operator, y, iterations=iterations, tolerance=1e-10)
            torch.testing.assert_close(
                found.flatten(1), data[f"deg.{name}.pinv{tag}"], rtol=0, atol=1e-4 if tag else 1e-5
            )


N, M = 6, 3


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


A, MEAN, STD = randn(M, N, seed=1), randn(N, seed=2), 0.5


def measure(x):
    return x @ A.T


def gaussian_net(x, label):
    """The exact noise predictor of N(MEAN, STD^2)."""
    alpha, sigma = VP.coefficients(label, x)
    return sigma * (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)


MODEL = Denoiser(gaussian_net, VP)


def silence(count, batch):
    return Noise.recorded([torch.zeros(batch, N, dtype=torch.float64)] * count)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_fixed_point_on_gaussian_data(weight):
    """Without noise the loss is quadratic, with the gradient c (mu - MEAN) of the prior in closed form."""
    y, t = randn(2, M, seed=3), 400.0
    alpha, sigma = VP(t)
    ratio = sigma / alpha
    w = {
        "linear": ratio,
        "sqrt": ratio**0.5,
        "square": ratio * ratio,
        "log": math.log1p(ratio),
        "trunc_linear": min(ratio, 1),
        "power2over3": (ratio * ratio) ** (1 / 3),
        "const": 1,
    }[weight]
    prior = 0.25 * w * alpha * sigma / (alpha**2 * STD**2 + sigma**2) / N
    system = A.T @ A / M + prior * torch.eye(N, dtype=torch.float64)
    expected = torch.linalg.solve(system, (y @ A / M + prior * MEAN).T).T
    # a first step of Adam is as long as the learning rate wherever the gradient is more than rounding
    stays = red_diff(MODEL, measure, y, expected, [t], noise=silence(1, 2), weight=weight)
    torch.testing.assert_close(stays.mu, expected, rtol=0, atol=1e-6)
    if weight == "linear":
        away = torch.zeros(2, N, dtype=torch.float64)
        comes = red_diff(MODEL, measure, y, away, [t] * 300, noise=silence(300, 2))
        assert (comes.mu - expected).abs().max() < 0.05 < (away - expected).abs().max()
        assert comes.misfit.shape == (300, 2)
        assert (comes.misfit[-1] < comes.misfit[0]).all()


def test_items_do_not_see_each_other():
    y, start, times = randn(3, M, seed=4), randn(3, N, seed=5), [900.0, 500.0, 100.0, 10.0]
    kept = start.clone()

    def run(rows):
        noise = Noise.for_items(0, range(3)[rows])
        return red_diff(MODEL, measure, y[rows], start[rows], times, noise=noise, sigma_x0=0.1, levels=2).mu

    together = run(slice(0, 3))
    assert torch.equal(start, kept)
    for item in range(3):
        torch.testing.assert_close(together[item : item + 1], run(slice(item, item + 1)), rtol=1e-9, atol=1e-9)


def test_levels_of_a_step_are_averaged():
    y, start = randn(2, M, seed=4), randn(2, N, seed=5)

    def run(times, levels):
        noise = silence(len(times), 2)
        return red_diff(MODEL, measure, y, start, times, noise=noise, levels=levels, learning_rate=0.01)

    pair = run([700.0, 700.0, 200.0, 200.0], 2)
    single = run([700.0, 200.0], 1)
    torch.testing.assert_close(pair.mu, single.mu)
    assert len(pair.misfit) == len(single.misfit) == 2
    assert len(run([700.0, 500.0, 200.0], 2).misfit) == 2  # the last step takes what is left


def test_random_order_follows_its_seed():
    y, start, times = randn(1, M, seed=4), randn(1, N, seed=5), [float(t) for t in range(950, 0, -50)]
    told = []

    class Listening:
        schedule = VP

        def __call__(self, x, t, condition=None, info=None):
            told.append(t)
            return MODEL(x, t)

    runs = []
    for seed in (1, 1, 2):
        told.clear()
        red_diff(Listening(), measure, y, start, times, noise=Noise.shared(0), order="random", seed=seed)
        runs.append(list(told))
    assert runs[0] == runs[1] != runs[2]
    assert set(runs[0]) <= set(times)
    assert runs[0] != times
    assert len(runs[0]) == len(times)


def test_regulariser_couples_the_slices():
    y, start = randn(4, M, seed=4), randn(4, N, seed=5)

    def roughness(strength):
        found = red_diff(
            MODEL,
            measure,
            y,
            start,
            [300.0] * 100,
            noise=silence(100, 4),
            learning_rate=0.05,
            regulariser=lambda mu: strength * total_variation(mu, (0,)),
        )
        return float(total_variation(found.mu, (0,)))

    assert roughness(1.0) < 0.2 * roughness(0.0)


def test_wrong_input():
    y, start = randn(2, M), randn(2, N)
    good = {"model": MODEL, "operator": measure, "y": y, "mu": start, "times": [100.0], "noise": Noise.shared(0)}
    for wrong in (
        {"y": y * torch.nan},
        {"y": y.long()},
        {"mu": start * torch.inf},
        {"mu": start[:1]},
        {"mu": start.long()},
        {"mu": start + 0j},
        {"times": []},
        {"weight": "cubic"},
        {"order": "up"},
        {"levels": 0},
        {"sigma_x0": -1.0},
        {"learning_rate": 0.0},
    ):
        with pytest.raises(InputError):
            red_diff(**(good | wrong))
    with pytest.raises(InputError, match="used up"):
        red_diff(**(good | {"noise": silence(1, 2), "sigma_x0": 0.1}))


def test_it_runs_where_gradients_are_switched_off():
    y, start = randn(2, M), randn(2, N)
    free = red_diff(MODEL, measure, y, start, [500.0, 100.0], noise=Noise.shared(0))
    with torch.no_grad():
        inside = red_diff(MODEL, measure, y, start, [500.0, 100.0], noise=Noise.shared(0))
    assert torch.equal(inside.mu, free.mu)
    assert not torch.equal(free.mu, start)
