"""Linear measurement operators: what is measured of an image, and the exact adjoint that goes with it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch

from priorscope.errors import InputError

Map = Callable[[torch.Tensor], torch.Tensor]


class LinearOperator(ABC):
    """A linear map A between batches of images and batches of measurements, with its adjoint.

    Subclasses define :meth:`forward` and :meth:`adjoint`, differentiable by autograd, such that
    ``<A x, y> = <x, A^H y>`` holds for each item to rounding; for a real domain and complex measurements the real
    part of the inner product counts. Operators add, scale and compose: ``A + B``, ``2 * A``, ``A @ B``, ``A.T``.

    Parameters
    ----------
    domain, range : tuple of int
        Shape of one item, without the batch, on the side of the image and of the measurement.
    complex_domain : bool
        Whether :meth:`forward` is meant for complex images; only :meth:`norm` and :meth:`adjoint_error` ask.
    complex_range : bool, optional
        Whether measurements are complex; by default as the images are.
    items : int, optional
        Length of the batch, for an operator that holds something of its own for every item (coil sensitivities).
    """

    def __init__(
        self,
        domain: tuple[int, ...],
        range: tuple[int, ...],
        *,
        complex_domain: bool = False,
        complex_range: bool | None = None,
        items: int | None = None,
    ) -> None:
        self.domain, self.range, self.items = tuple(domain), tuple(range), items
        self.complex_domain = complex_domain
        self.complex_range = complex_domain if complex_range is None else complex_range
        self._constants: dict[tuple[str, torch.device, torch.dtype], torch.Tensor] = {}
        self._norms: dict[tuple, float] = {}

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Measure ``x`` (B, *domain); returns (B, *range)."""

    @abstractmethod
    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """Apply the adjoint to ``y`` (B, *range); returns (B, *domain)."""

    def normal(self, x: torch.Tensor) -> torch.Tensor:
        """``adjoint(forward(x))``: the matrix of the normal equations."""
        return self.adjoint(self.forward(x))

    def part(self, items: slice) -> LinearOperator:
        """The operator of these items of a batch: itself, unless it holds something of its own for every item."""
        return self

    def norm(
        self,
        *,
        tolerance: float = 1e-9,
        iterations: int = 200,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> float:
        """Return the largest singular value, found by Lanczos iterations on the normal map and kept.

        Parameters
        ----------
        tolerance : float
            Stops when three iterations change the square by less than this part of it. The value comes from below.
        iterations : int
            At most so many; each is one :meth:`normal`, and some tens are enough.
        device, dtype : torch.device, torch.dtype
            Where it is worked out, in which real type.
        """
        key = (tolerance, iterations, str(device), dtype)
        if key not in self._norms:
            self._norms[key] = self._largest(tolerance, iterations, device, dtype)
        return self._norms[key]

    def _largest(self, tolerance: float, iterations: int, device: str | torch.device, dtype: torch.dtype) -> float:
        from scipy.linalg import eigvalsh_tridiagonal

        generator = torch.Generator().manual_seed(0)
        kind = dtype.to_complex() if self.complex_domain else dtype
        wide = torch.complex128 if self.complex_domain else torch.float64

        def inner(a: torch.Tensor, b: torch.Tensor) -> float:
            return float(torch.sum(a.to(wide) * b.to(wide).conj()).real)

        vector = torch.randn((self.items or 1, *self.domain), generator=generator, dtype=kind).to(device)
        vector = vector / math.sqrt(inner(vector, vector))
        previous, square = torch.zeros_like(vector), 0.0
        still = 0
        diagonal: list[float] = []
        beside: list[float] = []
        with torch.no_grad():
            for _ in range(iterations):
                image = self.normal(vector)
                diagonal.append(inner(image, vector) / inner(vector, vector))
                last, square = square, float(eigvalsh_tridiagonal(diagonal, beside)[-1])
                image = image - diagonal[-1] * vector - (beside[-1] if beside else 0.0) * previous
                length = math.sqrt(inner(image, image))
                still = still + 1 if abs(square - last) <= tolerance * square else 0
                if still == 3 or length <= torch.finfo(dtype).eps * square:
                    break
                beside.append(length)
                previous, vector = vector, image / length
        return math.sqrt(max(square, 0.0))

    def adjoint_error(self, *, batch: int = 1, dtype: torch.dtype = torch.float64, seed: int = 0) -> float:
        """How far <A x, y> and <x, A^H y> are apart, relative to the former: the dot test.

        x is random, y the sum of A x and of something random of the same length, lest <A x, y> be near zero. An exact
        adjoint gives about 1e-16 in double and 1e-8 in single precision. ``batch`` counts unless the operator holds
        something for every item.
        """
        generator = torch.Generator().manual_seed(seed)
        batch = self.items or batch
        kind = dtype.to_complex() if self.complex_domain else dtype
        x = torch.randn((batch, *self.domain), generator=generator, dtype=kind)
        measured = self.forward(x)
        y = torch.randn((batch, *self.range), generator=generator, dtype=measured.dtype)
        y = y / torch.linalg.vector_norm(y) * torch.linalg.vector_norm(measured) + measured
        there = torch.sum(measured.to(torch.complex128) * y.to(torch.complex128).conj()).real
        back = torch.sum(x.to(torch.complex128) * self.adjoint(y).to(torch.complex128).conj()).real
        return float((there - back).abs() / there.abs())

    @property
    def T(self) -> LinearOperator:
        """The adjoint as an operator."""
        return Adjoint(self)

    def check_measurement(self, y: torch.Tensor, name: str = "measurement") -> torch.Tensor:
        """Return ``y`` if it is (B, *range), of floating-point or complex numbers, all of them finite.

        Raises
        ------
        InputError
            Otherwise; it says which of the three. Asking for finite numbers waits for the device: once a
            reconstruction, not in its loop.
        """
        return checked(y, self.range, name)

    def _fit(self, x: torch.Tensor, shape: tuple[int, ...], what: str, *, real: bool = False) -> None:
        numbers(x, what)
        if real and x.is_complex():
            raise InputError(
                f"{type(self).__name__} takes real {what}; got {x.dtype}", remedy="Apply it to both parts as channels."
            )
        if tuple(x.shape[1:]) != shape or x.ndim != len(shape) + 1:
            raise InputError(
                f"{type(self).__name__} takes {what} of shape (B, {', '.join(map(str, shape))}); got {tuple(x.shape)}"
            )
        if self.items is not None and len(x) != self.items:
            raise InputError(
                f"{type(self).__name__} holds something for each of {self.items} items; got {len(x)}",
                remedy="part(items) is the operator of some of them.",
            )

    def _constant(self, name: str, value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """``value`` on the device and in the type of ``like`` (complex stays complex); copied once."""
        dtype = like.dtype.to_complex() if value.is_complex() else like.dtype.to_real()
        key = (name, like.device, dtype)
        if key not in self._constants:
            with torch.inference_mode(False):  # it may be kept for a call that needs gradients
                self._constants[key] = value.to(like.device, dtype)
        return self._constants[key]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward(x)

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        return Composition(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __add__(self, other: LinearOperator) -> LinearOperator:
        return Sum(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return Sum(self, -other) if isinstance(other, LinearOperator) else NotImplemented

    def __mul__(self, factor: complex) -> LinearOperator:
        return Scaled(self, factor) if isinstance(factor, (int, float, complex)) else NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> LinearOperator:
        return Scaled(self, -1.0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(domain={self.domain}, range={self.range})"


def image_domain(domain: tuple[int, ...]) -> tuple[int, int, int]:
    """``domain`` if it is (channels, height, width), positive whole numbers; InputError otherwise."""
    if len(domain) != 3 or any(side != int(side) or side < 1 for side in domain):
        raise InputError(f"a domain of {tuple(domain)}", remedy="Give (channels, height, width) of one image.")
    channels, height, width = map(int, domain)
    return channels, height, width


def image_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of ``size``; InputError unless it is one or two positive whole numbers."""
    sides = tuple(size) if isinstance(size, Iterable) else (size, size)
    if len(sides) != 2 or any(side != int(side) or side < 1 for side in sides):
        raise InputError(f"an image of size {size}", remedy="Give (height, width) in pixels, or one number for both.")
    return int(sides[0]), int(sides[1])


def numbers(values: torch.Tensor, name: str) -> torch.Tensor:
    """Return ``values`` if they are a tensor of floating-point or complex numbers; InputError otherwise."""
    if not isinstance(values, torch.Tensor):
        raise InputError(f"the {name} is a {type(values).__name__}", remedy="Make it a tensor: torch.from_numpy(...).")
    if not (values.is_floating_point() or values.is_complex()):
        raise InputError(f"the {name} is of {values.dtype}", remedy="Convert it to floating-point numbers.")
    return values


def checked(values: torch.Tensor, shape: tuple[int, ...], name: str) -> torch.Tensor:
    """Return ``values`` if they are (B, *shape), floating-point or complex, and finite; InputError otherwise."""
    numbers(values, name)
    if tuple(values.shape[1:]) != shape or values.ndim != len(shape) + 1:
        raise InputError(
            f"the {name} has shape {tuple(values.shape)}, the operator needs (B, {', '.join(map(str, shape))})"
        )
    if not bool(torch.isfinite(values).all()):
        bad = int((~torch.isfinite(values)).sum())
        raise InputError(f"the {name} has {bad} values that are not finite", remedy="Mask or repair them first.")
    return values


class Identity(LinearOperator):
    """Everything is measured: the operator of denoising."""

    def __init__(self, domain: tuple[int, ...]) -> None:
        super().__init__(domain, domain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._fit(x, self.domain, "images")
        return x

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.forward(y)

    def pseudo_inverse(self, y: torch.Tensor) -> torch.Tensor:
        """``y`` itself."""
        return self.forward(y)


class Adjoint(LinearOperator):
    """``A.T``: forward and adjoint exchanged."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(
            operator.range,
            operator.domain,
            complex_domain=operator.complex_range,
            complex_range=operator.complex_domain,
            items=operator.items,
        )
        self.operator = operator

    def part(self, items: slice) -> LinearOperator:
        return Adjoint(self.operator.part(items))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.operator.adjoint(x)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.operator.forward(y)

    @property
    def T(self) -> LinearOperator:
        return self.operator


class Composition(LinearOperator):
    """``A @ B``: first B, then A."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        if outer.domain != inner.range:
            raise InputError(f"{outer} cannot follow {inner}: {outer.domain} is not {inner.range}")
        super().__init__(
            inner.domain,
            outer.range,
            complex_domain=inner.complex_domain,
            complex_range=outer.complex_range,
            items=outer.items or inner.items,
        )
        self.outer, self.inner = outer, inner

    def part(self, items: slice) -> LinearOperator:
        return Composition(self.outer.part(items), self.inner.part(items))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer.forward(self.inner.forward(x))

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))


class Sum(LinearOperator):
    """``A + B``, both from one domain to one range."""

    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        if (first.domain, first.range) != (second.domain, second.range):
            raise InputError(f"{first} and {second} cannot be added: their shapes differ")
        super().__init__(
            first.domain,
            first.range,
            complex_domain=first.complex_domain or second.complex_domain,
            complex_range=first.complex_range or second.complex_range,
            items=first.items or second.items,
        )
        self.first, self.second = first, second

    def part(self, items: slice) -> LinearOperator:
        return Sum(self.first.part(items), self.second.part(items))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first.forward(x) + self.second.forward(x)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.first.adjoint(y) + self.second.adjoint(y)


class Scaled(LinearOperator):
    """``factor * A``; the adjoint takes the conjugate of the factor."""

    def __init__(self, operator: LinearOperator, factor: complex) -> None:
        super().__init__(
            operator.domain,
            operator.range,
            complex_domain=operator.complex_domain,
            complex_range=operator.complex_range or isinstance(factor, complex),
            items=operator.items,
        )
        self.operator, self.factor = operator, factor

    def part(self, items: slice) -> LinearOperator:
        return Scaled(self.operator.part(items), self.factor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * self.operator.forward(x)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.factor.conjugate() * self.operator.adjoint(y)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, apply: Map, transpose: Map) -> torch.Tensor:
        ctx.apply_map, ctx.transpose_map = apply, transpose
        return apply(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _Linear.apply(gradients[0], ctx.transpose_map, ctx.apply_map), None, None


def linear_map(x: torch.Tensor, apply: Map, transpose: Map) -> torch.Tensor:
    """``apply(x)``, whose gradient is ``transpose``: for maps that autograd cannot see into, or need not store.

    Neither function is recorded, and derivatives of any order are right because each is the other's gradient.
    """
    return _Linear.apply(x, apply, transpose)


def transpose_of(apply: Map, domain: tuple[int, ...]) -> Map:
    """The transpose of a real linear map on (B, *domain) made of torch operations, worked out by autograd.

    It costs one application of the map beside its derivative.
    """

    def transpose(y: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            origin = torch.zeros((len(y), *domain), dtype=y.dtype, device=y.device, requires_grad=True)
            y = y.clone() if y.is_inference() else y.detach()
            return torch.autograd.grad(apply(origin), origin, y)[0]

    return transpose
