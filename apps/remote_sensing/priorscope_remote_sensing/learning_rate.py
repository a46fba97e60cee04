"""The learning rate of SatDiFuser's training, by epoch."""

from __future__ import annotations

from priorscope.errors import InputError
from priorscope.training.learning_rate import rate_factor


def satdifuser_rate(
    epoch: int,
    *,
    total: int = 40,
    warmup: int = 5,
    start: float = 2e-5,
    peak: float = 1e-2,
    final: float = 1e-5,
) -> float:
    """Learning rate of an epoch: a straight line up to ``peak``, then a cosine down to ``final``, which holds.

    Parameters
    ----------
    epoch : int
        From 0.
    total : int
        Epoch at which ``final`` is reached.
    warmup : int
        Epochs from ``start`` to ``peak``.
    start, peak, final : float

    Source: ``WarmupCosineDecayScheduler`` of yurujaja/SatDiFuser, stepped once an epoch.
    """
    if epoch < 0 or not 0 <= warmup < total:
        raise InputError(f"epoch {epoch} of {total} with {warmup} of warm-up")
    if epoch < warmup:
        return start + (peak - start) * epoch / warmup
    return peak * rate_factor(epoch, total, warmup=warmup, final=final / peak)
