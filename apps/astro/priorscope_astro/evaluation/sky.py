"""The sky beside the galaxies: its noise, and its power at every spatial frequency. Of flux alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.evaluation.distributions import wasserstein
from priorscope_astro.imaging.noise import power_spectrum, sky_sigma
from priorscope_astro.morphology.segmenting import segment

#: A corner has this part of the side; its power is taken in this many bins.
_PART, _BINS = 4, 6
_LEAST = 8


@dataclass(frozen=True)
class Sky:
    """The sky of N stamps.

    Attributes
    ----------
    sigma : array (N, bands)
        Standard deviation of a pixel.
    frequency : array (bins,)
        Cycles a pixel.
    power : array (bands, bins)
        Mean over the corners without a source, in the flux's unit squared; NaN where there are none.
    corners : int
        How many.
    """

    sigma: NDArray[np.float64]
    frequency: NDArray[np.float64]
    power: NDArray[np.float64]
    corners: int


def measure_sky(flux: NDArray[np.float32], sigma: NDArray[np.float64]) -> Sky:
    """Measure the sky of stamps (N, bands, H, W); ``sigma`` (bands,) is what a source must stand out from."""
    side = flux.shape[-1] // _PART
    source = segment(flux[:, flux.shape[1] // 2].astype(np.float64), np.asarray(sigma[flux.shape[1] // 2])) > 0
    patches = []
    for rows in (slice(None, side), slice(-side, None)):
        for columns in (slice(None, side), slice(-side, None)):
            empty = ~source[:, rows, columns].any((1, 2))
            patches.append(flux[empty][:, :, rows, columns])
    corners = np.concatenate(patches)
    bins = min(_BINS, max(side // 2, 1))
    if len(corners):
        frequency, power = power_spectrum(corners, bins)
        mean = power.mean(0)
    else:
        frequency, mean = (np.arange(bins) + 0.5) / (2 * bins), np.full((flux.shape[1], bins), np.nan)
    return Sky(np.asarray(sky_sigma(flux)), frequency, mean, len(corners))


def compare_sky(real: Sky, generated: Sky, bands: tuple[str, ...], *, seed: int = 0) -> list[dict[str, Any]]:
    """One row a band: median noise of either, the Wasserstein distance in units of real against real, power."""
    random = np.random.default_rng([seed, 31])
    n = min(len(real.sigma) // 2, len(generated.sigma))
    rows = []
    for band, name in enumerate(bands):
        theirs = random.permutation(real.sigma[:, band])[:, None]
        ours = random.permutation(generated.sigma[:, band])[:n, None]
        row: dict[str, Any] = {
            "band": name,
            "real noise": float(np.median(real.sigma[:, band])),
            "generated noise": float(np.median(generated.sigma[:, band])),
        }
        row["noise ratio"] = row["generated noise"] / row["real noise"]
        if n >= _LEAST:
            floor = float(wasserstein(theirs[:n], theirs[n : 2 * n])[0])
            row["real to real"], row["real to generated"] = floor, float(wasserstein(theirs[:n], ours)[0])
        for half, which in (
            ("low", slice(None, len(real.frequency) // 2)),
            ("high", slice(len(real.frequency) // 2, None)),
        ):
            powers = [sky.power[band, which] for sky in (real, generated)]
            known = np.isfinite(powers).all(0)
            row[f"power ratio, {half} frequencies"] = (
                float(powers[1][known].mean() / powers[0][known].mean()) if known.any() else None
            )
        rows.append(row)
    return rows
