"""Conjugate gradients, CGLS and SIRT against dense solves."""

from __future__ import annotations

import pytest
import torch

from priorscope import InputError
from priorscope.inverse import ParallelBeam, cg
from priorscope.inverse.cg import conjugate_gradient
from priorscope.inverse.iterative import cgls, sirt


class Matrix:
    """A matrix (m, n), or one an item (B, m, n), as an operator."""

    def __init__(self, matrix):
        self.matrix = matrix

    def forward(self, x):
        return (self.matrix @ x[..., None])[..., 0]

    def adjoint(self, y):
        return (self.matrix.mH @ y[..., None])[..., 0]


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def positive(batch, n, condition, seed=0, dtype=torch.float64):
    basis = torch.linalg.qr(randn(batch, n, n, seed=seed, dtype=dtype)).Q
    values = torch.logspace(0, -torch.log10(torch.tensor(float(condition))).item(), n, dtype=torch.float64)
    return (basis * values.to(dtype)) @ basis.mH


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("condition", [1.0, 10.0, 1e6])
def test_cg_agrees_with_a_dense_solve(condition, dtype):
    matrix = positive(3, 20, condition, dtype=dtype)
    b = randn(3, 20, seed=1, dtype=dtype)
    x, record = conjugate_gradient(Matrix(matrix).forward, b, iterations=400, tolerance=1e-12)
    assert record.converged.all()
    expected = torch.linalg.solve(matrix, b)
    assert (x - expected).norm() / expected.norm() < 1e-11 * condition
    true = (b - Matrix(matrix).forward(x)).norm(dim=1) / b.norm(dim=1)
    assert true.max() < 1e-9


def test_cg_ends_after_as_many_steps_as_there_are_eigenvalues():
    basis = torch.linalg.qr(randn(30, 30)).Q
    matrix = (basis * torch.tensor([1.0, 2.0, 7.0], dtype=torch.float64).repeat(10)) @ basis.T
    _, record = conjugate_gradient(Matrix(matrix).forward, randn(2, 30, seed=1), tolerance=1e-10)
    assert record.iterations == 3
    assert record.residuals.shape == (4, 2)
    assert (record.residuals[0] == 1).all()


def test_items_do_not_see_each_other():
    matrix = positive(1, 12, 100.0)[0]
    easy, hard = torch.linalg.eigh(matrix).eigenvectors[:, 3], randn(12, seed=2)
    apply = Matrix(matrix).forward
    both, record = conjugate_gradient(apply, torch.stack([easy, hard]), tolerance=1e-9)
    for row, item in zip(both, (easy, hard), strict=True):
        alone, _ = conjugate_gradient(apply, item[None], tolerance=1e-9)
        torch.testing.assert_close(row, alone[0], rtol=1e-12, atol=1e-12)
    assert record.converged.all()
    # the easy one rests after its single step
    assert (record.residuals[1:, 0] < 1e-9).all()


def test_coupled_solves_the_stack_as_one_system():
    matrix = positive(1, 24, 50.0)[0]

    def apply(x):  # (4, 6), coupled across the batch
        return (matrix @ x.reshape(-1)).reshape(x.shape)

    b = randn(4, 6, seed=3)
    x, record = conjugate_gradient(apply, b, coupled=True, tolerance=1e-12, iterations=100)
    torch.testing.assert_close(x.reshape(-1), torch.linalg.solve(matrix, b.reshape(-1)), rtol=1e-9, atol=1e-9)
    assert record.residuals.shape[1] == 1


def test_dot_products_are_wide_whatever_the_size(monkeypatch):
    a, b = randn(7, 3, 5, dtype=torch.float32), randn(7, 3, 5, seed=1, dtype=torch.float32)
    expected = (a.double() * b.double()).sum((1, 2))
    for values in (1, 40, 2**20):
        monkeypatch.setattr(cg, "_WIDE_VALUES", values)
        torch.testing.assert_close(cg.dot(a, b, False), expected, rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(cg.dot(a, b, True), expected.sum(0, keepdim=True), rtol=1e-14, atol=1e-14)
    # in float32 the small ones would be lost
    long = torch.cat([torch.tensor([4096.0]), torch.full((10**5,), 0.25)])[None]
    assert float(cg.dot(long, long, False)) == 4096.0**2 + 10**5 / 16


def test_warm_start_is_kept_as_it_was_and_saves_steps():
    matrix = positive(2, 15, 30.0)
    b = randn(2, 15, seed=4)
    exact = torch.linalg.solve(matrix, b)
    near = exact + 1e-6 * randn(2, 15, seed=5)
    before, b_before = near.clone(), b.clone()
    _, cold = conjugate_gradient(Matrix(matrix).forward, b, tolerance=1e-8)
    x, warm = conjugate_gradient(Matrix(matrix).forward, b, near, tolerance=1e-8)
    assert torch.equal(near, before)
    assert torch.equal(b, b_before)
    assert warm.iterations < cold.iterations
    torch.testing.assert_close(x, exact, rtol=1e-5, atol=1e-5)
    _, none = conjugate_gradient(Matrix(matrix).forward, b, exact, tolerance=1e-8)
    assert none.iterations == 0


def test_float32_reaches_float32():
    matrix = positive(1, 40, 1e3)
    b = randn(1, 40, seed=6)
    x, record = conjugate_gradient(Matrix(matrix.float()).forward, b.float(), tolerance=1e-5, iterations=300)
    assert x.dtype == torch.float32
    assert record.converged.all()
    assert (matrix[0] @ x[0].double() - b[0]).norm() / b.norm() < 1e-4


def test_semidefinite_and_zero_right_hand_sides():
    tall = randn(10, 4)
    matrix = tall @ tall.T  # rank 4
    b = (matrix @ randn(10, seed=1))[None]
    x, record = conjugate_gradient(Matrix(matrix).forward, b, tolerance=1e-10)
    assert record.converged.all()
    torch.testing.assert_close(x[0], torch.linalg.pinv(matrix) @ b[0], rtol=1e-8, atol=1e-8)
    zero, record = conjugate_gradient(Matrix(matrix).forward, torch.zeros(2, 10, dtype=torch.float64))
    assert (zero == 0).all()
    assert record.iterations == 0
    away, _ = conjugate_gradient(
        Matrix(matrix + torch.eye(10)).forward, torch.zeros(1, 10, dtype=torch.float64), randn(1, 10), tolerance=1e-10
    )
    assert away.abs().max() < 1e-8


def test_negative_curvature_ends_a_system_without_harm():
    x, record = conjugate_gradient(lambda v: -v, randn(2, 5))
    assert (x == 0).all()
    assert not record.converged.any()
    # a second direction of negative curvature, after which a third would have a positive one
    signs = torch.tensor([-1.0, 3.0, 1.0, 0.2], dtype=torch.float64)
    b = torch.tensor([[0.9, 0.4, 1.1, 0.3], [0.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    ended, record = conjugate_gradient(lambda v: v * signs, b, iterations=30, tolerance=0.0)
    rests = (record.residuals[1:, 0] == record.residuals[:-1, 0]).nonzero()
    assert len(rests)
    assert (record.residuals[int(rests[0]) :, 0] == record.residuals[-1, 0]).all()
    torch.testing.assert_close(ended[1] * signs, b[1])


def test_aliased_is_worse_from_the_second_step_on():
    matrix = positive(1, 20, 100.0)
    b = randn(1, 20, seed=1)
    apply = Matrix(matrix).forward

    exact = torch.linalg.solve(matrix[0], b[0])

    def energy_error(n, aliased):  # what conjugate gradients minimise
        x, _ = conjugate_gradient(apply, b, iterations=n, tolerance=0, aliased=aliased)
        return float((x[0] - exact) @ matrix[0] @ (x[0] - exact))

    assert energy_error(1, True) == energy_error(1, False)
    assert energy_error(2, True) > energy_error(2, False)


def test_cg_is_differentiable():
    matrix = positive(1, 6, 5.0)[0]
    b = randn(2, 6, seed=1).requires_grad_(True)
    x, _ = conjugate_gradient(Matrix(matrix).forward, b, tolerance=1e-13)
    (gradient,) = torch.autograd.grad(x.sum(), b)
    torch.testing.assert_close(gradient, torch.linalg.inv(matrix).sum(0).expand(2, 6), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("solver", [conjugate_gradient, cgls, sirt])
@pytest.mark.parametrize(
    "b", [torch.full((1, 3), torch.nan), torch.ones(1, 3, dtype=torch.long), torch.ones(0, 3), torch.ones(3)]
)
def test_wrong_right_hand_sides(solver, b):
    operator = Matrix(torch.eye(3))
    with pytest.raises(InputError):
        solver(operator.forward if solver is conjugate_gradient else operator, b)


def test_wrong_starts_and_settings():
    apply, b = Matrix(torch.eye(3)).forward, torch.ones(2, 3)
    with pytest.raises(InputError, match="right-hand side is a ndarray"):
        conjugate_gradient(apply, b.numpy())
    with pytest.raises(InputError, match="start of shape"):
        conjugate_gradient(apply, b, torch.ones(1, 3))
    with pytest.raises(InputError, match="start has NaN"):
        conjugate_gradient(apply, b, b * torch.inf)
    with pytest.raises(InputError, match="negative"):
        conjugate_gradient(apply, b, iterations=-1)
    with pytest.raises(InputError, match="damping"):
        cgls(Matrix(torch.eye(3)), b, damping=-1.0)
    with pytest.raises(InputError, match="relaxation"):
        sirt(Matrix(torch.eye(3)), b, relaxation=2.0)
    with pytest.raises(InputError, match="negative row sum"):
        sirt(Matrix(torch.tensor([[1.0, -3.0], [1.0, 4.0]])), torch.ones(1, 2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_cgls_agrees_with_dense_least_squares(damping, dtype):
    matrix = randn(15, 8, dtype=dtype)
    y = randn(3, 15, seed=1, dtype=dtype)
    x, record = cgls(Matrix(matrix), y, randn(3, 8, seed=2, dtype=dtype), tolerance=1e-12, damping=damping)
    normal = matrix.mH @ matrix + damping * torch.eye(8, dtype=dtype)
    torch.testing.assert_close(x, torch.linalg.solve(normal, (matrix.mH @ y.T)).T, rtol=1e-9, atol=1e-9)
    assert record.converged.all()


def test_sirt_converges_to_weighted_least_squares():
    matrix = randn(9, 5).abs()
    y = randn(2, 9, seed=1).abs()
    x, record = sirt(Matrix(matrix), y, iterations=6000)
    rows = torch.diag(1 / matrix.sum(1))
    expected = torch.linalg.solve(matrix.T @ rows @ matrix, matrix.T @ rows @ y.T).T
    torch.testing.assert_close(x, expected, rtol=1e-6, atol=1e-6)
    assert record.residuals.shape == (6001, 2)
    positive_x, _ = sirt(Matrix(matrix), y, iterations=50, nonnegative=True)
    assert (positive_x >= 0).all()


def test_sirt_leaves_alone_what_nothing_meets():
    matrix = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    x, _ = sirt(Matrix(matrix), torch.tensor([[3.0, 5.0]]), torch.tensor([[0.0, 0.0, 7.0]]), iterations=5)
    torch.testing.assert_close(x, torch.tensor([[1.0, 1.0, 7.0]]))


def test_a_slice_from_its_sinogram():
    side = torch.linspace(-1, 1, 16)
    disc = ((side[:, None] ** 2 + side**2) < 0.5).float()
    volume = torch.stack([disc, 0.5 * disc.roll(2, 0)])[:, None]
    operator = ParallelBeam(16, [180 * view / 24 for view in range(24)])
    y = operator.forward(volume)
    for x, record in (sirt(operator, y, iterations=150, nonnegative=True), cgls(operator, y, iterations=30)):
        assert ((x - volume).norm() / volume.norm()) < 0.1
        assert (record.residuals[-1] < 0.02).all()
        assert x.dtype == torch.float32


def test_sirt_where_items_are_measured_differently():
    operator = Matrix(randn(2, 7, 4).abs())
    operator.items = 2
    y = randn(2, 7, seed=1).abs()
    x, _ = sirt(operator, y, iterations=20)
    for item in range(2):
        alone, _ = sirt(Matrix(operator.matrix[item]), y[item : item + 1], iterations=20)
        torch.testing.assert_close(x[item : item + 1], alone)


def test_sirt_ignores_a_ray_that_meets_the_image_by_rounding_only():
    matrix = torch.tensor([[1.0, 1.0], [1e-9, 0.0]], dtype=torch.float64)
    x, _ = sirt(Matrix(matrix), torch.tensor([[2.0, 5.0]], dtype=torch.float64), iterations=50)
    torch.testing.assert_close(x, torch.ones(1, 2, dtype=torch.float64), rtol=0, atol=1e-8)
