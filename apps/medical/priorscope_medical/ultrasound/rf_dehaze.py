"""Dehazing of RF: a cine taken apart into tissue and haze by two priors and the one measurement. For research use only.

    lines (RF) -> rows of I and Q, in units of the cine's RMS -> joint posterior sampling -> haze, taken from the lines

Haze is subtracted from what was recorded, so where the priors see none the RF stays as it is, to the last bit of its
band.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.device import resolve_device
from priorscope.diffusion.denoiser import Model
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.product import Parts, ProductDenoiser
from priorscope.diffusion.sampling import sample
from priorscope.diffusion.solvers import ddim
from priorscope.errors import InputError
from priorscope.inverse.joint_measurement import Measurement, WeightedSum
from priorscope.inverse.two_priors import JointPiGDM, JointProjection
from priorscope_medical.ultrasound.companding import companded_sum
from priorscope_medical.ultrasound.joint_gains import JointGains
from priorscope_medical.ultrasound.quadrature import Quadrature, as_channels, as_rows, carrier_of
from priorscope_medical.ultrasound.rf_prior import SCHEDULE, RfPrior

Guidance = Literal["gains", "pigdm", "projection"]
#: Noise at the last level that networks are asked about, in units of the RMS of hazy RF.
LAST = 0.02


@dataclass(frozen=True)
class Separated:
    """What a cine was taken apart into: rf = tissue + gamma haze, all float32 [frames, samples, beams]."""

    tissue: NDArray[np.float32]
    haze: NDArray[np.float32]


def dehaze_rf(
    rf: NDArray[np.floating],
    prior_tissue: RfPrior,
    prior_haze: RfPrior,
    *,
    gamma: float = 1.0,
    steps: int = 16,
    start: float = 1.0,
    last: float = LAST,
    estimate: NDArray[np.floating] | None = None,
    eta: float = 100.0,
    guidance: Guidance = "gains",
    samples: int = 1,
    noise: float = 0.01,
    carrier: float | None = None,
    seed: int = 0,
    batch_size: int = 8,
    device: str = "auto",
) -> Separated:
    """Take the haze from a cine of beamformed lines.

    Parameters
    ----------
    rf : array [frames, samples, beams]
        With at least three samples a period, after time-gain compensation. Any unit. Cines longer than the priors'
        sequences are taken in half overlapping windows; shorter ones are played forth and back.
    prior_tissue, prior_haze : RfPrior
        Of equal sequences, and on equal values (plain, or companded by one law).
    gamma : float
        Strength: how much haze there is relative to what the prior knows; 0 takes nothing away.
    steps : int
        Network calls a prior.
    start : float
        Level of the schedule in (0, 1]. 1 is the full trajectory. Below, the first call is at 1, where the priors can
        but share out the measurement by their mean spectra, and the next at this level: the levels between are left
        out. With an ``estimate`` the first call is at this level already.
    last : float
        Noise at the last level that networks are asked about, in units of the RMS of ``rf``.
    estimate : array like ``rf``, optional
        Tissue as another method sees it, :func:`~.baselines.svd_filter` say: sampling begins from it and from what it
        leaves to haze, under the noise of ``start``. Source: Chung et al. 2022 (come-closer-diffuse-faster).
    eta : float
        Fresh noise (:func:`~priorscope.diffusion.ddim`): 0 none, 1 as much as the ancestral step, 100 all of it in
        every step, which came nearest to the truth in benchmarks/dehazing.py; samples then spread less.
    guidance : {"gains", "pigdm", "projection"}
        gains: misfit is shared among the parts by what each prior says of each local frequency; one pass a step.
        pigdm, projection: :class:`~priorscope.inverse.JointPiGDM` and :class:`~priorscope.inverse.JointProjection`.
    samples : int
        Posterior samples, whose mean is returned: nearer to the truth, a little smoother.
    noise : float
        Standard deviation of the measurement's noise, relative to the cine's RMS.
    carrier : float, optional
        Cycles a sample; default: the mean frequency of the cine.
    seed : int
        Fixes the result: noise comes from it and a frame's number.
    batch_size : int
        Windows of frames in a network call.
    device : str

    Returns
    -------
    Separated

    Raises
    ------
    InputError
        Shapes, numbers or priors that do not fit together, values that are not finite, no signal.
    """
    _check(rf, prior_tissue, prior_haze, gamma, steps, start, eta, guidance, samples, noise, batch_size)
    if not 0 < last < math.inf:
        raise InputError(f"a last level of noise {last}", remedy="Use a number above 0.")
    if estimate is not None and (estimate.shape != rf.shape or not np.isfinite(estimate).all()):
        raise InputError(
            f"an estimate of shape {list(estimate.shape)} for RF of {list(rf.shape)}",
            remedy="Give finite tissue of the same shape.",
        )
    where = resolve_device(device)
    for prior in (prior_tissue, prior_haze):
        prior.network.to(where)
    lines = torch.from_numpy(np.ascontiguousarray(rf, dtype=np.float32))
    if not (lines - lines.mean(1, keepdim=True)).abs().max() > 1e-6 * lines.abs().max():
        raise InputError("RF without a signal: every line is constant", remedy="Check the file.")
    way = Quadrature(lines.shape[1], carrier_of(lines) if carrier is None else carrier)
    rows = way.forward(lines)
    scale = float(rows.abs().square().mean().sqrt())
    count = prior_tissue.values.frames
    windows = frame_windows(len(rows), count)
    y = torch.stack([as_channels(rows[list(window)] / scale) for window in windows])
    guess = None
    if estimate is not None and gamma > 0:
        tissue = way.forward(torch.from_numpy(np.ascontiguousarray(estimate, dtype=np.float32))) / scale
        guess = torch.stack([as_channels(tissue[list(window)]) for window in windows])
        guess = torch.cat([guess, (y - guess) / gamma], 1)
    total = torch.zeros_like(rows)
    weight = torch.zeros(len(rows))
    if gamma > 0:
        share = torch.from_numpy(np.minimum(np.arange(count) + 1, count - np.arange(count))).float()
        for number in range(samples):
            drawn = _noise_of(len(rows), y.shape[2:], seed, number)
            for first in range(0, len(windows), batch_size):
                part = range(first, min(first + batch_size, len(windows)))
                z = torch.stack([drawn[:, list(windows[index])].flatten(0, 2) for index in part])
                found = _haze(
                    y[part.start : part.stop].to(where),
                    z.to(where),
                    None if guess is None else guess[part.start : part.stop].to(where),
                    (prior_tissue, prior_haze),
                    (gamma, noise_levels(start, steps, last, estimate is not None), eta, guidance, noise),
                    Noise.for_items(seed, [f"{number}-window-{index}" for index in part]),
                )
                for index, haze in zip(part, as_rows(found.cpu()), strict=True):
                    for place, frame in enumerate(windows[index]):
                        total[frame] += share[place] * haze[place]
                        weight[frame] += share[place]
    haze = way.inverse(scale * total / weight.clamp(min=1e-12)[:, None, None])
    return Separated((lines - gamma * haze).numpy(), haze.numpy())


def frame_windows(frames: int, count: int) -> list[tuple[int, ...]]:
    """Frames of each window of ``count``: half overlapping, the last at the end; a short cine goes forth and back."""
    if frames <= count:
        there_and_back = [*range(frames), *range(frames - 2, 0, -1)]
        return [tuple(there_and_back[index % len(there_and_back)] for index in range(count))]
    starts = [*range(0, frames - count, max(1, count // 2)), frames - count]
    return [tuple(range(begin, begin + count)) for begin in starts]


def noise_levels(start: float, steps: int, last: float = LAST, estimated: bool = False) -> list[float]:
    """The level 1, those from ``start`` to noise ``last``, even in its logarithm, and 0: ``steps`` calls.

    ``estimated``: there is a first guess, and the level 1 is left out.
    """
    highest, first = SCHEDULE(1.0)[1], SCHEDULE(start)[1]
    rest = steps if start == 1 or estimated else steps - 1
    sigmas = np.geomspace(first, min(last, first / 2), rest) if rest > 1 else [first] * rest
    sigmas = sigmas if rest == steps else [highest, *sigmas]
    return [*(SCHEDULE.level(float(sigma)) for sigma in sigmas), 0.0]


def _haze(
    y: torch.Tensor,
    z: torch.Tensor,
    guess: torch.Tensor | None,
    priors: tuple[RfPrior, RfPrior],
    settings: Any,
    draws: Noise,
) -> torch.Tensor:
    """Haze (B, C, H, W) in plain values of windows ``y``; sampling starts from ``guess``, if any, and ``z``.

    Both of these are (B, 2 C, H, W).
    """
    gamma, times, eta, guidance, noise = settings
    values = priors[0].values
    measured = values.to_network(y)
    parts = Parts([tuple(y.shape[1:])] * 2)
    x = SCHEDULE(times[0])[1] * z
    if guess is not None:
        x = x + values.to_network(guess)
    step = partial(ddim, eta=eta)
    if guidance == "gains":
        model: Model = JointGains(priors, parts, measured, gamma=gamma, noise=noise)
        openings: dict[str, Any] = {}
    else:
        model = ProductDenoiser([prior.denoiser for prior in priors], parts)
        measurement: Measurement = WeightedSum(parts, (1.0, gamma))
        if values.mu:
            measurement = companded_sum(parts, gamma, mu=values.mu)
        if guidance == "projection":
            openings = {"correct": JointProjection(measurement, measured, SCHEDULE, draws)}
        else:
            stds = [prior.values.std for prior in priors]
            openings = {"constraint": JointPiGDM(measurement, measured, SCHEDULE, noise=noise, prior_stds=stds)}
    out = sample(model, x, times, step=step, noise=draws, **openings)
    return priors[1].values.from_network(parts.split(out)[1])


def _noise_of(frames: int, shape: torch.Size, seed: int, number: int) -> torch.Tensor:
    """Noise (2 parts, frames, 2, rows, beams): a frame's is its own, whatever window it is in."""
    names = [f"{number}-{frame}" for frame in range(frames)]
    drawn = Noise.for_items(seed, names).like(torch.empty(frames, 4, *shape))
    return torch.stack([drawn[:, :2], drawn[:, 2:]])


def _check(
    rf: NDArray[np.floating],
    tissue: RfPrior,
    haze: RfPrior,
    gamma: float,
    steps: int,
    start: float,
    eta: float,
    guidance: str,
    samples: int,
    noise: float,
    batch_size: int,
) -> None:
    if rf.ndim != 3 or 0 in rf.shape:
        raise InputError(f"RF of shape {list(rf.shape)}", remedy="Give [frames, samples, beams].")
    if np.iscomplexobj(rf):
        raise InputError("complex lines", remedy="Give RF: the real part of what `beamform` returns.")
    if rf.shape[1] < rf.shape[2] // 4:
        raise InputError(f"lines of {rf.shape[1]} samples on {rf.shape[2]} beams", remedy="Are axes in another order?")
    if not np.isfinite(rf).all():
        raise InputError("RF holds values that are not finite", remedy="Repair or leave out those frames.")
    if (tissue.values.part, haze.values.part) != ("tissue", "haze"):
        raise InputError(
            f"priors of {tissue.values.part} and {haze.values.part}", remedy="Give that of tissue, then that of haze."
        )
    if (tissue.values.frames, tissue.values.mu) != (haze.values.frames, haze.values.mu):
        raise InputError("the priors are of other sequences or values", remedy="Train both with the same options.")
    if guidance not in get_args(Guidance):
        raise InputError(f"guidance {guidance!r}", remedy=f"Use one of {', '.join(get_args(Guidance))}.")
    if guidance == "gains" and tissue.values.mu:
        raise InputError("guidance by gains on companded values", remedy="Use pigdm or projection.")
    if not 0 <= gamma < math.inf or not 0 <= noise < math.inf:
        raise InputError(f"gamma {gamma}, noise {noise}", remedy="Give numbers from 0 up.")
    if steps < 1 or samples < 1 or batch_size < 1 or not 0 < start <= 1 or not eta >= 0:
        raise InputError(
            f"{steps} steps, {samples} samples, batches of {batch_size}, start {start}",
            remedy="Use 1 or more, and a start above 0 and up to 1.",
        )
