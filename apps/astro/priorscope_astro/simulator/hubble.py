"""Real galaxies that every installation has: cut out of the Hubble deep field in scikit-image's wheel.

The picture is an 8-bit JPEG composite: it shows real shapes and real noise, but no flux and no common pixel scale with
a survey. The objects have no labels, and a few of them are stars.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.samples import photo
from priorscope.errors import InputError

#: Detection: standard deviation of the smoothing, least pixels of an object, and the threshold in units of the noise.
_SMOOTHING, _LEAST, _THRESHOLD = 1.5, 25, 3.5
#: Deblending: levels between threshold and peak, and the share of the light that makes an object of its own.
_LEVELS, _CONTRAST = 32, 0.005
#: A cut-out never shows less of the sky than so many pixels along a side.
_NARROWEST = 24


@dataclass(frozen=True)
class Cutouts:
    """Pictures of single objects.

    Attributes
    ----------
    pictures : ndarray of uint8, (N, size, size, 3)
        RGB, the object in the middle; the brightest first.
    ids : tuple of str
        ``hdf-XXXX-YYYY`` after the position.
    x, y : ndarray, (N,)
        Centroids in pixels of the whole picture, from its upper left pixel's middle.
    area : ndarray, (N,)
        Pixels of the object's segment.
    field : ndarray, (N,)
        Pixels of the whole picture along a side of the cut-out.
    ellipticity : ndarray, (N,)
        1 - b / a from the second moments.
    """

    pictures: NDArray[np.uint8]
    ids: tuple[str, ...]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    area: NDArray[np.float64]
    field: NDArray[np.float64]
    ellipticity: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)


def hubble_cutouts(size: int = 64, *, least_area: int = 60, margin: float = 3.2, least_share: float = 0.5) -> Cutouts:
    """Detect, deblend and cut out the galaxies of the Hubble deep field.

    Parameters
    ----------
    size : int
        Pixels along a side of a cut-out; each is resampled to it.
    least_area : int
        Smaller segments are left out: in them no shape is seen.
    margin : float
        Side of the sky that is shown, in units of the radius of a circle with the segment's area.
    least_share : float
        Of the light of all detected objects in a cut-out, its own object has at least this share; 0 takes all.

    Returns
    -------
    Cutouts
        Objects whose cut-out does not lie wholly in the picture are left out.

    Raises
    ------
    InputError
        For numbers that make no sense, where photutils is missing, or if nothing is found.
    """
    if size < 8 or least_area < 1 or not margin > 0 or not 0 <= least_share <= 1:
        raise InputError(
            f"size {size}, least_area {least_area}, margin {margin:g}, least_share {least_share:g}",
            remedy="Use a size of 8 or more, an area of 1 or more, a margin above 0 and a share from 0 to 1.",
        )
    image = photo("hubble_deep_field")
    segments = segmented(image)
    light = _light(image)
    light -= np.median(light)
    table = _measured(light, segments)
    field = np.maximum(margin * np.sqrt(table["area"] / np.pi), _NARROWEST)
    height, width = image.shape[:2]
    half = field / 2
    inside = (table["x"] >= half) & (table["x"] <= width - 1 - half)
    inside &= (table["y"] >= half) & (table["y"] <= height - 1 - half)
    chosen = np.flatnonzero(inside & (table["area"] >= least_area))
    chosen = chosen[np.argsort(-table["light"][chosen], kind="stable")]
    chosen = chosen[_own_share(light, segments, table, half)[chosen] >= least_share]
    if not len(chosen):
        raise InputError(f"no object of {least_area} or more pixels", remedy="Use a smaller least_area or least_share.")
    found = {name: values[chosen] for name, values in table.items()}
    pictures = [_cut(image, x, y, side, size) for x, y, side in zip(found["x"], found["y"], field[chosen], strict=True)]
    ids = tuple(f"hdf-{round(x):04d}-{round(y):04d}" for x, y in zip(found["x"], found["y"], strict=True))
    return Cutouts(np.stack(pictures), ids, found["x"], found["y"], found["area"], field[chosen], found["ellipticity"])


def segmented(image: NDArray[np.uint8]) -> Any:
    """photutils' segmentation image of a picture (H, W, 3): its objects, with those that overlap taken apart."""
    try:
        from photutils.background import Background2D, MedianBackground
        from photutils.segmentation import deblend_sources, detect_sources
        from photutils.utils.exceptions import NoDetectionsWarning
    except ImportError:
        raise InputError("photutils is not installed", remedy="pip install 'priorscope[astro]'") from None
    from scipy.ndimage import gaussian_filter

    light = _light(image)
    sky = Background2D(light, (64, 64), filter_size=3, bkg_estimator=MedianBackground())
    smooth = gaussian_filter(light - sky.background, _SMOOTHING)
    noise = gaussian_filter(np.random.default_rng(0).standard_normal((256, 256)), _SMOOTHING).std()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)  # our own error speaks
        found = detect_sources(smooth, _THRESHOLD * noise * sky.background_rms, _LEAST)
    if found is None:
        raise InputError("no object stands out of the picture's noise", remedy="Give a picture of galaxies.")
    return deblend_sources(smooth, found, _LEAST, n_levels=_LEVELS, contrast=_CONTRAST, progress_bar=False)


def _light(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean of the colours."""
    return image.astype(np.float64).mean(-1)


def _measured(light: NDArray[np.float64], segments: Any) -> dict[str, NDArray[np.float64]]:
    from photutils.segmentation import SourceCatalog

    catalogue = SourceCatalog(light, segments)
    return {
        "x": np.asarray(catalogue.x_centroid, np.float64),
        "y": np.asarray(catalogue.y_centroid, np.float64),
        "area": np.asarray(catalogue.segment_area.value, np.float64),
        "light": np.asarray(catalogue.segment_flux, np.float64),
        "ellipticity": np.asarray(catalogue.ellipticity, np.float64),
    }


def _own_share(
    light: NDArray[np.float64], segments: Any, table: dict[str, NDArray[np.float64]], half: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Light of each object over that of all objects within its cut-out."""
    light = np.where(segments.data > 0, light, 0).clip(0)
    shares = np.empty(len(half))
    for place, (label, x, y, reach) in enumerate(zip(segments.labels, table["x"], table["y"], half, strict=True)):
        window = (
            slice(max(0, round(y - reach)), max(0, round(y + reach)) + 1),
            slice(max(0, round(x - reach)), max(0, round(x + reach)) + 1),
        )
        whole = light[window].sum()
        shares[place] = light[window][segments.data[window] == label].sum() / whole if whole > 0 else 0.0
    return shares


def _cut(image: NDArray[np.uint8], x: float, y: float, side: float, size: int) -> NDArray[np.uint8]:
    """The square about (x, y), resampled; Pillow's boxes count from the corner of the first pixel."""
    from PIL import Image

    box = (x + 0.5 - side / 2, y + 0.5 - side / 2, x + 0.5 + side / 2, y + 0.5 + side / 2)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box=box))
