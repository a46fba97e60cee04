"""The running average of the weights, and a way to work with it for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Exponential moving average of the weights that are trained.

    The rule is that of diffusers' ``EMAModel``, whose module takes seconds to import.

    Parameters
    ----------
    model : Module
    decay : float
        Of one step. Early on it is (1 + n) / (10 + n) after n steps, so that the first weights are forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._averages = [weight.detach().clone() for weight in self._weights]
        self._updates = 0

    def update(self) -> None:
        """Take in the present weights; call it after each step."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates)) if self._updates else 0.0
        self._updates += 1
        get_ema_multi_avg_fn(decay)(self._averages, [weight.detach() for weight in self._weights], None)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model has the averaged weights; nothing is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for weight, average in zip(self._weights, self._averages, strict=True):
            weight.data, average.data = average.data, weight.data

    def state_dict(self) -> dict[str, Any]:
        return {"optimization_step": self._updates, "shadow_params": self._averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore; also what ``EMAModel`` saved."""
        shapes = [tuple(average.shape) for average in state["shadow_params"]]
        if shapes != [tuple(weight.shape) for weight in self._weights]:
            raise ValueError("averages of other weights")
        self._updates = int(state["optimization_step"])
        for average, stored in zip(self._averages, state["shadow_params"], strict=True):
            average.copy_(stored)
