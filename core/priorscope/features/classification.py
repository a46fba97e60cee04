"""Zero-shot classification by a conditional denoiser: the class under which the noise is predicted best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Model
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.schedule import VPSchedule
from priorscope.errors import InputError

Loss = Literal["l2", "l1", "huber"]


@dataclass(frozen=True)
class Elimination:
    """How many noise levels each class is tried at before the worst ones are left out.

    Parameters
    ----------
    samples : tuple of int
        Noise levels after each round, counted from the start; growing. Grids that do not lie in each other, such
        as 4 and 10 of 20, take a few more.
    keep : tuple of int
        Classes kept after each round; the last is 1.
    trials : int
        Noises drawn at each level.
    loss : {"l2", "l1", "huber"}
        Distance between noise and prediction, averaged over a sample.
    significance : float, optional
        Also leave out, after each round, the classes that are worse than the best at this level: a one-sided
        t-test on the paired differences, divided by the number of comparisons (Bonferroni). With None only
        ``keep`` decides, as published.

    Notes
    -----
    The differences of two classes' errors under one and the same noise vary far less than either error. Each
    round's levels are spread over the whole schedule, which makes the test conservative.
    """

    samples: tuple[int, ...] = (50, 500)
    keep: tuple[int, ...] = (5, 1)
    trials: int = 1
    loss: Loss = "l2"
    significance: float | None = None

    def __post_init__(self) -> None:
        growing = all(early < late for early, late in zip(self.samples, self.samples[1:], strict=False))
        if not self.samples or self.samples[0] < 1 or not growing:
            raise InputError(f"samples {self.samples}", remedy="Give growing numbers of noise levels, from 1.")
        if len(self.keep) != len(self.samples) or self.keep[-1] != 1 or min(self.keep) < 1:
            raise InputError(f"keep {self.keep} for {len(self.samples)} rounds", remedy="Give one a round, 1 last.")
        if self.trials < 1 or self.loss not in get_args(Loss):
            raise InputError(f"{self.trials} trials with the loss {self.loss!r}")
        if self.significance is not None and not 0 < self.significance < 1:
            raise InputError(f"significance {self.significance}", remedy="Use a number between 0 and 1, or None.")

    def levels(self, num_steps: int = 1000) -> list[list[int]]:
        """The new noise levels of each round, among the steps of a discrete schedule.

        The finest round takes every (num_steps // n)-th step; coarser rounds take every so many of those.
        """
        finest = self.samples[-1]
        if finest > num_steps:
            raise InputError(f"{finest} noise levels of a schedule of {num_steps} steps")
        stride = num_steps // finest
        every = list(range(stride // 2, num_steps, stride))[:finest]
        done: set[int] = set()
        rounds = []
        for count in self.samples:
            step = len(every) // count
            new = [level for level in every[step // 2 :: step][:count] if level not in done]
            done.update(new)
            rounds.append(new)
        return rounds


@dataclass(frozen=True)
class Classification:
    """What came of one image.

    Attributes
    ----------
    label : int
        Row of the winning class.
    errors : tuple of float array [n_c]
        Errors of each class in the order they were found; entry i of every class had the same level and noise.
    levels : int array [n_max]
        Their noise levels.
    calls : int
        Samples that went through the network.
    """

    label: int
    errors: tuple[NDArray[np.float32], ...]
    levels: NDArray[np.int64]
    calls: int

    @property
    def mean_errors(self) -> NDArray[np.float64]:
        """Mean error of each class [P]; classes left out early have fewer terms."""
        return np.array([errors.mean(dtype=np.float64) for errors in self.errors])


@torch.no_grad()
def classify(
    model: Model,
    latent: torch.Tensor,
    classes: Condition,
    elimination: Elimination | None = None,
    *,
    noise: Noise | None = None,
    batch_size: int = 32,
) -> Classification:
    """Find the class whose condition lets the model predict the noise in ``latent`` best.

    Parameters
    ----------
    model : Denoiser
        Of any prediction type on a discrete schedule; compared is always the noise.
    latent : Tensor (1, C, h, w) or (C, h, w)
        One clean image in the model's latent space: the posterior's mean, scaled.
    classes : Condition
        One row a class, for instance the text states of "a photo of a cat".
    elimination : Elimination
        Rounds; default 50 levels, then 500 for the best five.
    noise : Noise, optional
        Asked once for (trials * samples[-1], C, h, w); sample i is that of the i-th level and trial, whatever
        the class. Default: fixed seeds, so that a result depends on nothing but the image.
    batch_size : int

    Returns
    -------
    Classification

    Source: Li et al. 2023 (Your Diffusion Model is Secretly a Zero-Shot Classifier), eval_prob_adaptive.py. The
    official code halves the schedule along with the network; here it is float64 always.
    """
    plan = elimination or Elimination()
    if not isinstance(latent, torch.Tensor):
        raise InputError(f"a latent of type {type(latent).__name__}", remedy="torch.as_tensor makes a Tensor of it.")
    latent = latent[None] if latent.ndim == 3 else latent
    if latent.ndim != 4 or latent.shape[0] != 1 or not torch.isfinite(latent).all():
        raise InputError(f"a latent of shape {tuple(latent.shape)}", remedy="Give one finite (1, C, h, w).")
    if batch_size < 1:
        raise InputError(f"batch size {batch_size}", remedy="Use at least 1.")
    if not isinstance(model.schedule, VPSchedule):
        raise InputError(f"a {type(model.schedule).__name__}", remedy="Use a model on a discrete schedule.")
    count = _rows(classes)
    classes = classes.to(latent.device)
    rounds = plan.levels(model.schedule.num_steps)
    total = plan.trials * plan.samples[-1]
    noise = noise or Noise.for_items(0, range(total))
    eps = noise.draw((total, *latent.shape[1:]), device=latent.device, dtype=latent.dtype)
    errors: list[list[float]] = [[] for _ in range(count)]
    left, calls, done = list(range(count)), 0, 0
    comparisons = len(rounds) * max(count - 1, 1)
    for new, kept in zip(rounds, plan.keep, strict=True):
        level = torch.tensor(new).repeat_interleave(plan.trials)
        mine = eps[done : done + len(level)]
        done += len(level)
        noisy = model.schedule.add_noise(latent.expand(len(mine), -1, -1, -1), level, mine)
        pairs = torch.cartesian_prod(torch.tensor(left), torch.arange(len(level)))
        distances = []
        for some in pairs.split(batch_size):
            which = some[:, 1].to(latent.device)
            told = classes.select(some[:, 0].to(latent.device))
            found = model(noisy[which], level[some[:, 1]], told).eps  # levels stay on the host
            distances.append(_distance(mine[which], found, plan.loss))
        found_errors = torch.cat(distances).tolist()
        if not np.isfinite(found_errors).all():
            raise InputError("the network gives NaN or infinite values", remedy="Use float32, and finite classes.")
        for row, value in zip(pairs[:, 0].tolist(), found_errors, strict=True):
            errors[row].append(value)
        calls += len(pairs)
        left = sorted(left, key=lambda row: float(np.mean(errors[row])))[:kept]
        if plan.significance is not None:
            left = _not_worse(left, errors, plan.significance / comparisons)
        if len(left) == 1:
            break
    every = np.concatenate([np.repeat(new, plan.trials) for new in rounds])
    longest = max(len(values) for values in errors)
    table = tuple(np.array(values, np.float32) for values in errors)
    return Classification(left[0], table, every[:longest].astype(np.int64), calls)


def _distance(eps: torch.Tensor, found: torch.Tensor, loss: Loss) -> torch.Tensor:
    if loss == "l2":
        each = functional.mse_loss(found, eps, reduction="none")
    elif loss == "l1":
        each = functional.l1_loss(found, eps, reduction="none")
    else:
        each = functional.huber_loss(found, eps, reduction="none")
    return each.flatten(1).mean(1)


def _not_worse(left: Sequence[int], errors: Sequence[Sequence[float]], level: float) -> list[int]:
    """``left``, best first, without those whose paired differences to the best are significantly above 0."""
    from scipy.stats import ttest_1samp

    best = np.array(errors[left[0]])
    kept = [left[0]]
    for row in left[1:]:
        difference = np.array(errors[row]) - best
        if len(difference) < 2 or not ttest_1samp(difference, 0.0, alternative="greater").pvalue < level:
            kept.append(row)
    return kept


def _rows(classes: Condition) -> int:
    rows = [value.shape[0] for name, value in classes.tensors.items() if name not in classes.shared]
    if not rows or rows[0] < 1:
        raise InputError("no classes", remedy="Give a condition with one row a class.")
    return rows[0]
