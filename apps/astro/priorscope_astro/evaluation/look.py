"""Flux as pictures and as stretched values: one mapping, the same for real and generated galaxies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorscope_astro.evaluation.sample import Real, Sample, Survey
from priorscope_astro.imaging.lupton import lupton_rgb
from priorscope_astro.imaging.noise import sky_sigma
from priorscope_astro.imaging.stretch import AsinhStretch

#: Range of the pictures' linear part, in standard deviations of the middle band's sky.
_RANGE, _SOFTENING = 23.0, 8.0
_MEASURED = 256


@dataclass(frozen=True)
class Look:
    """How flux is shown.

    Attributes
    ----------
    places : tuple of int
        Bands for red, green and blue.
    gains : tuple of float
        Of each of the three.
    stretch, softening : float
        See :func:`priorscope_astro.imaging.lupton.lupton_rgb`.
    sky_sigma : array (bands,)
    asinh : AsinhStretch
        From flux to values of about 0 to 1.
    """

    places: tuple[int, int, int]
    gains: tuple[float, float, float]
    stretch: float
    softening: float
    sky_sigma: NDArray[np.float64]
    asinh: AsinhStretch

    def pictures(self, flux: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Flux (N, bands, H, W), rows upwards, as uint8 (N, H, W, 3), row 0 at the top."""
        shown = flux[:, self.places] * np.array(self.gains, np.float32)[:, None, None]
        blocks = np.array_split(shown, max(1, len(shown) // 256))
        rgb = np.concatenate([lupton_rgb(block, stretch=self.stretch, softening=self.softening) for block in blocks])
        return np.ascontiguousarray(rgb[:, ::-1])

    def values(self, flux: NDArray[np.float32]) -> NDArray[np.float32]:
        """Flux (N, bands, H, W), stretched."""
        return np.asarray(self.asinh.apply(flux), np.float32)


def look_of(real: Real) -> Look:
    """The mapping for the flux of a survey, from its own noise and galaxies.

    Simulated surveys and others in nanomaggies with the bands g, r, i look as ``priorscope astro simulate`` shows them.
    Otherwise the gains make the median galaxy grey, and the linear part of the curve reaches to 23 standard deviations
    of the sky.
    """
    count = len(real.galaxies)
    rows = np.unique(np.linspace(0, count - 1, min(_MEASURED, count)).round().astype(int))
    return look_from(real.sample(rows).images, real.survey)


def look_from(some: NDArray[np.float32], survey: Survey) -> Look:
    """The same from some stamps (N, bands, H, W)."""
    bands = some.shape[1]
    known = survey.sky_sigma
    sigma = np.median(sky_sigma(some), axis=0) if known is None else known
    sigma = np.maximum(np.asarray(sigma, np.float64), 1e-12 + 1e-6 * np.abs(some).max())
    peak = np.maximum(np.quantile(some.max((2, 3)), 0.99, axis=0), 10 * sigma)
    asinh = AsinhStretch(tuple(sigma.tolist()), tuple(peak.tolist()))
    places = (bands - 1, bands // 2, 0)
    if survey.unit == "nmgy" and tuple(band.lower() for band in survey.bands) == ("g", "r", "i"):
        from priorscope_astro.simulator.survey import GAINS, SOFTENING, STRETCH

        return Look(places, GAINS, STRETCH, SOFTENING, sigma, asinh)
    light = np.maximum(np.median(some.sum((2, 3)), axis=0), sigma)
    gains = tuple(float(light[bands // 2] / light[place]) for place in places)
    return Look(places, gains, float(_RANGE * sigma[bands // 2]), _SOFTENING, sigma, asinh)  # type: ignore[arg-type]


def pictures_of(sample: Sample, look: Look | None) -> NDArray[np.uint8]:
    """Pictures uint8 (N, side, side, 3) of a sample of either mode."""
    if look is None or not len(sample):
        return np.asarray(sample.images, np.uint8).reshape(len(sample), sample.side, sample.side, 3)
    return look.pictures(sample.images)


def values_of(sample: Sample, look: Look | None) -> NDArray[np.float32]:
    """Values float32 (N, channels, side, side) of about 0 to 1: stretched flux, or pictures / 255."""
    if look is None:
        return np.moveaxis(sample.images, -1, 1).astype(np.float32) / np.float32(255)
    return look.values(sample.images)
