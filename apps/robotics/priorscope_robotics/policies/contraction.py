"""How much of the difference between two guesses a warm-started run leaves: measured, for the network at hand.

The published condition (RTI-DP, theorem 1) cannot be met as printed: its factor is 1 plus something positive. What
counts is the Jacobian of a step, I / sqrt(alpha_k) - beta_k / sqrt(alpha_k (1 - abar_k)) d eps / dx for DDPM: errors
shrink where its largest singular value is below 1. For Gaussian plans of variance s^2 that is
(1 - beta_k / (abar_k s^2 + 1 - abar_k)) / sqrt(alpha_k): small where plans are narrow against the noise, near 1 where
they are wide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from priorscope.diffusion.denoiser import Level, Prediction, StepInfo
from priorscope.diffusion.noise import Noise
from priorscope_robotics.model import Given
from priorscope_robotics.policies.denoise import clip_constraint
from priorscope_robotics.policies.rti import RtiPolicy

Map = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Contraction:
    """Largest singular values, each (B,)."""

    levels: list[float]
    steps: list[torch.Tensor]
    """Of the step from each level."""
    whole: torch.Tensor
    """Of the whole run: at most the product of the steps'."""


class _NoNoise(Noise):
    def draw(
        self, shape: Sequence[int], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        return torch.zeros(tuple(shape), device=device, dtype=dtype)


class _Asked:
    """The denoiser with its condition and clipping, for gradients to pass."""

    def __init__(self, policy: RtiPolicy, given: Given) -> None:
        self.schedule = policy.denoiser.schedule
        self._denoiser = policy.denoiser
        self._condition = given.condition
        self._clip = clip_constraint(policy.denoiser, policy.spec.diffusion.clip, policy.step)

    def __call__(self, x: torch.Tensor, t: Level, condition: object = None, info: StepInfo | None = None) -> Prediction:
        prediction = self._denoiser(x, t, self._condition)
        return prediction if self._clip is None else self._clip(x, t, prediction, StepInfo())


def measure_contraction(policy: RtiPolicy, given: Given, guess: torch.Tensor, *, iterations: int = 10) -> Contraction:
    """The contraction of a warm-started run around the path that it takes from ``guess``, without fresh noise.

    Parameters
    ----------
    policy : RtiPolicy
    given : Given
        What observations say; known entries count for nothing.
    guess : Tensor (B, T, D)
        Normalised and shifted already.
    iterations : int
        Of the power method: each costs about four network calls a step, and the result is a lower bound that grows
        with them.

    Returns
    -------
    Contraction

    Notes
    -----
    Below 1 a run leaves less of a small difference between two guesses than there was. From control step to control
    step there is the shift too: it drops steps and repeats the last one, by which a difference there grows up to
    sqrt(1 + shift) times. The iteration contracts for certain where the whole run's factor is below one over that.
    """
    model = _Asked(policy, given)
    last = [*policy.levels, policy.denoiser.schedule.end]
    pairs = [(t, t - 1) for t in policy.levels] if policy.jumps == "official" else list(pairwise(last))

    def step(t: float, s: float) -> Map:
        def run(x: torch.Tensor) -> torch.Tensor:
            return given.known(policy.step(model, given.known(x), t, s, None, _NoNoise())[0])

        return run

    maps = [step(t, s) for t, s in pairs]
    factors = []
    x = guess
    for one in maps:
        factors.append(largest_singular_value(one, x, iterations))
        with torch.no_grad():
            x = one(x)

    def whole(x: torch.Tensor) -> torch.Tensor:
        for one in maps:
            x = one(x)
        return x

    return Contraction(list(policy.levels), factors, largest_singular_value(whole, guess, iterations))


def largest_singular_value(function: Map, x: torch.Tensor, iterations: int = 10) -> torch.Tensor:
    """Of the Jacobian of ``function`` at each item of ``x`` (B, ...), by the power method on J^T J; (B,).

    Items must not influence each other. The start is random with a fixed seed.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    value = x.new_zeros(len(x))
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        x = x.detach().requires_grad_(True)
        y = function(x)
        u = torch.zeros_like(y, requires_grad=True)
        (pulled,) = torch.autograd.grad(y, x, u, create_graph=True)  # J^T u, whose derivative by u is J
        for _ in range(iterations):
            v = v / _size(v).clamp(min=1e-30)
            (w,) = torch.autograd.grad(pulled, u, v, retain_graph=True)
            value = _size(w).flatten().detach()
            (v,) = torch.autograd.grad(y, x, w, retain_graph=True)
    return value


def _size(v: torch.Tensor) -> torch.Tensor:
    return v.flatten(1).norm(dim=1).reshape(-1, *[1] * (v.ndim - 1))
