"""Multi-step solvers with constant weights on eps: PLMS, PNDM, and the momentum samplers HB, NT and GHVB.

In (x / alpha, g) with g = sigma / alpha a step is x' = x + (g' - g) u, where u mixes the values of eps so far. The
weights are those for equal steps of g, so the order is the nominal one where levels are evenly spaced in
sigma / alpha and 2 at most elsewhere; :func:`~priorscope.diffusion.solvers.deis` keeps its order on any levels.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import torch

from priorscope.diffusion.denoiser import Model
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.solvers.multistep import add_weighted, check_order
from priorscope.errors import InputError

Start = Literal["heun", "runge-kutta"]


def plms(
    model: Model, x: torch.Tensor, t: float, s: float, state: Any, noise: Noise | None, *, order: int = 4
) -> tuple[torch.Tensor, Any]:
    """Pseudo linear multi-step (Liu et al. 2022): Adams and Bashforth's weights on eps, one call a step.

    The first steps of a run have the order of what is remembered; :func:`pndm` starts better.

    Parameters
    ----------
    order : int
        1 ... 6; the published one is 4.
    """
    check_order(order, 6)
    x0, eps = model(x, t)
    history = _newest(state, eps, order)
    return _follow(model, t, s, x0, eps, history, mixing_weights(len(history), 1.0)), history


def pndm(
    model: Model,
    x: torch.Tensor,
    t: float,
    s: float,
    state: Any,
    noise: Noise | None,
    *,
    order: int = 4,
    start: Start = "heun",
) -> tuple[torch.Tensor, Any]:
    """PNDM (Liu et al. 2022): PLMS that starts with steps of higher order.

    Parameters
    ----------
    order : int
        1 ... 4 of the multi-step part; 1 is DDIM.
    start : {"heun", "runge-kutta"}
        One step of Heun's method, two calls (diffusers' ``skip_prk_steps=True``, as Stable Diffusion has it); or
        the paper's pseudo Runge-Kutta steps, four calls each, until ``order - 1`` values are remembered. Those ask
        the network half-way between t and s too.

    Notes
    -----
    A starting step from alpha = 0 or to sigma = 0 is DDIM's.
    """
    check_order(order, 4)
    if start not in ("heun", "runge-kutta"):
        raise InputError(f"PNDM's start {start!r}", remedy="Use 'heun' or 'runge-kutta'.")
    x0, eps = model(x, t)
    history = _newest(state, eps, order)
    starting = len(history) < (order if start == "runge-kutta" else min(order, 2))
    alpha_t = model.schedule(t)[0]
    if not starting or alpha_t == 0.0 or 0.0 in model.schedule(s):
        return _follow(model, t, s, x0, eps, history, mixing_weights(len(history), 1.0)), history

    def by(slope: torch.Tensor, level: float) -> torch.Tensor:
        return _follow(model, t, level, x0, eps, [slope], (1.0,))

    if start == "heun":
        return by(0.5 * (eps + model(by(eps, s), s).eps), s), history
    middle = 0.5 * (t + s)
    second = model(by(eps, middle), middle).eps
    third = model(by(second, middle), middle).eps
    fourth = model(by(third, s), s).eps
    return by((eps + 2.0 * second + 2.0 * third + fourth) / 6.0, s), history


def ghvb(
    model: Model, x: torch.Tensor, t: float, s: float, state: Any, noise: Noise | None, *, order: float = 1.8
) -> tuple[torch.Tensor, Any]:
    """Generalised heavy ball (Wizadwongsa et al. 2024): a moving average of eps and weights that allow for its lag.

    It damps the artefacts of diverging runs with few steps and strong guidance and converges with order k; an integer
    order is PLMS.

    Parameters
    ----------
    order : float
        Above 0: a number in (k - 1, k] is order k with damping beta = the part after the point (1 where there is
        none), so 1.8 is order 2 with beta 0.8.

    Notes
    -----
    v = (1 - beta) v + beta eps, starting at v = eps, and u mixes the last k values of v (:func:`mixing_weights`).
    The official code starts at the raw network output, which is wrong for v-prediction; this one at eps.
    """
    whole, beta = split_order(order)
    x0, eps = model(x, t)
    velocity = eps if state is None else torch.lerp(state[0], eps, beta)
    history = _newest(state, velocity, whole)
    return _follow(model, t, s, x0, eps, history, mixing_weights(len(history), beta)), history


def heavy_ball(
    model: Model, x: torch.Tensor, t: float, s: float, state: Any, noise: Noise | None, *, order: float = 3.8
) -> tuple[torch.Tensor, Any]:
    """Polyak's heavy ball on PLMS (Wizadwongsa et al. 2024): u is a moving average of PLMS's slope.

    ``order`` as in :func:`ghvb`; with beta below 1 the lag is not allowed for, and the order of convergence is 1.
    """
    return _averaged(model, x, t, s, state, order, ahead=False)


def nesterov(
    model: Model, x: torch.Tensor, t: float, s: float, state: Any, noise: Noise | None, *, order: float = 3.8
) -> tuple[torch.Tensor, Any]:
    """Nesterov's momentum on PLMS (Wizadwongsa et al. 2024): the heavy ball, once more towards PLMS's slope.

    ``order`` as in :func:`ghvb`; with beta below 1 the order of convergence is 1.
    """
    return _averaged(model, x, t, s, state, order, ahead=True)


def _averaged(
    model: Model, x: torch.Tensor, t: float, s: float, state: Any, order: float, *, ahead: bool
) -> tuple[torch.Tensor, Any]:
    whole, beta = split_order(order)
    x0, eps = model(x, t)
    velocity, past = (eps, None) if state is None else state
    history = _newest(past, eps, whole)
    weights = mixing_weights(len(history), 1.0)
    slope = add_weighted(weights[0] * eps, history[1:], weights[1:], 1.0)
    velocity = torch.lerp(velocity, slope, beta)
    used = torch.lerp(velocity, slope, beta) if ahead else velocity
    return _follow(model, t, s, x0, eps, [used], (1.0,)), (velocity, history)


def split_order(order: float) -> tuple[int, float]:
    """The whole order k and the damping beta in (0, 1] of a momentum sampler's order in (k - 1, k].

    Raises
    ------
    InputError
        An order that is not above 0, or above 6.
    """
    order = round(order, 9)  # 3.0000000000000004 is 3, not 4 with a damping that divides by nothing
    if not 0 < order <= 6:
        raise InputError(f"a momentum sampler of order {order}", remedy="Use a number above 0, at most 6.")
    whole = math.ceil(order)
    return whole, 1.0 if order == whole else order - (whole - 1)


@lru_cache(maxsize=256)
def mixing_weights(order: int, beta: float) -> tuple[float, ...]:
    """GHVB's weights of the last ``order`` moving averages, newest first; with ``beta`` 1 Adams and Bashforth's.

    With the backward difference D, a moving average v of eps has eps = (1 + (1 / beta - 1) D) v, and the mean of eps
    over the coming step is sum_j gamma_j D^j eps. The weights are the product of the two, cut off at D^(order - 1).
    """
    gammas: list[float] = []
    for j in range(order):
        gammas.append(1.0 - sum(gamma / (j - i + 1) for i, gamma in enumerate(gammas)))
    differences = [gamma + (1.0 / beta - 1.0) * before for gamma, before in zip(gammas, [0.0, *gammas], strict=False)]
    return tuple(
        sum(differences[j] * (-1) ** place * math.comb(j, place) for j in range(place, order)) for place in range(order)
    )


def _newest(history: Any, value: torch.Tensor, order: int) -> tuple[torch.Tensor, ...]:
    return (value, *(history or ())[: order - 1])


def _follow(
    model: Model,
    t: float,
    s: float,
    x0: torch.Tensor,
    eps: torch.Tensor,
    slopes: Any,
    weights: tuple[float, ...],
) -> torch.Tensor:
    """DDIM's step, with the weighted sum of ``slopes`` in place of eps as the slope."""
    alpha_t, sigma_t = model.schedule(t)
    alpha_s, sigma_s = model.schedule(s)
    if alpha_t == 0.0:  # the first level of a run, where the slopes are eps itself
        return (alpha_s * x0).add_(eps, alpha=sigma_s)
    way = sigma_s - alpha_s / alpha_t * sigma_t
    return add_weighted((alpha_s * x0).add_(eps, alpha=sigma_s - way), slopes, weights, way)
