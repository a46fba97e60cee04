"""Sersic profiles fitted to many galaxies at once: Levenberg-Marquardt with the profile's own derivatives.

The profile (Sersic 1963) is amplitude exp(-b_n ((r / rhalf)^(1/n) - 1)) with b_n such that half the light is within
rhalf; r is the semi-major axis of the ellipse through a pixel's centre. It is convolved with the point spread function
by Fourier transforms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft as fourier
from scipy.special import gammaincinv

from priorscope.errors import InputError
from priorscope_astro.morphology.profile import ANNULUS, Light, Shape

Array = NDArray[np.float64]
QUANTITIES = (
    *("sersic_amplitude", "sersic_rhalf", "sersic_n", "sersic_xc", "sersic_yc", "sersic_ellip", "sersic_theta"),
    "sersic_chi2_dof",
)
#: Parameters: log amplitude, log rhalf, log n, x, y, ellipticity, theta.
_COUNT, _STEPS = 7, 60
_SMALLEST_N, _LARGEST_N = 0.01, 50.0
_TOLERANCE = 1e-7


def checked_psf(psf: ArrayLike, count: int) -> Array:
    """Point spread functions (1 or B, h, w), each with sum 1.

    Raises
    ------
    InputError
        Another shape, sides that are even (no middle pixel), values that are not finite, no light.
    """
    kernel = np.asarray(psf, dtype=np.float64)
    kernel = kernel[None] if kernel.ndim == 2 else kernel
    if kernel.ndim != 3 or len(kernel) not in (1, count) or not all(side % 2 for side in kernel.shape[1:]):
        raise InputError(
            f"a PSF of shape {kernel.shape} for {count} stamps",
            remedy="Give (h, w) or one a stamp, with odd sides: the middle pixel is the centre.",
        )
    total = kernel.sum((1, 2))
    if not np.isfinite(kernel).all() or not (total > 0).all():
        raise InputError("a PSF with values that are not finite, or without light")
    return kernel / total[:, None, None]


def psf_of(psf: Array | None, rows: NDArray[np.intp]) -> Array | None:
    """The PSFs of these stamps, where each has its own."""
    return psf if psf is None or len(psf) == 1 else psf[rows]


class _Convolution:
    """Convolution of images with a PSF each; zeros lie outside the images."""

    def __init__(self, psf: Array | None, size: tuple[int, int]) -> None:
        self.size = size
        self.psf = psf
        if psf is None:
            return
        reach = psf.shape[1] // 2, psf.shape[2] // 2
        # what wraps round comes from beyond the far edge by at most the PSF's reach
        self.padded = tuple(fourier.next_fast_len(side + far, real=True) for side, far in zip(size, reach, strict=True))
        kernel = np.zeros((len(psf), *(max(pair) for pair in zip(self.padded, psf.shape[1:], strict=True))))
        kernel[:, : psf.shape[1], : psf.shape[2]] = psf
        kernel = np.roll(kernel, (-reach[0], -reach[1]), axis=(1, 2))
        if kernel.shape[1:] != self.padded:
            raise InputError(
                f"a PSF of {psf.shape[1]} x {psf.shape[2]} for stamps of {size[0]} x {size[1]}",
                remedy="Cut the PSF smaller than the stamp.",
            )
        self.transfer = fourier.rfft2(kernel)
        self.transfer_single = self.transfer.astype(np.complex64)

    def __call__(self, images: NDArray, rows: NDArray[np.intp]) -> NDArray:
        """Convolve (n, ..., H, W), in the images' precision."""
        if self.psf is None:
            return images
        transfer = self.transfer if images.dtype == np.float64 else self.transfer_single
        if len(transfer) > 1:
            transfer = transfer[rows]
        transfer = transfer.reshape(len(transfer), *[1] * (images.ndim - 3), *transfer.shape[1:])
        spectrum = fourier.rfft2(images, self.padded)
        spectrum *= transfer
        return fourier.irfft2(spectrum, self.padded)[..., : self.size[0], : self.size[1]]


def _steepness(n: Array) -> tuple[Array, Array]:
    """b_n and its derivative by log n."""
    step = 1e-5
    return gammaincinv(2 * n, 0.5), (gammaincinv(2 * n * (1 + step), 0.5) - gammaincinv(2 * n * (1 - step), 0.5)) / (
        2 * step
    )


def profile(parameters: Array, size: tuple[int, int]) -> Array:
    """Profiles (B, H, W) at pixels' centres.

    Parameters
    ----------
    parameters : array (B, 7)
        log amplitude, log rhalf, log n, x, y, ellipticity 1 - b/a, angle of the major axis from the x axis.
    size : tuple of int
        H and W.
    """
    return _profile(parameters, size, slopes=False)[0]


def _profile(parameters: Array, size: tuple[int, int], *, slopes: bool) -> tuple[Array, NDArray[np.float32] | None]:
    amplitude, rhalf, n = np.exp(parameters[:, :3]).T
    ellip, theta = parameters[:, 5], parameters[:, 6]
    cos, sin = np.cos(theta)[:, None], np.sin(theta)[:, None]
    x, y = np.arange(size[1]) - parameters[:, 3:4], np.arange(size[0]) - parameters[:, 4:5]
    # in units of the semi-axes
    a, b = rhalf[:, None], (rhalf * (1 - ellip))[:, None]
    b = np.where(np.abs(b) < 1e-6 * a, 1e-6 * a, b)
    along = (x * cos / a)[:, None] + (y * sin / a)[:, :, None]
    across = (y * cos / b)[:, :, None] - (x * sin / b)[:, None]
    squared = along**2
    squared += across**2
    np.maximum(squared, 1e-16, out=squared)
    logarithm = np.log(squared)
    b_n, slope_b = _steepness(n)
    growth = np.exp(np.minimum(logarithm * (0.5 / n)[:, None, None], 60))  # no light is left there
    light = growth - 1
    light *= -b_n[:, None, None]
    light += np.log(amplitude)[:, None, None]
    np.exp(light, out=light)
    if not slopes:
        return light, None
    # derivatives need less precision than the profile: they only choose the way
    single = np.float32
    light_, growth_, log_, along_, across_, squared_ = (
        part.astype(single) for part in (light, growth, logarithm, along, across, squared)
    )
    cos_, sin_, a_, b_, n_, b_n_, slope_ = (
        np.asarray(part, dtype=single).reshape(-1, 1, 1) for part in (cos, sin, a, b, n, b_n, slope_b)
    )
    falls = light_ * growth_ * (-b_n_ / n_)  # d light / d log r
    by_square = falls / (2 * squared_)
    found = np.empty((len(parameters), _COUNT, *size), dtype=single)
    found[:, 0] = light_
    np.negative(falls, out=found[:, 1])
    found[:, 2] = -slope_ * light_ * (growth_ - 1) - falls * log_ * single(0.5)
    found[:, 3] = by_square * (-2 * (along_ * (cos_ / a_) - across_ * (sin_ / b_)))
    found[:, 4] = by_square * (-2 * (along_ * (sin_ / a_) + across_ * (cos_ / b_)))
    found[:, 5] = by_square * (across_**2 * (2 * a_ / b_))
    found[:, 6] = by_square * (along_ * across_) * (2 * (b_ / a_ - a_ / b_))
    return light, found


def fit(
    images: Array,
    masks: NDArray[np.bool_],
    noise: Array,
    psf: Array | None,
    shape: Shape,
    rhalf: Array,
    concentration: Array,
) -> dict[str, NDArray]:
    """Fit sources that are described by ``shape``, their half-light semi-major axis and concentration.

    Returns
    -------
    dict
        :data:`QUANTITIES` and ``flag_sersic``: 0 good, 1 at a bound of n, 2 not converged, 4 not tried.
    """
    size = (images.shape[1], images.shape[2])
    counted = (images != 0) & ~masks & (noise > 0) & np.isfinite(noise)
    weights = np.where(counted, 1 / np.where(counted, noise, 1), 0.0)
    free = counted.sum((1, 2)) - _COUNT
    assert shape.elongation is not None
    assert shape.theta is not None
    tried = np.flatnonzero((free > 0) & (rhalf > 0) & np.isfinite(concentration) & np.isfinite(shape.elongation))
    found = {name: np.full(len(images), np.nan) for name in QUANTITIES}
    found["flag_sersic"] = np.full(len(images), 4, dtype=np.int64)
    if not len(tried):
        return found
    images, masks, weights = images[tried], masks[tried], weights[tried]
    shape, rhalf = shape.rows(tried), rhalf[tried]
    start = np.empty((len(tried), _COUNT))
    light = Light(images, masks, shape, float(rhalf.max()) + ANNULUS)
    every = np.arange(len(tried))
    inner, outer = light(np.maximum(rhalf - ANNULUS / 2, 0), every), light(rhalf + ANNULUS / 2, every)
    mean = np.abs(outer[0] - inner[0]) / np.maximum(outer[1] - inner[1], 1e-9)
    assert shape.elongation is not None
    assert shape.theta is not None
    start[:, 0] = np.log(np.maximum(mean, 1e-3 * np.abs(images).max((1, 2))))
    start[:, 1] = np.log(rhalf)
    start[:, 2] = np.log(np.clip(10**-1.5 * concentration[tried] ** 3.5, 1, 3.5))
    start[:, 3:5] = shape.centre
    start[:, 5] = 1 - 1 / shape.elongation
    start[:, 6] = shape.theta
    parameters, cost, sound = _levenberg_marquardt(start, images, weights, _Convolution(psf_of(psf, tried), size))
    bound = (parameters[:, 2] <= np.log(_SMALLEST_N)) | (parameters[:, 2] >= np.log(_LARGEST_N))
    axis, ellip, theta = _ordered(np.exp(parameters[:, 1]), parameters[:, 5], parameters[:, 6])
    values = (
        *(np.exp(parameters[:, 0]), axis, np.exp(parameters[:, 2]), parameters[:, 3], parameters[:, 4]),
        *(ellip, theta % np.pi, cost / free[tried]),
    )
    for name, value in zip(QUANTITIES, values, strict=True):
        found[name][tried] = value
    found["flag_sersic"][tried] = np.where(~sound, 2, np.where(bound, 1, 0))
    return found


def _ordered(axis: Array, ellip: Array, theta: Array) -> tuple[Array, Array, Array]:
    """The same ellipse with ellipticity in [0, 1]: negative and exchanged semi-axes are allowed while fitting."""
    ellip = np.where(ellip > 1, 2 - ellip, ellip)
    turn = ellip < 0
    return (
        np.where(turn, (1 - ellip) * axis, axis),
        np.where(turn, ellip / (ellip - 1), ellip),
        np.where(turn, theta + np.pi / 2, theta),
    )


def _levenberg_marquardt(
    start: Array, images: Array, weights: Array, convolved: _Convolution
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Minimise the sum of (weight (model - image))^2 of each image; parameters, sums, and whether they settled."""
    size = (images.shape[1], images.shape[2])
    parameters = start.copy()
    count = len(start)
    every = np.arange(count)

    def residuals(of: Array, rows: NDArray[np.intp]) -> Array:
        found = convolved(profile(of, size), rows) - images[rows]
        found *= weights[rows]
        return found.reshape(len(rows), -1)

    errors = residuals(parameters, every)
    cost = np.einsum("bn,bn->b", errors, errors)
    damping, settled = np.full(count, 1e-3), np.zeros(count, dtype=bool)
    normal, gradient = np.empty((count, _COUNT, _COUNT)), np.empty((count, _COUNT))
    stale = np.ones(count, dtype=bool)
    for _ in range(_STEPS):
        rows = np.flatnonzero(~settled)
        if not len(rows):
            break
        fresh = rows[stale[rows]]
        if len(fresh):
            slopes = _profile(parameters[fresh], size, slopes=True)[1]
            assert slopes is not None
            slopes = convolved(slopes, fresh) * weights[fresh, None].astype(np.float32)
            slopes = slopes.reshape(len(fresh), _COUNT, -1)
            normal[fresh] = slopes @ slopes.transpose(0, 2, 1)
            gradient[fresh] = (slopes @ errors[fresh, :, None].astype(np.float32))[..., 0]
            stale[fresh] = False
        scale = np.sqrt(np.maximum(np.einsum("bii->bi", normal[rows]), 1e-30))
        scaled = normal[rows] / (scale[:, :, None] * scale[:, None])
        scaled += (damping[rows, None] + 1e-12)[..., None] * np.eye(_COUNT)
        step = -np.linalg.solve(scaled, (gradient[rows] / scale)[..., None])[..., 0] / scale
        step[:, :3] = np.clip(step[:, :3], -1, 1)
        trial = parameters[rows] + step
        trial[:, 2] = np.clip(trial[:, 2], np.log(_SMALLEST_N), np.log(_LARGEST_N))
        tried = residuals(trial, rows)
        tried_cost = np.einsum("bn,bn->b", tried, tried)
        better = tried_cost <= cost[rows]
        size_of_step = np.abs(trial - parameters[rows]).max(1)
        gain = cost[rows] - tried_cost
        good = rows[better]
        settled[rows] = (size_of_step < _TOLERANCE) | (better & (gain < 1e-10 * cost[rows]) & (size_of_step < 1e-5))
        settled[rows] |= damping[rows] > 1e10
        parameters[good], errors[good], cost[good] = trial[better], tried[better], tried_cost[better]
        stale[good] = True
        damping[rows] *= np.where(better, 0.1, 10)
        damping = np.maximum(damping, 1e-9)
    return parameters, cost, settled & (damping <= 1e10)
