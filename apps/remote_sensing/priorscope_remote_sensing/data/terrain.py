"""Synthetic satellite patches: parcels, woods, rivers, roads, settlements, lakes, clouds, in the bands of Sentinel-2.

Made to pretrain small priors where no archive of images is at hand. The spectra are drawn by hand after the usual
shapes of such surfaces seen from above the atmosphere; they are no measurements, and no real image went into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_remote_sensing.data.bands import SENTINEL2, band_indices

Field = NDArray[np.float32]

SURFACES = (
    *("conifer", "broadleaf", "shrub", "grass", "crop", "straw", "soil", "water", "asphalt", "roof"),
    *("bright roof", "rock", "cloud"),
)
"""What a pixel of the surface map is, by index."""

_CONIFER, _BROADLEAF, _SHRUB, _GRASS, _CROP, _STRAW, _SOIL, _WATER, _ASPHALT, _ROOF, _BRIGHT, _ROCK, _CLOUD = range(13)

_SPECTRA = np.array(
    [  # B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12, thousandths of reflectance
        [112, 84, 68, 44, 70, 160, 190, 200, 210, 62, 2, 100, 45],
        [115, 88, 80, 48, 98, 275, 345, 355, 375, 110, 2, 180, 80],
        [118, 95, 88, 66, 108, 225, 270, 280, 300, 88, 2, 190, 105],
        [120, 99, 100, 74, 122, 265, 315, 325, 345, 100, 2, 220, 130],
        [118, 94, 92, 58, 102, 320, 420, 430, 450, 130, 2, 200, 98],
        [140, 132, 142, 160, 200, 240, 262, 278, 300, 100, 2, 330, 250],
        [128, 114, 114, 128, 158, 180, 198, 210, 224, 80, 2, 282, 240],
        [112, 86, 62, 36, 32, 26, 24, 20, 18, 10, 2, 10, 6],
        [138, 128, 126, 126, 138, 150, 160, 168, 174, 70, 2, 190, 170],
        [134, 122, 130, 176, 200, 212, 222, 230, 242, 90, 2, 262, 226],
        [250, 262, 278, 292, 304, 312, 318, 326, 330, 130, 3, 320, 290],
        [168, 166, 178, 200, 220, 232, 240, 250, 262, 95, 2, 310, 270],
        [490, 472, 456, 468, 488, 506, 516, 520, 530, 300, 30, 380, 280],
    ],
    np.float32,
) / np.float32(1000)

_TEXTURE = np.array([0.24, 0.16, 0.14, 0.06, 0.03, 0.03, 0.04, 0.03, 0.06, 0.14, 0.12, 0.14, 0.0], np.float32)
_ROOM = 32
_WOODS, _MOIST, _KIND, _RELIEF, _SKY, _GRAIN = range(6)
_SLOPES = np.array([1.7, 1.6, 1.5, 2.1, 1.7, 0.6], np.float32)


class Terrain(NamedTuple):
    """A patch.

    ``image`` is reflectance, float32 [C, size, size] in the order of the bands asked for; ``surface`` is uint8
    [size, size], indices into :data:`SURFACES`.
    """

    image: Field
    surface: NDArray[np.uint8]


def terrain_patch(seed: int, index: int, *, size: int = 64, bands: Sequence[str] = SENTINEL2) -> Terrain:
    """Draw one patch of 10 m pixels.

    Parameters
    ----------
    seed, index : int
        The patch depends on these and the size alone, not on other patches or the order they are drawn in.
    size : int
        Side in pixels, at least 16.
    bands : sequence of str
        Of Sentinel-2, in the order wanted ("B04", "B03", "B02", "B08" is RGB and near infrared).

    Returns
    -------
    Terrain

    Notes
    -----
    Bands of 20 m and 60 m resolution are constant over 2 x 2 and 6 x 6 pixels, as in products on the 10 m grid.
    """
    if size < 16:
        raise InputError(f"a patch of {size} pixels is too small to hold anything", remedy="At least 16.")
    chosen = band_indices(bands, SENTINEL2, len(SENTINEL2))
    rng = np.random.default_rng([seed, index])
    fields = _noise(rng, size)
    surface, place, palette = _country(rng, fields, size)
    image = _lit(rng, fields, surface, palette[place])
    surface = _roads(rng, image, surface, size)
    surface = _clouds(rng, fields[_SKY], image, surface)
    return Terrain(_sensed(rng, image, size)[chosen], surface)


def terrain_patches(
    count: int, seed: int, *, first: int = 0, size: int = 64, bands: Sequence[str] = SENTINEL2
) -> Field:
    """Images of the patches ``first`` to ``first + count - 1``, float32 [count, C, size, size]."""
    if count < 1:
        raise InputError(f"{count} patches were asked for")
    return np.stack([terrain_patch(seed, first + number, size=size, bands=bands).image for number in range(count)])


def _noise(rng: np.random.Generator, size: int) -> Field:
    """Random fields [6, size, size] with spectra 1/f^slope, mean 0 and deviation 1."""
    from scipy.fft import irfft2

    side = size + _ROOM  # a field made by a Fourier transform joins up at its borders; the patch must not
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]).astype(np.float32)
    frequency[0, 0] = np.inf
    slopes = _SLOPES + rng.uniform(-0.15, 0.15, len(_SLOPES)).astype(np.float32)
    # uniform parts do: a pixel is the sum of thousands of waves, so it is normal all the same
    waves = (rng.random((len(_SLOPES), *frequency.shape, 2), np.float32) - np.float32(0.5)).view(np.complex64)[..., 0]
    waves *= np.exp(-slopes[:, None, None] * np.log(frequency))
    fields = irfft2(waves, s=(side, side))[:, :size, :size]
    fields -= fields.mean(axis=(1, 2), keepdims=True)
    return fields / fields.std(axis=(1, 2), keepdims=True)


def _turned(rng: np.random.Generator, size: int) -> tuple[Field, Field]:
    """Coordinates in pixels along and across a random direction, about a random point."""
    angle = rng.uniform(0, np.pi)
    axis = np.arange(size, dtype=np.float32)
    x, y = axis[None] - np.float32(rng.uniform(0, size)), axis[:, None] - np.float32(rng.uniform(0, size))
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * x + s * y, c * y - s * x


def _share(field: Field, share: float) -> NDArray[np.bool_]:
    """The pixels with the greatest values, about this share of them."""
    if share <= 0:
        return np.zeros(field.shape, bool)
    sample = field[::2, ::2].ravel()
    rank = min(int((1 - min(share, 1.0)) * len(sample)), len(sample) - 1)
    return field > np.partition(sample, rank)[rank]


def _country(rng: np.random.Generator, fields: Field, size: int) -> tuple[NDArray[np.uint8], NDArray[np.intp], Field]:
    """Surface map, the row of the palette of every pixel, and the palette [R, 13]."""
    palette, kinds, place = _parcels(rng, size)
    base = len(kinds)
    own = _SPECTRA * np.exp(rng.normal(0, 0.10, (len(SURFACES), 1))).astype(np.float32)
    own *= np.exp(rng.normal(0, 0.04, _SPECTRA.shape)).astype(np.float32)
    palette, kinds = np.concatenate([palette, own]), np.concatenate([kinds, np.arange(len(SURFACES))])
    character = rng.uniform()
    woods, moist = fields[_WOODS], fields[_MOIST]
    if character < 0.25:  # pastures instead of fields
        place[:] = base + _GRASS
        place[_share(fields[_KIND], rng.uniform(0.0, 0.2))] = base + _SHRUB
    forest = rng.beta(1.0, 1.3) if rng.uniform() < 0.8 else 0.0
    edge = _share(woods, min(forest + 0.06, 1.0)) & (forest > 0)
    conifers = fields[_KIND] + rng.normal(0, 1.0) > 0
    if rng.uniform() < 0.5:
        place[edge] = base + _SHRUB
    inside = _share(woods, forest)
    place[inside] = base + np.where(conifers, _CONIFER, _BROADLEAF)[inside]
    if rng.uniform() < 0.12:
        place[_share(fields[_RELIEF], rng.uniform(0.1, 0.6))] = base + _ROCK
    if rng.uniform() < 0.35:
        _settlement(rng, moist, place, base, size)
    if rng.uniform() < 0.18:
        place[_share(-fields[_RELIEF], rng.beta(1.2, 2.0))] = base + _WATER
    if rng.uniform() < 0.22:
        _river(rng, place, base, size)
    return kinds[place].astype(np.uint8), place, palette


def _parcels(rng: np.random.Generator, size: int) -> tuple[Field, NDArray[np.int64], NDArray[np.intp]]:
    """Fields in strips: palette [R, 13], surface of each row, and row of every pixel."""
    along, across = _turned(rng, size)
    width = np.exp(rng.uniform(np.log(4), np.log(24)))
    ends = np.cumsum(rng.uniform(0.5, 1.6, int(4 * size / width) + 8) * width) - 2 * size
    strip = np.searchsorted(ends, across.ravel()).reshape(across.shape)
    length = rng.uniform(1.2, 5.0, len(ends) + 1).astype(np.float32) * np.float32(width)
    shift = (rng.uniform(0, 1, len(ends) + 1) * length).astype(np.float32)
    number = np.floor((along + shift[strip]) / length[strip]).astype(np.int64)
    number -= number.min()
    place = strip * (int(number.max()) + 1) + number
    there = np.zeros(int(place.max()) + 1, bool)
    there[place] = True
    place = (np.cumsum(there) - 1)[place]
    count = int(there.sum())
    season = rng.dirichlet([2.0, 1.2, 1.2, 1.5])
    kinds = rng.choice([_CROP, _STRAW, _SOIL, _GRASS], count, p=season)
    other = rng.choice([_CROP, _STRAW, _SOIL, _GRASS], count)
    part = (0.45 * rng.uniform(0, 1, (count, 1)) ** 1.5).astype(np.float32)
    palette = (1 - part) * _SPECTRA[kinds] + part * _SPECTRA[other]
    palette *= np.exp(rng.normal(0, 0.10, (count, 1)) + rng.normal(0, 0.03, (count, 13))).astype(np.float32)
    return palette, kinds, place


def _settlement(rng: np.random.Generator, field: Field, place: NDArray[np.intp], base: int, size: int) -> None:
    """Houses and gardens between streets of a turned grid, where a smooth field is high."""
    along, across = _turned(rng, size)
    plot = rng.uniform(1.8, 3.6)
    block = int(rng.integers(3, 6))
    u, v = np.floor(along / plot).astype(np.int64), np.floor(across / plot).astype(np.int64)
    street = (u % block == 0) | (v % (block - 1) == 0)
    dense = rng.uniform(0.25, 0.8)
    kinds = [_ROOF, _BRIGHT, _ASPHALT, _GRASS, _BROADLEAF]
    shares = np.array([0.62 * dense, 0.28 * dense, 0.10 * dense, 0.6 * (1 - dense), 0.4 * (1 - dense)])
    table = rng.choice(kinds, (64, 64), p=shares / shares.sum())
    built = np.where(street, _ASPHALT, table[u % 64, v % 64])
    where = _share(field, rng.beta(1.5, 2.5))
    place[where] = base + built[where]


def _river(rng: np.random.Generator, place: NDArray[np.intp], base: int, size: int) -> None:
    along, across = _turned(rng, size)
    width = np.exp(rng.uniform(np.log(1.5), np.log(7)))
    bend = np.zeros_like(along)
    for wave in (rng.uniform(70, 160), rng.uniform(25, 60)):
        bend += np.float32(0.12 * wave) * np.sin(2 * np.pi * along / np.float32(wave) + np.float32(rng.uniform(0, 7)))
    distance = np.abs(across - bend)
    bank = (distance < width / 2 + 1.5) & (rng.uniform() < 0.6)
    place[bank] = base + (_BROADLEAF if rng.uniform() < 0.7 else _ROCK)
    place[distance < width / 2] = base + _WATER


def _lit(rng: np.random.Generator, fields: Field, surface: NDArray[np.uint8], colours: Field) -> Field:
    """Reflectance [13, size, size] of the ground with its texture, moisture and relief."""
    image = np.ascontiguousarray(np.moveaxis(colours, -1, 0))
    shade = 1 + _TEXTURE[surface] * np.tanh(fields[_GRAIN])
    steep = max(0.0, rng.normal(0.0, 0.5))
    if steep:
        down, right = np.gradient(fields[_RELIEF])
        angle = rng.uniform(0, 2 * np.pi)
        slope = np.cos(angle) * down + np.sin(angle) * right
        shade *= np.where(surface == _WATER, 1, 1 + np.clip(steep * slope / (slope.std() + 1e-6) * 0.25, -0.5, 0.6))
    image *= shade.astype(np.float32)
    # where it is wetter plants are greener: more near infrared, less of all that water absorbs
    vigour = np.float32(rng.uniform(0.0, 0.12)) * np.where(surface <= _SOIL, np.tanh(fields[_MOIST]), 0)
    image[5:9] *= 1 + vigour
    image[[3, 11, 12]] *= 1 - vigour
    return image


def _roads(rng: np.random.Generator, image: Field, surface: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Roads of about a pixel, bent a little, each a mixture with what it crosses."""
    land = surface != _WATER
    bridges = land.mean() > 0.7  # rivers are crossed, lakes are not
    for _ in range(rng.poisson(0.9)):
        along, across = _turned(rng, size)
        bend = np.float32(rng.uniform(0, 4)) * np.sin(along / np.float32(rng.uniform(15, 60)))
        share = np.clip(np.float32(rng.uniform(0.6, 1.6)) / 2 + 0.5 - np.abs(across - bend), 0, 1)
        share = share if bridges else share * land
        kind = _ASPHALT if rng.uniform() < 0.7 else _SOIL
        colour = _SPECTRA[kind] * np.float32(rng.uniform(0.85, 1.25))
        image += share * (colour[:, None, None] - image)
        surface = np.where(share > 0.5, np.uint8(kind), surface)
    return surface


def _clouds(rng: np.random.Generator, sky: Field, image: Field, surface: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Soft clouds with their shadows, on one patch of eight."""
    if rng.uniform() > 0.125:
        return surface
    base, gain = rng.uniform(-0.5, 1.6), rng.uniform(0.8, 2.5)
    cover = np.clip(gain * (sky - base), 0, 1).astype(np.float32)
    shift = tuple(int(step) for step in rng.integers(-14, 15, 2))
    image *= 1 - np.float32(0.45) * np.roll(cover, shift, axis=(0, 1))
    thick = _SPECTRA[_CLOUD] * np.float32(rng.uniform(0.6, 1.5))
    image += cover * (thick[:, None, None] * (1 + 0.15 * np.tanh(sky)) - image)
    return np.where(cover > 0.5, np.uint8(_CLOUD), surface)


def _sensed(rng: np.random.Generator, image: Field, size: int) -> Field:
    """The light of the day, the optics, the coarser bands, and noise."""
    image *= np.float32(np.exp(rng.normal(0, 0.08)))
    haze = np.array([30, 22, 13, 8, 6, 5, 4, 4, 3, 2, 0, 1, 1], np.float32) / 1000
    image += np.float32(rng.normal(0, 0.6)) * haze[:, None, None]
    fine = image[[1, 2, 3, 7]]
    fine = fine + np.float32(rng.uniform(0.08, 0.18)) * _laplacian(fine)
    image[[1, 2, 3, 7]] = fine
    for step, members in ((2, [4, 5, 6, 8, 11, 12]), (6, [0, 9, 10])):
        image[members] = _coarse(image[members], step, rng.integers(0, step, 2))
    image += (rng.random(image.shape, np.float32) - np.float32(0.5)) * np.float32(0.005)
    return np.clip(image, 0.0005, 1.5, out=image)


def _laplacian(image: Field) -> Field:
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    return padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:] - 4 * image


def _coarse(image: Field, step: int, phase: NDArray[np.int64]) -> Field:
    """Means over step x step pixels, written back on all of them; the grid begins at a random phase."""
    size = image.shape[-1]
    before = (int(phase[0]), int(phase[1]))
    pads = [(part, -(part + size) % step) for part in before]
    padded = np.pad(image, ((0, 0), *pads), mode="symmetric")
    height, width = padded.shape[1] // step, padded.shape[2] // step
    means = padded.reshape(len(image), height, step, width, step).mean(axis=(2, 4))
    whole = np.repeat(np.repeat(means, step, axis=1), step, axis=2)
    return whole[:, before[0] : before[0] + size, before[1] : before[1] + size]
