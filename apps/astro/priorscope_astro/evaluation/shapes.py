"""Distributions of shape and colour: generated against real, in units of real against real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.evaluation.distributions import wasserstein
from priorscope_astro.evaluation.look import Look
from priorscope_astro.evaluation.sample import Sample, Survey
from priorscope_astro.morphology.measuring import measure

#: Name in tables -> name of :func:`priorscope_astro.morphology.measure`.
MEASURED = {
    "C": "concentration",
    "A": "asymmetry",
    "S": "smoothness",
    "Gini": "gini",
    "M20": "m20",
    "r50": "rhalf_circ",
}
SERSIC = "Sersic n"
#: What KID and PRDC are taken in where the features are the morphology.
SPACE = ("C", "A", "S", "Gini", "M20")
#: Fewest galaxies, real and generated, of which a distribution is compared.
LEAST = 8


@dataclass(frozen=True)
class Shapes:
    """Shapes of N galaxies.

    Attributes
    ----------
    values : mapping
        Quantity -> (N,); NaN where it could not be measured, or was flagged as bad.
    flag : int array (N,)
        0 good, 1 suspect, 2 bad, 4 nothing could be measured.
    offset : array (N,)
        Distance of the source's centre from the stamp's, as a share of the side.
    """

    values: dict[str, NDArray[np.float64]]
    flag: NDArray[np.int64]
    offset: NDArray[np.float64]

    def space(self) -> NDArray[np.float64]:
        """C, A, S, Gini and M20 (N, 5)."""
        return np.stack([self.values[name] for name in SPACE], 1)


def measure_shapes(sample: Sample, survey: Survey, look: Look | None, *, sersic: bool = False) -> Shapes:
    """Measure galaxies: of flux in the middle band, of pictures the mean of the colours less the border's median.

    What is measured in pictures is not photometry: compare it only with what is measured in pictures of one stretch.

    Parameters
    ----------
    sample : Sample
    survey : Survey
        Noise and PSF of real and generated galaxies.
    look : Look or None
        None for pictures.
    sersic : bool
        Fit profiles too; flux only.
    """
    light = _light(sample, look)
    middle = light.shape[1] // 2
    options: dict[str, Any] = {}
    if look is not None:
        options["sigma"] = float(look.sky_sigma[middle])
        if sersic and survey.psf is not None and all(side % 2 for side in survey.psf.shape[1:]):
            options["psf"] = survey.psf[middle]
    found = measure(light[:, middle] if look is not None else light.mean(1), fit=sersic, **options)
    flag = found["flag"].astype(np.int64)
    bad = flag >= 2
    values = {name: np.where(bad, np.nan, found[key]) for name, key in MEASURED.items()}
    if sersic:
        values[SERSIC] = np.where(bad | (found["flag_sersic"] >= 2), np.nan, found["sersic_n"])
    x, y = found["xc_centroid"], found["yc_centroid"]
    values["colour"] = np.where(bad, np.nan, _colour(light, x, y, found["rhalf_circ"]))
    centre = (sample.side - 1) / 2
    offset = np.hypot(x - centre, y - centre) / sample.side
    return Shapes(values, flag, offset)


def colour_name(bands: Sequence[str], look: Look | None) -> str:
    """What ``colour`` is: magnitudes between two bands, or between two channels of a picture."""
    if look is None:
        return "B - R of the pictures, in magnitudes of 8-bit values: no photometry"
    return f"{bands[0]} - {bands[-1]}, magnitudes, within two half-light radii" if len(bands) > 1 else "one band: none"


def _light(sample: Sample, look: Look | None) -> NDArray[np.float64]:
    if look is not None:
        return sample.images.astype(np.float64)
    light = np.moveaxis(sample.images, -1, 1).astype(np.float64) / 255
    border = np.concatenate([light[..., 0, :], light[..., -1, :], light[..., 0], light[..., -1]], -1)
    # the blue channel first, as bands go
    return (light - np.median(border, -1)[..., None, None])[:, ::-1]


def _colour(
    light: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64], radius: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Colour -2.5 log10(first / last band) within two half-light radii; NaN where a flux is not above 0."""
    rows, columns = np.ogrid[: light.shape[2], : light.shape[3]]
    with np.errstate(invalid="ignore", divide="ignore"):
        near = (columns - x[:, None, None]) ** 2 + (rows - y[:, None, None]) ** 2 <= (2 * radius[:, None, None]) ** 2
        first, last = ((light[:, band] * near).sum((1, 2)) for band in (0, -1))
        colour = -2.5 * np.log10(np.where(first > 0, first, np.nan) / np.where(last > 0, last, np.nan))
    return np.asarray(colour)


def compare_shapes(
    real: Shapes,
    generated: Shapes,
    real_labels: Sequence[str],
    generated_labels: Sequence[str],
    *,
    repeats: int = 50,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Wasserstein distances a class and quantity, in units of real against real.

    Of each class, ``n`` generated and twice ``n`` real galaxies are drawn without replacement, ``repeats`` times; the
    first ``n`` real ones are compared with the generated and with the other real ones. The ratio is that of the mean
    distances; 1 is as good as another sample of real galaxies. ``low`` and ``high`` hold 95 % of the draws' distances
    to the generated galaxies, over the mean of real against real.

    Returns
    -------
    list of dict
        ``class``, ``quantity``, ``n``, ``real median``, ``generated median``, ``real to real``, ``real to generated``,
        ``ratio``, ``low``, ``high``.
    list of str
        Classes that are too few, in words.
    """
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    random = np.random.default_rng([seed, 23])
    one, two = np.array(real_labels), np.array(generated_labels)
    for name in dict.fromkeys(generated_labels):
        for quantity in generated.values:
            ours = generated.values[quantity][two == name]
            theirs = real.values[quantity][one == name]
            ours, theirs = ours[np.isfinite(ours)], theirs[np.isfinite(theirs)]
            n = min(len(ours), len(theirs) // 2)
            if n < LEAST:
                if quantity in ("C", SERSIC):
                    notes.append(f"{name}, {quantity}: {len(theirs)} real and {len(ours)} generated galaxies, too few")
                continue
            apart = np.empty((repeats, 2))
            for repeat in range(repeats):
                drawn = random.permutation(theirs)[: 2 * n, None]
                apart[repeat, 0] = wasserstein(drawn[:n], drawn[n:])[0]
                apart[repeat, 1] = wasserstein(drawn[:n], random.permutation(ours)[:n, None])[0]
            floor, mean = apart.mean(0)
            unit = floor if floor > 0 else np.nan
            low, high = np.quantile(apart[:, 1], [0.025, 0.975])
            rows.append(
                {
                    "class": name,
                    "quantity": quantity,
                    "n": n,
                    "real median": float(np.median(theirs)),
                    "generated median": float(np.median(ours)),
                    "real to real": float(floor),
                    "real to generated": float(mean),
                    "ratio": float(mean / unit),
                    "low": float(low / unit),
                    "high": float(high / unit),
                }
            )
    return rows, notes
