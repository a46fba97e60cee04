"""Exponential multi-step solvers: DPM-Solver++ in x0, deterministic and as an SDE; DPM-Solver-2 and DEIS in eps."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch

from priorscope.diffusion.denoiser import Model
from priorscope.diffusion.noise import Noise, required
from priorscope.diffusion.solvers.multistep import (
    add_weighted,
    allowed_order,
    check_order,
    exponential_weights,
    nodes_of,
    remember,
    values,
)
from priorscope.errors import InputError

Rule = Literal["exact", "published"]


def dpmpp(
    model: Model,
    x: torch.Tensor,
    t: float,
    s: float,
    state: Any,
    noise: Noise | None,
    *,
    order: int = 2,
    eta: float = 0.0,
    rule: Rule = "exact",
    lower_order_final: bool = False,
) -> tuple[torch.Tensor, Any]:
    """DPM-Solver++ (Lu et al. 2022), multi-step: one call, remembers ``order - 1`` values of x0.

    Parameters
    ----------
    order : int
        1 ... 4; 1 is DDIM. The first steps of a run have the order of what is remembered. Steps from alpha = 0
        and to sigma = 0, where the log-SNR is infinite, are DDIM's.
    eta : float
        Fresh noise: 0 solves the ODE, 1 is SDE-DPM-Solver++; between them the noise left of a step of h in log-SNR
        is e^(-eta h), as in k-diffusion. Steps upwards draw none.
    rule : {"exact", "published"}
        The integral of the interpolating polynomial (diffusers' ``solver_type="heun"`` at order 2); or, up to order
        3, the published weights: at order 2 the paper's algorithm 2 ("midpoint"), which has order 2 as well, and at
        order 3 those of the official code and diffusers, which count the quadratic term half and so have order 2
        only (``tests/core/test_solvers.py`` measures it).
    lower_order_final : bool
        Let the order fall to 1 at the end of a run, as diffusers does in runs of fewer than 15 steps that end above
        sigma = 0.

    Raises
    ------
    InputError
        An order or rule that does not exist, a negative ``eta``, a stochastic run without noise.
    """
    check_order(order, 3 if rule == "published" else 4)
    if rule not in ("exact", "published"):
        raise InputError(f"rule {rule!r}", remedy="Use 'exact' or 'published'.")
    if not eta >= 0:
        raise InputError(f"eta {eta}", remedy="Use 0 for the ODE, 1 for the SDE.")
    return _interpolated(model, x, t, s, state, order, lower_order_final, rule, eta=eta, noise=noise)


def dpmpp_2m(
    model: Model,
    x: torch.Tensor,
    t: float,
    s: float,
    state: Any,
    noise: Noise | None,
    *,
    lower_order_final: bool = False,
) -> tuple[torch.Tensor, Any]:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): one call, order 2, remembers the last x0."""
    return dpmpp(model, x, t, s, state, noise, rule="published", lower_order_final=lower_order_final)


def dpmpp_3m(
    model: Model, x: torch.Tensor, t: float, s: float, state: Any, noise: Noise | None
) -> tuple[torch.Tensor, Any]:
    """DPM-Solver++(3M) with the exact weights: one call, order 3. See :func:`dpmpp`."""
    return dpmpp(model, x, t, s, state, noise, order=3)


def dpmpp_2m_sde(
    model: Model, x: torch.Tensor, t: float, s: float, state: Any, noise: Noise | None, *, eta: float = 1.0
) -> tuple[torch.Tensor, Any]:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, appendix on SDEs): one call and a draw of noise a step."""
    return dpmpp(model, x, t, s, state, noise, eta=eta, rule="published")


def dpmpp_3m_sde(
    model: Model, x: torch.Tensor, t: float, s: float, state: Any, noise: Noise | None, *, eta: float = 1.0
) -> tuple[torch.Tensor, Any]:
    """SDE-DPM-Solver++(3M) with the exact weights: one call and a draw of noise a step."""
    return dpmpp(model, x, t, s, state, noise, order=3, eta=eta)


def dpm_solver_2m(
    model: Model,
    x: torch.Tensor,
    t: float,
    s: float,
    state: Any,
    noise: Noise | None,
    *,
    lower_order_final: bool = False,
) -> tuple[torch.Tensor, Any]:
    """DPM-Solver-2, multi-step (Lu et al. 2022): one call, order 2, remembers the last eps.

    The weights are the published ones ("midpoint" in diffusers); :func:`deis` of order 2 has the exact ones.
    ``lower_order_final`` as in :func:`dpmpp`.
    """
    return _interpolated(model, x, t, s, state, 2, lower_order_final, "published", in_eps=True)


def deis(
    model: Model,
    x: torch.Tensor,
    t: float,
    s: float,
    state: Any,
    noise: Noise | None,
    *,
    order: int = 2,
    lower_order_final: bool = False,
) -> tuple[torch.Tensor, Any]:
    """DEIS with polynomials in log(sigma / alpha) (Zhang and Chen 2023): one call, remembers ``order - 1`` eps.

    Parameters
    ----------
    order : int
        1 ... 4; 1 is DDIM.
    lower_order_final : bool
        As in :func:`dpmpp`; diffusers does it in runs of fewer than 15 steps.
    """
    check_order(order, 4)
    return _interpolated(model, x, t, s, state, order, lower_order_final, "exact", in_eps=True)


def _interpolated(
    model: Model,
    x: torch.Tensor,
    t: float,
    s: float,
    state: Any,
    order: int,
    lower_order_final: bool,
    rule: Rule,
    *,
    in_eps: bool = False,
    eta: float = 0.0,
    noise: Noise | None = None,
) -> tuple[torch.Tensor, Any]:
    """DDIM's step, and the integral of the polynomial through past x0, or past eps."""
    x0, eps = model(x, t)
    alpha_s, sigma_s = model.schedule(s)
    log_snr = model.schedule.log_snr(t)
    h = model.schedule.log_snr(s) - log_snr
    if not h > 0:
        eta = 0.0
    value, scale, exponent = (eps, sigma_s, -h) if in_eps else (x0, alpha_s, (1.0 + eta) * h)
    history = remember(state, log_snr, value, order)
    nodes = nodes_of(history, h, allowed_order(model, order, lower_order_final))
    x = (alpha_s * x0).add_(eps, alpha=sigma_s * math.exp(-eta * h) if eta else sigma_s)
    if len(nodes) > 1:
        weigh = exponential_weights if rule == "exact" else _published_weights
        add_weighted(x, values(history), weigh(exponent, nodes), scale)
    if eta and sigma_s > 0:
        x.add_(required(noise).like(x), alpha=sigma_s * math.sqrt(-math.expm1(-2.0 * eta * h)))
    return x, history


def _published_weights(h: float, nodes: tuple[float, ...]) -> tuple[float, ...]:
    """Weights of the official multi-step updates of order 2 and 3; ``h`` and ``nodes`` as in exponential_weights."""
    whole = -math.expm1(-h)
    r0 = -nodes[1]
    if len(nodes) == 2:
        return 0.5 * whole / r0, -0.5 * whole / r0
    r1 = nodes[1] - nodes[2]
    # divided differences D1_0 = (m0 - m1) / r0, D1_1 = (m1 - m2) / r1, D2 = (D1_0 - D1_1) / (r0 + r1);
    # slope * (D1_0 + r0 D2) + bend * D2, where the exact bend would be twice this one
    slope = 1.0 - whole / h
    bend = 0.5 - slope / h
    second = (slope * r0 + bend) / (r0 + r1)
    return (slope + second) / r0, -(slope + second) / r0 - second / r1, second / r1
