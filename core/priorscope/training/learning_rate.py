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
    schedule : {"constant", "cosine", "linear", "exponential", "one-cycle"}
        ``exponential`` falls as ``final ** ((step - warmup) / (total - warmup))``: Marigold's ``IterExponential``,
        which warms up from 0. ``one-cycle`` rises and falls along cosines, from 1 / 25 to 1 to ``final``, as torch's
        ``OneCycleLR`` (there ``final`` is 4e-6), which GalaxySD was trained with.
    warmup : int
        Steps of the rise to 1, linear except for ``one-cycle``. Except for ``exponential`` the first update has
        1 / warmup, not 0; for ``one-cycle`` 1 / 25.
    final : float
        Share at the end.
    """
    if schedule not in ("constant", "cosine", "linear", "exponential", "one-cycle"):
        raise InputError(
            f"learning-rate schedule {schedule!r}",
            remedy="Use 'constant', 'cosine', 'linear', 'exponential' or 'one-cycle'.",
        )
    if schedule == "one-cycle":
        return _one_cycle(step, total, warmup, final)
    if step < warmup:
        return step / warmup if schedule == "exponential" else (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    share = min((step - warmup) / max(total - warmup, 1), 1.0)
    if schedule == "exponential":
        return final**share
    return _cosine(1.0, final, share) if schedule == "cosine" else final + (1 - final) * (1 - share)


def _one_cycle(step: int, total: int, warmup: int, final: float) -> float:
    """Smith and Topin 2018; the highest rate is that of the last step of the warm-up."""
    top = max(warmup - 1, 0)
    if step < top:
        return _cosine(1 / 25, 1.0, step / top)
    return _cosine(1.0, final, min((step - top) / max(total - 1 - top, 1), 1.0))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (0.5 * (1 + math.cos(math.pi * share)))
