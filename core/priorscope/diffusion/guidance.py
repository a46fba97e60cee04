"""Guidance: denoisers made of denoisers."""

from __future__ import annotations

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Level, Model, Prediction, StepInfo
from priorscope.errors import InputError


class ClassifierFreeGuidance:
    """Move away from the unconditional prediction: u + scale (c - u), on x0 and eps alike.

    Both are affine in the network's output at a given x_t, so this equals guiding the output itself, whatever
    its parametrisation.

    Parameters
    ----------
    model : Model
        The denoiser to guide.
    unconditional : Condition
        What replaces the condition in the unconditional pass; names it lacks are kept from the condition.
    scale : float
        1 gives the conditional prediction in one pass; Ho and Salimans' w is ``scale - 1``.
    batched : bool
        Ask the network once with both halves (default), or twice to save memory.

    Source: Ho and Salimans 2022.
    """

    def __init__(self, model: Model, unconditional: Condition, scale: float, *, batched: bool = True) -> None:
        self.model = model
        self.schedule = model.schedule
        self.unconditional = unconditional
        self.scale = float(scale)
        self.batched = batched

    def __call__(
        self,
        x: torch.Tensor,
        t: Level,
        condition: Condition | None = None,
        info: StepInfo | None = None,
    ) -> Prediction:
        if condition is None:
            raise InputError("classifier-free guidance was asked without a condition")
        if self.scale == 1.0:
            return self.model(x, t, condition, info)
        without = condition.merged(self.unconditional)
        batch = x.shape[0]
        if self.batched:
            both = Condition.cat([(condition, batch), (without, batch)])
            level = torch.cat([t, t]) if isinstance(t, torch.Tensor) and t.ndim > 0 and t.shape[0] == batch else t
            joint = self.model(torch.cat([x, x]), level, both, info)
            given, free = (Prediction(*half) for half in zip(*(part.chunk(2) for part in joint), strict=True))
        else:
            given = self.model(x, t, condition, info)
            free = self.model(x, t, without, info)
        return Prediction(torch.lerp(free.x0, given.x0, self.scale), torch.lerp(free.eps, given.eps, self.scale))
