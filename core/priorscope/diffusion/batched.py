"""A model asked about a large batch a part at a time, so that memory is that of a part."""

from __future__ import annotations

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Level, Model, Prediction, StepInfo
from priorscope.errors import InputError


class InBatches:
    """Ask ``model`` about at most ``size`` items at once.

    Parameters
    ----------
    model : Model
        Of items that do not see each other.
    size : int
        Items a network call, at least 1.

    Notes
    -----
    The calls for one batch count as one (:class:`StepInfo`), so a constraint or a solver sees no difference. Without
    gradients activations are those of ``size`` items, while x0 and eps of all items are kept.
    """

    def __init__(self, model: Model, size: int) -> None:
        if size < 1 or size != int(size):
            raise InputError(f"batches of {size} items", remedy="Use 1 or more.")
        self.model = model
        self.schedule = model.schedule
        self.size = int(size)

    def __call__(
        self,
        x: torch.Tensor,
        t: Level,
        condition: Condition | None = None,
        info: StepInfo | None = None,
    ) -> Prediction:
        if len(x) <= self.size:
            return self.model(x, t, condition, info)
        whole = Prediction(torch.empty_like(x), torch.empty_like(x))
        per_item = isinstance(t, torch.Tensor) and t.ndim > 0 and len(t) == len(x)
        for start in range(0, len(x), self.size):
            rows = slice(start, start + self.size)
            level = t[rows] if per_item else t  # type: ignore[index]
            part = self.model(x[rows], level, None if condition is None else condition.select(rows), info)
            whole.x0[rows], whole.eps[rows] = part
        return whole
