"""Morphology of many galaxies at once: what statmorph measures of one, with the same values.

The definitions are those of Lotz et al. 2004 (concentration, asymmetry, smoothness, Gini, M20), Freeman et al. 2013 and
Peth et al. 2016 (multimode, intensity, deviation), Pawlik et al. 2016 and Wen et al. 2014 (shape and outer asymmetry)
with the choices of statmorph 0.7.2 (Rodriguez-Gomez et al. 2019) and its default settings.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError
from priorscope_astro.morphology import asymmetry as turned
from priorscope_astro.morphology import gini as pixels
from priorscope_astro.morphology import mid, outline, sersic, smoothness
from priorscope_astro.morphology.filters import brightest, windows
from priorscope_astro.morphology.profile import Shape, aperture_flux, petrosian, radius_of
from priorscope_astro.morphology.segmenting import middle_source, segment
from priorscope_astro.morphology.stamps import SKYBOX, Stamps, bad_pixels, centroid, cutouts, moments, skyboxes

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: Pixels that are read at a time (the memory taken is some 170 bytes a pixel), and galaxies that go through the
#: measurement together: these fit a processor's cache.
_READ, _TOGETHER = 1_000_000, 32
#: Larger stamps are taken for mosaics.
LARGEST = 1024
#: Fluxes are taken within so many Petrosian radii.
FLUX_EXTENT = 2.0
_OVERLAP = 0.25
#: Centres of least asymmetry and their flags, portion by portion; and what asks for them and then measures.
Centres = Iterator[tuple[Array, NDArray[np.int64]]]
Measured = Generator[list[turned.Wanted], Centres, dict[str, NDArray]]

#: Every quantity that :func:`measure` gives without a fit.
QUANTITIES = (
    *("xc_centroid", "yc_centroid", "xc_asymmetry", "yc_asymmetry", "ellipticity_asymmetry", "orientation_asymmetry"),
    *("rpetro_circ", "rpetro_ellip", "rhalf_circ", "rhalf_ellip", "rmax_circ", "rmax_ellip", "r20", "r50", "r80"),
    *("flux_circ", "flux_ellip", "concentration", "asymmetry", "smoothness", "gini", "m20"),
    *("gini_m20_bulge", "gini_m20_merger", "multimode", "intensity", "deviation"),
    *("rms_asymmetry2", "outer_asymmetry", "shape_asymmetry", "sn_per_pixel", "sky_mean", "sky_median", "sky_sigma"),
)


def measure(
    images: ArrayLike,
    segmentation: ArrayLike | None = None,
    *,
    sigma: ArrayLike | float | None = None,
    gain: float | None = None,
    psf: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    fit: bool = False,
) -> dict[str, NDArray]:
    """Measure the source in the middle of each stamp.

    Parameters
    ----------
    images : array (B, H, W)
        Linear flux with the sky taken off. Pixels that are not finite are masked.
    segmentation : int array (B, H, W), optional
        0 for sky, else a source's number; the source at, or nearest to, the middle pixel is
        measured, and other sources are masked. By
        default :func:`.segmenting.segment` finds them.
    sigma : float or array (B,) or (B, H, W), optional
        Noise of a pixel, in units of the images; for the signal to noise and the fit.
    gain : float, optional
        Instead of ``sigma``: electrons per unit of the images; the noise is then Poisson's with the sky's. With
        neither, the sky's is taken.
    psf : array (h, w) or (B, h, w), optional
        Point spread function of odd sides, for the fit.
    mask : bool array (B, H, W), optional
        Pixels to leave out.
    fit : bool
        Fit a Sersic profile too (:mod:`.sersic`).

    Returns
    -------
    dict
        Arrays (B,), by the names of :data:`QUANTITIES`: lengths in pixels, positions x and y with 0 at the first
        pixel's centre, angles in radians from the x axis, fluxes in units of the images; and ``flag``: 0 good,
        1 suspect, 2 bad, 4 nothing could be measured. What could not be measured is NaN. With ``fit`` also ``sersic_``
        amplitude (at the half-light radius), rhalf, n, xc, yc, ellip, theta, chi2_dof, and ``flag_sersic``.

    Raises
    ------
    InputError
        Arrays that do not go together, stamps as large as a mosaic, noise that is not positive.
    """
    stack = np.asarray(images)
    if stack.ndim != 3 or min(stack.shape[1:], default=0) < 8:
        raise InputError(f"stamps of shape {stack.shape}", remedy="Give an array (B, H, W) with sides of at least 8.")
    if max(stack.shape[1:]) > LARGEST:
        raise InputError(
            f"stamps of {stack.shape[1]} x {stack.shape[2]} pixels: a mosaic?",
            remedy=f"Cut out the galaxies; a stamp may have {LARGEST} pixels a side.",
        )
    if stack.dtype.kind not in "fiu":
        raise InputError(f"stamps of dtype {stack.dtype}", remedy="Give linear flux as floats.")
    if sigma is not None and gain is not None:
        raise InputError("both sigma and gain", remedy="Give one of them.")
    if gain is not None and not gain > 0:
        raise InputError(f"gain {gain}", remedy="Give electrons per unit of the images, above 0.")
    noise = None if sigma is None else _noise(sigma, stack.shape)
    parts = {"segmentation": segmentation, "mask": mask}
    given = {name: None if part is None else np.asarray(part) for name, part in parts.items()}
    for name, part in given.items():
        if part is not None and part.shape != stack.shape:
            raise InputError(f"a {name} of shape {part.shape} for stamps of shape {stack.shape}")
    kernel = None if psf is None else sersic.checked_psf(psf, len(stack))

    names = [*QUANTITIES, *(sersic.QUANTITIES if fit else ())]
    found: dict[str, NDArray] = {name: np.full(len(stack), np.nan) for name in names}
    found["flag"] = np.full(len(stack), 4, dtype=np.int64)
    if fit:
        found["flag_sersic"] = np.full(len(stack), 4, dtype=np.int64)
    step = max(_TOGETHER, _READ // (stack.shape[1] * stack.shape[2]))
    for begin in range(0, len(stack), step):
        read = slice(begin, begin + step)
        light = stack[read].astype(np.float64)
        left_out = np.zeros(light.shape, dtype=bool) if given["mask"] is None else given["mask"][read].astype(bool)
        if given["segmentation"] is None:
            labels = segment(np.where(left_out, 0.0, light), None if noise is None else noise[read])
        else:
            labels = given["segmentation"][read]
        groups = [
            (begin + rows, _measured(stamps, spread, gain, sersic.psf_of(kernel, begin + rows), fit))
            for rows, stamps, spread in _stamps(light, labels, left_out, None if noise is None else noise[read])
        ]
        # many small steps, for galaxies of all sizes together
        centres = iter(turned.centre([wanted for _, group in groups for wanted in next(group)]))
        for rows, group in groups:
            for name, values in _sent(group, centres).items():
                found[name][rows] = values
    return found


def _noise(sigma: ArrayLike | float, shape: tuple[int, ...]) -> Array:
    noise = np.asarray(sigma, dtype=np.float64)
    if noise.shape not in ((), shape[:1], shape):
        raise InputError(f"sigma of shape {noise.shape} for stamps of shape {shape}")
    if not (noise > 0).any() or (noise < 0).any():
        raise InputError("sigma is not positive", remedy="Give a pixel's standard deviation, in units of the images.")
    return np.broadcast_to(noise if noise.ndim == 3 else noise.reshape(-1, 1, 1), shape)


def _stamps(
    images: Array, labels: NDArray, left_out: Mask, noise: Array | None
) -> Iterator[tuple[NDArray[np.intp], Stamps, Array | None]]:
    """Cut-outs of the middle sources that have light, in groups of one size; their rows, and their noise."""
    middle = middle_source(labels)
    segments = (labels == middle[:, None, None]) & (middle != 0)[:, None, None]
    boxes = np.zeros((len(images), 4), dtype=np.intp)
    some = middle != 0
    boxes[some] = cutouts(segments[some])
    sizes = boxes[:, 1::2] - boxes[:, ::2]
    for size in np.unique(sizes[some], axis=0):
        rows = np.flatnonzero((sizes == size).all(1))
        corner = boxes[rows, ::2]
        place = (corner, (int(size[0]), int(size[1])), rows)
        light, own, others, free = (windows(one, *place) for one in (images, segments, labels, left_out))
        masks = ((others != 0) & ~own) | free | ~np.isfinite(light) | bad_pixels(light)
        spread = None if noise is None else windows(noise, *place)
        if spread is not None:
            masks |= ~np.isfinite(spread)
        stamps = Stamps(np.where(masks, 0.0, light), masks, own, (others != 0) | free, corner[:, ::-1])
        bright = stamps.own.sum((1, 2)) > 0
        if bright.any():
            yield rows[bright], stamps.take(bright), None if spread is None else spread[bright]


def _measured(stamps: Stamps, noise: Array | None, gain: float | None, psf: Array | None, fit: bool) -> Measured:
    """Measure in portions of similar size, since windows are as large as the largest source of a portion."""
    area = stamps.segments.sum((1, 2))
    order = np.argsort(area, kind="stable")
    portions = []
    for part in np.array_split(order, -(-len(order) // _TOGETHER)):
        own_noise = None if noise is None else noise[part]
        portions.append(_portion(stamps.take(part), own_noise, gain, sersic.psf_of(psf, part), fit))
    centres = yield [wanted for portion in portions for wanted in next(portion)]
    parts = [_sent(portion, centres) for portion in portions]
    back = np.argsort(order)
    found = {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}
    # a search with many small steps: the more together, the better
    found["multimode"] = mid.multimode(found.pop("light"), stamps.segments & ~stamps.masks)
    return found


def _sent(measured: Measured, centres: Centres) -> dict[str, NDArray]:
    """What is measured with the centres found."""
    try:
        measured.send(centres)
    except StopIteration as done:
        return done.value
    raise AssertionError


def _portion(stamps: Stamps, noise: Array | None, gain: float | None, psf: Array | None, fit: bool) -> Measured:
    images, masks, own = stamps.images, stamps.masks, stamps.own
    found: dict[str, NDArray] = {}
    flag = np.zeros(len(stamps), dtype=np.int64)

    def flagged(result: tuple[NDArray, NDArray]) -> NDArray:
        np.maximum(flag, result[1], out=flag)
        return result[0]

    middle = flagged(centroid(own))
    flagged((flag, 2 * _masked_at(images, middle)))
    peak = brightest(own)
    skybox = skyboxes(stamps.occupied)
    sky = smoothness.Sky(images, *skybox)
    with np.errstate(invalid="ignore"):
        flagged((flag, np.where((skybox[1] == 0) | (np.abs(sky.mean) > sky.sigma), 2, 0)))

    first = flagged(petrosian(images, masks, Shape(middle)))
    sky_turned = np.nan_to_num(sky.asymmetry)
    centres = yield [turned.Wanted(images, masks, middle, peak[:, ::-1], first, sky_turned)]
    at = flagged(next(centres))
    flagged((flag, 2 * _masked_at(images, at)))
    tilt = moments(own, at)
    np.maximum(flag, tilt.flag, out=flag)
    round_, oval = Shape(at), Shape(at, tilt.elongation, tilt.theta)
    circ, ellip = flagged(petrosian(images, masks, round_)), flagged(petrosian(images, masks, oval))

    visible = flagged(outline.outline(images, masks, at, ellip, skybox, SKYBOX**2))
    reach, reach_oval = outline.extent(visible, round_), outline.extent(visible, oval)
    flagged((flag, np.where((reach > 0) & (reach_oval > 0), 0, 2)))
    for name, fraction in (("r20", 0.2), ("r50", 0.5), ("r80", 0.8)):
        found[name] = flagged(radius_of(images, round_, turned.EXTENT * circ, fraction))
    found["rhalf_circ"] = flagged(radius_of(images, round_, reach, 0.5))
    found["rhalf_ellip"] = flagged(radius_of(images, oval, reach_oval, 0.5))
    with np.errstate(divide="ignore", invalid="ignore"):
        found["concentration"] = 5 * np.log10(found["r80"] / found["r20"])

    found |= turned.asymmetries(
        images, masks, at, turned.EXTENT * first, sky.asymmetry, sky.sigma, oval, found["rhalf_ellip"], reach_oval
    )
    found["shape_asymmetry"] = turned.shape_asymmetry(visible, masks, at, reach)
    found["smoothness"] = flagged(smoothness.smoothness(images, at, circ, sky))

    region = flagged(pixels.petrosian_region(images, Shape(middle, tilt.elongation, tilt.theta), ellip))
    found["gini"], found["m20"] = flagged(pixels.gini(images, region)), flagged(pixels.m20(images, region))
    found["gini_m20_bulge"] = 4.95 * found["gini"] - 0.693 * found["m20"] - 3.96
    found["gini_m20_merger"] = 0.990 * found["gini"] + 0.139 * found["m20"] - 0.327
    if noise is None:
        flat = np.broadcast_to(sky.sigma[:, None, None], images.shape)
        noise = flat.copy() if gain is None else np.sqrt(np.abs(images) / gain + np.nan_to_num(flat) ** 2)
    found["sn_per_pixel"] = flagged(pixels.signal_to_noise(images, region, np.where(masks, 0.0, noise)))

    light, counted = np.maximum(own, 0), stamps.segments & ~masks
    clump = flagged(mid.region(light, counted, region, peak))
    light = np.where(clump, light, 0.0)
    found["light"] = light
    found["intensity"], found["deviation"], bad = mid.intensity_and_deviation(light, clump.sum((1, 2)))
    both = (region & clump).sum((1, 2)) / np.maximum(np.maximum(region.sum((1, 2)), clump.sum((1, 2))), 1)
    flagged((flag, np.maximum(bad, np.where(both < _OVERLAP, 1, 0))))

    found |= {"rpetro_circ": circ, "rpetro_ellip": ellip, "rmax_circ": reach, "rmax_ellip": reach_oval}
    found["flux_circ"] = np.abs(aperture_flux(images, round_, FLUX_EXTENT * circ))
    found["flux_ellip"] = np.abs(aperture_flux(images, oval, FLUX_EXTENT * ellip))
    found |= {"ellipticity_asymmetry": tilt.ellipticity, "orientation_asymmetry": tilt.theta}
    found |= {"sky_mean": sky.mean, "sky_median": sky.median, "sky_sigma": sky.sigma}
    if fit:
        found |= sersic.fit(images, masks, noise, psf, oval, found["rhalf_ellip"], found["concentration"])
        found["sersic_xc"] += stamps.origin[:, 0]
        found["sersic_yc"] += stamps.origin[:, 1]
    for name, where in (("centroid", middle), ("asymmetry", at)):
        found[f"xc_{name}"], found[f"yc_{name}"] = (where + stamps.origin).T
    return found | {"flag": flag}


def _masked_at(images: Array, where: Array) -> Mask:
    x, y = where.astype(int).T
    return images[np.arange(len(images)), y, x] == 0
