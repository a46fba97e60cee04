"""Conjugate gradients on symmetric positive systems, one an item or one for a whole stack."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from priorscope.errors import InputError
from priorscope.inverse.operator import numbers

_WIDE_VALUES = 2**20


class SolverRecord(NamedTuple):
    """What an iterative solver saw.

    Attributes
    ----------
    iterations : int
        Steps taken.
    residuals : float64 Tensor of shape (iterations + 1, systems)
        Relative residuals, from the start to the end; which residual, the solver says.
    converged : bool Tensor of shape (systems,)
        Whether the last residual is at most the tolerance.
    """

    iterations: int
    residuals: torch.Tensor
    converged: torch.Tensor


def conjugate_gradient(
    apply: Callable[[torch.Tensor], torch.Tensor],
    b: torch.Tensor,
    x0: torch.Tensor | None = None,
    *,
    iterations: int = 50,
    tolerance: float = 1e-6,
    coupled: bool = False,
    aliased: bool = False,
    check: bool = True,
) -> tuple[torch.Tensor, SolverRecord]:
    """Solve ``apply(x) = b`` for a symmetric (Hermitian) positive operator by conjugate gradients.

    Parameters
    ----------
    apply : callable
        ``(B, ...) -> (B, ...)``, linear, symmetric, positive definite (semi-definite where ``b`` is in its range).
    b : Tensor of shape (B, ...)
        Floating point, real or complex.
    x0 : Tensor of shape (B, ...), optional
        Where to start; default 0. It is not changed.
    iterations : int
        At most so many.
    tolerance : float
        Stop where ``|b - apply(x)| <= tolerance |b|`` (of the recursive residual) in every system; a system that
        is there earlier rests. 0 takes all iterations, and then nothing waits for the device.
    coupled : bool
        False: each item of the batch is a system of its own. True: the batch is one system, as it must be where
        ``apply`` couples its items (differences along z).
    aliased : bool
        Parity with DiffusionMBIR's ``CG``, whose first direction and residual share memory: the second
        direction is (1 + beta) r instead of r + beta p, so only its first step is a conjugate gradient's.
    check : bool
        Refuse NaN and shapes that do not fit; False for loops whose data has been checked, as it waits for the device.

    Returns
    -------
    Tensor of shape (B, ...), SolverRecord
        Residuals are ``|b - apply(x)| / |b|``, by the recursion.

    Notes
    -----
    Dot products are taken in float64. A direction without positive curvature ends its system.
    Source: Hestenes and Stiefel 1952.
    """
    if check:
        check_right_hand_side(b, x0, iterations, tolerance)
    if x0 is None:
        x, r = torch.zeros_like(b), b
    else:
        x, r = x0, b - apply(x0)
    p = r
    energy = dot(r, r, coupled)
    scale = dot(b, b, coupled)
    scale = torch.where(scale > 0, scale, energy).sqrt()
    residuals = [ratio(energy.sqrt(), scale)]
    done = 0
    positive = torch.ones_like(energy, dtype=torch.bool)
    for index in range(iterations):
        active = positive & (residuals[-1] > tolerance)
        if tolerance > 0 and not bool(active.any()):
            break
        image = apply(p)
        curvature = dot(p, image, coupled)
        positive = positive & ((curvature > 0) | ~active)
        active = active & positive
        length = torch.where(active, ratio(energy, curvature), 0.0)
        x = x + spread(length, p) * p
        r = r - spread(length, p) * image
        before, energy = energy, dot(r, r, coupled)
        turn = ratio(energy, before)
        p = r + spread(turn, p) * (r if aliased and index == 0 else p)
        residuals.append(ratio(energy.sqrt(), scale))
        done += 1
    return x, SolverRecord(done, torch.stack(residuals), residuals[-1] <= tolerance)


def dot(a: torch.Tensor, b: torch.Tensor, coupled: bool) -> torch.Tensor:
    """Real part of the inner product, in float64: shape (B,), or (1,) where the batch is one vector."""
    wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    a, b = a.flatten(1), b.flatten(1)
    rows = max(1, _WIDE_VALUES // a.shape[1])  # the wide copies stay small beside a volume
    parts = [
        torch.linalg.vecdot(left.to(wide), right.to(wide)).real
        for left, right in zip(a.split(rows), b.split(rows), strict=True)
    ]
    items = torch.cat(parts)
    return items.sum(0, keepdim=True) if coupled else items


def spread(coefficients: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Coefficients of shape (B,) or (1,), shaped and typed to multiply ``like`` (B, ...)."""
    real = like.real.dtype if like.is_complex() else like.dtype
    return coefficients.reshape(-1, *(1,) * (like.ndim - 1)).to(real)


def check_right_hand_side(b: torch.Tensor, x0: torch.Tensor | None, iterations: int, tolerance: float) -> None:
    """Refuse what no iteration can start from."""
    check_values(b, "right-hand side")
    if x0 is not None:
        if x0.shape != b.shape:
            raise InputError(f"a start of shape {tuple(x0.shape)} for a right-hand side of shape {tuple(b.shape)}")
        check_values(x0, "start")
    if iterations < 0 or tolerance < 0:
        raise InputError(f"{iterations} iterations, tolerance {tolerance}", remedy="Neither may be negative.")


def check_values(values: torch.Tensor, name: str) -> torch.Tensor:
    """``values`` if they are (B, ...), floating-point or complex, some, and finite; InputError otherwise."""
    numbers(values, name)
    if values.ndim < 2 or values.numel() == 0:
        raise InputError(f"a {name} of shape {tuple(values.shape)}", remedy="Give (B, ...), none of them 0.")
    if not bool(torch.isfinite(values).all()):
        raise InputError(f"the {name} has NaN or infinite values")
    return values


def ratio(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a / b where b is positive, else 0."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1.0), 0.0)
