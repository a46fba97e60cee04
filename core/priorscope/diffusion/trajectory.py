"""How much a run changes its mind: the variance of the predicted clean sample over the last steps."""

from __future__ import annotations

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Level, Model, Prediction, StepInfo
from priorscope.errors import InputError

_OUTSIDE = "Watch the model that sample() is given, outside InBatches and guidance."


class TrajectoryVariance:
    """A model that watches its own x0 while a run goes on; afterwards it tells which samples to doubt.

    ``watched = TrajectoryVariance(denoiser); sample(watched, x, times); doubt = watched.score()``

    Samples between the modes of the data, which no training image looks like, have an x0 that still moves late in the
    run. So a high score speaks of a hallucination, compared with other samples of the same model and run length.

    Parameters
    ----------
    model : Model
        To watch what a measurement makes of x0, give ``Constrained(model, constraint)`` instead of passing the
        constraint to the run.
    last : int
        How many of the last steps count, 2 or more.

    Notes
    -----
    Only running sums are kept: one tensor for the mean and one for the spread, of the shape of x, in float64. Of a step
    with several network calls the first counts. Source: Aithal et al. 2024; their code counts the last 10 unless told
    otherwise.
    """

    def __init__(self, model: Model, last: int = 10) -> None:
        if last < 2:
            raise InputError(f"a variance over {last} steps", remedy="Use 2 or more.")
        self.model = model
        self.schedule = model.schedule
        self.last = last
        self._forget()

    def _forget(self) -> None:
        self.steps = 0
        self._index = -1
        self._mean: torch.Tensor | None = None
        self._spread: torch.Tensor | None = None

    def __call__(
        self,
        x: torch.Tensor,
        t: Level,
        condition: Condition | None = None,
        info: StepInfo | None = None,
    ) -> Prediction:
        if info is None:
            raise InputError("a trajectory was watched outside a run", remedy="Use it as the model of sample().")
        if info.index == 0 and info.call == 0:
            self._forget()
        prediction = self.model(x, t, condition, info)
        if info.call == 0 and info.total - info.index <= self.last:
            self._add(prediction.x0.detach(), info.index)
        return prediction

    def _add(self, x0: torch.Tensor, index: int) -> None:
        """Welford's running mean and sum of squared deviations: the spread may be a small part of the values."""
        if index == self._index:
            raise InputError(f"step {index} of a trajectory was watched twice", remedy=_OUTSIDE)
        x0, self._index = x0.double(), index
        self.steps += 1
        if self._mean is None or self._spread is None:
            self._mean, self._spread = x0.clone(), torch.zeros_like(x0)
            return
        if x0.shape != self._mean.shape:
            raise InputError(
                f"a trajectory of shape {tuple(self._mean.shape)} went on with {tuple(x0.shape)}",
                remedy=_OUTSIDE,
            )
        step = x0 - self._mean
        self._mean += step / self.steps
        self._spread += step * (x0 - self._mean)

    def variance(self) -> torch.Tensor:
        """Variance of x0 over the steps, shape of x: a map of where the sample is in doubt, in units of x0 squared.

        Raises
        ------
        InputError
            Before two of the last steps are done.
        """
        if self._spread is None or self.steps < 2:
            raise InputError(f"only {self.steps} steps were watched", remedy="Run sample() with 2 steps or more.")
        return self._spread / self.steps

    def score(self) -> torch.Tensor:
        """Mean of :meth:`variance` over each item, (B,)."""
        return self.variance().flatten(1).mean(1)
