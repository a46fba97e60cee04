"""Several independent priors side by side, asked as one: the state holds a part for each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Level, Model, Prediction, StepInfo
from priorscope.diffusion.schedule import Schedule
from priorscope.errors import InputError


class Parts:
    """How the parts of a state lie in it.

    Parts that differ in nothing but their channels are stacked along the channels, so that the state is an image;
    others are flattened and joined: (B, sum of their sizes).

    Parameters
    ----------
    shapes : sequence of tuple of int
        Shape of one item of each part, without the batch; at least one.
    """

    def __init__(self, shapes: Sequence[Sequence[int]]) -> None:
        self.shapes = [tuple(int(side) for side in shape) for shape in shapes]
        if not self.shapes or any(not shape or min(shape) < 1 for shape in self.shapes):
            raise InputError(f"parts of shapes {self.shapes}", remedy="Give the shape of one item of each part.")
        self.stacked = len({shape[1:] for shape in self.shapes}) == 1
        self.lengths = [shape[0] if self.stacked else math.prod(shape) for shape in self.shapes]
        #: Shape of one item of the state.
        self.shape = (sum(self.lengths), *(self.shapes[0][1:] if self.stacked else ()))

    def __len__(self) -> int:
        return len(self.shapes)

    def join(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The state of these parts, each (B, *shape)."""
        if [tuple(part.shape[1:]) for part in parts] != self.shapes:
            raise InputError(f"parts of shapes {[tuple(part.shape[1:]) for part in parts]}, not {self.shapes}")
        return torch.cat([part if self.stacked else part.flatten(1) for part in parts], 1)

    def split(self, state: torch.Tensor) -> list[torch.Tensor]:
        """The parts (B, *shape) of a state."""
        if tuple(state.shape[1:]) != self.shape:
            raise InputError(f"a state of shape {tuple(state.shape)}, not (B, {', '.join(map(str, self.shape))})")
        pieces = state.split(self.lengths, 1)
        return [piece.reshape(-1, *shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def factors(self, values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
        """One number a part, spread so that it multiplies a state: (1, C, 1, ...) in the type of ``like``."""
        if len(values) != len(self):
            raise InputError(f"{len(values)} numbers for {len(self)} parts", remedy="Give one for each part.")
        spread = [float(value) for value, length in zip(values, self.lengths, strict=True) for _ in range(length)]
        return torch.tensor(spread, dtype=like.dtype.to_real(), device=like.device).view(1, -1, *(1,) * (like.ndim - 2))


class ProductDenoiser:
    """Independent priors as one model of the joined state: each answers for its own part.

    Parameters
    ----------
    models : sequence of Model
        One a part, all on one schedule.
    parts : Parts
        How the state is made of them.
    conditions : sequence of Condition or None, optional
        What each network is told; a condition given with the call goes to all of them instead.

    Raises
    ------
    InputError
        The schedules differ, or the numbers of models and parts do.
    """

    def __init__(
        self, models: Sequence[Model], parts: Parts, conditions: Sequence[Condition | None] | None = None
    ) -> None:
        if len(models) != len(parts):
            raise InputError(f"{len(models)} models for {len(parts)} parts", remedy="Give one for each part.")
        self.models, self.parts = list(models), parts
        self.conditions = [None] * len(parts) if conditions is None else list(conditions)
        if len(self.conditions) != len(parts):
            raise InputError(f"{len(self.conditions)} conditions for {len(parts)} parts", remedy="Give one for each.")
        self.schedule: Schedule = self.models[0].schedule
        for other in self.models[1:]:
            if not _same(self.schedule, other.schedule):
                raise InputError("the priors stand on different schedules", remedy="Train or convert them to one.")

    def __call__(
        self,
        x: torch.Tensor,
        t: Level,
        condition: Condition | None = None,
        info: StepInfo | None = None,
    ) -> Prediction:
        """Ask all of them about the state ``x`` (B, *parts.shape); ``t`` is a number or (B,)."""
        if isinstance(t, torch.Tensor) and t.ndim > 1:
            t = t.flatten()
        answers = [
            model(part, t, own if condition is None else condition, info)
            for model, part, own in zip(self.models, self.parts.split(x), self.conditions, strict=True)
        ]
        return Prediction(
            self.parts.join([answer.x0 for answer in answers]), self.parts.join([answer.eps for answer in answers])
        )


def _same(first: Schedule, second: Schedule) -> bool:
    if first is second:
        return True
    if type(first) is not type(second) or (first.start, first.end) != (second.start, second.end):
        return False
    levels = (first.start, round((first.start + first.end) / 2, 0 if first.start > 1 else 3), first.end)
    return all(first(level) == second(level) for level in levels)
