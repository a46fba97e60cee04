"""At which level a warm-started run should begin: read off full runs that were recorded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from priorscope.diffusion.schedule import VPSchedule
from priorscope.errors import InputError
from priorscope_robotics.policies.rti import shifted


@dataclass(frozen=True)
class StartProposal:
    """Where to begin."""

    level: int
    """The lowest whose noise hides the typical error of the shifted plan."""
    error: float
    """Root mean square of that error, in normalised units."""
    published_level: int
    """argmin over k of the mean of |shifted plan - sqrt(abar_k) next plan|, as the paper suggests; the better of
    the two where both were tried (benchmarks/RESULTS.md, step 7)."""


def propose_start(plans: torch.Tensor, schedule: VPSchedule, *, shift: int = 1, quantile: float = 0.5) -> StartProposal:
    """Propose a level from the plans of full runs along episodes.

    Parameters
    ----------
    plans : Tensor (N, B, T, D)
        Normalised plans of N control steps in a row, in B environments; without entries that are known.
    schedule : VPSchedule
    shift : int
        Steps executed between two of them.
    quantile : float
        Which of the errors the noise must hide: 0.5 is the typical one. Samples of a policy that has several ways to go
        differ by more than a guess errs, so the mean would propose levels that are too high.

    Notes
    -----
    An error e is hidden by noise of sigma_k / alpha_k >= e (:func:`priorscope.diffusion.warm_start.late_start`). The
    paper's rule compares a clean plan with one that is only scaled: there is no noise in it. It proposed higher levels
    in the tasks that we tried, which did better: a plan that must change its mind once in a while errs little in most
    steps.
    """
    if plans.ndim != 4 or len(plans) < 2:
        raise InputError(f"recorded plans of shape {tuple(plans.shape)}", remedy="Record two control steps or more.")
    before, after = plans[:-1].flatten(0, 1), plans[1:].flatten(0, 1)
    guess = shifted(before, shift)
    kept = plans.shape[2] - shift  # the repeated last step was never planned
    guess, after = guess[:, :kept].double(), after[:, :kept].double()
    errors = (guess - after).square().flatten(1).mean(1).sqrt()
    error = float(torch.quantile(errors, quantile))
    alpha = np.sqrt(schedule.alphas_cumprod)
    spread = np.sqrt(1 - schedule.alphas_cumprod) / np.maximum(alpha, 1e-30)
    enough = np.nonzero(spread >= error)[0]
    level = int(enough[0]) if len(enough) else schedule.num_steps - 1
    distances = [float((guess - float(a) * after).flatten(1).norm(dim=1).mean()) for a in alpha]
    return StartProposal(level, error, int(np.argmin(distances)))


def levels_down(start: int, calls: int) -> list[int]:
    """``calls`` falling levels from ``start`` to 0 with equal gaps; fewer where there are not so many.

    >>> levels_down(15, 4)
    [15, 10, 5, 0]
    """
    if start < 0 or calls < 1:
        raise InputError(f"{calls} levels from {start} on")
    if calls == 1:
        return [start]
    return sorted({round(float(level)) for level in np.linspace(start, 0, min(calls, start + 1))}, reverse=True)
