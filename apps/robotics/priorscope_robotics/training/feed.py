"""Batches of windows, fixed by (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.training.order import Order
from priorscope_robotics.data.episodes import Episodes
from priorscope_robotics.data.sequences import rows_of, window_indices
from priorscope_robotics.spec import PolicySpec


class Windows:
    """Windows of a plan's length.

    Parameters
    ----------
    spec : PolicySpec
    episodes : Episodes
        With actions as the network sees them.
    """

    def __init__(self, spec: PolicySpec, episodes: Episodes) -> None:
        self.spec = spec
        self.episodes = episodes
        # as published: the first observation may be repeated, and the last actions
        index = window_indices(
            episodes.ends, spec.horizon, before=spec.n_obs_steps - 1, after=max(spec.n_action_steps - 1, 0)
        )
        self.rows = np.array([rows_of(row, spec.horizon) for row in index], np.int64).reshape(-1, spec.horizon)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, places: Sequence[int] | NDArray[np.int64]) -> dict[str, Any]:
        """``obs.NAME`` (all T steps where observations are inpainted, else the first), and ``action`` (B, T, A)."""
        rows = self.rows[np.asarray(places)]
        seen = rows if self.spec.conditioning == "inpaint" else rows[:, : self.spec.n_obs_steps]
        found = {
            f"obs.{entry.name}": torch.from_numpy(np.asarray(self.episodes.observations[entry.name])[seen])
            for entry in self.spec.observations
        }
        return found | {"action": torch.from_numpy(self.episodes.actions[rows])}


@dataclass(frozen=True)
class WindowFeed:
    """A :class:`priorscope.training.Feed`: windows in random order, with the noise of each.

    Parameters
    ----------
    windows : Windows
    batch_size, seed : int

    Notes
    -----
    A batch holds what :meth:`Windows.batch` gives, ``eps`` (B, T, D), and ``share`` (B,) in [0, 1), from which a level
    is made. They are drawn for the whole batch and cut, so several processes learn what one learns.
    """

    windows: Windows
    batch_size: int
    seed: int

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        places = Order(len(self.windows), self.seed).batch(step, self.batch_size)
        spec = self.windows.spec
        random = np.random.default_rng([self.seed, step, 1])
        eps = random.standard_normal((self.batch_size, spec.horizon, spec.trajectory_dim), np.float32)
        share = random.random(self.batch_size)
        part = slice(rows.start, rows.stop)
        return {
            **self.windows.batch([place.item for place in places[part]]),
            "eps": torch.from_numpy(eps[part]),
            "share": torch.from_numpy(share[part]),
        }
