"""Total-variation-regularised least squares by ADMM: one warm step at a time, or to the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from priorscope.errors import InputError
from priorscope.inverse.cg import check_values, conjugate_gradient, dot
from priorscope.inverse.iterative import Operator, start
from priorscope.inverse.tv import (
    Boundary,
    check_dims,
    gradient,
    gradient_adjoint,
    group_soft_threshold,
    soft_threshold,
)


class ADMMTV:
    """ADMM on ``data_weight / 2 |A x - y|^2 + weight TV(x)``, whose duals outlive a call.

    A call takes the estimate and gives it back after ``steps`` of

    - ``x <- CG(data_weight A^T A + rho D^T D, data_weight A^T y + rho D^T (z - u))``, started at x,
    - ``z <- shrink(D x + u, weight / rho)``, ``u <- u + D x - z``.

    With one step of one CG iteration a call it is DiffusionMBIR's data consistency, and an instance fits the opening
    ``correct`` of :func:`priorscope.diffusion.sample`. The items of the batch may be coupled by the differences, so
    the whole stack is one object and one CG system.

    Parameters
    ----------
    operator : Operator
        ``forward`` (B, \\*domain) -> (B, \\*range) and ``adjoint``; real images.
    y : Tensor of shape (B, \\*range)
        The measurement of the whole stack.
    weight : float or sequence of float
        Of the total variation; lambda in the papers. 0 leaves the measurement and rho's smoothing. One for each of
        ``dims`` where it is not isotropic.
    rho : float
        ADMM's penalty, positive: it decides how fast, not where to.
    dims : sequence of int
        Dimensions of x to take differences along: (0,) couples slices of a stack (B, 1, H, W), (0, 2, 3) is 3-D,
        (2, 3) each slice for itself.
    isotropic : bool
        Length of the gradient instead of the sum of its magnitudes.
    boundary : {"neumann", "periodic"}
        ``periodic`` ties first and last slice together: parity with DiffusionMBIR and DDS.
    steps, cg_iterations : int
        ADMM steps a call and CG iterations a step.
    cg_tolerance : float
        Relative residual at which CG stops; 0 takes all iterations.
    data_weight : float
        Factor on the data term. pi / (2 views) carries the lambda and rho of DiffusionMBIR's scaled
        backprojection over to an exact adjoint.
    anchor : float
        A call also weighs ``anchor / 2 |x - x_given|^2``, so that it is the proximal map of the other terms at the
        estimate it is given.
    aliased : bool
        Parity with the official CG (:func:`~priorscope.inverse.cg.conjugate_gradient`).

    Source: Chung et al. 2023 (DiffusionMBIR), ADMM with variable sharing; its controllable_generation_TV.py.
    """

    def __init__(
        self,
        operator: Operator,
        y: torch.Tensor,
        *,
        weight: float | Sequence[float],
        rho: float,
        dims: Sequence[int] = (0,),
        isotropic: bool = False,
        boundary: Boundary = "neumann",
        steps: int = 1,
        cg_iterations: int = 1,
        cg_tolerance: float = 0.0,
        data_weight: float = 1.0,
        anchor: float = 0.0,
        aliased: bool = False,
    ) -> None:
        weights = (weight,) if isinstance(weight, int | float) else tuple(weight)
        if len(weights) not in (1, len(dims)) or (isotropic and len(weights) > 1):
            raise InputError(
                f"{len(weights)} weights for the dimensions {tuple(dims)}",
                remedy="Give one number, or one for each dimension of a variation that is not isotropic.",
            )
        if min(weights) < 0 or rho <= 0 or data_weight <= 0 or anchor < 0:
            raise InputError(
                f"weight {weight}, rho {rho}, data weight {data_weight}, anchor {anchor}",
                remedy="rho and the data weight must be positive, the others not negative.",
            )
        if steps < 1 or cg_iterations < 1:
            raise InputError(f"{steps} steps of {cg_iterations} CG iterations", remedy="Both must be at least 1.")
        check_values(y, "measurement")
        self.operator = operator
        self.weight: float | Sequence[float] = weight
        self.rho, self.data_weight, self.anchor = rho, data_weight, anchor
        self.dims, self.isotropic, self.boundary = tuple(dims), isotropic, boundary
        self.steps, self.cg_iterations, self.cg_tolerance, self.aliased = steps, cg_iterations, cg_tolerance, aliased
        self.backprojection = data_weight * operator.adjoint(y)
        check_dims(dims, self.backprojection.ndim)
        self.split: torch.Tensor | None = None
        self.dual: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, s: float | None = None) -> torch.Tensor:
        """Return the estimate after ``steps`` ADMM steps from ``x`` (B, \\*domain); the level ``s`` is not used."""
        if x.shape != self.backprojection.shape:
            raise InputError(
                f"an estimate of shape {tuple(x.shape)} for a measurement of {tuple(self.backprojection.shape)}"
            )
        given = x
        for _ in range(self.steps):
            x = self._step(x, given)
        return x

    def reset(self) -> None:
        """Forget the duals."""
        self.split = self.dual = None

    def state_dict(self) -> dict[str, Any]:
        """The duals, for a run to go on from; empty before the first call."""
        return {} if self.split is None else {"split": self.split, "dual": self.dual}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up duals from :meth:`state_dict`."""
        if not state:
            return self.reset()
        expected = (len(self.dims), *self.backprojection.shape)
        for name in ("split", "dual"):
            if name not in state or tuple(state[name].shape) != expected:
                found = tuple(state[name].shape) if name in state else "nothing"
                raise InputError(f"the saved state's {name!r} is {found}, not of shape {expected}")
        self.split, self.dual = (state[name].to(self.backprojection) for name in ("split", "dual"))
        return None

    def _step(self, x: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        if self.split is None or self.dual is None:
            self.split = self.dual = x.new_zeros(len(self.dims), *x.shape)
        b = self.backprojection + self.rho * gradient_adjoint(self.split - self.dual, self.dims, self.boundary)
        if self.anchor:
            b = b + self.anchor * given
        x, _ = conjugate_gradient(
            self._system,
            b,
            x,
            iterations=self.cg_iterations,
            tolerance=self.cg_tolerance,
            coupled=True,
            aliased=self.aliased,
            check=False,
        )
        slope = gradient(x, self.dims, self.boundary)
        self.split = self._shrunk(slope + self.dual)
        self.dual = self.dual + slope - self.split
        return x

    def _shrunk(self, q: torch.Tensor) -> torch.Tensor:
        if isinstance(self.weight, int | float):
            threshold = self.weight / self.rho
            return group_soft_threshold(q, threshold) if self.isotropic else soft_threshold(q, threshold)
        return torch.stack([soft_threshold(part, one / self.rho) for part, one in zip(q, self.weight, strict=True)])

    def _system(self, v: torch.Tensor) -> torch.Tensor:
        data = self.data_weight * self.operator.adjoint(self.operator.forward(v))
        data = data + self.anchor * v if self.anchor else data
        return data + self.rho * gradient_adjoint(gradient(v, self.dims, self.boundary), self.dims, self.boundary)


class ADMMRecord(NamedTuple):
    """Relative residuals of :func:`admm_tv` at each step, float64 of shape (steps,): |D x - z| and rho |D^T dz|."""

    primal: torch.Tensor
    dual: torch.Tensor
    converged: bool


def admm_tv(
    operator: Operator,
    y: torch.Tensor,
    x0: torch.Tensor | None = None,
    *,
    weight: float,
    rho: float,
    dims: Sequence[int] = (0, 2, 3),
    isotropic: bool = True,
    boundary: Boundary = "neumann",
    iterations: int = 100,
    cg_iterations: int = 10,
    cg_tolerance: float = 1e-6,
    tolerance: float = 1e-4,
    data_weight: float = 1.0,
    aliased: bool = False,
) -> tuple[torch.Tensor, ADMMRecord]:
    """Minimise ``data_weight / 2 |A x - y|^2 + weight TV(x)``: the classical baseline.

    Parameters
    ----------
    operator, y, weight, rho, dims, isotropic, boundary, cg_iterations, cg_tolerance, data_weight, aliased
        As for :class:`ADMMTV`; ``dims=(0,)`` is total variation along z only.
    x0 : Tensor of shape (B, \\*domain), optional
        Where to start; default 0.
    iterations : int
        At most so many ADMM steps.
    tolerance : float
        Stop where the primal residual ``|D x - z|`` relative to the larger of ``|D x|`` and ``|z|``, and the dual one
        ``rho |D^T (z - z_before)|`` relative to ``|data_weight A^T y|``, are both at most this. 0 takes all steps.

    Returns
    -------
    Tensor of shape (B, \\*domain), ADMMRecord

    Source: Boyd et al. 2011, section 3 (method and stopping rule).
    """
    if iterations < 1 or tolerance < 0:
        raise InputError(f"{iterations} iterations, tolerance {tolerance}", remedy="Take at least one iteration.")
    solver = ADMMTV(
        operator,
        y,
        weight=weight,
        rho=rho,
        dims=dims,
        isotropic=isotropic,
        boundary=boundary,
        cg_iterations=cg_iterations,
        cg_tolerance=cg_tolerance,
        data_weight=data_weight,
        aliased=aliased,
    )
    x = start(operator, y, x0)
    scale = _norm(solver.backprojection)
    primal, dual = [], []
    before = x.new_zeros(len(solver.dims), *x.shape)
    converged = False
    for _ in range(iterations):
        x = solver(x)
        assert solver.split is not None
        slope = gradient(x, solver.dims, boundary)
        larger = torch.maximum(_norm(slope), _norm(solver.split))
        primal.append(_norm(slope - solver.split) / larger.clamp(min=1e-300))
        moved = gradient_adjoint(solver.split - before, solver.dims, boundary)
        dual.append(rho * _norm(moved) / scale.clamp(min=1e-300))
        before = solver.split
        if tolerance > 0 and bool((primal[-1] <= tolerance) & (dual[-1] <= tolerance)):
            converged = True
            break
    return x, ADMMRecord(torch.stack(primal), torch.stack(dual), converged)


def _norm(value: torch.Tensor) -> torch.Tensor:
    return dot(value, value, True)[0].sqrt()
