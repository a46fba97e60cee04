"""Operators: adjoints, algebra, norms and gradients, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

from priorscope.errors import InputError
from priorscope.inverse import (
    AsComplex,
    BlockMean,
    Blur,
    CartesianMRI,
    ChannelsAsComplex,
    Identity,
    LinearOperator,
    Mask,
    ParallelBeam,
    Resize,
    gaussian_kernel,
    motion_kernel,
)


class Matrix(LinearOperator):
    """A dense matrix, real or complex."""

    def __init__(self, matrix):
        super().__init__((matrix.shape[1],), (matrix.shape[0],), complex_domain=matrix.is_complex())
        self.matrix = matrix

    def forward(self, x):
        return x @ self._constant("matrix", self.matrix, x).T

    def adjoint(self, y):
        return y @ self._constant("matrix", self.matrix, y).conj()


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def dense(operator, dtype=torch.float64):
    """The matrix of an operator: (range, domain), column by column."""
    size = int(np.prod(operator.domain))
    columns = operator(torch.eye(size, dtype=dtype).reshape(size, *operator.domain))
    return columns.reshape(size, -1).T


def mask_of(*shape):
    return random(*shape) > 0


def operators():
    kernel = random(3, 4)
    yield "identity", Identity((2, 5, 6))
    for size in ((8, 8), (7, 9)):
        domain = (2, *size)
        yield f"mask {size}", Mask(domain, mask_of(*size))
        for boundary in ("zero", "periodic", "reflect", "replicate"):
            yield f"blur {boundary} {size}", Blur(domain, kernel, boundary)
        yield f"bilinear {size}", Resize(domain, (3, 4), "bilinear")
        yield f"bicubic {size}", Resize(domain, (5, 3))
        yield f"larger {size}", Resize(domain, (11, 12))
    yield "block mean", BlockMean((3, 9, 6), 3)
    yield "sum", Blur((1, 6, 6), kernel) + 2 * Mask((1, 6, 6), mask_of(6, 6))
    yield "composition", BlockMean((1, 8, 6), 2) @ Blur((1, 8, 6), kernel, "periodic")
    yield "difference", (Identity((1, 8, 6)) - Blur((1, 8, 6), kernel)).T
    yield "complex", Matrix(random(5, 7, dtype=torch.complex128)) * (1 - 2j)
    yield "complex transposed", Matrix(random(5, 7, dtype=torch.complex128)).T


@pytest.mark.parametrize(("name", "operator"), list(operators()), ids=[name for name, _ in operators()])
@pytest.mark.parametrize("batch", [1, 3])
def test_adjoint(name, operator, batch):
    assert operator.adjoint_error(batch=batch, dtype=torch.float32) < 1e-6
    assert operator.adjoint_error(batch=batch, dtype=torch.float64) < 1e-12
    dtype = torch.complex128 if operator.complex_domain else torch.float64
    y = operator(random(batch, *operator.domain, dtype=dtype))
    assert y.shape == (batch, *operator.range)
    assert operator.adjoint(y).shape == (batch, *operator.domain)


def test_a_wrong_adjoint_fails_the_dot_test():
    class Wrong(Matrix):
        def adjoint(self, y):
            return 1.001 * super().adjoint(y)

    assert Wrong(random(4, 6)).adjoint_error() > 1e-5


@pytest.mark.parametrize(
    "operator", [operator for name, operator in operators() if "(7, 9)" in name or name in ("sum", "composition")]
)
def test_norm_is_the_largest_singular_value(operator):
    largest = np.linalg.norm(dense(operator), 2)
    assert operator.norm(tolerance=1e-10, dtype=torch.float64) == pytest.approx(largest, rel=1e-7)
    assert operator.norm() == pytest.approx(largest, rel=1e-5)
    assert operator.T.norm() == pytest.approx(largest, rel=1e-5)


def test_norm_where_one_side_is_complex():
    # on vectors that are real only, the second and the third would come out too small
    matrix = random(7, 5, dtype=torch.complex128)
    real = Matrix(matrix) @ AsComplex((5,))
    both = torch.cat([matrix.real, matrix.imag])
    norm = np.linalg.norm(both, 2)
    cases = ((real, norm), (real.T, norm), (real @ real.T, norm**2), ((2 * real + real).T * 0.5, 1.5 * norm))
    for operator, expected in cases:
        assert operator.norm() == pytest.approx(expected, rel=1e-5)
        assert operator.adjoint_error() < 1e-12
    parts = ChannelsAsComplex((4, 5))
    assert parts.T.norm() == pytest.approx(1)
    assert (parts.T.complex_domain, parts.T.complex_range) == (True, False)


def test_norm_of_complex_and_of_nothing():
    matrix = random(5, 7, dtype=torch.complex128)
    assert Matrix(matrix).norm() == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-5)
    assert Mask((1, 3, 3), torch.zeros(3, 3)).norm() == 0


@pytest.mark.parametrize(
    "operator",
    [
        Blur((1, 5, 6), random(3, 4)),
        Resize((1, 6, 5), (3, 2)),
        BlockMean((1, 4, 6), 2),
        ParallelBeam(5, [0, 33, 100], projector="matrix"),
        ParallelBeam(5, [0, 33, 100], projector="grid"),
    ],
    ids=["blur", "resize", "block mean", "matrix", "grid"],
)
def test_gradients_both_ways_and_of_second_order(operator):
    x = random(2, *operator.domain).requires_grad_()
    y = random(2, *operator.range).requires_grad_()
    assert torch.autograd.gradcheck(operator.forward, (x,))
    assert torch.autograd.gradcheck(operator.adjoint, (y,))
    assert torch.autograd.gradgradcheck(lambda x: operator(x).square().sum(), (x,))


def test_algebra_against_matrices():
    a, b, c = random(4, 6, seed=1), random(4, 6, seed=2), random(6, 5, seed=3)
    combined = (Matrix(a) - 3 * Matrix(b)) @ Matrix(c)
    torch.testing.assert_close(dense(combined), (a - 3 * b) @ c)
    torch.testing.assert_close(dense(combined.T), ((a - 3 * b) @ c).T)
    torch.testing.assert_close(dense(-Matrix(a)), -a)
    assert combined.T.T is combined
    x = random(2, 5)
    torch.testing.assert_close(combined.normal(x), x @ ((a - 3 * b) @ c).T @ ((a - 3 * b) @ c))


def test_operators_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="cannot follow"):
        Matrix(random(4, 6)) @ Matrix(random(4, 6))
    with pytest.raises(InputError, match="cannot be added"):
        Matrix(random(4, 6)) + Matrix(random(6, 4))
    with pytest.raises(TypeError):
        Matrix(random(4, 6)) * random(4, 6)
    for domain in ((8, 8), (1, 8, 0), (1, 8.5, 8)):
        for make in (lambda d: Blur(d, gaussian_kernel(1)), lambda d: BlockMean(d, 2), lambda d: Resize(d, (4, 4))):
            with pytest.raises(InputError, match=r"Give \(channels, height, width"):
                make(domain)
    for size in ((1, 4, 4), (0, 4), 4.5):
        with pytest.raises(InputError, match="image of size"):
            Resize((1, 8, 8), size)
    assert Resize((1, 8, 8), 4).range == (1, 4, 4)
    with pytest.raises(InputError, match=r"blocks of 2\.5"):
        BlockMean((1, 5, 5), 2.5)
    with pytest.raises(InputError, match="radius of -1"):
        gaussian_kernel(1.0, -1)
    with pytest.raises(InputError, match=r"\(B, 1, 4, 4\); got \(1, 4, 4\)"):
        Identity((1, 4, 4))(random(1, 4, 4))


def test_measurements_are_checked():
    operator = Identity((1, 3, 3))
    y = random(2, 1, 3, 3)
    assert operator.check_measurement(y) is y
    y[1, 0, 2, 2] = torch.nan
    with pytest.raises(InputError, match="1 values that are not finite"):
        operator.check_measurement(y)
    with pytest.raises(InputError, match="shape"):
        operator.check_measurement(random(2, 3, 3))
    with pytest.raises(InputError, match="is a ndarray"):
        operator.check_measurement(y.numpy())
    with pytest.raises(InputError, match="int64"):
        operator.check_measurement(torch.zeros(1, 1, 3, 3, dtype=torch.int64))


@pytest.mark.parametrize("kernel", [random(3, 5), random(4, 3), random(2, 2), random(1, 1)])
@pytest.mark.parametrize(
    ("boundary", "mode"), [("zero", "constant"), ("periodic", "wrap"), ("reflect", "mirror"), ("replicate", "nearest")]
)
def test_blur_is_scipys_convolution(kernel, boundary, mode):
    x = random(2, 1, 9, 8)
    expected = np.stack([scipy.ndimage.convolve(plane.numpy(), kernel.numpy(), mode=mode) for plane in x[:, 0]])
    np.testing.assert_allclose(Blur((1, 9, 8), kernel, boundary)(x)[:, 0].numpy(), expected, atol=1e-12)


def test_an_impulse_shows_the_kernel():
    kernel = random(4, 3)
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    x[0, 0, 4, 4] = 1
    got = Blur((1, 9, 9), kernel, "zero")(x)[0, 0]
    torch.testing.assert_close(got[4 - 2 : 4 + 2, 4 - 1 : 4 + 2], kernel)
    assert got.abs().sum() == pytest.approx(kernel.abs().sum().item())


def test_kernels():
    gauss = gaussian_kernel(1.5)
    assert gauss.shape == (13, 13)
    place = torch.arange(-6.0, 7)
    assert (gauss.sum(0) @ place.double() ** 2).item() == pytest.approx(1.5**2, rel=2e-3)
    across = motion_kernel(9, 0)
    assert across.sum().item() == pytest.approx(1)
    assert (across.sum(1) > 1e-12).sum() == 1
    steep = motion_kernel(9, 90)
    torch.testing.assert_close(steep, across.T)
    diagonal = motion_kernel(9, 45)
    assert diagonal[3, -4] > 0.05
    assert diagonal[3, 3] == 0
    torch.testing.assert_close(diagonal, diagonal.flip(0, 1))


def test_block_mean_and_its_pseudo_inverse():
    operator = BlockMean((1, 4, 6), 2)
    y = random(2, 1, 2, 3)
    torch.testing.assert_close(operator(operator.pseudo_inverse(y)), y)
    matrix = dense(operator)
    expected = (torch.linalg.pinv(matrix) @ y.reshape(2, -1).T).T.reshape(2, 1, 4, 6)
    torch.testing.assert_close(operator.pseudo_inverse(y), expected)


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="multiple"):
        BlockMean((1, 5, 6), 2)
    with pytest.raises(InputError, match="other than 0 and 1"):
        Mask((1, 3, 3), torch.full((3, 3), torch.nan))
    with pytest.raises(InputError, match="mask of shape"):
        Mask((1, 3, 3), torch.ones(4, 4))
    with pytest.raises(InputError, match="boundary"):
        Blur((1, 8, 8), random(3, 3), "mirror")
    with pytest.raises(InputError, match="kernel of 9 x 9"):
        Blur((1, 4, 4), random(9, 9), "reflect")
    with pytest.raises(InputError, match="kernel of shape"):
        Blur((1, 4, 4), random(3))
    with pytest.raises(InputError, match="Gaussian"):
        gaussian_kernel(0)
    with pytest.raises(InputError, match="motion"):
        motion_kernel(float("nan"), 0)


@pytest.mark.parametrize(
    "operator",
    [
        Blur((1, 8, 8), gaussian_kernel(1.0)),
        Resize((1, 8, 8), (4, 4)),
        Mask((1, 8, 8), mask_of(8, 8)),
        CartesianMRI(8, mask_of(8, 8)) @ AsComplex((1, 8, 8)),
        ParallelBeam(8, [0, 33, 100]),
        ParallelBeam(8, [0, 33, 100], projector="grid"),
    ],
    ids=["blur", "resize", "mask", "mri", "matrix", "grid"],
)
def test_a_call_in_inference_mode_leaves_gradients_alone(operator):
    x = random(1, *operator.domain)
    with torch.inference_mode():
        y = operator(x.clone())
        back = operator.adjoint(y)
    x.requires_grad_()
    measured = operator(x)
    torch.testing.assert_close(measured.detach(), y.clone())
    (gradient,) = torch.autograd.grad(measured.abs().square().sum() / 2, x)
    torch.testing.assert_close(gradient, back.clone())


@pytest.mark.parametrize(
    "operator", [Blur((1, 8, 8), gaussian_kernel(1.0)), Resize((1, 8, 8), 4), BlockMean((1, 8, 8), 2)]
)
def test_images_that_are_no_real_numbers_are_refused(operator):
    # whole numbers would round the kernel to 0
    with pytest.raises(InputError, match="uint8"):
        operator(torch.ones(1, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(InputError, match="is a ndarray"):
        operator(np.ones((1, 1, 8, 8)))
    with pytest.raises(InputError, match="takes real images"):
        operator(torch.ones(1, 1, 8, 8) + 0j)
    with pytest.raises(InputError, match="takes real images"):
        operator.adjoint(torch.ones(1, *operator.range) + 0j)


def test_numpy_masks_and_kernels_are_taken():
    kernel, known, x = random(3, 3), mask_of(8, 8), random(1, 1, 8, 8)
    for make, values in (
        (lambda v: Blur((1, 8, 8), v), kernel),
        (lambda v: Mask((1, 8, 8), v), known),
        (lambda v: CartesianMRI(8, v), known),
        (lambda v: CartesianMRI(8, known, v), torch.complex(random(2, 8, 8), random(2, 8, 8, seed=1))),
    ):
        torch.testing.assert_close(make(values.numpy())(x), make(values)(x))
