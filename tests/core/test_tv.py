"""Differences, shrinkage and ADMM-TV: the official values, adjoints, and a solver that needs no ADMM."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from priorscope import InputError
from priorscope.inverse import OfficialMRI, OfficialParallelBeam
from priorscope.inverse.admm import ADMMTV, admm_tv
from priorscope.inverse.tv import (
    difference,
    difference_adjoint,
    gradient,
    gradient_adjoint,
    group_soft_threshold,
    soft_threshold,
    total_variation,
)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def official_projector(size, views):
    return OfficialParallelBeam(size, [180 * index / views for index in range(views)])


class Matrix:
    def __init__(self, matrix):
        self.matrix = matrix

    def forward(self, x):
        return x.flatten(1) @ self.matrix.T

    def adjoint(self, y):
        return (y @ self.matrix).reshape(len(y), 1, 3, -1)


def test_golden_mbir_tv(golden_files):
    for path in golden_files("medical", "mbir_tv_ops.safetensors"):
        data = load_file(path)
        close = {"rtol": 0, "atol": 1e-12}
        for case in sorted({key.split(".")[0] for key in data if key.endswith(".x")}):
            x, q = data[f"{case}.x"], data[f"{case}.q"]
            for axis, dim in (("z", 0), ("x", 2), ("y", 3)):
                torch.testing.assert_close(difference(x, dim, "periodic"), data[f"{case}._D{axis}"], **close)
                torch.testing.assert_close(difference_adjoint(x, dim, "periodic"), data[f"{case}._D{axis}T"], **close)
            for key in data:
                if key.startswith(f"{case}.shrink_"):
                    torch.testing.assert_close(soft_threshold(x, float(key.split("_")[1])), data[key], **close)
                if key.startswith(f"{case}.prox_l21_"):
                    shrunk = group_soft_threshold(q, float(key.split("_")[2]), dim=1)
                    torch.testing.assert_close(shrunk, data[key], **close)
        assert data["zero.prox_l21"].isnan().all()  # the official 0 / 0
        zeros = torch.zeros_like(data["zero.prox_l21"])
        assert torch.equal(group_soft_threshold(zeros, 0.75, dim=1), zeros)


def official_step(operator, y, **settings):
    return ADMMTV(operator, y, dims=(0,), boundary="periodic", **settings)


def check_steps(solver, data, name, close):
    x = data[f"{name}.x0"]
    kept = x.clone()
    count = sum(key.startswith(f"{name}.x_") for key in data)
    assert count > 1
    for index in range(1, count + 1):
        x = solver(x)
        torch.testing.assert_close(x, data[f"{name}.x_{index}"], **close)
        torch.testing.assert_close(solver.split[0], data[f"{name}.z_{index}"], **close)
        torch.testing.assert_close(solver.dual[0], data[f"{name}.u_{index}"], **close)
    assert torch.equal(kept, data[f"{name}.x0"])
    return x


def test_golden_mbir_admm(golden_files, read_json):
    close = {"rtol": 1e-4, "atol": 1e-5}
    seen = set()
    for path in golden_files("medical", "mbir_admm_*.safetensors"):
        data, meta = load_file(path), read_json(path.with_suffix(".json"))
        if "iso3x4" in data:
            seen.add("baseline")
            y = data["y"]
            operator = official_projector(data["vol"].shape[-1], y.shape[-1])
            x, _ = admm_tv(
                operator,
                y,
                weight=0.04,
                rho=10.0,
                boundary="periodic",
                iterations=3,
                cg_iterations=4,
                cg_tolerance=0.0,
                tolerance=0.0,
                aliased=True,
            )
            torch.testing.assert_close(x, data["iso3x4"], rtol=1e-3, atol=2e-5)
            continue
        for case in meta["cases"]:
            if "name" not in case:
                continue
            name, settings = case["name"], {"weight": case["lam"], "rho": case["rho"]}
            if "views" in case:
                seen.add("ct")
                y = data[f"{name}.y"]
                operator = official_projector(case["N"], case["views"])
                solver = official_step(operator, y, **settings)
                torch.testing.assert_close(solver.backprojection, data[f"{name}.ATy"], **close)
                check_steps(solver, data, name, close)
            else:
                seen.add("mri")
                k = torch.complex(data[f"{name}.k_real"], data[f"{name}.k_imag"])
                mask = data[f"{name}.mask"]  # the stored k-space is the full one
                solver = official_step(OfficialMRI(case["N"], mask[:, 0]), k * mask, **settings)
                torch.testing.assert_close(solver.backprojection, data[f"{name}.zf_real"], **close)
                check_steps(solver, data, name, close)
    assert seen == {"baseline", "ct", "mri"}


@pytest.mark.parametrize("boundary", ["neumann", "periodic"])
@pytest.mark.parametrize("shape", [(5, 1, 6, 7), (1, 1, 4, 4), (2, 1, 1, 3)])
def test_adjoints_are_exact(boundary, shape):
    x = randn(*shape)
    for dim in range(4):
        q = randn(*shape, seed=dim + 1)
        left = (difference(x, dim, boundary) * q).sum()
        torch.testing.assert_close(left, (x * difference_adjoint(q, dim, boundary)).sum(), rtol=1e-12, atol=1e-12)
    q = randn(3, *shape, seed=9)
    dims = (0, 2, 3)
    left = (gradient(x, dims, boundary) * q).sum()
    torch.testing.assert_close(left, (x * gradient_adjoint(q, dims, boundary)).sum(), rtol=1e-12, atol=1e-12)


def test_neumann_does_not_tie_the_ends_together():
    ramp = torch.arange(5.0).reshape(5, 1, 1, 1)
    assert difference(ramp, 0).flatten().tolist() == [1, 1, 1, 1, 0]
    assert difference(ramp, 0, "periodic").flatten().tolist() == [1, 1, 1, 1, -4]
    assert float(total_variation(ramp, (0,))) == 4


def test_shrinkage_is_the_proximal_map():
    q, threshold = randn(3, 40), 0.6
    for shrink, norm in (
        (soft_threshold, lambda v: v.abs().sum()),
        (group_soft_threshold, lambda v: torch.linalg.vector_norm(v, dim=0).sum()),
    ):
        best = shrink(q, threshold)
        value = threshold * norm(best) + 0.5 * (best - q).square().sum()
        for seed in range(20):
            other = best + 0.05 * randn(3, 40, seed=seed + 1)
            assert value < threshold * norm(other) + 0.5 * (other - q).square().sum()
    turned = soft_threshold(torch.polar(q.abs() + 0.1, q), threshold)
    torch.testing.assert_close(turned.abs(), (q.abs() + 0.1 - threshold).clamp(min=0))
    assert torch.equal(soft_threshold(torch.zeros(2, dtype=torch.complex64), 0.0).abs(), torch.zeros(2))
    with pytest.raises(InputError, match="boundary"):
        difference(q, 0, "mirror")


def objective(operator, y, x, weight, dims, isotropic, boundary):
    data = 0.5 * (operator.forward(x) - y).square().sum()
    return float(data + weight * total_variation(x, dims, isotropic=isotropic, boundary=boundary))


@pytest.mark.parametrize(
    ("dims", "isotropic", "boundary"),
    [((0, 2, 3), True, "neumann"), ((2, 3), False, "periodic"), ((0,), False, "neumann")],
)
def test_admm_tv_reaches_the_minimum(dims, isotropic, boundary):
    operator = Matrix(randn(20, 12) / 3)  # more equations than unknowns: strictly convex
    y = randn(4, 20, seed=1)
    settings = {"weight": 0.3, "dims": dims, "isotropic": isotropic, "boundary": boundary}
    found = []
    for rho in (1.0, 2.0):
        x, record = admm_tv(operator, y, rho=rho, iterations=400, cg_iterations=30, tolerance=1e-5, **settings)
        assert record.converged
        found.append(x)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-3)
    lowest = objective(operator, y, found[0], **settings)
    least_squares = torch.linalg.lstsq(operator.matrix, y.T).solution.T.reshape(found[0].shape)
    towards = [randn(*found[0].shape, seed=seed) for seed in range(30)] + [least_squares, torch.zeros_like(x)]
    for target in towards:
        for step in (0.3, 0.03):
            assert lowest < objective(operator, y, torch.lerp(found[0], target, step), **settings)


def test_each_dimension_can_have_a_weight_of_its_own():
    operator, y = Matrix(randn(20, 12) / 3), randn(4, 20, seed=1)
    weights = {0: 0.5, 2: 0.1, 3: 0.2}
    solver = ADMMTV(
        operator, y, weight=tuple(weights.values()), rho=1.0, dims=tuple(weights), steps=600, cg_iterations=30
    )
    found = solver(randn(4, 1, 3, 4))

    def value(x):
        parts = [objective(operator, y, x, one, (dim,), False, "neumann") for dim, one in weights.items()]
        return sum(parts) - len(parts[1:]) * objective(operator, y, x, 0.0, (0,), False, "neumann")

    for seed in range(30):
        for step in (0.3, 0.03, 0.01):
            assert value(found) < value(torch.lerp(found, randn(*found.shape, seed=seed), step))
    alike, one = (ADMMTV(operator, y, weight=w, rho=1.0, dims=(0, 3)) for w in ((0.3, 0.3), 0.3))
    x = randn(4, 1, 3, 4, seed=2)
    assert torch.equal(alike(alike(x)), one(one(x)))


def test_data_weight_scales_the_measurement():
    operator, y = Matrix(randn(20, 12)), randn(3, 20, seed=1)
    scaled = Matrix(operator.matrix * 0.5)
    common = {"weight": 0.1, "rho": 1.0, "iterations": 5, "tolerance": 0.0}
    one, _ = admm_tv(operator, y, data_weight=0.25, **common)
    two, _ = admm_tv(scaled, y * 0.5, **common)
    torch.testing.assert_close(one, two)


def test_duals_go_on_after_a_restart():
    operator, y = Matrix(randn(8, 12)), randn(4, 8, seed=1)
    whole, first = (ADMMTV(operator, y, weight=0.1, rho=1.0) for _ in range(2))
    assert first.state_dict() == {}
    x = randn(4, 1, 3, 4, seed=2)
    expected = whole(whole(whole(x)))
    half = first(first(x))
    second = ADMMTV(operator, y, weight=0.1, rho=1.0)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(half), expected)
    second.reset()
    assert not torch.equal(second(half), expected)
    with pytest.raises(InputError, match="saved state"):
        ADMMTV(operator, y, weight=0.1, rho=1.0, dims=(0, 2)).load_state_dict(first.state_dict())
    with pytest.raises(InputError, match="'dual' is nothing"):
        second.load_state_dict({"split": first.state_dict()["split"]})


@pytest.mark.parametrize(
    "wrong",
    [
        {"rho": 0.0},
        {"weight": -1.0},
        {"weight": (0.1, 0.1)},
        {"weight": (0.1, -0.1), "dims": (0, 2)},
        {"weight": (0.1, 0.1), "dims": (0, 2), "isotropic": True},
        {"data_weight": 0.0},
        {"dims": ()},
        {"dims": (0, 0)},
        {"dims": (0, -4)},
        {"dims": (4,)},
        {"steps": 0},
        {"cg_iterations": 0},
    ],
)
def test_wrong_settings(wrong):
    with pytest.raises(InputError):
        ADMMTV(Matrix(randn(8, 12)), randn(2, 8), **({"weight": 0.1, "rho": 1.0} | wrong))


def test_wrong_measurements():
    operator, y = Matrix(randn(8, 12)), randn(2, 8)
    with pytest.raises(InputError, match="NaN"):
        ADMMTV(operator, y * torch.nan, weight=0.1, rho=1.0)
    with pytest.raises(InputError, match="int64"):
        ADMMTV(operator, torch.ones(2, 8, dtype=torch.int64), weight=0.1, rho=1.0)
    for dims in ((), (2,), (0, -2)):
        with pytest.raises(InputError, match="take differences along"):
            total_variation(randn(2, 8), dims)
    with pytest.raises(InputError, match="estimate of shape"):
        ADMMTV(operator, y, weight=0.1, rho=1.0)(randn(3, 1, 3, 4))
    with pytest.raises(InputError, match="iteration"):
        admm_tv(operator, y, weight=0.1, rho=1.0, iterations=0)


def test_an_anchor_holds_the_estimate_that_a_call_was_given():
    matrix, y, given = randn(8, 12), randn(2, 8, seed=1), randn(2, 1, 3, 4, seed=2)
    solver = ADMMTV(
        Matrix(matrix), y, weight=0.0, rho=0.3, dims=(2, 3), steps=300, cg_iterations=12, data_weight=2.0, anchor=0.7
    )
    system = 2 * matrix.T @ matrix + 0.7 * torch.eye(12, dtype=torch.float64)
    expected = torch.linalg.solve(system, (2 * y @ matrix + 0.7 * given.flatten(1)).T).T
    torch.testing.assert_close(solver(given).flatten(1), expected, rtol=1e-5, atol=1e-5)
