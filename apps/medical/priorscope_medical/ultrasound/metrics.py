"""What an image without haze is measured by: contrast, distributions, sharpness, and rest between frames.

A score of contrast is worth what is known of its regions and bins, so both are stated by the caller.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError

Values = NDArray[np.floating]


def gcnr(inside: Values, outside: Values, *, bins: int = 256) -> float:
    """Generalised contrast-to-noise ratio: 1 minus the overlap of two histograms.

    Parameters
    ----------
    inside, outside : array
        Values of two regions, of any shape.
    bins : int
        Of the common histogram over both. The figure rises with the bins where regions are small: compare only
        figures of equal bins and like regions.

    Returns
    -------
    float
        From 0 (the same distribution) to 1 (no common value).

    Source: Rodriguez-Molares et al. 2020.
    """
    first, second = _finite(inside), _finite(outside)
    if bins < 2:
        raise InputError(f"{bins} bins", remedy="Use at least 2.")
    edges = np.histogram_bin_edges(np.concatenate([first, second]), bins)
    shares = [np.histogram(values, edges)[0] / len(values) for values in (first, second)]
    return float(1 - np.minimum(*shares).sum())


def cnr(inside: Values, outside: Values, *, decibel: bool = False) -> float:
    """Contrast-to-noise ratio (mean difference) / sqrt(sum of variances).

    Parameters
    ----------
    inside, outside : array
        Of log-compressed or of linear images: say which beside the figure.
    decibel : bool
        20 log10 of its size, the other convention; -inf for equal means.
    """
    first, second = _finite(inside), _finite(outside)
    difference, spread = float(first.mean() - second.mean()), math.sqrt(first.var() + second.var())
    if spread == 0:
        raise InputError("two constant regions have no contrast-to-noise ratio", remedy="Choose larger regions.")
    if not decibel:
        return difference / spread
    return 20 * math.log10(abs(difference) / spread) if difference else -math.inf


def kolmogorov_smirnov(first: Values, second: Values) -> tuple[float, float]:
    """The statistic (largest distance of the two cumulative distributions, 0 to 1) and its p-value."""
    from scipy.stats import ks_2samp

    found = ks_2samp(_finite(first), _finite(second))
    return float(found.statistic), float(found.pvalue)


def width_at_half(profile: Values, *, fine: int = 10, official: bool = False) -> float:
    """Full width at half of the maximum of a profile, in samples.

    Parameters
    ----------
    profile : array (n,)
        Of at least 4 samples, with its peak inside and half of the maximum on both sides.
    fine : int
        Cubic interpolation to so many times as many samples.
    official : bool
        Parity: distance of the interpolated samples nearest to the half on either side; by default the crossings
        themselves, and a profile that never falls to the half is refused.
    """
    from scipy.interpolate import interp1d

    values = _finite(profile)
    if profile.ndim != 1 or len(values) < 4:
        raise InputError(f"a profile of shape {profile.shape}", remedy="Give at least 4 samples in a row.")
    places = np.linspace(0, len(values) - 1, fine * len(values))
    smooth = interp1d(np.arange(len(values)), values, kind="cubic")(places)
    peak, half = int(np.argmax(smooth)), smooth.max() / 2
    if official:
        left = int(np.argmin(np.abs(smooth[:peak] - half))) if peak else 0
        right = peak + int(np.argmin(np.abs(smooth[peak:] - half)))
        return float(places[right] - places[left])
    below = smooth < half
    if not below[:peak].any() or not below[peak:].any():
        raise InputError("the profile does not fall to half of its maximum on both sides", remedy="Take more of it.")
    left = int(np.flatnonzero(below[:peak])[-1])
    right = peak + int(np.flatnonzero(below[peak:])[0])
    return _crossing(places, smooth, right - 1, half) - _crossing(places, smooth, left, half)


def speckle_size(image: Values, *, official: bool = False) -> tuple[float, float]:
    """Full width at half maximum of an image's autocorrelation along its last axis and along its first, in pixels.

    Parameters
    ----------
    image : array (H, W)
        A region of speckle, better linear than log-compressed; its edges are taken to meet (circular correlation).
    official : bool
        See :func:`width_at_half`.

    Notes
    -----
    The autocorrelation is scaled from its least to its largest value, so that the half lies between both.
    """
    if image.ndim != 2:
        raise InputError(f"an image of shape {image.shape}", remedy="Give (H, W).")
    _finite(image)
    spectrum = np.fft.fft2(image)
    correlation = np.fft.fftshift(np.fft.ifft2(np.abs(spectrum) ** 2).real)
    if not correlation.max() > correlation.min():
        raise InputError("a constant image has no speckle", remedy="Choose another region.")
    correlation = (correlation - correlation.min()) / (correlation.max() - correlation.min())
    row, column = np.unravel_index(np.argmax(correlation), correlation.shape)
    return (
        width_at_half(correlation[row], official=official),
        width_at_half(correlation[:, column], official=official),
    )


def brightest(values: Values, percent: float = 10.0) -> tuple[float, float]:
    """The level above which so many percent of the values lie, and the mean of those."""
    if not 0 < percent < 100:
        raise InputError(f"the brightest {percent} percent", remedy="Give a number between 0 and 100.")
    flat = _finite(values)
    level = float(np.percentile(flat, 100 - percent))
    return level, float(flat[flat >= level].mean())


def flicker(frames: Values, reference: Values) -> float:
    """How much a sequence changes from frame to frame beyond what its reference does, in parts of that.

    Parameters
    ----------
    frames, reference : array (T, ...)
        Two or more frames; the reference is the truth, or the sequence before processing.

    Returns
    -------
    float
        RMS of the difference of both sequences' frame-to-frame changes over RMS of the reference's; 0 is a sequence
        that changes exactly as its reference.
    """
    if frames.shape != reference.shape or len(frames) < 2:
        raise InputError(f"sequences of shapes {frames.shape} and {reference.shape}", remedy="Give two or more frames.")
    _finite(frames), _finite(reference)
    expected = np.diff(reference.astype(np.float64), axis=0)
    scale = float(np.sqrt(np.mean(expected**2)))
    if scale == 0:
        raise InputError("the reference stands still", remedy="There is nothing to compare changes with.")
    beyond = np.diff(frames.astype(np.float64), axis=0) - expected
    return float(np.sqrt(np.mean(beyond**2))) / scale


def _crossing(places: Values, values: Values, index: int, level: float) -> float:
    """Where the line from sample ``index`` to the next one meets ``level``."""
    rise = values[index + 1] - values[index]
    return float(places[index] + (level - values[index]) / rise * (places[index + 1] - places[index]))


def _finite(values: Values) -> NDArray[np.float64]:
    flat = np.asarray(values, dtype=np.float64).ravel()
    if flat.size == 0:
        raise InputError("a region without pixels", remedy="Choose a larger one.")
    if not np.isfinite(flat).all():
        raise InputError(f"{int((~np.isfinite(flat)).sum())} values are not finite", remedy="Mask them first.")
    return flat
