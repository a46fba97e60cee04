"""Diffusion Policy's running average of the weights, for training that has to equal the published one.

``train`` uses the average of priorscope's loop (:class:`priorscope.training.average.WeightAverage`), which has another
warm-up and no rule for batch norms.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def power_decay(
    step: int, *, power: float = 0.75, inv_gamma: float = 1.0, max_value: float = 0.9999, update_after_step: int = 0
) -> float:
    """Decay of the ``step``-th update, from 0: ``1 - (1 + s / inv_gamma)^-power``, and 0 for the first two."""
    after = max(0, step - update_after_step - 1)
    return 0.0 if after <= 0 else min(1 - (1 + after / inv_gamma) ** -power, max_value)


class PowerAverage:
    """An average whose decay grows with the number of updates.

    Weights of batch norms and weights that are not trained are copied; running statistics never are, as published.

    Parameters
    ----------
    model : Module
    power, inv_gamma, max_value, update_after_step
        See :func:`power_decay`.

    Attributes
    ----------
    average : Module
        A copy of ``model`` with the averaged weights.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        power: float = 0.75,
        inv_gamma: float = 1.0,
        max_value: float = 0.9999,
        update_after_step: int = 0,
    ) -> None:
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self._settings = {"power": power, "inv_gamma": inv_gamma, "max_value": max_value}
        self._after = update_after_step
        self._steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of ``model``."""
        decay = power_decay(self._steps, update_after_step=self._after, **self._settings)
        for module, kept in zip(model.modules(), self.average.modules(), strict=True):
            copied = isinstance(module, _BatchNorm)
            for weight, mean in zip(module.parameters(recurse=False), kept.parameters(recurse=False), strict=True):
                if copied or not weight.requires_grad:
                    mean.copy_(weight)
                else:
                    mean.mul_(decay).add_(weight, alpha=1 - decay)
        self._steps += 1
