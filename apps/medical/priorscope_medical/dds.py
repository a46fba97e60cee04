"""Decomposed diffusion sampling of a volume: tens of network calls a slice. For research use only.

At every noise level the network says what each slice looks like without noise; a few conjugate-gradient iterations
bring all of them nearer to the measurement, with total variation between slices and, less of it, within them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from priorscope.diffusion.batched import InBatches
from priorscope.diffusion.denoiser import Level, Model, Prediction, StepInfo
from priorscope.diffusion.noise import Noise, item_seed
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.schedule import VPSchedule
from priorscope.diffusion.spacing import spaced_times
from priorscope.errors import InputError
from priorscope.inverse.admm import ADMMTV
from priorscope.inverse.dds import DDS, renoise
from priorscope.inverse.guidance import clean_variance
from priorscope.inverse.operator import LinearOperator
from priorscope.inverse.tv import Boundary
from priorscope_medical.volume_state import VolumeState, slice_names


class MeasuredVolume:
    """Constraint: x0 becomes the minimiser of misfit, distance from the network's x0, and variation.

    It minimises |A x - y|^2 / (2 noise^2) + |x - x0|^2 / (2 r^2) + weight |D_z x|_1 + in_plane |D_xy x|_1 by one ADMM
    step whose duals live as long as the run. r^2 is the variance that x0 has at the level, given the noisy sample, for
    Gaussian data of standard deviation ``prior_std``; so early levels follow the measurement, late ones the network.

    Parameters
    ----------
    operator, y
        As for :class:`priorscope.inverse.admm.ADMMTV`.
    schedule : Schedule
    noise : float
        Standard deviation of the measurement's noise; it must be positive.
    weight, in_plane, rho : float
        Of the variation between slices, of that within them, and ADMM's penalty relative to 1 / r^2. With weight 0
        slices do not know of each other.
    prior_std : float
        Of the network's numbers.
    cg_iterations : int
    boundary : {"neumann", "periodic"}
    """

    needs_grad = False

    def __init__(
        self,
        operator: LinearOperator,
        y: torch.Tensor,
        schedule: Any,
        *,
        noise: float,
        weight: float,
        in_plane: float = 0.0,
        rho: float,
        prior_std: float,
        cg_iterations: int,
        boundary: Boundary,
    ) -> None:
        self.schedule, self.prior_std, self.noise = schedule, prior_std, noise
        weights = {0: weight, 2: in_plane, 3: in_plane}
        if min(weights.values()) < 0:
            raise InputError(f"weights {weight} and {in_plane} of the variation", remedy="Use 0 or more.")
        self.weights = {dim: one for dim, one in weights.items() if one}
        self.coupled: ADMMTV | None = None
        if self.weights:
            self.coupled = ADMMTV(
                operator,
                y,
                weight=tuple(self.weights.values()),
                rho=rho,
                dims=tuple(self.weights),
                boundary=boundary,
                cg_iterations=cg_iterations,
                anchor=1.0,
            )
            self.backprojection = self.coupled.backprojection
        else:
            self.alone = DDS(operator, y, gamma=1.0, iterations=cg_iterations)

    def __call__(self, x: torch.Tensor, t: Level, prediction: Prediction, info: StepInfo) -> Prediction:
        alpha, sigma = self.schedule(float(t))
        variance = clean_variance(alpha, sigma, self.prior_std)
        share = variance / self.noise**2
        admm = self.coupled
        if admm is None:
            self.alone.gamma = share
            return self.alone(x, t, prediction, info)
        admm.data_weight, admm.weight = share, [one * variance for one in self.weights.values()]
        admm.backprojection = share * self.backprojection
        # ADMM sees the objective times r^2: between calls the dual is that of the objective itself
        if admm.dual is not None:
            admm.dual = variance * admm.dual
        x0 = admm(prediction.x0)
        assert admm.dual is not None
        admm.dual = admm.dual / variance
        return Prediction(x0, prediction.eps)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The duals, for a run to go on from; empty where no variation is weighed."""
        return {} if self.coupled is None else self.coupled.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take up duals from :meth:`state_dict`."""
        if self.coupled is not None:
            self.coupled.load_state_dict(state)


def dds(
    model: Model,
    operator: LinearOperator,
    y: torch.Tensor,
    *,
    noise: float,
    steps: int | Sequence[float] = 80,
    weight: float = 0.0,
    in_plane: float = 0.0,
    rho: float = 1.0,
    eta: float = 0.85,
    cg_iterations: int = 40,
    prior_std: float = 1.0,
    boundary: Boundary = "neumann",
    batch_size: int = 8,
    seed: int = 0,
    slices: Sequence[int | str] | None = None,
    resume: VolumeState | None = None,
    callback: Callable[[VolumeState], None] | None = None,
    progress: bool = False,
) -> torch.Tensor:
    """Draw a volume from (about) the posterior given measurements of its slices.

    Parameters
    ----------
    model : Model
        Of slices (B, 1, H, W), in the network's numbers.
    operator : LinearOperator
        Measures slices in the network's numbers; with its exact adjoint.
    y : Tensor (slices, *operator.range)
    noise : float
        Standard deviation of the noise in y.
    steps : int or sequence of float
        Network calls a slice, at levels that come closer to each other towards the clean end, or these levels.
    weight, in_plane, rho, cg_iterations, prior_std, boundary
        See :class:`MeasuredVolume`.
    eta : float
        Share of fresh noise in what a step adds: 0 is deterministic.
    batch_size : int
        Slices in a network call. The result does not depend on it.
    seed : int
        Another seed, another sample.
    slices : sequence of int or str, optional
        What each slice is called: its noise comes from (seed, name, step). By default its number.
    resume : VolumeState, optional
        Go on from there, with the same options.
    callback : callable, optional
        Gets a :class:`VolumeState` after every step.
    progress : bool

    Returns
    -------
    Tensor (slices, 1, H, W)

    Raises
    ------
    InputError
        Measurements that do not fit the operator or are not finite, numbers out of range.

    Notes
    -----
    One sample has about twice the squared error of the posterior's mean; the mean of a few samples comes near it.

    Source: Chung et al. 2024 (DDS), whose data term has a fixed weight and few conjugate-gradient iterations; weights
    that follow the level are DiffPIR's (Zhu et al. 2023). Variation within slices beside the prior is ours: where the
    prior was not trained on such bodies, it keeps flat what is flat.
    """
    operator.check_measurement(y)
    names = slice_names(slices, y)
    if not 0 < noise < math.inf:
        raise InputError(f"noise {noise} of the measurement", remedy="It must be positive; take its rounding, if none.")
    times = spaced_times(model.schedule, steps, "quadratic" if isinstance(model.schedule, VPSchedule) else "linspace")
    constraint = MeasuredVolume(
        *(operator, y, model.schedule),
        noise=noise,
        weight=weight,
        in_plane=in_plane,
        rho=rho,
        prior_std=prior_std,
        cg_iterations=cg_iterations,
        boundary=boundary,
    )

    def drawn(step: int | str) -> Noise:
        return Noise.for_items(item_seed(seed, step), names)

    first = 0
    if resume is None:
        start = drawn("start").draw((len(y), *operator.domain), device=y.device, dtype=y.dtype.to_real())
        x = model.schedule(times[0])[1] * start
    else:
        first, x = resume.taken_up(operator, y, len(times) - 1)
        constraint.load_state_dict(resume.duals)

    def step(model: Model, x: torch.Tensor, t: float, s: float, state: Any, _: Noise | None) -> tuple[Any, int]:
        index = first if state is None else state
        return renoise(model, x, t, s, None, drawn(index), eta=eta)[0], index + 1

    def report(info: StepInfo, x: torch.Tensor, _: float) -> None:
        if callback is not None:
            callback(VolumeState(first + info.index + 1, x, constraint.state_dict()))

    return sample(
        InBatches(model, batch_size),
        x,
        times[first:],
        step=step,
        constraint=constraint,
        callback=report,
        progress=progress,
    )
