"""Textures of procedural scenes: procedural patterns and crops of photographs, with their smaller copies (mipmaps).

To add a pattern, write a function ``(rng, size) -> (size, size)`` with values 0..1 that tiles, and list it in
`PATTERNS`. A grey pattern is coloured by its material. The photographs are those that ship inside the scikit-image
wheel; the motorcycle pair is left out on purpose: it is the picture that the bundled models are tried on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError

SIZE = 256
VARIANTS = 5
CROPS = 5
Pattern = Callable[[np.random.Generator, int], NDArray[np.floating]]

PHOTOGRAPHS = (
    *("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png", "retina.jpg", "rocket.jpg"),
    *("brick.png", "camera.png", "cell.png", "coins.png", "grass.png", "gravel.png", "moon.png", "page.png"),
    *("text.png", "color.png", "clock_motion.png"),
)


def noise(rng: np.random.Generator, size: int, *, slope: float = 1.5, stretch: float = 1.0) -> NDArray[np.floating]:
    """Tiling noise with spectrum 1/f^slope, ranked to be even over 0..1; `stretch` > 1 draws it out along x."""
    fy = np.fft.fftfreq(size)[:, None]
    fx = np.fft.rfftfreq(size)[None, :] * stretch
    amplitude = np.where((fx == 0) & (fy == 0), 0.0, 1.0) / np.maximum(np.hypot(fx, fy), 1 / size) ** slope
    field = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(size, size))) * amplitude, s=(size, size))
    field /= field.std() + 1e-12
    return 0.5 + 0.5 * np.tanh(0.8 * field)


def _grid(size: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    axis = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(axis, axis)
    return x, y


def smooth_noise(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    return noise(rng, size, slope=rng.uniform(1.8, 2.6))


def speckle(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    """Asphalt, concrete, carpet: fine grain over a slow stain."""
    grain = noise(rng, size, slope=rng.uniform(0.1, 0.8))
    return 0.6 * grain + 0.4 * noise(rng, size, slope=2.0)


def grain(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    """Wood grain or brushed metal."""
    return noise(rng, size, slope=rng.uniform(0.8, 1.4), stretch=rng.uniform(8, 24))


def planks(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    x, y = _grid(size)
    rows = int(rng.integers(4, 11))
    row = np.floor(y * rows).astype(int)
    shift = rng.uniform(size=rows)[row]
    tone = rng.uniform(0.2, 0.9, size=(rows, 2))[row, (np.floor((x + shift) * 2).astype(int)) % 2]
    fibres = np.roll(grain(rng, size), 7, axis=0)
    gap = (np.abs(y * rows % 1) < 0.06) | (np.abs((x + shift) * 2 % 1) < 0.008)
    return np.where(gap, 0.0, np.clip(0.65 * tone + 0.35 * fibres, 0, 1))


def bricks(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    x, y = _grid(size)
    rows, columns = 2 * int(rng.integers(3, 8)), int(rng.integers(2, 6))
    row = np.floor(y * rows).astype(int)
    along = x * columns + 0.5 * (row % 2)
    tone = rng.uniform(0.35, 0.9, size=(rows, columns))[row, np.floor(along).astype(int) % columns]
    joint = rng.uniform(0.04, 0.09)
    mortar = (y * rows % 1 < 2 * joint) | (along % 1 < joint)
    rough = 0.3 * (noise(rng, size, slope=0.8) - 0.5)
    return np.clip(np.where(mortar, rng.choice([0.05, 0.98]), tone) + rough, 0, 1)


def tiles(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    x, y = _grid(size)
    count = int(rng.integers(2, 7))
    cell = (np.floor(y * count).astype(int), np.floor(x * count).astype(int))
    tone = 0.75 + rng.uniform(-0.15, 0.15, size=(count, count))[cell]
    joint = (x * count % 1 < 0.04) | (y * count % 1 < 0.04)
    stain = 0.25 * (noise(rng, size, slope=1.8) - 0.5)
    return np.clip(np.where(joint, 0.1, tone + stain), 0, 1)


def checker(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    x, y = _grid(size)
    count = 2 * int(rng.integers(1, 5))
    pattern = (np.floor(x * count) + np.floor(y * count)) % 2
    return np.clip(0.1 + 0.8 * pattern + 0.2 * (noise(rng, size, slope=1.5) - 0.5), 0, 1)


def stripes(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    x, _ = _grid(size)
    tones = np.repeat(rng.uniform(size=int(rng.integers(4, 14))), 1)
    return np.clip(tones[np.floor(x * len(tones)).astype(int)] + 0.1 * noise(rng, size, slope=1.0), 0, 1)


def plaid(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    first = stripes(rng, size)
    return np.clip(0.5 * (first + stripes(rng, size).T), 0, 1)


def waves(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    """Corrugated sheet, blinds, radiators."""
    x, _ = _grid(size)
    return 0.5 + 0.45 * np.sin(2 * np.pi * int(rng.integers(6, 20)) * x) + 0.05 * noise(rng, size)


def marble(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    x, y = _grid(size)
    turbulence = noise(rng, size, slope=1.7)
    cycles = rng.integers(-2, 3, size=2)
    return np.abs(np.sin(np.pi * (x * cycles[0] + y * cycles[1]) + rng.uniform(3, 9) * turbulence)) ** 0.6


def weave(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    x, y = _grid(size)
    count = int(rng.integers(12, 40))
    cloth = 0.5 + 0.25 * np.sin(2 * np.pi * count * x) * np.sin(2 * np.pi * count * y)
    return np.clip(cloth + 0.4 * (noise(rng, size, slope=1.2) - 0.5), 0, 1)


def _nearest(rng: np.random.Generator, size: int, count: int, k: int) -> tuple[NDArray, NDArray]:
    from scipy.spatial import cKDTree

    x, y = _grid(size)
    tree = cKDTree(rng.uniform(size=(count, 2)), boxsize=1.0)
    return tree.query(np.stack([x, y], axis=-1).reshape(-1, 2), k=k)


def stones(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    """Cobbles, dry walls, cracked ground: cells with dark joints."""
    count = int(rng.integers(20, 160))
    distance, index = _nearest(rng, size, count, 2)
    border = np.clip((distance[:, 1] - distance[:, 0]) * np.sqrt(count) * 5, 0, 1)
    tone = rng.uniform(0.35, 1.0, size=count)[index[:, 0]]
    return np.clip((border * tone).reshape(size, size) * (0.75 + 0.5 * noise(rng, size, slope=1.0)), 0, 1)


def foliage(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    """Leaves and gravel seen from afar: many small cells, bright in the middle."""
    count = int(rng.integers(300, 1200))
    distance, index = _nearest(rng, size, count, 1)
    tone = rng.uniform(0.1, 1.0, size=count)[index] * np.clip(1.3 - distance * np.sqrt(count), 0, 1)
    return np.clip(0.8 * tone.reshape(size, size) + 0.3 * noise(rng, size, slope=1.6), 0, 1)


def dots(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    x, y = _grid(size)
    count = int(rng.integers(2, 9))
    radius = np.hypot(x * count % 1 - 0.5, y * count % 1 - 0.5)
    return np.clip((rng.uniform(0.2, 0.45) - radius) * 20, 0, 1)


def windows(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    """A facade: rows of panes, dark or lit, with frames, on plaster."""
    x, y = _grid(size)
    columns, rows = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    u, v = x * columns % 1, y * rows % 1
    half_width, half_height = rng.uniform(0.18, 0.38), rng.uniform(0.22, 0.4)
    inside = (np.abs(u - 0.5) < half_width) & (np.abs(v - 0.5) < half_height)
    frame = inside & ((np.abs(u - 0.5) > half_width - 0.04) | (np.abs(v - 0.5) > half_height - 0.04))
    frame |= inside & (np.abs(u - 0.5) < 0.02)
    cell = (np.floor(y * rows).astype(int), np.floor(x * columns).astype(int))
    pane = rng.uniform(0.0, 0.45, size=(rows, columns))[cell] + 0.2 * (v - 0.5)
    wall = 0.75 + 0.2 * (noise(rng, size, slope=1.2) - 0.5)
    return np.clip(np.where(frame, 1.0, np.where(inside, pane, wall)), 0, 1)


def collage(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    """Overlapping rectangles and discs: posters, labels, boards."""
    x, y = _grid(size)
    picture = np.full((size, size), rng.uniform())
    for _ in range(int(rng.integers(6, 30))):
        cx, cy = rng.uniform(size=2)
        w, h = rng.uniform(0.03, 0.3, size=2)
        dx, dy = np.abs(x - cx), np.abs(y - cy)
        shape = (dx < w) & (dy < h) if rng.uniform() < 0.6 else np.hypot(dx, dy) < w
        picture[shape] = rng.uniform()
    return picture


def lettering(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    """Lines of word-like dark marks on paper: labels, books, signs."""
    x, y = _grid(size)
    rows = int(rng.integers(6, 24))
    row = np.floor(y * rows).astype(int)
    marks = rng.uniform(size=(rows, 96)) < 0.55
    marks &= np.cumsum(rng.uniform(size=(rows, 96)) < 0.15, axis=1) % 4 != 0
    ink = marks[row, np.floor(x * 96).astype(int)] & (np.abs(y * rows % 1 - 0.5) < 0.28)
    return np.where(ink, 0.05, 0.9)


def plain(rng: np.random.Generator, size: int) -> NDArray[np.floating]:
    """Paint: nearly one tone, slow stains, fine grain."""
    stain = noise(rng, size, slope=2.2) - 0.5
    return np.clip(0.7 + rng.uniform(0.05, 0.3) * stain + 0.08 * (noise(rng, size, slope=0.5) - 0.5), 0, 1)


PATTERNS: dict[str, Pattern] = {
    pattern.__name__: pattern
    for pattern in (
        *(plain, smooth_noise, speckle, grain, planks, bricks, tiles, checker, stripes, plaid, waves, marble),
        *(weave, stones, foliage, dots, windows, collage, lettering),
    )
}


def photograph_folder() -> Path:
    """The folder of pictures inside the installed scikit-image wheel."""
    import skimage

    return Path(skimage.__file__).parent / "data"


def _crops(rng: np.random.Generator, path: Path, size: int) -> list[NDArray[np.floating]]:
    from PIL import Image

    if not path.is_file():
        raise InputError(
            "a photograph of the scikit-image wheel is missing", path=path, remedy="Install scikit-image>=0.25 again."
        )
    with Image.open(path) as picture:
        rgb = picture.convert("RGB")
    crops: list[NDArray[np.floating]] = []
    for _ in range(CROPS):
        side = int(min(rgb.size) * rng.uniform(0.35, 1.0))
        left = int(rng.integers(0, rgb.size[0] - side + 1))
        top = int(rng.integers(0, rgb.size[1] - side + 1))
        crop = rgb.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
        values = np.asarray(crop, dtype=np.float32) / 255
        if rng.uniform() < 0.5:
            values = np.ascontiguousarray(values[:, ::-1])
        if rng.uniform() < 0.3:
            # other hues: the channels change places, so that a crop is more than one picture
            values = values[..., rng.permutation(3)]
        crops.append(values ** np.float32(rng.uniform(0.7, 1.4)))
    return crops


@dataclass(frozen=True)
class TextureBank:
    """All textures with their mipmaps in one flat array, so that one gather shades a whole picture.

    Attributes
    ----------
    texels : ndarray, uint32, (N,)
        Red, green, blue and nothing, a byte each; level by level, then texture, row (from the bottom), column.
    sizes, starts : ndarray, int64, (L,)
        Side of the square textures on each level, and where the level begins in `texels`.
    mirrored : ndarray, bool, (T,)
        Photographs do not tile: they are repeated mirrored.
    names : dict
        For each pattern, each photograph (by its file's stem) and "photograph" (all of them) the textures it has.
    """

    texels: NDArray[np.uint32]
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]
    mirrored: NDArray[np.bool_]
    names: dict[str, list[int]]

    def colours(self, index: NDArray[np.integer]) -> NDArray[np.float32]:
        """Texels by their place in `texels`, as values 0..1, (..., 3)."""
        # one gather of four bytes is several times faster than one of rows of three floats
        packed = np.asarray(np.take(self.texels, index))[..., None]
        return packed.view(np.uint8)[..., :3] * np.float32(1 / 255)

    def sample(
        self, texture: NDArray[np.integer], uv: NDArray[np.floating], footprint: NDArray[np.floating]
    ) -> NDArray[np.float32]:
        """Colours at texture coordinates (1 = the width of a texture), bilinear on the nearest level.

        Parameters
        ----------
        texture : ndarray, int, (N,)
        uv : ndarray, (N, 2)
        footprint : ndarray, (N,)
            Width of a pixel in units of uv; selects the level.

        Returns
        -------
        ndarray, float32, (N, 3)
        """
        level = np.rint(np.log2(np.maximum(footprint * np.float32(self.sizes[0]), 1)))
        level = np.minimum(level, len(self.sizes) - 1).astype(np.int64)
        size = self.sizes[level]
        mirrored = self.mirrored[texture]
        last = size - 1
        low, high, part = [], [], []
        for axis in range(2):
            t = uv[:, axis].astype(np.float32)
            # floor is several times faster than the remainder of a division
            once, twice = t - np.floor(t), t - 2 * np.floor(t * np.float32(0.5))
            position = np.where(mirrored, 1 - np.abs(twice - 1), once) * size.astype(np.float32) - np.float32(0.5)
            floor = np.floor(position)
            part.append((position - floor)[:, None])
            index = floor.astype(np.int64)
            # half a texel beyond the border: the other side where it tiles, the same side where it is mirrored
            low.append(np.where(index < 0, np.where(mirrored, 0, last), index))
            high.append(np.where(index >= last, np.where(mirrored, last, 0), index + 1))
        row0, row1 = (self.starts[level] + (texture * size + row) * size for row in (low[1], high[1]))
        bottom = self.colours(row0 + low[0]) * (1 - part[0]) + self.colours(row0 + high[0]) * part[0]
        top = self.colours(row1 + low[0]) * (1 - part[0]) + self.colours(row1 + high[0]) * part[0]
        return bottom * (1 - part[1]) + top * part[1]


@lru_cache(maxsize=1)
def texture_bank() -> TextureBank:
    """The textures, made once a process; always the same ones."""
    images: list[NDArray[np.float32]] = []
    names: dict[str, list[int]] = {}
    for number, (name, pattern) in enumerate(PATTERNS.items()):
        names[name] = list(range(len(images), len(images) + VARIANTS))
        for variant in range(VARIANTS):
            grey = pattern(np.random.default_rng([number, variant]), SIZE).astype(np.float32)
            images.append(np.repeat(grey[..., None], 3, axis=-1))
    first_photograph = len(images)
    folder = photograph_folder()
    for number, name in enumerate(PHOTOGRAPHS):
        images += _crops(np.random.default_rng([1000, number]), folder / name, SIZE)
        names[Path(name).stem] = list(range(len(images) - CROPS, len(images)))
    names["photograph"] = list(range(first_photograph, len(images)))
    level: NDArray[np.floating] = np.stack(images)[:, ::-1]
    levels, sizes = [], []
    # down to the mean alone: with two texels left, far surfaces would glitter
    for size in SIZE >> np.arange(int(np.log2(SIZE)) + 1):
        packed = np.zeros((*level.shape[:3], 4), dtype=np.uint8)
        packed[..., :3] = np.rint(np.clip(level, 0, 1) * 255)
        levels.append(packed.view(np.uint32).ravel())
        sizes.append(int(size))
        if size > 1:
            level = (level[:, ::2, ::2] + level[:, 1::2, ::2] + level[:, ::2, 1::2] + level[:, 1::2, 1::2]) / 4
    starts = np.append(0, np.cumsum([len(part) for part in levels])[:-1])
    mirrored = np.arange(len(images)) >= first_photograph
    return TextureBank(np.concatenate(levels), np.array(sizes), starts, mirrored, names)
