"""How near simulated scans come to a sensor's: the distributions of their errors, and their holes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.evaluation.distributions import wasserstein

#: Metres; the distribution is also compared within each range of exact depth, which one Gaussian cannot fit at once.
RANGES = (0.4, 1.0, 1.5, 2.0, 3.0, 4.5)


class NothingMeasured(InputError):
    """Scans without a pixel in range: there are no errors to compare."""


@dataclass(frozen=True)
class ScanComparison:
    """Simulated scans against a sensor's, over a set of depth maps.

    Attributes
    ----------
    wasserstein_mm : float
        Wasserstein distance (order 1) between the errors of all measured pixels, simulated - exact and scanned -
        exact, in millimetres.
    by_range_mm : float
        Its mean over ranges of exact depth (``RANGES``) in which both measure something, each with equal weight; NaN
        where there is none.
    neighbours_mm : float
        Wasserstein distance between what the errors of pixels side by side differ by, in millimetres; NaN where no two
        such are measured. Noise of each pixel by itself is rougher than a sensor's, whose neighbours err together.
    hole_rate, sensor_hole_rate : float
        Share of the pixels with exact depth in range where nothing is measured.
    hole_overlap : float
        Intersection over union of the two sets of such pixels; 1 where there are none at all. Holes that are drawn at
        random overlap by chance only.
    """

    wasserstein_mm: float
    by_range_mm: float
    neighbours_mm: float
    hole_rate: float
    sensor_hole_rate: float
    hole_overlap: float

    @property
    def hole_rate_error(self) -> float:
        """How far apart the two shares are."""
        return abs(self.hole_rate - self.sensor_hole_rate)


def compare_scans(
    simulated: Sequence[NDArray[np.floating]],
    scanned: Sequence[NDArray[np.floating]],
    exact: Sequence[NDArray[np.floating]],
) -> ScanComparison:
    """Compare; all are depth maps (H, W) in metres, 0 or NaN where there is none.

    Only pixels whose exact depth lies within ``RANGES`` count.

    Raises
    ------
    NothingMeasured
        If one of the two measures nothing there.
    InputError
        Other numbers or sizes of maps, infinite depth.
    """
    if not (len(simulated) == len(scanned) == len(exact) > 0):
        raise InputError(
            f"{len(simulated)} simulated scans, {len(scanned)} of the sensor, {len(exact)} exact maps",
            remedy="Give equally many of each.",
        )
    for maps in zip(simulated, scanned, exact, strict=True):
        if len({np.shape(values) for values in maps}) > 1:
            raise InputError(f"maps of {' and '.join(str(list(np.shape(values))) for values in maps)} pixels")
    counted = [(truth >= RANGES[0]) & (truth < RANGES[-1]) for truth in exact]
    mine, its, depth = (
        np.concatenate([values[where] for values, where in zip(maps, counted, strict=True)]).astype(np.float64)
        for maps in (simulated, scanned, exact)
    )
    if not (mine > 0).any() or not (its > 0).any():
        raise NothingMeasured("nothing was measured within range", remedy="Compare scans of depth from 0.4 to 4.5 m.")
    parts = []
    for low, high in pairwise(RANGES):
        here = (depth >= low) & (depth < high)
        if (mine[here] > 0).any() and (its[here] > 0).any():
            parts.append(_distance(mine[here], its[here], depth[here]))
    rough = [_side_by_side(scans, exact, counted) for scans in (simulated, scanned)]
    holes, its_holes = ~(mine > 0), ~(its > 0)
    union = (holes | its_holes).sum()
    return ScanComparison(
        wasserstein_mm=_distance(mine, its, depth),
        by_range_mm=float(np.mean(parts)) if parts else float("nan"),
        neighbours_mm=float(wasserstein(*rough)[0]) if all(map(len, rough)) else float("nan"),
        hole_rate=float(holes.mean()),
        sensor_hole_rate=float(its_holes.mean()),
        hole_overlap=float((holes & its_holes).sum() / union) if union else 1.0,
    )


def _distance(mine: NDArray[np.float64], its: NDArray[np.float64], depth: NDArray[np.float64]) -> float:
    errors = [(scan - depth)[scan > 0][:, None] * 1000 for scan in (mine, its)]
    return float(wasserstein(*errors)[0])


def _side_by_side(
    scans: Sequence[NDArray[np.floating]],
    exact: Sequence[NDArray[np.floating]],
    counted: Sequence[NDArray[np.bool_]],
) -> NDArray[np.float64]:
    """Differences (N, 1) in millimetres between errors of pixels that are measured and lie side by side in a row."""
    found = []
    for scan, truth, here in zip(scans, exact, counted, strict=True):
        errors = np.where(here & (scan > 0), 1000 * (scan.astype(np.float64) - truth), np.nan)
        steps = np.diff(errors, axis=1)
        found.append(steps[np.isfinite(steps)])
    return np.concatenate(found)[:, None]


def gaussian_scans(
    exact: Sequence[NDArray[np.floating]], sigma: float, seed: int, *, power: float = 0.0
) -> list[NDArray[np.float32]]:
    """The baseline: exact depth plus Gaussian noise of ``sigma`` metres times depth to ``power``; no holes."""
    scans = []
    for number, truth in enumerate(exact):
        white = np.random.default_rng([seed, number]).standard_normal(truth.shape)
        noisy = truth + sigma * np.power(np.maximum(truth, 1e-6), power) * white
        scans.append(np.where(truth > 0, np.maximum(noisy, 1e-3), 0).astype(np.float32))
    return scans


def fitted_sigma(
    scanned: Sequence[NDArray[np.floating]], exact: Sequence[NDArray[np.floating]], *, power: float = 0.0
) -> float:
    """Root mean square of (scanned - exact) / depth ^ ``power`` over measured pixels in range."""
    errors = []
    for scan, truth in zip(scanned, exact, strict=True):
        here = (scan > 0) & (truth >= RANGES[0]) & (truth < RANGES[-1])
        errors.append((scan[here] - truth[here]) / np.power(truth[here], power))
    return float(np.sqrt(np.mean(np.square(np.concatenate(errors), dtype=np.float64))))
