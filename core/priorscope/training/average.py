"""The running average of the weights, and a way to work with it for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """Exponential moving average of the weights that are trained (diffusers' ``EMAModel``).

    Parameters
    ----------
    model : Module
    decay : float
        Of one step. Early on it is (1 + n) / (10 + n) after n steps, so that the first weights are forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        from diffusers.training_utils import EMAModel

        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._average = EMAModel(self._weights, decay=decay)

    def update(self) -> None:
        """Take in the present weights; call it after each step."""
        self._average.step(self._weights)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model has the averaged weights; nothing is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for weight, average in zip(self._weights, self._average.shadow_params, strict=True):
            weight.data, average.data = average.data, weight.data

    def to(self, device: torch.device) -> WeightAverage:
        """Move; the model must have moved before."""
        self._average.to(device)
        return self

    def state_dict(self) -> dict[str, Any]:
        return self._average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self._weights[0].device
        self._average.load_state_dict(state)
        self._average.to(device)
