"""DiffusionMBIR: a volume from a prior on its slices and total variation between them (Chung et al. 2023).

The reference method: two network calls a noise level and slice. For research use only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from priorscope.diffusion.denoiser import Model, StepInfo
from priorscope.diffusion.noise import Noise, item_seed
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.schedule import VESchedule
from priorscope.diffusion.variance_exploding import predictor_corrector, ve_times
from priorscope.errors import InputError
from priorscope.inverse.admm import ADMMTV
from priorscope.inverse.mbir_ct import OfficialParallelBeam
from priorscope.inverse.operator import LinearOperator
from priorscope.inverse.parallel_beam import ParallelBeam
from priorscope.inverse.rays import RayTransform
from priorscope.inverse.tv import Boundary
from priorscope_medical.volume_state import VolumeState, slice_names

#: Pixels of the slices that DiffusionMBIR's lambda and rho were published for.
_PUBLISHED_SIDE = 256


def diffusion_mbir(
    denoiser: Model,
    operator: LinearOperator,
    y: torch.Tensor,
    *,
    steps: int = 2000,
    weight: float = 0.04,
    rho: float = 10.0,
    snr: float = 0.16,
    data_weight: float | None = None,
    boundary: Boundary = "neumann",
    consistency: bool = True,
    batch_size: int = 12,
    seed: int = 0,
    slices: Sequence[int | str] | None = None,
    official: bool = False,
    noise: Noise | None = None,
    resume: VolumeState | None = None,
    callback: Callable[[VolumeState], None] | None = None,
    progress: bool = False,
) -> torch.Tensor:
    """Reconstruct a volume from measurements of its slices.

    Each step goes down one noise level with a corrector and a predictor, slice by slice, then takes one ADMM step of
    one conjugate-gradient iteration on ``|A x - y|^2 / 2 + weight |D_z x|_1``, whose duals live as long as the run.

    Parameters
    ----------
    denoiser : Model
        On a :class:`VESchedule`: :func:`priorscope.backbones.ncsnpp.ncsnpp_denoiser`.
    operator : LinearOperator
        Measures real slices (B, 1, H, W).
    y : Tensor (slices, *operator.range)
        On the device and in the type that the run shall have.
    steps : int
        Noise levels, with two network calls each.
    weight, rho : float
        lambda and ADMM's penalty. 0.04 and 10 for tomography; DiffusionMBIR's MRI has 0.005 and 0.01.
    snr : float
        Of the corrector (:func:`~priorscope.diffusion.langevin`).
    data_weight : float, optional
        Factor on A^T A and A^T y, which balances them against rho. For parallel beams the default is the operator's
        ``mbir_weight``, pi / (2 views) in pixels, times 256 / side, for fan beams what has the same norm: published
        values of weight and rho then keep their meaning for every number of views, pitch and side. Otherwise 1.
    boundary : {"neumann", "periodic"}
        Of the differences between slices; periodic ties the last to the first.
    consistency : bool
        At the end, one step x + A^T (y - A x) / A^T A 1. For tomography; DiffusionMBIR's MRI has none.
    batch_size : int
        Slices in a network call. The result does not depend on it.
    seed : int
    slices : sequence of int or str, optional
        What each slice is called: its noise comes from (seed, name, step). By default its number.
    official : bool
        Parity: predictor before corrector, both told one level; step lengths from means over the slices of a network
        call; differences that are periodic; noise that is left at the end; one source of noise. Use it with
        :class:`priorscope.inverse.OfficialParallelBeam`.
    noise : Noise, optional
        With ``official``: where all noise comes from, by default a generator with ``seed``.
    resume : VolumeState, optional
        Go on from there, with the same options.
    callback : callable, optional
        Gets an :class:`VolumeState` after every step.
    progress : bool
        Show a bar.

    Returns
    -------
    Tensor (slices, 1, H, W)

    Raises
    ------
    InputError
        Measurements that do not fit the operator or are not finite, another kind of schedule, numbers out of range.

    Notes
    -----
    Where official code leaves noise of sigma_min in the result, the last step here is the denoised estimate itself.

    rho holds differences between slices at what they were a step before, noise included; the data and the prior have
    to win against it, or the noise of the start never leaves. The norm of A^T A grows with the side of a slice, and
    the published rho is for 256 pixels: unscaled, 16 to 64 pixels diverge.

    Source: algorithm 1 of the paper; ``controllable_generation_TV.py`` of its code.
    """
    _check(denoiser, operator, y, batch_size, official, noise, resume)
    boundary = "periodic" if official else boundary
    if data_weight is None:
        data_weight = 1.0 if official else _data_weight(operator)
    admm = ADMMTV(operator, y, weight=weight, rho=rho, boundary=boundary, data_weight=data_weight)
    times = ve_times(steps, official=official)
    shape, real = (len(y), *operator.domain), y.dtype.to_real()
    options: dict[str, Any] = {"snr": snr}
    if official:
        source = noise or Noise.shared(seed)
        options |= {"order": "predictor-corrector", "norms": "batch", "table": steps}
        chunks = [len(part) for part in torch.arange(len(y)).chunk(len(y) // batch_size + 1)]
    else:
        names = slice_names(slices, y)
        source = None
        chunks = [min(batch_size, len(y) - start) for start in range(0, len(y), batch_size)]

    def noise_of(step: int | str, start: int, size: int) -> Noise:
        return source or Noise.for_items(item_seed(seed, step), names[start : start + size])

    first = 0
    if resume is None:
        x = denoiser.schedule(times[0])[1] * noise_of("start", 0, len(y)).draw(shape, device=y.device, dtype=real)
    else:
        first, x = resume.taken_up(operator, y, steps)
        admm.load_state_dict(resume.duals)

    def step(model: Model, x: torch.Tensor, t: float, s: float, state: Any, _: Noise | None) -> tuple[Any, int]:
        index = first if state is None else state
        parts, start = [], 0
        for size in chunks:
            part = x[start : start + size]
            if math.isinf(s) and not official:
                parts.append(model(part, t).x0)
            else:
                drawn = noise_of(index, start, size)
                parts.append(predictor_corrector(model, part, t, s, None, drawn, **options)[0])
            start += size
        return torch.cat(parts), index + 1

    def report(info: StepInfo, x: torch.Tensor, _: float) -> None:
        if callback is not None:
            callback(VolumeState(first + info.index + 1, x, admm.state_dict()))

    x = sample(denoiser, x, times[first:], step=step, correct=admm, callback=report, progress=progress)
    return _consistent(operator, x, y) if consistency else x


def _data_weight(operator: LinearOperator) -> float:
    """What makes lambda and rho, as published for 8 views of 256 pixels, right for this operator."""
    larger = _PUBLISHED_SIDE / max(operator.domain)
    if isinstance(operator, OfficialParallelBeam):
        return larger  # its back-projection holds pi / (2 views) already
    if isinstance(operator, ParallelBeam):
        return operator.mbir_weight * larger
    if isinstance(operator, RayTransform):
        # |A|^2 pi / (2 views) of a parallel beam is pi / 2 side within 4 %, for any views
        return math.pi / 2 * _PUBLISHED_SIDE / operator.norm(tolerance=1e-3) ** 2
    return 1.0


def _consistent(operator: LinearOperator, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """One step of simultaneous reconstruction; pixels that no ray meets stay."""
    reach = operator.adjoint(operator.forward(torch.ones_like(x)))
    met = reach > 1e-6 * reach.max()
    return x + torch.where(met, operator.adjoint(y - operator.forward(x)) / torch.where(met, reach, 1.0), 0.0)


def _check(
    denoiser: Model,
    operator: LinearOperator,
    y: torch.Tensor,
    batch_size: int,
    official: bool,
    noise: Noise | None,
    resume: VolumeState | None,
) -> None:
    if not isinstance(denoiser.schedule, VESchedule):
        raise InputError(
            f"DiffusionMBIR on a {type(denoiser.schedule).__name__}",
            remedy="It needs a prior on variance-exploding noise (NCSN++).",
        )
    operator.check_measurement(y)
    if not len(y) or operator.complex_domain:
        raise InputError(f"{len(y)} slices for {operator}", remedy="Give at least one, of real images.")
    if batch_size < 1:
        raise InputError(f"a batch of {batch_size} slices", remedy="Use 1 or more.")
    if noise is not None and not official:
        raise InputError("a source of noise for all slices", remedy="Leave it out, or ask for official=True.")
    if resume is not None and official:
        raise InputError("an official run cannot be resumed: its noise comes from one generator")
