"""Recorded episodes, laid end to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError


@dataclass(frozen=True)
class Episodes:
    """Observations and actions of E episodes of N steps in all.

    Parameters
    ----------
    observations : mapping of str to array
        (N, D) float32 vectors, or (N, C, H, W) uint8 images, by name.
    actions : array (N, A)
        float32; what was done after the observation of the same row.
    ends : array (E,)
        int64; one past the last row of each episode.
    fps : float
        Control steps a second; 0: not told.
    title : str
    """

    observations: Mapping[str, NDArray[np.generic]]
    actions: NDArray[np.float32]
    ends: NDArray[np.int64]
    fps: float = 0.0
    title: str = ""

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def steps(self) -> int:
        """N."""
        return len(self.actions)

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first row of each episode."""
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])

    def lengths(self) -> NDArray[np.int64]:
        """Steps of each episode."""
        return self.ends - self.starts

    def select(self, mask: NDArray[np.bool_]) -> Episodes:
        """Some of the episodes."""
        rows = np.concatenate(
            [np.arange(s, e) for s, e, kept in zip(self.starts, self.ends, mask, strict=True) if kept]
            or [np.zeros(0, np.int64)]
        )
        return Episodes(
            {name: value[rows] for name, value in self.observations.items()},
            self.actions[rows],
            np.cumsum(self.lengths()[mask]),
            self.fps,
            self.title,
        )

    def only(self, names: Sequence[str]) -> Episodes:
        """With some of the observations, in this order.

        Raises
        ------
        InputError
            One is not there.
        """
        missing = [name for name in names if name not in self.observations]
        if missing:
            raise InputError(
                f"no observation {', '.join(missing)} in {self.title or 'the data'}",
                remedy=f"There are {', '.join(self.observations)}.",
            )
        kept = {name: self.observations[name] for name in names}
        return Episodes(kept, self.actions, self.ends, self.fps, self.title)

    def check(self, path: str | PathLike[str] | None = None) -> Episodes:
        """Refuse what no training survives; returns itself.

        Raises
        ------
        InputError
            Shapes are others, lengths differ, ends do not rise to the last row, nothing is there, or a number is not
            finite: the key, the episode and the step are named.
        """
        path = None if path is None else Path(path)
        for name, value in {**self.observations, "action": self.actions}.items():
            fact = f"{name!r} has shape {value.shape}"
            if value.ndim == 4 and name in self.observations:
                if value.dtype != np.uint8:
                    raise InputError(f"{fact} and is {value.dtype}: images are bytes of 0 ... 255", path=path)
                if value.shape[1] not in (1, 3):
                    raise InputError(f"{fact}: images come channels first, (steps, 1 or 3, height, width)", path=path)
            elif value.ndim != 2:
                raise InputError(f"{fact}, not (steps, numbers)", path=path)
        for name, value in self.observations.items():
            if len(value) != self.steps:
                raise InputError(f"{name!r} has {len(value)} steps, the actions have {self.steps}", path=path)
        if not len(self.ends) or not self.steps:
            raise InputError("holds no episode", path=path)
        if np.any(np.diff(self.ends) < 1) or self.ends[0] < 1:
            raise InputError("its episode ends do not rise", path=path)
        if self.ends[-1] != self.steps:
            raise InputError(
                f"its last episode ends at step {self.ends[-1]}, but there are {self.steps} steps",
                path=path,
                remedy="The end of an episode is missing, or the recording broke off: drop the rest.",
            )
        for name, value in {**self.observations, "action": self.actions}.items():
            if not np.issubdtype(value.dtype, np.floating):
                continue
            for start in range(0, self.steps, 4096):
                bad = ~np.isfinite(value[start : start + 4096]).reshape(len(value[start : start + 4096]), -1).all(1)
                if bad.any():
                    row = start + int(np.argmax(bad))
                    episode = int(np.searchsorted(self.ends, row, side="right"))
                    raise InputError(
                        f"{name!r} is not finite in episode {episode} at step {row - int(self.starts[episode])}",
                        path=path,
                        remedy="Drop that episode, or mend it.",
                    )
        return self


def as_images(value: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    """Images (N, H, W, C) of 0 ... 255, or floats none of which is above 1, as (N, C, H, W) uint8.

    Raises
    ------
    InputError
        They have other than 1 or 3 channels at the end.
    """
    if value.ndim != 4 or value.shape[-1] not in (1, 3):
        raise InputError(f"{name!r} has shape {value.shape}, images have (steps, height, width, 1 or 3)")
    count = value.shape[0]
    parts = range(0, count, 256)
    factor = 1
    if np.issubdtype(value.dtype, np.floating):
        factor = 255 if max((float(np.max(value[start : start + 256])) for start in parts), default=0.0) <= 1 else 1
    out = np.empty((count, value.shape[3], *value.shape[1:3]), np.uint8)
    for start in parts:
        part = np.moveaxis(np.asarray(value[start : start + 256]), -1, 1)
        out[start : start + 256] = part if part.dtype == np.uint8 else np.rint(part * factor).clip(0, 255)
    return out
