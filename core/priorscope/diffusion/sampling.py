"""The loop that all samplers share, with its three openings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Level, Model, Prediction, StepInfo
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.solvers import Step, ddim
from priorscope.errors import InputError

Constraint = Callable[[torch.Tensor, Level, Prediction, StepInfo], Prediction]
#: ``known(x, t)`` and ``correct(x, s)`` act on the noisy sample.
SampleEdit = Callable[[torch.Tensor, float], torch.Tensor]


class Constrained:
    """A model whose prediction is corrected by what a measurement says.

    ``constraint(x, t, prediction, info) -> Prediction`` decides whether eps is kept or derived again. One that
    differentiates through the network sets the attribute ``needs_grad = True``: then ``x`` carries a gradient
    and the result is detached after every step.
    """

    def __init__(self, model: Model, constraint: Constraint) -> None:
        self.model = model
        self.schedule = model.schedule
        self.constraint = constraint

    def __call__(
        self,
        x: torch.Tensor,
        t: Level,
        condition: Condition | None = None,
        info: StepInfo | None = None,
    ) -> Prediction:
        info = info or StepInfo()
        if not getattr(self.constraint, "needs_grad", False):
            return self.constraint(x, t, self.model(x, t, condition, info), info)
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            prediction = self.constraint(x, t, self.model(x, t, condition, info), info)
        return Prediction(prediction.x0.detach(), prediction.eps.detach())


class _Bound:
    """A model with its condition filled in and its calls counted, as solvers see it."""

    def __init__(self, model: Model, condition: Condition | None) -> None:
        self.model = model
        self.schedule = model.schedule
        self.condition = condition
        self.info = StepInfo()

    def __call__(
        self,
        x: torch.Tensor,
        t: Level,
        condition: Condition | None = None,
        info: StepInfo | None = None,
    ) -> Prediction:
        prediction = self.model(x, t, self.condition if condition is None else condition, self.info)
        self.info = replace(self.info, call=self.info.call + 1)
        return prediction


def sample(
    model: Model,
    x: torch.Tensor,
    times: Sequence[float],
    *,
    step: Step = ddim,
    noise: Noise | None = None,
    condition: Condition | None = None,
    constraint: Constraint | None = None,
    known: SampleEdit | None = None,
    correct: SampleEdit | None = None,
    callback: Callable[[StepInfo, torch.Tensor, float], None] | None = None,
    progress: bool = False,
) -> torch.Tensor:
    """Carry ``x`` through the levels ``times`` and return it at the last one.

    Parameters
    ----------
    model : Model
        A denoiser, guided or not.
    x : Tensor of shape (B, ...)
        The noisy sample at ``times[0]``: sigma times noise when that level is pure noise.
    times : sequence of float
        Levels, usually from high noise to low (:func:`~priorscope.diffusion.spaced_times`); rising levels with
        a deterministic solver are DDIM inversion.
    step : solver
        See :mod:`priorscope.diffusion.solvers`.
    noise : Noise, optional
        For stochastic solvers.
    condition : Condition, optional
        Passed to the network at every call.
    constraint, known, correct : callable, optional
        The three openings. ``known(x, t)`` overwrites what is known before a step, ``constraint`` corrects the
        model's belief, ``correct(x, s)`` acts on the sample after the step.
    callback : callable, optional
        ``callback(info, x, s)`` after every step.
    progress : bool
        Show a bar.

    Returns
    -------
    Tensor of shape (B, ...)
    """
    if len(times) < 2:
        raise InputError(f"a run needs at least two levels, got {list(times)}")
    bound = _Bound(Constrained(model, constraint) if constraint else model, condition)
    steps = list(pairwise(float(t) for t in times))
    state, run = None, object()
    with torch.no_grad():
        for index, (t, s) in enumerate(_track(steps, progress)):
            bound.info = StepInfo(index, len(steps), run=run)
            if known is not None:
                x = known(x, t)
            x, state = step(bound, x, t, s, state, noise)
            if correct is not None:
                x = correct(x, s)
            if callback is not None:
                callback(bound.info, x, s)
    return x


def _track(steps: Sequence[tuple[float, float]], progress: bool) -> Sequence[tuple[float, float]]:
    if not progress:
        return steps
    from rich.progress import track

    return track(steps, description="sampling")  # type: ignore[return-value]
