"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps.

Everything else asks a schedule for alpha and sigma only, so one implementation of a solver serves them all.
Coefficients are float64 numbers on the host; only :meth:`Schedule.coefficients` makes tensors, for training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from priorscope.errors import InputError

LastLevel = Literal["clean", "first"]


class Schedule:
    """A family of noise levels, from ``start`` (most noise) down to ``end`` (the last level of a run).

    Subclasses define :meth:`_alpha_sigma` on float64 arrays. A level ``t`` has the schedule's own unit: an
    integer step for discrete schedules (-1 is the level after the last step), a time in [0, 1] for VE and
    flow, sigma itself for EDM.
    """

    #: The level a run starts from unless told otherwise.
    start: float
    #: The level a run ends at.
    end: float

    def _alpha_sigma(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def __call__(self, t: float) -> tuple[float, float]:
        """``(alpha, sigma)`` at the scalar level ``t``, as Python floats."""
        # a run asks for the same few levels several times a step, and the next run again
        memory: dict[float, tuple[float, float]] = self.__dict__.setdefault("_levels", {})
        t = float(t)
        known = memory.get(t)
        if known is None:
            alpha, sigma = self._alpha_sigma(np.asarray(t, dtype=np.float64))
            known = (float(alpha), float(sigma))
            if len(memory) >= 10_000:
                memory.clear()
            memory[t] = known
        return known

    def coefficients(self, t: float | torch.Tensor, like: torch.Tensor) -> tuple[Any, Any]:
        """``(alpha, sigma)`` that multiply ``like``.

        Parameters
        ----------
        t : float or Tensor
            A scalar gives two floats. A tensor of shape (B,) or any shape broadcastable to ``like`` gives two
            tensors in the dtype and on the device of ``like``, computed in float64.
        like : Tensor
            The noisy sample, shape (B, ...).
        """
        if not isinstance(t, torch.Tensor):
            return self(float(t))
        if t.ndim == 0:
            return self(float(t))
        alpha, sigma = self._alpha_sigma(t.detach().cpu().double().numpy())
        shape = t.shape + (1,) * (like.ndim - 1) if t.ndim == 1 else t.shape
        return tuple(  # type: ignore[return-value]
            torch.from_numpy(np.asarray(value, dtype=np.float64)).reshape(shape).to(like.device, like.dtype)
            for value in (alpha, sigma)
        )

    def add_noise(self, x0: torch.Tensor, t: float | torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """Draw from q(x_t | x_0) with the given noise: ``alpha x0 + sigma eps``, the shape of ``x0``."""
        alpha, sigma = self.coefficients(t, x0)
        return alpha * x0 + sigma * eps

    def label(self, t: Any) -> Any:
        """What a network is told about the level ``t`` unless it was trained otherwise: the level itself."""
        return t

    def log_snr(self, t: float) -> float:
        """Half the log signal-to-noise ratio, ``log(alpha / sigma)``; infinite at the two ends."""
        alpha, sigma = self(t)
        if sigma == 0.0:
            return math.inf
        return -math.inf if alpha == 0.0 else math.log(alpha / sigma)


@dataclass(frozen=True)
class VPSchedule(Schedule):
    """Variance-preserving schedule on discrete steps: alpha^2 = alphas_cumprod, sigma^2 = 1 - alpha^2.

    Steps are 0 ... T-1; steps in between interpolate alphas_cumprod's log-SNR. The level -1 comes after step
    0: ``last="clean"`` makes it exactly clean (diffusers' ``set_alpha_to_one=True``), ``last="first"`` repeats
    step 0 (``set_alpha_to_one=False``, as the Stable Diffusion and Marigold configurations have it).

    Parameters
    ----------
    alphas_cumprod : array of shape (T,)
        Decreasing, in [0, 1]; the last may be 0 (zero terminal SNR).
    last : {"clean", "first"}
        The level -1.

    Source: Ho et al. 2020 (DDPM), Song et al. 2021 (DDIM); zero terminal SNR: Lin et al. 2024, algorithm 1.
    """

    alphas_cumprod: np.ndarray = field(repr=False)
    last: LastLevel = "clean"

    def __post_init__(self) -> None:
        values = np.array(self.alphas_cumprod, dtype=np.float64)
        if values.ndim != 1 or len(values) < 1 or not np.all((values >= 0) & (values <= 1)):
            raise InputError(f"alphas_cumprod must be a vector of numbers in [0, 1], got shape {values.shape}")
        if np.any(np.diff(values) > 0):
            raise InputError("alphas_cumprod must not increase with the step")
        if self.last not in ("clean", "first"):
            raise InputError(f"last is {self.last!r}", remedy="Use 'clean' or 'first'.")
        values.setflags(write=False)
        object.__setattr__(self, "alphas_cumprod", values)

    @property
    def start(self) -> float:  # type: ignore[override]
        return float(len(self.alphas_cumprod) - 1)

    @property
    def end(self) -> float:  # type: ignore[override]
        return -1.0

    def label(self, t: Any) -> Any:
        """The step; the level -1, which no network was trained on, is told as step 0."""
        return t.clamp(min=0) if isinstance(t, torch.Tensor) else max(t, 0.0)

    @property
    def num_steps(self) -> int:
        """T, the number of training steps."""
        return len(self.alphas_cumprod)

    def _alpha_sigma(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps = self.num_steps
        if not np.all((t == -1) | ((t >= 0) & (t <= steps - 1))):
            raise InputError(f"level {np.min(t)}...{np.max(t)} is neither -1 nor within 0 ... {steps - 1}")
        whole = np.clip(np.floor(t), 0, steps - 1).astype(np.int64)
        fraction = np.where(t < 0, 0.0, t - whole)
        lower = self.alphas_cumprod[whole]
        if np.any(fraction > 0):
            upper = self.alphas_cumprod[np.minimum(whole + 1, steps - 1)]
            with np.errstate(divide="ignore", over="ignore"):
                log_ratio = (1 - fraction) * np.log(lower / (1 - lower)) + fraction * np.log(upper / (1 - upper))
                between = 1 / (1 + np.exp(-log_ratio))
            lower = np.where(fraction > 0, between, lower)
        if self.last == "clean":
            lower = np.where(t < 0, 1.0, lower)
        return np.sqrt(lower), np.sqrt(1.0 - lower)

    @classmethod
    def from_betas(
        cls,
        kind: Literal["linear", "scaled_linear", "cosine"] = "scaled_linear",
        *,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        num_steps: int = 1000,
        zero_terminal_snr: bool = False,
        last: LastLevel = "clean",
    ) -> VPSchedule:
        """Build from a published beta schedule.

        ``linear`` is DDPM's, ``scaled_linear`` (linear in the square root) Stable Diffusion's, ``cosine`` that
        of Nichol and Dhariwal 2021 with betas capped at 0.999 (``beta_start`` and ``beta_end`` unused).
        """
        if kind == "linear":
            betas = np.linspace(beta_start, beta_end, num_steps)
        elif kind == "scaled_linear":
            betas = np.linspace(beta_start**0.5, beta_end**0.5, num_steps) ** 2
        elif kind in ("cosine", "squaredcos_cap_v2"):
            edges = np.arange(num_steps + 1) / num_steps
            bar = np.cos((edges + 0.008) / 1.008 * np.pi / 2) ** 2
            betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
        else:
            raise InputError(f"beta schedule {kind!r}", remedy="Use 'linear', 'scaled_linear' or 'cosine'.")
        alphas_cumprod = np.cumprod(1.0 - betas)
        if zero_terminal_snr:
            root = np.sqrt(alphas_cumprod)
            alphas_cumprod = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        return cls(alphas_cumprod, last)

    @classmethod
    def from_scheduler_config(cls, config: dict[str, Any]) -> VPSchedule:
        """Read a diffusers ``scheduler_config.json`` as its ``DDIMScheduler`` does (defaults included)."""
        if config.get("trained_betas") is not None:
            raise InputError("a scheduler with trained_betas", remedy="Build VPSchedule(alphas_cumprod) from them.")
        return cls.from_betas(
            config.get("beta_schedule", "linear"),
            beta_start=config.get("beta_start", 0.0001),
            beta_end=config.get("beta_end", 0.02),
            num_steps=config.get("num_train_timesteps", 1000),
            zero_terminal_snr=config.get("rescale_betas_zero_snr", False),
            last="clean" if config.get("set_alpha_to_one", True) else "first",
        )


@dataclass(frozen=True)
class VESchedule(Schedule):
    """Variance-exploding schedule: alpha = 1, sigma(t) = sigma_min (sigma_max / sigma_min)^t for t in [0, 1].

    Ends at sigma_min (t = 0), as the SDE does; ``EDMSchedule`` ends at 0. The formula goes on below: the level
    t = -inf is free of noise, which is where :func:`ve_times` ends. Source: Song et al. 2021 (score SDE).
    """

    sigma_min: float = 0.01
    sigma_max: float = 378.0
    start: float = field(default=1.0, init=False)
    end: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        _check_sigma_range(self.sigma_min, self.sigma_max)

    def _alpha_sigma(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.ones_like(t), self.sigma(t)

    def sigma(self, t: Any) -> Any:
        """sigma(t) of a number, an array or a tensor (in float64): what networks on this schedule are told."""
        t = t.double() if isinstance(t, torch.Tensor) else t
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t


@dataclass(frozen=True)
class EDMSchedule(Schedule):
    """Karras et al. 2022: alpha = 1 and the level is sigma itself; a run goes from sigma_max to 0."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        _check_sigma_range(self.sigma_min, self.sigma_max)

    @property
    def start(self) -> float:  # type: ignore[override]
        return self.sigma_max

    @property
    def end(self) -> float:  # type: ignore[override]
        return 0.0

    def _alpha_sigma(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if np.any(t < 0):
            raise InputError(f"sigma {np.min(t)} is negative")
        return np.ones_like(t), np.array(t)


@dataclass(frozen=True)
class FlowSchedule(Schedule):
    """Rectified flow: alpha = 1 - t, sigma = t for t in [0, 1]. Source: Liu et al. 2023, Lipman et al. 2023."""

    start: float = field(default=1.0, init=False)
    end: float = field(default=0.0, init=False)

    def _alpha_sigma(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if np.any((t < 0) | (t > 1)):
            raise InputError(f"time {np.min(t)}...{np.max(t)} lies outside the flow's 0 ... 1")
        return 1.0 - t, np.array(t)


@dataclass(frozen=True)
class FunctionSchedule(Schedule):
    """A schedule given by its two functions of a float64 array, for instance ``cos`` and ``sin`` of an angle."""

    alpha: Callable[[np.ndarray], np.ndarray]
    sigma: Callable[[np.ndarray], np.ndarray]
    start: float = 1.0
    end: float = 0.0

    def _alpha_sigma(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.alpha(t), self.sigma(t)


def _check_sigma_range(sigma_min: float, sigma_max: float) -> None:
    if not 0 < sigma_min < sigma_max:
        raise InputError(f"sigma_min {sigma_min} and sigma_max {sigma_max} must satisfy 0 < sigma_min < sigma_max")
