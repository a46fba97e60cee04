"""A scene through the atmosphere and onto the detector: point spread function, pixels, noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from priorscope_astro.simulator.galaxy import OVERSAMPLING

#: Standard deviation of the sky in g, r, i, nanomaggies a pixel, for noise 1: chosen by us.
SKY_SIGMA = (0.013, 0.022, 0.035)
#: Photo-electrons a nanomaggie: the photon noise of the galaxy itself.
ELECTRONS = 900.0
#: Seeing in g, r, i relative to r: wavelength ** -0.2 (Kolmogorov turbulence), rounded.
_SEEING = (1.05, 1.0, 0.96)
#: Slope of the Moffat profile.
_MOFFAT = 3.5
_PSF_PIXELS = 25


@dataclass(frozen=True)
class Camera:
    """How a survey sees."""

    size: int
    """Pixels of a stamp along a side."""
    pixel_scale: float
    """Arcsec."""
    seeing: float
    """Full width at half maximum in r, arcsec."""
    noise: float = 1.0
    """Of sky and photons, in units of :data:`SKY_SIGMA` and of what :data:`ELECTRONS` make."""

    @property
    def sky_sigma(self) -> NDArray[np.float32]:
        """Standard deviation of the sky in g, r, i, nanomaggies a pixel."""
        return np.array([self.noise * sigma for sigma in SKY_SIGMA], np.float32)

    def psf(self) -> NDArray[np.float32]:
        """Point spread function in g, r, i with a pixel's own width in it, (3, 25, 25), centred; its sum is about 1."""
        return np.stack([_kernel(self.seeing * factor, self.pixel_scale, _PSF_PIXELS) for factor in _SEEING])

    def seen(self, scene: NDArray[np.float32]) -> NDArray[np.float32]:
        """Flux (3, size, size) in nanomaggies a pixel, without noise, of a scene from :func:`~.galaxy.scene`.

        The cells of the scene are convolved with GalSim's image of a point in cells, and four cells make a pixel. That
        is what GalSim's own drawing gives (tests/astro compares them).
        """
        cells = scene.shape[-1]
        transfer, length, half = _transfer(self.seeing, self.pixel_scale, cells)
        light = fft.irfft2(fft.rfft2(scene, (length, length)) * transfer, (length, length))
        margin = (cells - OVERSAMPLING * self.size) // 2
        first = half + margin
        part = light[:, first : first + OVERSAMPLING * self.size, first : first + OVERSAMPLING * self.size]
        return part.reshape(3, self.size, OVERSAMPLING, self.size, OVERSAMPLING).sum((2, 4)).astype(np.float32)

    def with_noise(self, flux: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
        """Add the noise of a subtracted sky and of the galaxy's own photons, both Gaussian and without correlation."""
        variance = self.sky_sigma[:, None, None] ** 2 + self.noise**2 * np.maximum(flux, 0) / np.float32(ELECTRONS)
        noise = np.sqrt(variance) * random.standard_normal(flux.shape, np.float32)
        return (flux + noise).astype(np.float32)


def _kernel(seeing: float, scale: float, pixels: int) -> NDArray[np.float32]:
    """A point's image on a detector of that pixel scale."""
    import galsim

    # drawn once a survey, so it may be more accurate than GalSim's default
    accurate = galsim.GSParams(maxk_threshold=1e-4)
    star = galsim.Moffat(beta=_MOFFAT, fwhm=seeing, gsparams=accurate)
    return star.drawImage(nx=pixels, ny=pixels, scale=scale).array.astype(np.float32)


@lru_cache(maxsize=4)
def _transfer(seeing: float, pixel_scale: float, cells: int) -> tuple[NDArray[np.complex64], int, int]:
    """Fourier transforms of the kernels in cells, the side of the transform, and half the side of a kernel."""
    cell = pixel_scale / OVERSAMPLING
    # light farther away than six times the seeing is less than 2e-4 of a point's
    half = int(np.ceil(6 * seeing / cell))
    length = fft.next_fast_len(cells + 2 * half, real=True)
    kernels = np.stack([_kernel(seeing * factor, cell, 2 * half + 1) for factor in _SEEING])
    return fft.rfft2(kernels, (length, length)), length, half
