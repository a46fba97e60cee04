"""A difficulty curriculum: noise levels join a training from the noisiest, which are the easiest, to the cleanest."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from priorscope.diffusion.schedule import VPSchedule
from priorscope.errors import InputError
from priorscope.training.aids import CurriculumConfig


class DifficultyCurriculum:
    """Draws steps for a loss from the groups that have joined; a new one joins when the loss gets no better.

    In a :class:`~priorscope.training.task.Task`: draw with :meth:`draw`, hand the logged loss to :meth:`told` in
    ``Task.told``, and name the curriculum in ``Task.checkpoint_parts``, so that a resumed run goes on exactly.

    Parameters
    ----------
    schedule : VPSchedule
    config : CurriculumConfig

    Attributes
    ----------
    joined : int
        Groups that have joined, from 1 on.
    edges : list of int
        First step of each group, from the cleanest, and the number of steps.

    Notes
    -----
    All steps that have joined are equally likely. The order and the patience are those of Kim et al. 2025
    (arXiv 2403.10348); the widths of the groups and the unit of patience, rows of the log, are ours.
    """

    def __init__(self, schedule: VPSchedule, config: CurriculumConfig) -> None:
        config.check()
        self.edges = cluster_edges(schedule, config)
        self.patience = config.patience
        self.joined = 1
        self._best = math.inf
        self._waited = 0

    def draw(self, count: int) -> torch.Tensor:
        """Random steps (count,), float32, drawn on the CPU from torch's global generator."""
        return torch.randint(self.edges[-1 - self.joined], self.edges[-1], (count,)).float()

    def told(self, loss: float) -> bool:
        """Take in the mean loss since the last row of the log; whether a group joins now.

        All processes of a run must be told the same loss, as the loop does.
        """
        if self.joined == len(self.edges) - 1:
            return False
        if loss < self._best:
            self._best, self._waited = loss, 0
            return False
        self._waited += 1
        if self._waited < self.patience:
            return False
        # the new group has a loss of its own
        self.joined, self._best, self._waited = self.joined + 1, math.inf, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"edges": self.edges, "joined": self.joined, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["edges"] != self.edges:
            raise ValueError("groups of other noise levels")
        self.joined, self._best, self._waited = int(state["joined"]), float(state["best"]), int(state["waited"])


def cluster_edges(schedule: VPSchedule, config: CurriculumConfig) -> list[int]:
    """First steps of groups that are equally wide in steps or in log-SNR, and T at the end: clusters + 1 numbers.

    Raises
    ------
    InputError
        If a group would hold no step.
    """
    steps = schedule.num_steps
    if config.by == "step":
        edges = [round(steps * number / config.clusters) for number in range(config.clusters + 1)]
    else:
        noise = -np.array([schedule.log_snr(step) for step in range(steps)])
        known = noise[np.isfinite(noise)]  # pure noise, where there is such a step, belongs to the last group
        bounds = np.linspace(known[0], known[-1], config.clusters + 1)[1:-1]
        edges = [0, *np.searchsorted(noise, bounds).tolist(), steps]
    if any(start >= end for start, end in pairwise(edges)):
        raise InputError(
            f"{config.clusters} groups of {steps} steps by {config.by} leave some without a step",
            remedy="Use fewer clusters.",
        )
    return edges
