"""Companding: weak echoes made larger before a network sees them, and the way back.

Echo amplitudes span 60 dB and more; on a linear scale a network would see almost only zeros. The laws are those of
telephony, odd functions of [-1, 1] onto itself.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch.nn.functional import relu

from priorscope.diffusion.product import Parts
from priorscope.errors import InputError
from priorscope.inverse.joint_measurement import PixelwiseMeasurement

Law = Literal["mu", "A"]
MU, A = 255.0, 87.6


def compress(
    values: torch.Tensor, *, law: Law = "mu", strength: float | None = None, clip: bool = False
) -> torch.Tensor:
    """Compand ``values``: mu-law sgn(v) ln(1 + mu |v|) / ln(1 + mu), or A-law.

    Parameters
    ----------
    values : Tensor
        In [-1, 1]; beyond it the formula goes on.
    law : {"mu", "A"}
    strength : float, optional
        mu (255) or A (87.6).
    clip : bool
        Set what lies outside [-1, 1] to the nearer end first, as the published code does.

    Source: ITU-T G.711.
    """
    number = _strength(law, strength)
    values = values.clamp(-1, 1) if clip else values
    if law == "mu":
        return _odd(values, lambda size: torch.log1p(number * size) / math.log1p(number))
    scale = 1 + math.log(number)

    def branch(size: torch.Tensor) -> torch.Tensor:
        high = (1 + torch.log(torch.clamp(number * size, min=1.0))) / scale
        return torch.where(size < 1 / number, number * size / scale, high)

    return _odd(values, branch)


def expand(values: torch.Tensor, *, law: Law = "mu", strength: float | None = None, clip: bool = False) -> torch.Tensor:
    """The inverse of :func:`compress`: mu-law sgn(v) ((1 + mu)^|v| - 1) / mu."""
    number = _strength(law, strength)
    values = values.clamp(-1, 1) if clip else values
    if law == "mu":
        return _odd(values, lambda size: torch.expm1(math.log1p(number) * size) / number)
    scale = 1 + math.log(number)

    def branch(size: torch.Tensor) -> torch.Tensor:
        high = torch.exp(scale * size - 1) / number
        return torch.where(size < 1 / scale, scale * size / number, high)

    return _odd(values, branch)


def compress_range(
    values: torch.Tensor, lowest: float, highest: float, *, law: Law = "mu", strength: float | None = None
) -> torch.Tensor:
    """Compand values of [lowest, highest] about the middle of that range onto itself; values beyond it are clipped."""
    if not lowest < highest:
        raise InputError(f"a range from {lowest} to {highest}", remedy="Give the lowest value first.")
    middle, half = (lowest + highest) / 2, (highest - lowest) / 2
    return middle + half * compress((values - middle) / half, law=law, strength=strength, clip=True)


def companded_sum(parts: Parts, gamma: float, *, mu: float = MU) -> PixelwiseMeasurement:
    """y = C(C^-1(x) + gamma C^-1(h)): echoes add before companding, the networks live behind it.

    Parameters
    ----------
    parts : Parts
        Of the tissue x and the haze h, of one shape.
    gamma : float
        How strong the haze is: more takes more away.
    mu : float

    Returns
    -------
    PixelwiseMeasurement
        In the type of the state, computed in float64, where (1 + mu)^|x| of noisy states does not overflow up to
        |x| = 120.

    Notes
    -----
    Its slopes are as different as echoes are loud, up to 1 + mu where two loud ones cancel. A plain gradient step on
    the misfit, DPS or the published one, must be small to be stable; JointProjection and JointPiGDM divide by them.
    Source: Stevens et al. 2024 (dehazing ultrasound using diffusion models), as the CREATIS review reports it; the
    sampler was not released.
    """
    if len(parts) != 2 or not 0 <= gamma < math.inf:
        raise InputError(f"haze of strength {gamma} in {len(parts)} parts", remedy="Two parts, and a number from 0 up.")

    def measure(x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        echoes = expand(x.double(), strength=mu) + gamma * expand(h.double(), strength=mu)
        return compress(echoes, strength=mu).to(x.dtype)

    return PixelwiseMeasurement(parts, measure)


def _odd(values: torch.Tensor, branch) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """The odd function that is ``branch`` of positive numbers, with a derivative at 0: sgn(v) f(|v|) has none."""
    return branch(values.clamp(min=0)) - branch(relu(-values))


def _strength(law: Law, strength: float | None) -> float:
    if law not in ("mu", "A"):
        raise InputError(f"companding law {law!r}", remedy="Use 'mu' or 'A'.")
    number = {"mu": MU, "A": A}[law] if strength is None else strength
    if not (0 if law == "mu" else 1) < number < math.inf:
        raise InputError(f"{law} = {number}", remedy="mu must be above 0, A above 1.")
    return number
