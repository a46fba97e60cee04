"""UniPC: a multi-step predictor whose next network call serves as its corrector too."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch

from priorscope.diffusion.denoiser import Model
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.solvers.multistep import (
    History,
    add_weighted,
    allowed_order,
    check_order,
    exponential_weights,
    nodes_of,
    remember,
    values,
)
from priorscope.errors import InputError

Variant = Literal["bh1", "bh2"]


class _State(NamedTuple):
    """What is remembered, how it was used in the last step, of size h, and the log-SNR where that ended."""

    history: History
    nodes: tuple[float, ...]
    weights: tuple[float, ...]
    h: float
    reached: float


def unipc(
    model: Model,
    x: torch.Tensor,
    t: float,
    s: float,
    state: Any,
    noise: Noise | None,
    *,
    order: int = 2,
    variant: Variant = "bh2",
    lower_order_final: bool = False,
) -> tuple[torch.Tensor, Any]:
    """UniPC in x0 (Zhao et al. 2023): one call, remembers ``order`` values of x0.

    The predictor is DPM-Solver++'s of the same order. Once the network has been asked at its result, the corrector
    adds that value to the interpolation of the step before, which raises the order by one, and shifts the sample.
    The last sample of a run is not corrected.

    Parameters
    ----------
    order : int
        Of the predictor, 1 ... 4.
    variant : {"bh1", "bh2"}
        B(h) = h or e^h - 1. They differ where the paper sets a weight to 1/2 rather than solve for it: the predictor
        of order 2 and the corrector of order 1.
    lower_order_final : bool
        Let the order fall to 1 at the end of a run, as diffusers does. A last step to sigma = 0 has order 1 anyway.
    """
    check_order(order, 4)
    if variant not in ("bh1", "bh2"):
        raise InputError(f"UniPC's variant {variant!r}", remedy="Use 'bh1' or 'bh2'.")
    x0, eps = model(x, t)
    alpha_t, sigma_t = model.schedule(t)
    alpha_s, sigma_s = model.schedule(s)
    log_snr, reached = model.schedule.log_snr(t), model.schedule.log_snr(s)
    h = reached - log_snr
    x = (alpha_s * x0).add_(eps, alpha=sigma_s)
    if state is not None and len(state.weights) and state.reached == log_snr and sigma_t > 0:
        carried = alpha_t * sigma_s / sigma_t
        weights = _corrector_weights(state.h, state.nodes, variant)
        x.add_(x0, alpha=carried * weights[-1])
        change = [new - old for new, old in zip(weights[:-1], state.weights, strict=True)]
        add_weighted(x, values(state.history), change, carried)
    history = remember(None if state is None else state.history, log_snr, x0, order)
    nodes = nodes_of(history, h, allowed_order(model, order, lower_order_final))
    finite = math.isfinite(h) and h != 0.0 and math.isfinite(log_snr)
    weights = _predictor_weights(h, nodes, variant) if finite else ()
    add_weighted(x, values(history), weights, alpha_s)
    return x, _State(history, nodes, weights, h, reached)


def _predictor_weights(h: float, nodes: tuple[float, ...], variant: Variant) -> tuple[float, ...]:
    if len(nodes) == 2:
        slope = -0.5 * _b(h, variant) / nodes[1]
        return slope, -slope
    return exponential_weights(h, nodes)


def _corrector_weights(h: float, nodes: tuple[float, ...], variant: Variant) -> tuple[float, ...]:
    """Those of the predictor's nodes, then of the new one, which lies at 1."""
    if len(nodes) == 1:
        half = 0.5 * _b(h, variant)
        return -half, half
    return exponential_weights(h, (*nodes, 1.0))


def _b(h: float, variant: Variant) -> float:
    return h if variant == "bh1" else -math.expm1(-h)
