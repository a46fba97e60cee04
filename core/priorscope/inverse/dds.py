"""Decomposed diffusion sampling: conjugate gradients on the clean estimate, no gradient through the network."""

from __future__ import annotations

import math
from typing import Any

import torch

from priorscope.diffusion.denoiser import Level, Model, Prediction, StepInfo
from priorscope.diffusion.noise import Noise, required
from priorscope.errors import InputError
from priorscope.inverse.admm import ADMMTV
from priorscope.inverse.cg import conjugate_gradient
from priorscope.inverse.guidance import check_measurement
from priorscope.inverse.iterative import Operator


class DDS:
    """Constraint: a few conjugate-gradient iterations on x0, started at the network's; eps is kept.

    Parameters
    ----------
    operator : Operator
        With its exact adjoint: conjugate gradients need A^T A symmetric.
    y : Tensor of shape (B, \\*range)
        The measurement.
    gamma : float, optional
        Solve (gamma A^T A + 1) x = gamma A^T y + x0, for noisy measurements. None: the normal equations
        A^T A x = A^T y, which only the few iterations keep near x0.
    iterations : int
        The paper takes 5.
    tolerance : float
        Relative residual at which CG stops early; 0 takes all iterations.

    Source: Chung et al. 2024 (DDS), algorithm 1 and its noisy variant.
    """

    needs_grad = False

    def __init__(
        self,
        operator: Operator,
        y: torch.Tensor,
        *,
        gamma: float | None = None,
        iterations: int = 5,
        tolerance: float = 0.0,
    ) -> None:
        if gamma is not None and gamma <= 0:
            raise InputError(f"gamma {gamma}", remedy="It must be positive; None solves the normal equations.")
        if iterations < 1:
            raise InputError(f"{iterations} CG iterations", remedy="Take at least one.")
        self.operator, self.gamma = operator, gamma
        self.iterations, self.tolerance = iterations, tolerance
        self.backprojection = operator.adjoint(check_measurement(y))

    def __call__(self, x: torch.Tensor, t: Level, prediction: Prediction, info: StepInfo) -> Prediction:
        b = self.backprojection
        if self.gamma is not None:
            b = self.gamma * b + prediction.x0
        x0, _ = conjugate_gradient(
            self._system, b, prediction.x0, iterations=self.iterations, tolerance=self.tolerance, check=False
        )
        return Prediction(x0, prediction.eps)

    def _system(self, v: torch.Tensor) -> torch.Tensor:
        normal = self.operator.adjoint(self.operator.forward(v))
        return normal if self.gamma is None else self.gamma * normal + v


class DDSTV:
    """Constraint: ADMM-TV steps on x0, whose duals outlive a step of the sampler; eps is kept.

    It couples the slices of a volume, so the batch must be the whole stack.

    Parameters
    ----------
    admm : ADMMTV
        The authors' settings: weight 0.04, rho 10, differences along (0,), one step of 5 CG iterations, and for
        parity ``boundary="periodic"``.

    Source: Chung et al. 2024 (DDS), its 3-D reconstruction; HJ-harry/DDS, solver_3d.py.
    """

    needs_grad = False

    def __init__(self, admm: ADMMTV) -> None:
        self.admm = admm

    def __call__(self, x: torch.Tensor, t: Level, prediction: Prediction, info: StepInfo) -> Prediction:
        return Prediction(self.admm(prediction.x0), prediction.eps)


def renoise(
    model: Model,
    x: torch.Tensor,
    t: float,
    s: float,
    state: Any,
    noise: Noise | None,
    *,
    eta: float = 0.85,
    bare_at: float | None = None,
) -> tuple[torch.Tensor, Any]:
    """Solver: x_s = alpha_s x0 + sigma_s (sqrt(1 - eta^2) eps + eta z), the step of DDS and of DiffPIR.

    Parameters
    ----------
    model, x, t, s, state, noise
        As for every solver (:mod:`priorscope.diffusion.solvers`); ``noise`` gives z.
    eta : float
        0 is DDIM, 1 forgets eps. DDS takes 0.85; DiffPIR's zeta is eta^2. Unlike DDIM's eta it is a part of
        sigma_s, not of the posterior's deviation.
    bare_at : float, optional
        Parity with DDS's 3-D code, which hands x0 on without noise where s is this level: 0, the last but one.

    Source: Chung et al. 2024 (DDS), algorithm 1; Zhu et al. 2023 (DiffPIR), algorithm 1.
    """
    if not 0 <= eta <= 1:
        raise InputError(f"eta {eta}", remedy="It must lie between 0 and 1.")
    x0, eps = model(x, t)
    if bare_at is not None and s == bare_at:
        return x0, state
    alpha, sigma = model.schedule(s)
    x = alpha * x0
    if sigma == 0.0:
        return x, state
    x = x + sigma * math.sqrt(1 - eta**2) * eps
    if eta == 0:
        return x, state
    return x + sigma * eta * required(noise).like(x), state
