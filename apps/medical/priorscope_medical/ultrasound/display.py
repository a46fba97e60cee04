"""Amplitudes made visible and comparable: gain over depth, one scale for a sequence, decibels."""

from __future__ import annotations

import math

import numpy as np
import torch

from priorscope.errors import InputError


def time_gain(
    samples: torch.Tensor, times: torch.Tensor, *, frequency: float, attenuation: float = 0.5, speed: float = 1540.0
) -> torch.Tensor:
    """Make up for attenuation on the way there and back.

    Parameters
    ----------
    samples : Tensor (..., samples)
        With time along the last axis.
    times : Tensor (samples,)
        In s since the transmit.
    frequency : float
        In Hz.
    attenuation : float
        In dB per cm and MHz, one way. Soft tissue has about 0.5.
    speed : float
        Of sound in m/s.
    """
    if attenuation < 0 or frequency <= 0:
        raise InputError(f"attenuation {attenuation} dB/cm/MHz at {frequency} Hz", remedy="Give positive numbers.")
    centimetres = 100 * speed * times.clamp(min=0) / 2
    decibel = 2 * attenuation * frequency / 1e6 * centimetres
    return samples * (10 ** (decibel / 20)).to(samples.real.dtype if samples.is_complex() else samples.dtype)


def normalised(samples: torch.Tensor, *, quantile: float = 1.0) -> tuple[torch.Tensor, float]:
    """``samples`` over a scale of the whole sequence, which is returned too: multiply by it to come back.

    Parameters
    ----------
    samples : Tensor
        RF or IQ of all frames; one scale keeps frames comparable.
    quantile : float
        Of their sizes, in (0, 1]. Below 1 the few strongest echoes exceed 1.
    """
    if not 0 < quantile <= 1:
        raise InputError(f"quantile {quantile}", remedy="Give a number above 0, up to 1.")
    sizes = samples.abs().flatten()
    rank = max(1, math.ceil(quantile * sizes.numel()))
    scale = float(sizes.max() if quantile == 1 else sizes.kthvalue(rank).values)
    if not 0 < scale < math.inf:
        raise InputError(f"samples whose scale is {scale}", remedy="Is there a signal, and are all values finite?")
    return samples / scale, scale


def to_decibel(envelope: torch.Tensor, *, dynamic_range: float = 60.0, reference: float | None = None) -> torch.Tensor:
    """Log compression: 20 log10(envelope / reference), cut to [-dynamic_range, 0].

    Parameters
    ----------
    envelope : Tensor
        Not negative, or complex.
    dynamic_range : float
        In dB.
    reference : float, optional
        What is 0 dB. None: the largest value of all; give the same for images that are compared.
    """
    sizes = envelope.abs()
    top = float(sizes.max()) if reference is None else float(reference)
    if not (0 < top < math.inf and 0 < dynamic_range < math.inf):
        raise InputError(f"a reference of {top} and {dynamic_range} dB", remedy="Both must be positive numbers.")
    floor = 10 ** (-dynamic_range / 20)
    return 20 * torch.log10((sizes / top).clamp(floor, 1))


def to_grey(decibel: torch.Tensor, *, dynamic_range: float = 60.0) -> np.ndarray:
    """uint8: 0 for -dynamic_range dB and below, 255 for 0 dB and above."""
    share = (decibel.detach().cpu().double() / dynamic_range + 1).clamp(0, 1)
    return (255 * share).round().to(torch.uint8).numpy()
