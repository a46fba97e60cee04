"""What multi-step solvers share: a memory of past predictions, and the weights that extrapolate them.

On a schedule's half log-SNR lambda, with h = lambda_s - lambda_t, the exact solution from t to s is DDIM's step plus

    alpha_s int_0^1 h e^(-(1-u) h) (x0(u) - x0(0)) du    in terms of x0, or
    sigma_s int_0^1 H e^(-(1-u) H) (eps(u) - eps(0)) du  in terms of eps, with H = -h,

where u runs from 0 at t to 1 at s. Multi-step solvers put a polynomial through past predictions under the integral.
Source: Lu et al. 2022 (DPM-Solver and DPM-Solver++), Zhang and Chen 2023 (DEIS).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from numbers import Integral
from typing import Any

import numpy as np
import torch

from priorscope.diffusion.denoiser import Model
from priorscope.errors import InputError

#: Past predictions, newest first, each with the log-SNR it was made at.
History = tuple[tuple[float, torch.Tensor], ...]

_POINTS, _SHARES = np.polynomial.legendre.leggauss(32)
_POINTS, _SHARES = (_POINTS + 1) / 2, _SHARES / 2


def remember(history: Any, log_snr: float, value: torch.Tensor, order: int) -> History:
    """Put a prediction in front of the ``order - 1`` last ones.

    Earlier predictions at the same level are replaced; those at a level without signal, where the log-SNR is
    infinite, cannot be interpolated and are forgotten.
    """
    past = [entry for entry in history or () if math.isfinite(entry[0]) and entry[0] != log_snr]
    return ((log_snr, value), *past[: order - 1])


def nodes_of(history: History, h: float, order: int) -> tuple[float, ...]:
    """Where the newest ``order`` predictions lie in units of a step of ``h``: 0, then negative numbers.

    Only the newest where the step is infinite or nothing, as it is from pure noise and to a clean level.
    """
    if not math.isfinite(h) or h == 0.0 or not math.isfinite(history[0][0]):
        return (0.0,)
    newest = history[0][0]
    return tuple((log_snr - newest) / h for log_snr, _ in history[:order])


def allowed_order(model: Model, order: int, lower_order_final: bool) -> int:
    """``order``, or the number of steps that are left of the run where that is fewer and asked for.

    A run's loop says where it stands in ``model.info``.
    """
    info = getattr(model, "info", None)
    return order if info is None or not lower_order_final else min(order, info.total - info.index)


def check_order(order: int, highest: int) -> None:
    """Raise InputError unless ``order`` is a whole number from 1 to ``highest``."""
    if not isinstance(order, Integral) or not 1 <= order <= highest:
        raise InputError(f"a solver of order {order!r}", remedy=f"Use a whole number from 1 to {highest}.")


@lru_cache(maxsize=4096)
def exponential_weights(h: float, nodes: tuple[float, ...]) -> tuple[float, ...]:
    """Weights w with sum_i w_i f(u_i) = int_0^1 h e^(-(1-u) h) (f(u) - f(0)) du for polynomials f.

    Parameters
    ----------
    h : float
        The step, of either sign, not 0.
    nodes : tuple of float
        Different numbers u_i, the first of them 0. Exact below the degree ``len(nodes)``.

    Returns
    -------
    tuple of float
        As many, in float64; their sum is 0.
    """
    u = _POINTS[:, None]
    at = np.asarray(nodes)
    decay = _SHARES * h * np.exp(-(1.0 - _POINTS) * h)
    weights = np.zeros(len(nodes))
    for i in range(1, len(nodes)):
        others = np.delete(at, i)
        weights[i] = decay @ np.prod((u - others) / (at[i] - others), axis=1)
    weights[0] = -weights[1:].sum()
    return tuple(weights.tolist())


def values(history: History) -> list[torch.Tensor]:
    """The predictions alone, newest first."""
    return [value for _, value in history]


def add_weighted(
    x: torch.Tensor, terms: Sequence[torch.Tensor], weights: Sequence[float], scale: float
) -> torch.Tensor:
    """Add ``scale`` times the sum of the first ``len(weights)`` terms, weighted, to ``x``, in place."""
    for term, weight in zip(terms, weights, strict=False):
        x.add_(term, alpha=scale * weight)
    return x
