"""Joint guidance of two priors against the published code's values."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from safetensors.torch import load_file

from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.product import Parts, ProductDenoiser
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.simple_sde import SimpleVESchedule, euler_maruyama, predictor_mean
from priorscope.inverse.joint_measurement import WeightedSum
from priorscope.inverse.two_priors_official import OfficialJointGuidance, dps_move, pigdm_move, projection_move

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
SIMPLE = SimpleVESchedule()
IMAGE = (6, 5, 1)


class Matrix:
    """A random sensing matrix on flattened images."""

    def __init__(self, matrix):
        self.matrix = matrix

    def forward(self, x):
        return x.flatten(1) @ self.matrix.T

    def adjoint(self, y):
        return (y @ self.matrix).reshape(-1, *IMAGE)


def cases(golden_files, read_json, chosen):
    for path in golden_files("medical", "dehaze_joint_guidance*.safetensors"):
        data = load_file(path)
        for case in read_json(path.with_suffix(".json"))["cases"]:
            if case["name"].startswith(chosen):
                prefix = case["name"] + "."
                yield case, {key.removeprefix(prefix): value for key, value in data.items() if key.startswith(prefix)}


def move_of(kind, measurement, y, x, mean, slope, sigma, z, noise=0.0):
    if kind == "projection":
        return projection_move(measurement, y, x, sigma * z)
    if kind == "dps":
        return dps_move(measurement, y, mean, slope)
    return pigdm_move(measurement, y, mean, slope, sigma, noise)


def test_golden_joint_guidance_schedule(golden_files):
    seen = 0
    for path in golden_files("medical", "dehaze_joint_guidance*.safetensors"):
        data = load_file(path)
        times = data["simple.t"].double().tolist()
        np.testing.assert_allclose([SIMPLE(t)[1] for t in times], data["simple.std"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose([SIMPLE.diffusion(t) for t in times], data["simple.g"], rtol=1e-4)
        for name in sorted({key.split(".")[0] for key in data if key.startswith("em")}):
            x, t = data[f"{name}.x"], float(data[f"{name}.t"][0])
            assert (data[f"{name}.t"] == data[f"{name}.t"][0]).all()

            def score(x, label):
                return -(x - 0.2 * torch.sin(3 * x)) / (0.09 + SIMPLE(float(label[0]))[1] ** 2)

            model = Denoiser(score, SIMPLE, "score")
            x = x.requires_grad_(True)
            mean = predictor_mean(SIMPLE, x, t, model(x, t).eps, 1 / 600)
            (slope,) = torch.autograd.grad(mean.sum(), x)
            torch.testing.assert_close(mean, data[f"{name}.x_mean"], **TOLERANCE)
            torch.testing.assert_close(slope, data[f"{name}.grad_x0_xt"], **TOLERANCE)
            draws = Noise.recorded([data[f"{name}.noise"]])
            with torch.no_grad():
                moved, _ = euler_maruyama(model, x, t, t - 1 / 600, None, draws)
            torch.testing.assert_close(moved, data[f"{name}.x_next"], **TOLERANCE)
            seen += 1
    assert seen == 2


def test_golden_joint_guidance(golden_files, read_json):
    """One step of each guidance for two parts, and for one."""
    seen = set()
    for case, data in cases(golden_files, read_json, ("projection", "dps", "pigdm")):
        kind, steps = case["guidance"], (case["lambda_coeff"], case["kappa_coeff"])
        sigma, z = SIMPLE(float(data["t"][0]))[1], data["noise"]
        parts = Parts([IMAGE, IMAGE])
        measurement = WeightedSum(parts, (1 - case["blend"], case["blend"]))
        x, mean, slope = (
            parts.join([data[first], data[second]])
            for first, second in (("x", "n"), ("x_mean", "n_mean"), ("grad_x", "grad_n"))
        )
        move = move_of(kind, measurement, data["y"], x, mean, slope, sigma, z)
        for part, name in zip(parts.split(x + parts.factors(steps, x) * move), ("x_out", "n_out"), strict=True):
            torch.testing.assert_close(part, data[name], **TOLERANCE)
        alone = WeightedSum(Parts([IMAGE]), (1.0,))
        noise = case["single_noise_stddev"]
        move = move_of(kind, alone, data["y"], data["x"], data["x_mean"], data["grad_x"], sigma, z, noise)
        torch.testing.assert_close(data["x"] + steps[0] * move, data["x_out_single"], **TOLERANCE)
        seen.add(kind)
    assert seen == {"projection", "dps", "pigdm"}


def test_golden_joint_guidance_compressed_sensing(golden_files, read_json):
    """An image seen through a matrix, with structured noise of the measurement's own shape."""
    seen = set()
    for case, data in cases(golden_files, read_json, "cs_"):
        kind = case["name"].removeprefix("cs_")
        parts = Parts([IMAGE, data["n"].shape[1:]])
        measurement = WeightedSum(parts, (1.0, 1.0), [Matrix(data["A"]), None])
        x, mean, slope = (
            parts.join([data[first], data[second]])
            for first, second in (("x", "n"), ("x_mean", "n_mean"), ("grad_x", "grad_n"))
        )
        sigma = SIMPLE(float(data["t"][0]))[1]
        move = move_of(kind, measurement, data["y"], x, mean, slope, sigma, data["noise"])
        out = parts.split(x + parts.factors((case["lambda_coeff"], case["kappa_coeff"]), x) * move)
        for part, name in zip(out, ("x_out", "n_out"), strict=True):
            torch.testing.assert_close(part, data[name], **TOLERANCE)
        seen.add(kind)
    assert seen == {"projection", "dps"}


def gaussian_score(mean, variance):
    def score(x, label):
        return -(x - mean) / (variance + SIMPLE(float(label[0]))[1] ** 2)

    return Denoiser(score, SIMPLE, "score")


def test_golden_joint_guidance_full(golden_files, read_json):
    """The whole sampler, with its prior drawn at deviation 1 and its forward diffusion for a late start."""
    seen = set()
    for case, data in cases(golden_files, read_json, "full_"):
        kind, count = case["name"].split("_")[1], case["N"]
        parts = Parts([IMAGE, IMAGE])
        draws = [data[f"noise_{index:03d}"] for index in range(case["n_draws"])]
        late = case["start_diffusion"]
        begin = 1.0 if late is None else 1.0 - late
        first = draws[1] if late is None else data["y"] + SIMPLE(begin)[1] * draws[1]
        # draws of a step: one a part, and for the projection one of the measurement
        each = 3 if kind == "projection" else 2
        steps = [draws[2 + each * index : 2 + each * (index + 1)] for index in range(count)]
        guidance = OfficialJointGuidance(
            kind,
            WeightedSum(parts, (1 - case["blend"], case["blend"])),
            data["y"],
            SIMPLE,
            dt=1 / count,
            steps=(case["lam"], case["kappa"]),
            draws=Noise.recorded([step[2] for step in steps]) if each == 3 else None,
        )
        model = ProductDenoiser([gaussian_score(0.3, 0.04), gaussian_score(-0.2, 0.25)], parts)
        times = torch.linspace(begin, 1e-3, count).tolist()
        sample(
            model,
            parts.join([first, draws[0]]),
            [*times, 0.0],
            step=functools.partial(euler_maruyama, dt=1 / count),
            noise=Noise.recorded([parts.join(step[:2]) for step in steps]),
            constraint=guidance,
            correct=guidance.correct,
        )
        for part, name in zip(parts.split(guidance.mean), ("x_out", "n_out"), strict=True):
            torch.testing.assert_close(part, data[name], **TOLERANCE)
        seen.add((kind, late))
    assert seen == {("projection", None), ("projection", 0.6), ("pigdm", None), ("dps", None)}
    assert math.isclose(SIMPLE(1.0)[1], 9.846, rel_tol=1e-3)
