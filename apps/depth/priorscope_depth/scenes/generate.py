"""Scenes by number: the same seed gives the same picture, depth, normals and camera."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.scenes.camera import Camera, pixel_centres
from priorscope.scenes.photo import develop
from priorscope.scenes.shading import shade
from priorscope.scenes.world import Caster, Hits, Stage

from .indoor import clutter, room
from .outdoor import street, terrain

HELD_OUT_SEED = 1_000_000_000
"""Seeds from here on are for held-out scenes; training uses smaller ones only."""

GENERATOR_VERSION = 2
"""Goes up whenever a seed gives another picture than before; written beside stored scenes."""

MAX_SIDE = 4096

KINDS: dict[str, tuple[Callable[[np.random.Generator], Stage], float]] = {
    "room": (room, 0.33),
    "clutter": (clutter, 0.35),
    "street": (street, 0.19),
    "terrain": (terrain, 0.13),
}
"""Scene kinds: the function that builds one, and its share where no kind is asked for."""

_CAMERA_TRIES = 12


@dataclass(frozen=True)
class Scene:
    """A rendered scene with its truth.

    Attributes
    ----------
    rgb : ndarray, uint8, (H, W, 3)
    depth : ndarray, float32, (H, W)
        Planar depth (along the camera's axis) at the pixel centres, metres; 0 where there is none (sky).
    normals : ndarray, float32, (H, W, 3)
        Unit normals of the faces in the camera frame x right, y up, z towards the viewer; 0 where there is none.
        They belong to the triangles that `depth` shows; only the shading rounds them off.
    valid : ndarray, bool, (H, W)
        Where there is depth.
    intrinsics : ndarray, float64, (3, 3)
        In pixels; the centre of the first pixel lies at (0.5, 0.5).
    kind : str
    seed : int
    parts : ndarray, int32, (H, W), optional
        Which of the scene's meshes a pixel shows, -1 where none; shards do not keep it.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    valid: NDArray[np.bool_]
    intrinsics: NDArray[np.float64]
    kind: str
    seed: int
    parts: NDArray[np.int32] | None = None


def choose_kind(seed: int) -> str:
    """The kind of scene that a seed stands for where none is asked for."""
    shares = np.array([share for _, share in KINDS.values()])
    draw = np.random.default_rng([seed, 1]).uniform() * shares.sum()
    return list(KINDS)[int(np.searchsorted(shares.cumsum(), draw, side="right"))]


def render_scene(
    seed: int, *, height: int = 192, width: int = 256, kind: str | None = None, supersample: int = 1
) -> Scene:
    """Build and photograph a random scene.

    Parameters
    ----------
    seed : int
        0 or more. Fixes everything; from `HELD_OUT_SEED` on the seeds are for held-out scenes.
    height, width : int
        Pixels, 16 to 4096. The scene itself is the same at every size of one shape.
    kind : str, optional
        One of `KINDS`; by default the seed chooses.
    supersample : int
        Above 1, the borders of objects are smoothed with this number squared of rays a pixel (1 to 8). Depth and
        normals always are those at the pixel centre, never an average.

    Returns
    -------
    Scene

    Raises
    ------
    InputError
        For a seed, size, kind or supersample out of range.
    """
    check_request(seed, height, width, kind, supersample)
    kind = choose_kind(seed) if kind is None else kind
    name = zlib.crc32(kind.encode())
    stage = KINDS[kind][0](np.random.default_rng([seed, 2, name]))
    caster = Caster(stage.world)
    camera = _choose_camera(stage, caster, np.random.default_rng([seed, 3, name]), height / width)
    return photograph(
        stage,
        caster,
        camera,
        np.random.default_rng([seed, 4, name]),
        shape=(height, width),
        supersample=supersample,
        kind=kind,
        seed=seed,
    )


def photograph(
    stage: Stage,
    caster: Caster,
    camera: Camera,
    rng: np.random.Generator,
    *,
    shape: tuple[int, int],
    supersample: int = 1,
    kind: str = "",
    seed: int = 0,
) -> Scene:
    """The scene that a given camera sees; `rng` draws shadow samples and the camera's faults."""
    height, width = shape
    rays = camera.rays(*pixel_centres(height, width), height, width)
    hits = caster.cast(camera.position, rays)
    depth = np.zeros(height * width, dtype=np.float32)
    depth[hits.ray] = hits.distance
    normals = np.zeros((height * width, 3), dtype=np.float32)
    facing = caster.face_normals[hits.face]
    away = np.einsum("nk,nk->n", facing, rays[hits.ray]) > 0
    normals[hits.ray] = np.where(away[:, None], -facing, facing) @ camera.rotation.T * [1.0, -1.0, -1.0]
    intrinsics = camera.intrinsics(height, width)
    parts = np.full(height * width, -1, dtype=np.int32)
    parts[hits.ray] = hits.part
    light = shade(stage.world, caster, hits, rays, camera.position, shape, 1 / intrinsics[0, 0], rng)
    if supersample > 1:
        light = _smooth_borders(caster, camera, hits, light, normals, shape, supersample)
    return Scene(
        rgb=develop(light.reshape(height, width, 3), depth.reshape(height, width), rng),
        depth=depth.reshape(height, width),
        normals=normals.reshape(height, width, 3),
        valid=depth.reshape(height, width) > 0,
        intrinsics=intrinsics,
        kind=kind,
        seed=seed,
        parts=parts.reshape(height, width),
    )


def iterate_scenes(
    first_seed: int,
    count: int,
    *,
    height: int = 192,
    width: int = 256,
    kind: str | None = None,
    supersample: int = 1,
) -> Iterator[Scene]:
    """The scenes of `count` successive seeds, one at a time; the parameters are those of `render_scene`."""
    for seed in range(first_seed, first_seed + count):
        yield render_scene(seed, height=height, width=width, kind=kind, supersample=supersample)


def check_request(seed: int, height: int, width: int, kind: str | None, supersample: int) -> None:
    """Raise InputError for a seed, size, kind or supersample that `render_scene` does not take."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"a scene's seed is {seed!r}", remedy="Give a whole number, 0 or more.")
    for name, side in (("height", height), ("width", width)):
        if not isinstance(side, int | np.integer) or not 16 <= side <= MAX_SIDE:
            raise InputError(f"the {name} of a scene is {side!r}", remedy=f"Give 16 to {MAX_SIDE} pixels.")
    if kind is not None and kind not in KINDS:
        raise InputError(f"there is no scene kind {kind!r}", remedy=f"Choose one of {', '.join(KINDS)}.")
    if not isinstance(supersample, int | np.integer) or not 1 <= supersample <= 8:
        raise InputError(f"supersample is {supersample!r}", remedy="Give a whole number from 1 to 8.")


def _choose_camera(stage: Stage, caster: Caster, rng: np.random.Generator, aspect: float) -> Camera:
    """The first proposed camera with free sight and something to see, else the best of them."""
    width = 64
    height = max(8, round(width * aspect))
    best, best_score = None, -np.inf
    for _ in range(_CAMERA_TRIES):
        camera = stage.propose(rng)
        hits = caster.cast(camera.position, camera.rays(*pixel_centres(height, width), height, width))
        if len(hits.ray) == 0:
            score = -10.0
        else:
            near, low, high = np.quantile(hits.distance, [0.0, 0.1, 0.9])
            filled = len(hits.ray) / (height * width)
            score = min(near / stage.nearest, 1.0) * 3 + min(filled / 0.35, 1.0) + min(high / low / 1.5, 1.0)
            score += min(len(np.unique(hits.part)) / 8, 1.0)
        if score > best_score:
            best, best_score = camera, score
        if score >= 6 - 1e-9:
            break
    assert best is not None
    return best


def _smooth_borders(
    caster: Caster,
    camera: Camera,
    hits: Hits,
    light: NDArray[np.floating],
    normals: NDArray[np.floating],
    shape: tuple[int, int],
    supersample: int,
) -> NDArray[np.floating]:
    """Mix the colours at object borders by how much of the pixel each object covers.

    Only the geometry is cast again, for the pixels whose neighbours lie on another part or face another way; a
    sub-pixel takes the colour of the nearest of the 3 x 3 pixels on the part it hits.
    """
    height, width = shape
    owner = np.full(height * width, -1)
    owner[hits.ray] = hits.part
    owner = owner.reshape(shape)
    facing = normals.reshape(height, width, 3)
    border = np.zeros(shape, dtype=bool)
    for axis in (0, 1):
        n = shape[axis]
        one, two = (np.s_[: n - 1], np.s_[1:]) if axis == 0 else (np.s_[:, : n - 1], np.s_[:, 1:])
        change = (owner[one] != owner[two]) | (np.einsum("hwk,hwk->hw", facing[one], facing[two]) < 0.8)
        border |= np.pad(change, [(0, 1) if a == axis else (0, 0) for a in (0, 1)])
        border |= np.pad(change, [(1, 0) if a == axis else (0, 0) for a in (0, 1)])
    rows, columns = np.nonzero(border)
    if len(rows) == 0:
        return light
    own = owner[rows, columns]
    padded = np.pad(owner, 1, constant_values=-2)
    colours = light.reshape(height, width, 3)
    total = np.zeros((len(rows), 3))
    offsets = (np.arange(supersample) + 0.5) / supersample
    around = ((-1, -1), (-1, 1), (1, -1), (1, 1), (-1, 0), (0, -1), (0, 1), (1, 0))
    for v in offsets:
        for u in offsets:
            part = caster.owners(camera.position, camera.rays(columns + u, rows + v, height, width))
            row, column = rows.copy(), columns.copy()
            other = np.flatnonzero(part != own)
            y, x, wanted = rows[other], columns[other], part[other]
            # from the farthest neighbours to the nearest, so that the nearest has the last word
            for dy, dx in around:
                same = padded[y + 1 + dy, x + 1 + dx] == wanted
                row[other[same]], column[other[same]] = y[same] + dy, x[same] + dx
            total += colours[row, column]
    result = colours.copy()
    result[rows, columns] = total / supersample**2
    return result.reshape(-1, 3)
