"""How far a reconstructed image or volume is from the true one.

The range of the data is always stated: scikit-image's defaults have changed with its version, and a range taken from
each image makes the figures of two images incomparable.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError

Array = NDArray[np.floating]
#: Width of scikit-image's SSIM window, which no side may be smaller than.
_WINDOW = 7


def psnr(estimate: Array, truth: Array, *, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(data_range^2 / mean squared error); infinite where both are equal.

    Parameters
    ----------
    estimate, truth : array of one shape
    data_range : float
        Largest minus smallest value that the data can have; 1.0 for images in [0, 1].

    Raises
    ------
    InputError
        Shapes that differ, no values, values that are not finite, a range that is not above 0.
    """
    estimate, truth = _checked(estimate, truth, data_range)
    error = float(np.mean(np.square(estimate - truth)))
    return math.inf if error == 0 else 10 * math.log10(data_range**2 / error)


def ssim(estimate: Array, truth: Array, *, data_range: float, gaussian: bool = False) -> float:
    """Structural similarity (Wang et al. 2004) of two images, at most 1.

    Parameters
    ----------
    estimate, truth : array (H, W)
        Sides of at least 7 (``gaussian``: 11).
    data_range : float
        As for :func:`psnr`.
    gaussian : bool
        The paper's Gaussian window of sigma 1.5 and its population covariance; otherwise scikit-image's default,
        7 x 7 pixels alike and the sample covariance, which published tables mostly have.

    Raises
    ------
    InputError
        As for :func:`psnr`; sides smaller than the window.
    """
    estimate, truth = _checked(estimate, truth, data_range)
    smallest = 11 if gaussian else _WINDOW
    if truth.ndim != 2 or min(truth.shape) < smallest:
        raise InputError(f"SSIM of images of shape {truth.shape}", remedy=f"Its window needs {smallest} x {smallest}.")
    from skimage.metrics import structural_similarity

    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False} if gaussian else {}
    return float(structural_similarity(truth, estimate, data_range=data_range, **options))


def hfen(estimate: Array, truth: Array) -> float:
    """High-frequency error norm (Ravishankar and Bresler 2011): what is lost of the edges, 0 for nothing.

    The norm of the difference of both images after a Laplacian of Gaussian (sigma 1.5, 15 x 15 pixels, sum 0), over
    that of the truth's; images are reflected at their borders.

    Parameters
    ----------
    estimate, truth : array (H, W)

    Raises
    ------
    InputError
        As for :func:`psnr`; a truth without edges.
    """
    estimate, truth = _checked(estimate, truth, 1.0)
    if truth.ndim != 2:
        raise InputError(f"HFEN of arrays of shape {truth.shape}", remedy="Give images (H, W).")
    from scipy.ndimage import convolve

    edges = convolve(truth, _laplacian_of_gaussian())
    size = float(np.linalg.norm(edges))
    if size <= 1e-12 * float(np.linalg.norm(truth)):
        raise InputError("the true image has no edges to compare with")
    return float(np.linalg.norm(convolve(estimate, _laplacian_of_gaussian()) - edges)) / size


def _laplacian_of_gaussian(sigma: float = 1.5, reach: int = 7) -> NDArray[np.float64]:
    square = np.add.outer(*2 * [np.arange(-reach, reach + 1.0) ** 2])
    bell = np.exp(-square / (2 * sigma**2))
    kernel = (square - 2 * sigma**2) / sigma**4 * bell / bell.sum()
    return kernel - kernel.mean()


def nrmse(estimate: Array, truth: Array) -> float:
    """Root mean squared error over the root mean square of the truth.

    Raises
    ------
    InputError
        As for :func:`psnr`; a truth of zeros.
    """
    estimate, truth = _checked(estimate, truth, 1.0)
    size = float(np.linalg.norm(truth))
    if size == 0:
        raise InputError("the true image is zero everywhere: an error relative to it means nothing")
    return float(np.linalg.norm(estimate - truth)) / size


def over_slices(
    metric: Callable[[Array, Array], float], estimate: Array, truth: Array, axis: int
) -> NDArray[np.float64]:
    """A metric of every slice of two volumes across ``axis``.

    Parameters
    ----------
    metric : callable
        ``metric(estimate, truth)`` of two images; bind the data range with ``functools.partial``.
    estimate, truth : array (D, H, W)
    axis : int
        0 takes images [k], 1 [:, k], 2 [:, :, k]; -1 is 2. Which is axial is for the caller to know.

    Returns
    -------
    array of float64, one value a slice

    Raises
    ------
    InputError
        As for :func:`psnr`; arrays that are no volumes, or another axis.
    """
    estimate, truth = _checked(estimate, truth, 1.0)
    if truth.ndim != 3:
        raise InputError(f"slices of an array of shape {truth.shape}", remedy="Give volumes (D, H, W).")
    if not -3 <= axis < 3:
        raise InputError(f"slices across axis {axis} of a volume", remedy="Use 0, 1 or 2.")
    slices = zip(np.moveaxis(estimate, axis, 0), np.moveaxis(truth, axis, 0), strict=True)
    return np.array([metric(*pair) for pair in slices])


def _checked(estimate: Array, truth: Array, data_range: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not 0 < data_range < math.inf:
        raise InputError(
            f"data_range {data_range}", remedy="Give the span of values the data can have, 1.0 for [0, 1]."
        )
    if np.iscomplexobj(estimate) or np.iscomplexobj(truth):
        raise InputError("metrics of complex images", remedy="Compare magnitudes.")
    arrays = np.asarray(estimate, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if arrays[0].shape != arrays[1].shape or not arrays[1].size:
        raise InputError(f"an estimate of shape {arrays[0].shape} against a truth of shape {arrays[1].shape}")
    for name, array in zip(("estimate", "truth"), arrays, strict=True):
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if bad:
            raise InputError(f"{bad} values of the {name} are not finite")
    return arrays
