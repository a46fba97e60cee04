"""RTI: a plan starts from the last one and needs a few network calls.

Source: Duan et al. 2025, "Real-time iteration scheme for diffusion policy" (arXiv 2508.05396).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from priorscope.diffusion.noise import Noise, required
from priorscope.errors import InputError
from priorscope_robotics.model import Given, PolicyModel
from priorscope_robotics.policies.denoise import (
    Jumps,
    ScheduleName,
    Solver,
    check_levels,
    denoise,
    schedule_named,
    solver_named,
)
from priorscope_robotics.policies.discrete import snap_guess
from priorscope_robotics.policies.full import FullPolicy
from priorscope_robotics.policies.noise import part_of
from priorscope_robotics.policies.policy import Policy, PolicyState


class WarmStart(PolicyState):
    """The last plan of each environment.

    Attributes
    ----------
    guess : Tensor (B, T, D) or None
        Normalised; what :class:`RtiPolicy` shifts and starts from.
    seen : dict of str to Tensor
        The last observations (B, D), normalised, to see jumps; images are left out.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.guess: torch.Tensor | None = None
        self.seen: dict[str, torch.Tensor] = {}


def shifted(plan: torch.Tensor, steps: int) -> torch.Tensor:
    """A plan (B, T, D) as seen ``steps`` later: the first steps are gone, the last one is repeated."""
    steps = min(steps, plan.shape[1] - 1)
    return torch.cat([plan[:, steps:], plan[:, -1:].expand(-1, steps, -1)], 1)


def move_size(now: Mapping[str, torch.Tensor], before: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """How far normalised vectors (B, D) by name have moved: root mean square over all their numbers, (B,).

    Numbers are cut at +-1.5 first: one that hardly varies in the training data is normalised by a large factor, and
    would outvote all others where it leaves its range.
    """
    moves = [now[name].clamp(-1.5, 1.5) - before[name].clamp(-1.5, 1.5) for name in now]
    return torch.cat(moves, -1).square().mean(-1).sqrt()


def farthest_move(moves: Sequence[float], steps: int) -> float:
    """Bound on how far observations move in ``steps`` steps, given the farthest moves in 1, 2, ... steps.

    Of more steps than are given it is that of the parts that they are made of: a way is no longer than its parts.
    0 where nothing is given.

    >>> farthest_move([0.1, 0.15], 5)
    0.4
    """
    if not moves:
        return 0.0
    whole, rest = divmod(steps, len(moves))
    return whole * moves[-1] + (moves[rest - 1] if rest else 0.0)


class RtiPolicy(Policy):
    """Warm-started denoising.

    The first plan of an episode is denoised in full. Later ones take the last plan, shift it by what was executed
    since, and denoise it from a low level.

    Parameters
    ----------
    model : PolicyModel
    levels : sequence of int
        At which the network is asked, falling; the first is the level that the shifted plan is said to have.
    jumps : {"consistent", "official"}
        See :func:`~priorscope_robotics.policies.denoise.denoise`; "official" also rounds as published.
    start : {"clean", "noised"}
        "clean" declares the shifted plan to be a sample of the first level, as published; "noised" makes it one.
    deterministic : bool
        DDIM's steps, no fresh noise.
    schedule : {"checkpoint", "linear-as-released"}
    shift : int, optional
        By how much plans move between calls; the number of executed actions by default (published: always 1).
    jump : float, optional
        Observations that moved farther since the last call (:func:`move_size`) ask for a full plan. Default: 1.5 times
        the farthest move in as many steps of the training data (:func:`farthest_move`), where the model knows it. 0:
        never.
    full : FullPolicy, optional
        For full plans; all DDPM steps by default.
    """

    def __init__(
        self,
        model: PolicyModel,
        levels: Sequence[float] = (2, 1, 0),
        *,
        jumps: Jumps = "consistent",
        start: Literal["clean", "noised"] = "clean",
        deterministic: bool = False,
        schedule: ScheduleName = "checkpoint",
        shift: int | None = None,
        jump: float | None = None,
        full: FullPolicy | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        if jumps not in ("consistent", "official") or start not in ("clean", "noised"):
            raise InputError(f"jumps {jumps!r} and start {start!r}")
        if shift is not None and shift < 0:
            raise InputError(f"a shift by {shift} steps", remedy="Use 0 or more.")
        self.denoiser = model.denoiser(schedule_named(model, schedule))
        self.levels = check_levels(levels, self.denoiser.schedule)
        self.jumps: Jumps = jumps
        self.noised = start == "noised"
        published: Solver = "ddpm-published" if jumps == "official" else "ddpm"
        self.step = solver_named(model, "ddim" if deterministic else published, schedule)
        self.shift = self.n_action_steps if shift is None else shift
        self.jump = 1.5 * farthest_move(model.spec.largest_moves, self.n_action_steps) if jump is None else jump
        self.full = full or FullPolicy(model, solver=published, schedule=schedule, n_action_steps=self.n_action_steps)

    def start(self, count: int) -> WarmStart:
        return WarmStart(count)

    def plan(
        self, given: Given, normalized: Mapping[str, torch.Tensor], state: PolicyState, noise: Noise | None
    ) -> tuple[torch.Tensor, list[int]]:
        if not isinstance(state, WarmStart):
            raise InputError("RTI needs the state that its start() gives")
        seen = {name: value[:, -1] for name, value in normalized.items() if value.ndim == 3}
        cold = state.fresh if state.guess is None else state.fresh | self._jumped(seen, state.seen)
        count = state.count
        trajectory = self.blank(count)
        calls = [len(self.levels)] * count
        for chosen, make in ((cold, self._cold), (~cold, self._warm)):
            index = chosen.nonzero().flatten()
            if len(index):
                places = index.tolist()
                whole = len(places) == count
                part = given if whole else given.select(index.to(trajectory.device))
                trajectory[index] = make(part, index, state, part_of(noise, places, count))
        for place in cold.nonzero().flatten().tolist():
            calls[place] = len(self.full.levels)
        state.guess = snap_guess(self.model, trajectory, self.discrete)
        state.seen = seen
        state.fresh[:] = False
        return trajectory, calls

    def _cold(self, given: Given, index: torch.Tensor, state: WarmStart, noise: Noise | None) -> torch.Tensor:
        return self.full.from_noise(given, len(index), noise)

    def _warm(self, given: Given, index: torch.Tensor, state: WarmStart, noise: Noise | None) -> torch.Tensor:
        assert state.guess is not None
        return self.refine(given, shifted(state.guess[index], self.shift), noise)

    def refine(self, given: Given, guess: torch.Tensor, noise: Noise | None) -> torch.Tensor:
        """A plan from a guess (B, T, D) that is shifted already."""
        x = guess
        if self.noised:
            x = self.denoiser.schedule.add_noise(guess, self.levels[0], required(noise).like(guess))
        return denoise(self.model, self.denoiser, given, x, self.levels, step=self.step, noise=noise, jumps=self.jumps)

    def _jumped(self, now: Mapping[str, torch.Tensor], before: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Where an observation has changed by more than a step can do; bool (B,) on the CPU."""
        if not self.jump or not now:
            return torch.zeros(1, dtype=torch.bool)
        return (move_size(now, before) > self.jump).cpu()
