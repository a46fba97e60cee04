"""The course of the learning rate."""

from __future__ import annotations

import math

from priorscope.errors import InputError


def rate_factor(step: int, total: int, *, schedule: str = "cosine", warmup: int = 0, final: float = 0.01) -> float:
    """Share of the highest learning rate at a step.

    Parameters
    ----------
    step : int
        From 0; the value holds for the update that follows ``step`` updates.
    total : int
        Steps of the whole run. Beyond, the last value holds.
    schedule : {"constant", "cosine", "linear", "exponential"}
        ``exponential`` falls as ``final ** ((step - warmup) / (total - warmup))``: Marigold's ``IterExponential``,
        which warms up from 0.
    warmup : int
        Steps of a linear rise to 1. Except for ``exponential`` the first update has 1 / warmup, not 0.
    final : float
        Share at the end.
    """
    if schedule not in ("constant", "cosine", "linear", "exponential"):
        raise InputError(
            f"learning-rate schedule {schedule!r}", remedy="Use 'constant', 'cosine', 'linear' or 'exponential'."
        )
    if step < warmup:
        return step / warmup if schedule == "exponential" else (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    share = min((step - warmup) / max(total - warmup, 1), 1.0)
    if schedule == "exponential":
        return final**share
    left = 0.5 * (1 + math.cos(math.pi * share)) if schedule == "cosine" else 1 - share
    return final + (1 - final) * left
