"""The methods on one problem: a volume from a measurement. For research use only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Level, Model, Prediction, StepInfo
from priorscope.diffusion.noise import item_seed
from priorscope.errors import InputError
from priorscope.inverse.admm import admm_tv
from priorscope.inverse.iterative import cgls, sirt
from priorscope.inverse.operator import LinearOperator
from priorscope.inverse.rays import RayTransform
from priorscope_medical.configs import Method, SolverConfig
from priorscope_medical.dds import dds
from priorscope_medical.mbir import diffusion_mbir
from priorscope_medical.problem import Modality, Problem
from priorscope_medical.score_prior import Prior, ScorePrior, in_precision
from priorscope_medical.volume_state import VolumeState

DIFFUSION = ("dds", "mbir")
TV_WEIGHT: dict[Modality, float] = {"CT": 0.1, "MRI": 0.01}
NOISE_FACTOR: dict[Modality, float] = {"CT": 2.0, "MRI": 1.0}
#: Of mbir's sampler, below which a note says what that costs.
_LEVELS = 500
#: Watches a run: its state after a step, and an estimate of the volume (slices, 1, H, W) in the methods' unit.
Watch = Callable[[VolumeState, torch.Tensor], None]


@dataclass(frozen=True)
class Curve:
    """How a classical method came to its end: a figure an iteration, mean over the slices."""

    name: str
    values: tuple[float, ...]


def check_method(method: Method, modality: Modality) -> None:
    """InputError if the method cannot do with such measurements."""
    if method in ("fbp", "sirt") and modality == "MRI":
        raise InputError(f"--method {method} of k-space", remedy="Use zero-filled, cgls, tv, dds or mbir.")
    if method == "zero-filled" and modality == "CT":
        raise InputError("--method zero-filled of projections", remedy="Use fbp, sirt, cgls, tv, dds or mbir.")


def steps_of(method: Method, config: SolverConfig) -> int:
    """Steps of a diffusion method, as asked for or by default."""
    steps = config.steps if config.steps is not None else {"dds": 80}.get(method, 2000)
    if steps < 2:
        raise InputError(f"--steps {steps}", remedy="Use 2 or more.")
    return steps


def steps_note(method: Method, config: SolverConfig) -> str | None:
    """What to know of so few noise levels; None where they are enough, or the method has another sampler."""
    if method != "mbir" or steps_of(method, config) >= _LEVELS:
        return None
    return (
        f"mbir with {steps_of(method, config)} noise levels, below {_LEVELS} of the published 2000: more are better "
        "(a head CT from 8 views: 28.8, 30.8 and 31.9 dB with 50, 100 and 200, and dds 31.7 with 10 calls)"
    )


def classical(problem: Problem, method: Method, config: SolverConfig) -> tuple[torch.Tensor, Curve | None]:
    """Reconstruct without a prior.

    Parameters
    ----------
    problem : Problem
    method : {"fbp", "zero-filled", "sirt", "cgls", "tv"}
        ``tv`` takes the whole stack at once, the others ``config.batch_size`` slices at a time.
    config : SolverConfig

    Returns
    -------
    Tensor (slices, 1, H, W) in the methods' unit, Curve or None
    """
    check_method(method, problem.modality)
    if method == "tv":
        return _tv(problem, config)
    parts, curves = [], []
    for start in range(0, len(problem.y), config.batch_size):
        operator, y = problem.part(slice(start, start + config.batch_size))
        if method == "fbp":
            parts.append(operator.fbp(y, config.fbp_filter))  # type: ignore[attr-defined]
        elif method == "zero-filled":
            parts.append(operator.adjoint(y))
        elif method == "sirt":
            x, record = sirt(operator, y, iterations=_iterations(config, 100), nonnegative=True)
            parts.append(x)
            curves.append(record.residuals)
        else:
            x, record = cgls(operator, y, iterations=_iterations(config, 20), tolerance=1e-5)
            parts.append(x)
            curves.append(record.residuals)
    whole = torch.cat(parts)
    if not curves:
        return whole, None
    longest = max(map(len, curves))
    curves = [torch.cat([curve, curve[-1:].expand(longest - len(curve), -1)]) for curve in curves]
    name = "relative residual" if method == "sirt" else "relative residual of the normal equations"
    return whole, Curve(name, tuple(torch.cat(curves, 1).mean(1).tolist()))


def tv_weight(problem: Problem, config: SolverConfig) -> float:
    """Weight of the total variation, as asked for or by default."""
    return TV_WEIGHT[problem.modality] if config.tv_weight is None else config.tv_weight


def _tv(problem: Problem, config: SolverConfig) -> tuple[torch.Tensor, Curve]:
    weight = tv_weight(problem, config)
    x, record = admm_tv(
        problem.operator,
        problem.y,
        weight=weight,
        rho=10 * weight,
        iterations=_iterations(config, 100),
        data_weight=data_weight(problem.operator, problem.y.device),
    )
    return x, Curve("relative primal residual", tuple(record.primal.tolist()))


def data_weight(operator: LinearOperator, device: Any = "cpu") -> float:
    """Factor on the data term that makes total variation's weight mean the same for every geometry.

    The largest eigenvalue of A^T A becomes that of rays a pixel apart all around, in pixels: pi / 2 times the side. For
    MRI it becomes 1.
    """
    size = operator.norm(tolerance=1e-3, device=device) ** 2
    return (math.pi / 2 * max(operator.domain) if isinstance(operator, RayTransform) else 1.0) / size


def diffusion(
    problem: Problem,
    method: Method,
    prior: Prior,
    config: SolverConfig,
    *,
    sample: int = 0,
    resume: VolumeState | None = None,
    watch: Watch | None = None,
    progress: bool = False,
) -> torch.Tensor:
    """Reconstruct with a prior on slices.

    Parameters
    ----------
    problem : Problem
        Its measurement is on the prior's device.
    method : {"dds", "mbir"}
    prior : SlicePrior or ScorePrior
    config : SolverConfig
    sample : int
        Another number, another sample.
    resume : VolumeState, optional
    watch : callable, optional
        For dds it is shown the network's estimate before the measurement corrects it, for mbir the noisy volume.
    progress : bool

    Returns
    -------
    Tensor (slices, 1, H, W) in the methods' unit
    """
    operator, values = problem.operator, prior.values
    # in the network's numbers x' = (x - offset) / scale, what is measured is (y - A offset) / scale
    offset = problem.y.real.new_full((operator.items or 1, *operator.domain), values.offset)
    y = (problem.y - operator(offset)) / values.scale
    common: dict[str, Any] = {
        "batch_size": config.batch_size,
        # the second sample of one seed is no sample of the next seed
        "seed": item_seed(config.seed, f"sample {sample}") if sample else config.seed,
        "slices": problem.names,
        "progress": progress,
    }
    steps, mri = steps_of(method, config), problem.modality == "MRI"
    noise_factor = NOISE_FACTOR[problem.modality] if config.noise_factor is None else config.noise_factor
    if method == "dds":
        network = _Watched(in_precision(prior.denoiser, config, prior.device), len(y))

        def seen(state: VolumeState) -> None:
            if watch is not None:
                watch(state, prior.values.from_network(network.x0))

        x = dds(
            network,
            operator,
            y,
            noise=problem.noise * noise_factor / values.scale,
            steps=steps,
            weight=(5.0 if mri else 0.5) if config.weight is None else config.weight,
            in_plane=config.in_plane,
            rho=(1.0 if mri else 0.3) if config.rho is None else config.rho,
            eta=config.eta,
            cg_iterations=config.cg_iterations,
            # what is in 0 ... 1 spreads by a half at most
            prior_std=0.5 if isinstance(prior, ScorePrior) else 1.0,
            resume=resume,
            callback=seen,
            **common,
        )
        return prior.values.from_network(x)

    def noisy(state: VolumeState) -> None:
        if watch is not None:
            watch(state, prior.values.from_network(state.x))

    x = diffusion_mbir(
        in_precision(prior.exploding(), config, prior.device),
        operator,
        y,
        steps=steps,
        weight=(0.005 if mri else 0.04) if config.weight is None else config.weight,
        rho=(0.01 if mri else 10.0) if config.rho is None else config.rho,
        consistency=not mri,
        resume=resume,
        callback=noisy,
        **common,
    )
    return prior.values.from_network(x)


class _Watched:
    """A model that keeps its latest x0 of the whole stack, whose batches come in order."""

    def __init__(self, model: Model, items: int) -> None:
        self.model, self.schedule, self.items = model, model.schedule, items
        self.parts: list[torch.Tensor] = []

    def __call__(
        self, x: torch.Tensor, t: Level, condition: Condition | None = None, info: StepInfo | None = None
    ) -> Prediction:
        found = self.model(x, t, condition, info)
        if sum(map(len, self.parts)) == self.items:
            self.parts = []
        self.parts.append(found.x0)
        return found

    @property
    def x0(self) -> torch.Tensor:
        return torch.cat(self.parts)


def _iterations(config: SolverConfig, default: int) -> int:
    return default if config.iterations is None else config.iterations
