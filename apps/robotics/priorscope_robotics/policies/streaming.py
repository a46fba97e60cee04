"""Streaming diffusion policy: a plan whose near steps are almost clean and whose far ones are noise, moved on in parts.

Source: Hoeg et al. 2024, "Streaming diffusion policy: fast policy synthesis with variable noise diffusion models",
after TEDi (Zhang et al. 2023). The network is told a level for every time step and has to be trained so
(:func:`streaming_levels`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from priorscope.diffusion.noise import Noise, required
from priorscope.errors import InputError
from priorscope_robotics.model import Given, PolicyModel
from priorscope_robotics.policies.noise import part_of
from priorscope_robotics.policies.policy import Policy, PolicyState


class Buffer(PolicyState):
    """The half-finished plan of each environment.

    Attributes
    ----------
    plan : Tensor (B, T, D) or None
        Normalised, each step at its level.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.plan: torch.Tensor | None = None


class StreamingPolicy(Policy):
    """A buffer of chunks, each ``n_action_steps`` long, at rising levels.

    A call denoises all chunks until the first is clean, hands that out, moves the others forward and adds noise at the
    end: with c chunks it takes the c-th part of the full number of network calls.

    Parameters
    ----------
    model : PolicyModel
        Its network is a U-Net trained with :func:`streaming_levels`.
    stride : int
        Levels that one network call takes; 1 as published.
    begin : {"denoise", "zero"}
        The first buffer: a plan denoised in full, or zeros, brought to the levels of the chunks by noise.
    """

    def __init__(
        self, model: PolicyModel, *, stride: int = 1, begin: Literal["denoise", "zero"] = "denoise", **options: Any
    ) -> None:
        super().__init__(model, **options)
        if model.spec.network != "unet":
            raise InputError("a streaming policy needs a U-Net: it tells a level for every time step")
        if begin not in ("denoise", "zero") or stride < 1:
            raise InputError(f"begin {begin!r} and stride {stride}")
        self.schedule = model.schedule()
        self.begin = begin
        self.stride = stride
        self.chunks = chunk_count(model.spec.horizon, model.spec.first_action, self.n_action_steps)
        if self.schedule.num_steps % self.chunks:
            raise InputError(
                f"{self.schedule.num_steps} noise levels for {self.chunks} chunks",
                remedy="Choose a horizon and action steps whose chunks divide the levels.",
            )
        self.per_chunk = self.schedule.num_steps // self.chunks
        #: Level of each time step when a call begins.
        self.levels = chunk_levels(
            model.spec.horizon, model.spec.first_action, self.n_action_steps, self.schedule.num_steps
        )

    def start(self, count: int) -> Buffer:
        return Buffer(count)

    def plan(
        self, given: Given, normalized: Mapping[str, torch.Tensor], state: PolicyState, noise: Noise | None
    ) -> tuple[torch.Tensor, list[int]]:
        if not isinstance(state, Buffer):
            raise InputError("a streaming policy needs the state that its start() gives")
        count = state.count
        calls = [0] * count
        buffer = self.blank(count) if state.plan is None else state.plan.clone()
        fresh = state.fresh.nonzero().flatten()
        if len(fresh):
            part = given if len(fresh) == count else given.select(fresh.to(buffer.device))
            begun, spent = self._first(part, len(fresh), part_of(noise, fresh.tolist(), count))
            buffer[fresh] = begun
            for place in fresh.tolist():
                calls[place] = spent
        moved, spent = self._down(given, buffer, self.levels, self.per_chunk, noise)
        calls = [before + spent for before in calls]
        # chunks move one place forward, to the levels that the next call begins with; the last, and what is left over
        # behind it, are noise
        n, first = self.n_action_steps, self.spec.first_action
        kept = first + (self.chunks - 1) * n
        state.plan = torch.cat([moved[:, n : kept + n], required(noise).like(moved[:, kept:])], 1)
        state.fresh[:] = False
        return moved, calls

    def _first(self, given: Given, count: int, noise: Noise | None) -> tuple[torch.Tensor, int]:
        plan, calls = self.blank(count), 0
        if self.begin == "denoise":
            plan = required(noise).like(plan)
            top = torch.full((self.spec.horizon,), self.schedule.num_steps - 1)
            plan, calls = self._down(given, plan, top, self.schedule.num_steps, noise)
        t = self.levels[None, :, None].to(plan.device)
        return self.schedule.add_noise(plan, t.expand(count, -1, 1), required(noise).like(plan)), calls

    def _down(
        self, given: Given, x: torch.Tensor, levels: torch.Tensor, count: int, noise: Noise | None
    ) -> tuple[torch.Tensor, int]:
        """All steps ``count`` levels down, those that get clean stay so; and the number of network calls."""
        denoiser = self.model.denoiser(self.schedule)
        limit = self.spec.diffusion.clip
        calls = 0
        for done in range(0, count, self.stride):
            now = (levels - done).clamp(min=-1)
            then = (levels - min(done + self.stride, count)).clamp(min=-1)
            t, s = (value[None, :, None].to(x.device).expand(len(x), -1, 1) for value in (now, then))
            x = given.known(x)
            told = now.clamp(min=0).to(x.device).expand(len(x), -1)
            output = denoiser.network(x, told, **given.condition.expand(len(x)))
            # a clean step stays as it is, whatever the network says of it
            alpha, sigma = self.schedule.coefficients(t.clamp(min=0), x)
            x0 = denoiser.split(output, x, alpha, sigma).x0
            x0 = x0.clamp(-limit, limit) if limit else x0
            eps = (x - alpha * x0) / sigma
            next_alpha, next_sigma = self.schedule.coefficients(s, x)
            std = _posterior(alpha, sigma, next_alpha, next_sigma)
            moved = next_alpha * x0 + (next_sigma**2 - std**2).clamp(min=0).sqrt() * eps
            moved = moved + std * required(noise).like(x)
            x = torch.where(t < 0, x, moved)
            calls += 1
        return given.known(x), calls


def _posterior(
    alpha: torch.Tensor, sigma: torch.Tensor, next_alpha: torch.Tensor, next_sigma: torch.Tensor
) -> torch.Tensor:
    """Deviation of q(x_s | x_t, x_0)."""
    ratio = alpha / next_alpha
    return next_sigma / sigma * (sigma**2 - ratio**2 * next_sigma**2).clamp(min=0).sqrt()


def chunk_count(horizon: int, first_action: int, n_action_steps: int) -> int:
    """Whole chunks of actions after the steps of the past."""
    return (horizon - first_action) // n_action_steps


def chunk_levels(horizon: int, first_action: int, n_action_steps: int, num_steps: int) -> torch.Tensor:
    """The level of each time step (T,): -1 in the past, then those of the chunks, the highest where none is whole."""
    chunks = chunk_count(horizon, first_action, n_action_steps)
    place = (torch.arange(horizon) - first_action).div(n_action_steps, rounding_mode="floor").clamp(max=chunks - 1)
    levels = num_steps * (place + 1) // chunks - 1
    return torch.where(torch.arange(horizon) < first_action, -1, levels)


def streaming_levels(
    batch: int, horizon: int, first_action: int, n_action_steps: int, num_steps: int, generator: torch.Generator
) -> torch.Tensor:
    """Levels (B, T) to train with: half the batch as a call meets them, half the same for every time step.

    The first half is what a buffer goes through between two calls; the other makes full plans possible, for the start.
    """
    buffer = chunk_levels(horizon, first_action, n_action_steps, num_steps)
    per_chunk = num_steps // chunk_count(horizon, first_action, n_action_steps)
    done = torch.randint(0, per_chunk, (batch, 1), generator=generator)
    chunked = (buffer - done).clamp(min=0)
    level = torch.randint(0, num_steps, (batch, 1), generator=generator).expand(-1, horizon)
    return torch.where((torch.arange(batch) % 2 == 0)[:, None], chunked, level)
