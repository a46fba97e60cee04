"""Classical iterative reconstruction: SIRT and CGLS."""

from __future__ import annotations

from typing import Protocol

import torch

from priorscope.errors import InputError
from priorscope.inverse.cg import SolverRecord, check_right_hand_side, check_values, dot, ratio, spread


class Operator(Protocol):
    """What the methods of this package ask of an operator: a linear map of batches and its adjoint."""

    def forward(self, x: torch.Tensor) -> torch.Tensor: ...

    def adjoint(self, y: torch.Tensor) -> torch.Tensor: ...


def sirt(
    operator: Operator,
    y: torch.Tensor,
    x0: torch.Tensor | None = None,
    *,
    iterations: int = 100,
    relaxation: float = 1.0,
    nonnegative: bool = False,
) -> tuple[torch.Tensor, SolverRecord]:
    """Simultaneous iterative reconstruction: x <- x + relaxation C A^T R (y - A x).

    R and C are the reciprocal row and column sums of A (0 where a sum is 0); A must have no negative entries.

    Parameters
    ----------
    operator : Operator
        ``forward`` (B, \\*domain) -> (B, \\*range) and its exact adjoint, real.
    y : Tensor of shape (B, \\*range)
        The measurement.
    x0 : Tensor of shape (B, \\*domain), optional
        Where to start; default 0.
    iterations : int
        The fewer, the smoother: stopping early regularises.
    relaxation : float
        In (0, 2).
    nonnegative : bool
        Set negative values to 0 after each step.

    Returns
    -------
    Tensor of shape (B, \\*domain), SolverRecord
        Residuals are ``|y - A x| / |y|`` of each item; there is no test of convergence, ``converged`` is False.

    Source: Gilbert 1972; convergence for 0 < relaxation < 2: Gregor and Benson 2008.
    """
    check_right_hand_side(y, None, iterations, 0.0)
    if y.is_complex():
        raise InputError("SIRT's row and column sums need real measurements", remedy="Use cgls for complex ones.")
    if not 0 < relaxation < 2:
        raise InputError(f"relaxation {relaxation}", remedy="SIRT converges for values between 0 and 2.")
    # one item stands for all, unless they are measured differently
    ones = torch.ones_like(y if getattr(operator, "items", None) is not None else y[:1])
    back = operator.adjoint(ones)
    rows = _reciprocal(operator.forward(torch.ones_like(back)), "row")
    columns = _reciprocal(back, "column")
    x = start(operator, y, x0)
    scale = dot(y, y, False).sqrt()
    residual = y - operator.forward(x)
    norms = [_norm(residual, scale)]
    for _ in range(iterations):
        x = x + relaxation * columns * operator.adjoint(rows * residual)
        if nonnegative:
            x = x.clamp(min=0)
        residual = y - operator.forward(x)
        norms.append(_norm(residual, scale))
    return x, SolverRecord(iterations, torch.stack(norms), torch.zeros_like(norms[-1], dtype=torch.bool))


def cgls(
    operator: Operator,
    y: torch.Tensor,
    x0: torch.Tensor | None = None,
    *,
    iterations: int = 20,
    tolerance: float = 1e-6,
    damping: float = 0.0,
) -> tuple[torch.Tensor, SolverRecord]:
    """Least squares, ``min |y - A x|^2 + damping |x|^2``, by conjugate gradients that never form A^T A.

    Parameters
    ----------
    operator : Operator
        ``forward`` (B, \\*domain) -> (B, \\*range) and its exact adjoint.
    y : Tensor of shape (B, \\*range)
        The measurement, real or complex.
    x0 : Tensor of shape (B, \\*domain), optional
        Where to start; default 0.
    iterations : int
        At most so many; stopping early regularises.
    tolerance : float
        Stop where ``|A^T (y - A x) - damping x|`` is at most so many times ``|A^T y|`` in every item.
    damping : float
        Tikhonov's weight, at least 0.

    Returns
    -------
    Tensor of shape (B, \\*domain), SolverRecord
        Residuals are those of the normal equations, as ``tolerance`` measures them.

    Source: Hestenes and Stiefel 1952, section 10; Bjorck 1996, algorithm 7.4.1.
    """
    check_right_hand_side(y, None, iterations, tolerance)
    if damping < 0:
        raise InputError(f"damping {damping}", remedy="It must not be negative.")
    x = start(operator, y, x0)
    residual = y - operator.forward(x)
    gradient = operator.adjoint(residual) - damping * x
    scale = _norm(operator.adjoint(y), torch.ones(len(y), dtype=torch.float64, device=y.device))
    energy = dot(gradient, gradient, False)
    norms = [_norm(gradient, scale)]
    p = gradient
    done = 0
    for _ in range(iterations):
        active = norms[-1] > tolerance
        if tolerance > 0 and not bool(active.any()):
            break
        image = operator.forward(p)
        curvature = dot(image, image, False) + damping * dot(p, p, False)
        active = active & (curvature > 0)
        length = torch.where(active, ratio(energy, curvature), 0.0)
        x = x + spread(length, p) * p
        residual = residual - spread(length, image) * image
        gradient = operator.adjoint(residual) - damping * x
        before, energy = energy, dot(gradient, gradient, False)
        p = gradient + spread(ratio(energy, before), p) * p
        norms.append(_norm(gradient, scale))
        done += 1
    return x, SolverRecord(done, torch.stack(norms), norms[-1] <= tolerance)


def start(operator: Operator, y: torch.Tensor, x0: torch.Tensor | None) -> torch.Tensor:
    """The start of a run for ``y``: ``x0`` if it fits, else zeros."""
    if x0 is None:
        return torch.zeros_like(operator.adjoint(y))
    if len(x0) != len(y):
        raise InputError(f"a start of {len(x0)} items for {len(y)} measurements")
    return check_values(x0, "start")


def _norm(value: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return dot(value, value, False).sqrt() / torch.where(scale > 0, scale, 1.0)


def _reciprocal(sums: torch.Tensor, what: str) -> torch.Tensor:
    if bool((sums < -1e-6 * sums.abs().max()).any()):
        raise InputError(f"a negative {what} sum: SIRT needs an operator without negative entries")
    # a sum that is rounding only belongs to a ray or pixel that nothing meets
    met = sums > 1e-6 * sums.abs().max()
    return torch.where(met, 1 / torch.where(met, sums, 1.0), 0.0)
