"""Bodies as low-poly meshes: tapered round limbs, a trunk of ovals, a head with a face, clothes as looser skins.

Each mesh belongs to one of `PARTS`, so that a rendering tells which part of whom a pixel shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from priorscope.scenes.geometry import Mesh, ellipsoid, joined, sheet

from .body import SIDES, Build, Frames

Array = NDArray[np.float64]

PARTS = (
    *("head", "neck", "trunk", "hips", "skirt"),
    *(f"{side}_{name}" for side in SIDES for name in ("upper_arm", "forearm", "hand", "thigh", "shin", "foot")),
)
"""What meshes belong to; the place in this tuple is the part's number in part images, from 0."""

_ROUND = 10
"""Sides around a limb or a trunk."""


@dataclass(frozen=True)
class Piece:
    """A mesh in the body's frame, the part it belongs to and the role its material has.

    Roles: skin, hair, eyes, mouth, shirt, sleeve, trousers, shoes, hat.
    """

    mesh: Mesh
    part: str
    role: str


@dataclass(frozen=True)
class Outfit:
    """What a body wears, as shapes.

    Attributes
    ----------
    sleeve, leg : float
        How far clothes cover the arm and the leg: 0 none, 1 down to the elbow or knee, 2 down to the wrist or ankle.
    loose : float
        Metres of air in the clothes.
    hem : float
        How far the shirt falls below the hip joints, metres.
    skirt : float
        Length of a skirt as a share of the way to the knee; 0 for none.
    hair : str
        ``none, short, long, tail, afro``.
    hat : bool
    """

    sleeve: float = 1.0
    leg: float = 2.0
    loose: float = 0.008
    hem: float = 0.03
    skirt: float = 0.0
    hair: str = "short"
    hat: bool = False


# stations along a limb (shares of its length; caps beyond both ends are added) and radii in metres at 1.75 m
_STATIONS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
_RADII = {
    "upper_arm": [0.056, 0.052, 0.047, 0.043, 0.040],
    "forearm": [0.041, 0.043, 0.038, 0.031, 0.026],
    "thigh": [0.088, 0.084, 0.074, 0.063, 0.056],
    "shin": [0.055, 0.058, 0.053, 0.042, 0.036],
    "hand": [0.026, 0.036, 0.038, 0.031, 0.018],
    "foot": [0.034, 0.038, 0.042, 0.046, 0.036],
    "neck": [0.060, 0.054, 0.051, 0.052, 0.056],
}
_FLAT = {"hand": 0.45, "foot": 0.78}


def limbs(
    starts: Array, ends: Array, sides: Array, depths: Array, radii: Array, flat: Array, covered: Array | None = None
) -> list[Mesh]:
    """Tapered round bars with round ends, all made at once.

    Parameters
    ----------
    starts, ends, sides, depths : ndarray, (L, 3)
        Ends of the axes, and unit vectors across them.
    radii : ndarray, (L, 5)
        Metres at five even stations, along `sides`.
    flat : ndarray, (L,)
        Radii along `depths` as a share of those along `sides`.
    covered : ndarray, (L,), optional
        The share of the length that is made, from the start (sleeves).
    """
    share = np.ones(len(starts)) if covered is None else covered
    length = np.linalg.norm(ends - starts, axis=-1) * share
    axis = (ends - starts) / np.linalg.norm(ends - starts, axis=-1, keepdims=True)
    at = _STATIONS * share[:, None]
    # the radii of the part that is made: linear between stations
    low = np.minimum((at * 4).astype(int), 3)
    rows = np.arange(len(starts))[:, None]
    middle = radii[rows, low] + (radii[rows, low + 1] - radii[rows, low]) * (at * 4 - low)
    first, last = middle[:, :1], middle[:, -1:]
    along = np.concatenate(
        [-first * flat[:, None], -0.71 * first * flat[:, None], _STATIONS * length[:, None]]
        + [length[:, None] + 0.71 * last * flat[:, None], length[:, None] + last * flat[:, None]],
        axis=1,
    )
    wide = np.concatenate([0.02 * first, 0.71 * first, middle, 0.71 * last, 0.02 * last], axis=1)
    angle = np.linspace(0, 2 * np.pi, _ROUND + 1)
    around = np.cos(angle)[:, None] * sides[:, None] + np.sin(angle)[:, None] * (flat[:, None, None] * depths[:, None])
    points = (
        starts[:, None, None] + along[..., None, None] * axis[:, None, None] + wide[..., None, None] * around[:, None]
    )
    uv = np.empty((*points.shape[:3], 2))
    uv[..., 0] = angle * middle.mean(axis=1)[:, None, None]
    uv[..., 1] = along[..., None]
    return [sheet(p, t, wrap=True) for p, t in zip(points, uv, strict=True)]


def trunk(centres: Array, sides: Array, depths: Array, wide: Array, deep: Array) -> Mesh:
    """A tube of ovals: centres, unit axes, (R, 3), and half widths and depths, (R,), from below to above."""
    angle = np.linspace(0, 2 * np.pi, _ROUND + 3)
    cosine, sine = np.cos(angle), np.sin(angle)
    # a trunk is nearer to a box than an ellipse is
    cosine, sine = np.sign(cosine) * np.abs(cosine) ** 0.85, np.sign(sine) * np.abs(sine) ** 0.85
    points = centres[:, None] + (wide[:, None] * cosine)[..., None] * sides[:, None]
    points = points + (deep[:, None] * sine)[..., None] * depths[:, None]
    uv = np.empty((*points.shape[:2], 2))
    uv[..., 0] = angle * float(wide.max())
    step = np.linalg.norm(np.diff(centres, axis=0), axis=-1)
    uv[..., 1] = np.concatenate([[0.0], np.cumsum(step)])[:, None]
    return sheet(points, uv, wrap=True)


HEAD_TOP = np.array([0.0, 0.0, 0.235])
FACE = {
    "nose": np.array([0.0, -0.117, 0.107]),
    "left_eye": np.array([0.033, -0.0905, 0.128]),
    "right_eye": np.array([-0.033, -0.0905, 0.128]),
    "left_ear": np.array([0.079, 0.006, 0.112]),
    "right_ear": np.array([-0.079, 0.006, 0.112]),
    "head_top": HEAD_TOP,
}
"""Landmarks of the head in its own frame (metres at head size 1), origin where the neck ends."""


@lru_cache(maxsize=1)
def _head() -> dict[str, Mesh]:
    """Meshes of a head of size 1 in its own frame, by role and name."""
    skull = ellipsoid(0.076, 0.097, 0.115, 16).moved((0, 0, 0.005))
    jaw = ellipsoid(0.058, 0.066, 0.062, 12).moved((0, -0.026, -0.012))
    nose = ellipsoid(0.0125, 0.02, 0.022, 8).moved((0, -0.0975, 0.087))
    ears = [ellipsoid(0.009, 0.018, 0.028, 8).moved((x, 0.008, 0.085)) for x in (-0.0765, 0.0765)]
    brow = ellipsoid(0.052, 0.02, 0.014, 10).moved((0, -0.08, 0.138))
    eyes = [ellipsoid(0.011, 0.008, 0.007, 8).moved((x, -0.0835, 0.121)) for x in (-0.033, 0.033)]
    mouth = ellipsoid(0.022, 0.012, 0.006, 8).moved((0, -0.083, 0.052))
    cap = ellipsoid(0.0815, 0.1, 0.1, 14).moved((0, 0.012, 0.045))
    return {
        "skin": joined([skull, jaw, nose, *ears, brow]),
        "eyes": joined(eyes),
        "mouth": mouth,
        "short": cap,
        "long": joined([cap, ellipsoid(0.092, 0.06, 0.155, 14).moved((0, 0.05, -0.095))]),
        "tail": joined([cap, ellipsoid(0.03, 0.045, 0.1, 10).moved((0, 0.125, 0.0))]),
        "afro": ellipsoid(0.115, 0.12, 0.11, 14).moved((0, 0.032, 0.055)),
        "hat": joined(
            [
                ellipsoid(0.087, 0.106, 0.062, 14).moved((0, 0.004, 0.145)),
                ellipsoid(0.07, 0.08, 0.008, 12).moved((0, -0.1, 0.166)),
            ]
        ),
    }


def clothe(build: Build, frames: Frames, outfit: Outfit) -> list[Piece]:
    """All meshes of a body in a posture, in the frame of `frames`."""
    scale = build.height / 1.75
    names, starts, ends, turns = _bars(build, frames, scale)
    kinds = [name.split("_", 1)[-1] for name in names]
    radii = build.girth * np.array([_RADII[kind] for kind in kinds])
    # feet and hands of stout people are not stout, and muscles follow half of it
    for row, kind in enumerate(kinds):
        if kind in ("foot", "hand"):
            radii[row] *= scale / build.girth
    flat = np.array([_FLAT.get(kind, 1.0) for kind in kinds])
    worn = [_worn(kind, outfit) for kind in kinds]
    full = np.array([share >= 1.0 for _, share in worn])
    radii = (
        radii + outfit.loose * np.array([role in ("sleeve", "trousers") for role, _ in worn])[:, None] * full[:, None]
    )
    made = limbs(starts, ends, turns[:, :, 0], turns[:, :, 1], radii, flat)
    pieces = [
        Piece(mesh, name, role if share >= 1.0 or role == "shoes" else "skin")
        for mesh, name, (role, share) in zip(made, names, worn, strict=True)
    ]
    part = [row for row, (role, share) in enumerate(worn) if role != "skin" and 0.05 < share < 1.0]
    if part:
        cover = np.array([worn[row][1] for row in part])
        over = limbs(
            starts[part],
            ends[part],
            turns[part, :, 0],
            turns[part, :, 1],
            radii[part] * 1.06 + outfit.loose + 0.004,
            flat[part],
            cover,
        )
        pieces += [Piece(mesh, names[row], worn[row][0]) for mesh, row in zip(over, part, strict=True)]
    return pieces + _trunk(build, frames, outfit, scale) + _head_pieces(build, frames, outfit)


def _worn(kind: str, outfit: Outfit) -> tuple[str, float]:
    """Role of a limb's clothes, and the share of the limb that they cover."""
    cover = {
        "upper_arm": ("sleeve", outfit.sleeve),
        "forearm": ("sleeve", outfit.sleeve - 1),
        "thigh": ("trousers", outfit.leg),
        "shin": ("trousers", outfit.leg - 1),
        "foot": ("shoes", 1.0),
    }
    role, share = cover.get(kind, ("skin", 0.0))
    return role, float(np.clip(share, 0, 1))


def _bars(build: Build, frames: Frames, scale: float) -> tuple[list[str], Array, Array, Array]:
    """Names, axes and rotations of all limbs."""
    p, r = frames.points, frames.turns
    names, starts, ends, turns = ["neck"], [p["chest"]], [p["neck"] + 0.02 * scale * r["head"][:, 2]], [r["chest"]]
    for side in SIDES:
        chain = ("shoulder", "elbow", "wrist", "hand"), ("upper_arm", "forearm", "hand")
        for above, below, name in zip(chain[0], chain[0][1:], chain[1], strict=False):
            names.append(f"{side}_{name}")
            starts.append(p[f"{side}_{above}"])
            ends.append(p[f"{side}_{below}"])
            # a hand's palm looks at the thigh: it is flat along x where a foot is flat along y
            turn = r[f"{side}_{name}"]
            turns.append(turn[:, [1, 0, 2]] if name == "hand" else turn)
        for above, below, name in (("hip", "knee", "thigh"), ("knee", "ankle", "shin")):
            names.append(f"{side}_{name}")
            starts.append(p[f"{side}_{above}"])
            ends.append(p[f"{side}_{below}"])
            turns.append(r[f"{side}_{name}"])
        foot = r[f"{side}_foot"]
        heel = p[f"{side}_ankle"] + foot @ np.array([0, 0.16 * build.foot, -0.037 * scale])
        names.append(f"{side}_foot")
        starts.append(heel)
        ends.append(heel - 0.72 * build.foot * foot[:, 1])
        # along a foot: across is x, up is z
        turns.append(foot[:, [0, 2, 1]])
    return names, np.array(starts), np.array(ends), np.array(turns)


def _unit(a: Array) -> Array:
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


def _trunk(build: Build, frames: Frames, outfit: Outfit, scale: float) -> list[Piece]:
    """Hips, trunk and, with it, the skirt."""
    p, r = frames.points, frames.turns
    g, air = build.girth, outfit.loose
    pelvis, chest = r["pelvis"], r["chest"]
    hip_wide = build.hip + 0.072 * g * build.hips_wide

    def rings(heights: list[float], wide: list[float], deep: list[float], more: float) -> Mesh:
        """Ovals at heights above the hip joints, bent with the spine; the front of a belly bulges."""
        z = np.array(heights)
        top = build.waist_up + build.chest_up
        mix = np.clip((z - 0.4 * build.waist_up) / (1.2 * build.waist_up), 0, 1)[:, None]
        centres = np.where(
            (z < build.waist_up)[:, None],
            z[:, None] * pelvis[:, 2],
            p["waist"] + (z - build.waist_up)[:, None] * chest[:, 2],
        )
        sides = _unit(pelvis[:, 0] * (1 - mix) + chest[:, 0] * mix)
        depths = _unit(pelvis[:, 1] * (1 - mix) + chest[:, 1] * mix)
        d = np.array(deep)
        bulge = np.exp(-(((z - 0.3 * top) / (0.28 * top)) ** 2)) * (build.belly - 1)
        d = d * (1 + 0.8 * bulge)
        centres = centres - (0.5 * bulge * d)[:, None] * depths
        return trunk(centres, sides, depths, np.array(wide) + more, d + more)

    low = rings(
        [-0.12 * scale, -0.1 * scale, -0.03 * scale, 0.05 * scale, 0.85 * build.waist_up],
        [0.01, 0.6 * hip_wide, 0.97 * hip_wide, 0.92 * hip_wide, 0.76 * hip_wide],
        [0.01, 0.07 * g, 0.102 * g, 0.098 * g, 0.078 * g],
        0.5 * air if outfit.leg > 0 else 0.0,
    )
    waist = 0.84 * hip_wide * build.belly**0.5
    top, s = build.waist_up + build.chest_up, build.shoulder
    c = build.chest
    high = rings(
        # the first oval closes the hem from below
        [
            -outfit.hem,
            -outfit.hem,
            0.04 * scale,
            build.waist_up,
            build.waist_up + 0.35 * build.chest_up,
            build.waist_up + 0.65 * build.chest_up,
        ]
        + [top - 0.055 * scale, top + 0.005 * scale, top + 0.045 * scale],
        [0.01, hip_wide, hip_wide, waist, 0.5 * (waist + 0.82 * s), 0.86 * s, 0.9 * s, 0.62 * s, 0.035 * g],
        [0.01, 0.108 * g, 0.108 * g, 0.09 * g, 0.105 * g * c, 0.112 * g * c, 0.096 * g, 0.066 * g, 0.03 * g],
        air + 0.004,
    )
    pieces = [Piece(low, "hips", "trousers"), Piece(high, "trunk", "shirt")]
    if outfit.skirt > 0:
        pieces.append(Piece(_skirt(build, frames, outfit, hip_wide), "skirt", "trousers"))
    return pieces


def _skirt(build: Build, frames: Frames, outfit: Outfit, hip_wide: float) -> Mesh:
    """From the waist to a share of the way to the knees; as wide as the knees are apart."""
    p, r = frames.points, frames.turns
    knees = np.stack([p["left_knee"], p["right_knee"]])
    share = np.array([0.0, 0.25, 0.6, 1.0]) * outfit.skirt
    centres = [0.7 * p["waist"]]
    wide, deep, sides, depths = [0.86 * hip_wide], [0.1 * build.girth], [r["pelvis"][:, 0]], [r["pelvis"][:, 1]]
    for way in share:
        pair = np.stack([p["left_hip"], p["right_hip"]]) * (1 - way) + knees * way
        centre = pair.mean(axis=0)
        down = _unit(centre - 1.2 * p["waist"])
        apart = pair[0] - pair[1]
        side = _unit(r["pelvis"][:, 0] - down * (down @ r["pelvis"][:, 0]))
        depth = np.cross(down, side)
        room = 0.085 * build.girth * (1 + 0.35 * way) + outfit.loose + 0.012
        centres.append(centre)
        wide.append(max(hip_wide * (1 - 0.3 * way), 0.5 * abs(float(apart @ side)) + room))
        deep.append(max(0.11 * build.girth, 0.5 * abs(float(apart @ depth)) + room))
        sides.append(side)
        depths.append(depth)
    return trunk(np.array(centres), np.array(sides), np.array(depths), np.array(wide), np.array(deep))


def _head_pieces(build: Build, frames: Frames, outfit: Outfit) -> list[Piece]:
    head = _head()
    at, turn = frames.points["neck"], frames.turns["head"]

    def put(mesh: Mesh) -> Mesh:
        return Mesh(build.head * mesh.vertices @ turn.T + at, mesh.faces, mesh.uv, mesh.weld)

    pieces = [Piece(put(head[role]), "head", role) for role in ("skin", "eyes", "mouth")]
    if outfit.hair != "none":
        pieces.append(Piece(put(head[outfit.hair]), "head", "hair"))
    if outfit.hat:
        pieces.append(Piece(put(head["hat"]), "head", "hat"))
    return pieces
