"""One galaxy: what is true of it, and its light in g, r and i before the atmosphere and the detector."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_astro.simulator import features
from priorscope_astro.simulator.config import BANDS, CLASSES

Array = NDArray[np.float32]

#: Cells of a scene along a pixel of the stamp, and pixels by which it is wider on each side (light that blurs in).
OVERSAMPLING = 2
MARGIN = 8
#: Extinction in g, r, i relative to r (Milky Way's law, R_V = 3.1, rounded).
_EXTINCTION = (1.4, 1.0, 0.75)
#: g - r and r - i, AB magnitudes, of what a galaxy is made of.
_OLD, _DISC, _YOUNG = (0.78, 0.40), (0.52, 0.28), (0.22, 0.08)


@dataclass(frozen=True)
class Galaxy:
    """What is true of a simulated galaxy. Lengths are in pixels, angles in radians from the x axis towards y."""

    kind: str
    """One of CLASSES."""
    magnitude: float
    """AB, r band, all of its light before dust."""
    radius: float
    """Half-light radius of the spheroid, or scale length of the disc."""
    axis_ratio: float
    """Of the isophotes; of an edge-on disc: scale height over scale length."""
    angle: float
    redder: float = 0.0
    """Added to both colours."""
    x: float = 0.0
    """Position of the centre, from the middle of the stamp."""
    y: float = 0.0
    disc: bool = False
    edge_on: bool = False
    bulge: float = 1.0
    """Share of the light in the bulge; 1 is a spheroid."""
    bulge_radius: float = 0.0
    bulge_index: float = 4.0
    """Sersic index of the bulge or spheroid."""
    boxy: float = 0.0
    """Of the bulge's isophotes; above 0.5 one sees it."""
    arms: int = 0
    pitch: float = 0.0
    """Angle between an arm and a circle, degrees."""
    arm_share: float = 0.0
    """Share of the disc's light that lies in the arms."""
    phase: float = 0.0
    """Azimuth of arms, bar, knots."""
    bar: float = 0.0
    """Half length of the bar, 0: none."""
    bar_share: float = 0.0
    """Share of the light in the bar."""
    ring: float = 0.0
    """Radius of the ring, 0: none."""
    ring_share: float = 0.0
    """Share of the disc's light that lies in the ring."""
    dust: float = 0.0
    """Optical depth of the lane's middle in r, 0: none."""
    dust_width: float = 0.0
    """Standard deviation across the lane."""
    dust_reach: float = 0.0
    """Half the length of the lane."""
    dust_offset: float = 0.0
    dust_bend: float = 0.0
    dust_turn: float = 0.0
    """Angle between the lane and the major axis."""
    partner: Galaxy | None = None
    """The other galaxy of a merger."""
    tail: float = 0.0
    """Share of the light of a merging galaxy that lies in its tidal tail."""
    knots_seed: int = 0
    field: tuple[tuple[float, ...], ...] = ()
    """Faint objects nearby: x and y from the middle of the stamp, magnitude in r, width, g - r, r - i."""

    def parameters(self) -> dict[str, Any]:
        """All of this as one flat row: the partner's with ``partner_`` before them."""
        row = asdict(replace(self, partner=None))
        del row["partner"], row["knots_seed"], row["field"]
        if self.partner is not None:
            row |= {f"partner_{name}": value for name, value in self.partner.parameters().items()}
        return row


def random_galaxy(kind: str, random: np.random.Generator, size: int) -> Galaxy:
    """Draw a galaxy of a class.

    Parameters
    ----------
    kind : str
        One of CLASSES.
    random : numpy.random.Generator
    size : int
        Pixels of the stamp along a side: galaxies fill about the same part of it.

    Raises
    ------
    InputError
        For another class.
    """
    draw = {
        "round": _spheroid(0.84, 1.0),
        "in_between": _spheroid(0.48, 0.74),
        "cigar": _spheroid(0.22, 0.34),
        "edge_on": _edge_on,
        "spiral": _spiral,
        "barred": _barred,
        "ring": _ringed,
        "merger": _merger,
        "dust_lane": _dusty,
    }.get(kind)
    if draw is None:
        raise InputError(f"there is no class {kind!r}", remedy=f"Known: {', '.join(CLASSES)}.")
    galaxy = draw(random, size)
    shift = random.normal(0, 0.008 * size, 2)
    partner = galaxy.partner
    if partner is not None:
        partner = replace(partner, x=partner.x + shift[0], y=partner.y + shift[1])
    return replace(
        galaxy, kind=kind, x=galaxy.x + shift[0], y=galaxy.y + shift[1], partner=partner, field=_field(random, size)
    )


def _field(random: np.random.Generator, size: int) -> tuple[tuple[float, ...], ...]:
    """Stars and faint galaxies, away from the centre."""
    found = []
    for _ in range(random.poisson(1.0)):
        x, y = random.uniform(-size / 2, size / 2, 2)
        width = random.choice([0.3, random.uniform(0.8, 1.6)])
        row = (x, y, random.uniform(18.5, 21.5), width, random.uniform(0.2, 1.2), random.uniform(0.0, 0.6))
        if np.hypot(x, y) > 0.3 * size:
            found.append(tuple(float(value) for value in row))
    return tuple(found)


def _common(random: np.random.Generator) -> dict[str, Any]:
    return {
        "kind": "",
        "magnitude": random.uniform(14.8, 16.6),
        "angle": random.uniform(0, np.pi),
        "phase": random.uniform(0, 2 * np.pi),
        "redder": random.normal(0, 0.05),
        "knots_seed": int(random.integers(2**31)),
    }


def _spheroid(low: float, high: float) -> Any:
    def draw(random: np.random.Generator, size: int) -> Galaxy:
        return Galaxy(
            **_common(random),
            radius=size * random.uniform(0.09, 0.15),
            axis_ratio=random.uniform(low, high),
            # a needle of light is a disc or an elongated spheroid without a cusp
            bulge_index=random.uniform(1.2, 2.5) if high < 0.4 else random.uniform(2.2, 4.5),
        )

    return draw


def _edge_on(random: np.random.Generator, size: int) -> Galaxy:
    shape = random.choice(3, p=[0.5, 0.15, 0.35])  # rounded, boxy, none
    scale = size * random.uniform(0.10, 0.14)
    height = size * random.uniform(0.020, 0.040)
    return Galaxy(
        **_common(random),
        radius=scale,
        axis_ratio=height / scale,
        disc=True,
        edge_on=True,
        bulge=0.0 if shape == 2 else random.uniform(0.2, 0.45),
        bulge_radius=size * random.uniform(0.045, 0.07),
        bulge_index=random.uniform(1.5, 3),
        boxy=random.uniform(1.5, 2.5) if shape == 1 else 0.0,
    )


def _disc(random: np.random.Generator, size: int) -> dict[str, Any]:
    scale = size * random.uniform(0.095, 0.125)
    return _common(random) | {
        "disc": True,
        "radius": scale,
        "axis_ratio": random.uniform(0.55, 1.0),
        "bulge": float(random.choice([0.02, 0.13, 0.3, 0.55], p=[0.1, 0.5, 0.33, 0.07])) * random.uniform(0.8, 1.2),
        "bulge_radius": scale * random.uniform(0.3, 0.5),
        "bulge_index": random.uniform(1.5, 3),
    }


def _arms(random: np.random.Generator) -> dict[str, Any]:
    return {
        "arms": int(random.choice([1, 2, 3, 4, 5], p=[0.05, 0.6, 0.16, 0.12, 0.07])),
        "pitch": random.uniform(8, 34),
        "arm_share": random.uniform(0.4, 0.75),
    }


def _bar(random: np.random.Generator, scale: float) -> dict[str, Any]:
    return {"bar": scale * random.uniform(1.2, 1.8), "bar_share": random.uniform(0.18, 0.32)}


def _spiral(random: np.random.Generator, size: int) -> Galaxy:
    return Galaxy(**_disc(random, size) | _arms(random))


def _barred(random: np.random.Generator, size: int) -> Galaxy:
    row = _disc(random, size)
    row |= _bar(random, row["radius"])
    if random.random() < 0.65:
        row |= _arms(random)
    return Galaxy(**row | {"bulge": min(row["bulge"], 0.2)})


def _ringed(random: np.random.Generator, size: int) -> Galaxy:
    row = _disc(random, size)
    row |= {"ring": row["radius"] * random.uniform(1.7, 2.3), "ring_share": random.uniform(0.35, 0.6)}
    if random.random() < 0.35:
        row |= _bar(random, row["radius"])
    return Galaxy(**row)


def _merger(random: np.random.Generator, size: int) -> Galaxy:
    apart, towards = size * random.uniform(0.12, 0.24), random.uniform(0, 2 * np.pi)
    pair = []
    for sign, share in ((1, 0.42), (-1, 0.58)):
        place = sign * share * apart
        if random.random() < 0.65:
            one = Galaxy(**_disc(random, round(0.65 * size)) | _arms(random))
            one = replace(one, axis_ratio=random.uniform(0.35, 1))
        else:
            one = _spheroid(0.5, 1)(random, round(0.65 * size))
        tail = random.uniform(0.1, 0.3) * random.choice([-1, 1]) if random.random() < 0.8 else 0.0
        pair.append(replace(one, kind="merger", x=place * np.cos(towards), y=place * np.sin(towards), tail=tail))
    first, second = pair
    return replace(first, partner=replace(second, magnitude=first.magnitude + random.uniform(-0.3, 0.9)))


def _dusty(random: np.random.Generator, size: int) -> Galaxy:
    """An early-type galaxy with a lane: what Kaviraj et al. (2012) selected."""
    host = random.choice(3, p=[0.35, 0.4, 0.25])  # round, in between, edge-on with a bulge
    if host == 2:
        galaxy = _edge_on(random, size)
        galaxy = replace(
            galaxy,
            bulge=random.uniform(0.35, 0.55),
            axis_ratio=random.uniform(0.3, 0.45),
            boxy=0.0,
            bulge_radius=size * random.uniform(0.08, 0.11),
            bulge_index=random.uniform(1.2, 2.2),
        )
        turn, reach = random.normal(0, 0.03), 2.8 * galaxy.radius
    else:
        galaxy = (_spheroid(0.84, 1.0) if host == 0 else _spheroid(0.55, 0.74))(random, size)
        # a lane cannot be told within the cusp of a steep profile at this resolution
        galaxy = replace(galaxy, bulge_index=random.uniform(1.8, 3.2), radius=size * random.uniform(0.11, 0.15))
        turn, reach = random.normal(0, 0.12) + (np.pi / 2 if random.random() < 0.15 else 0), 1.9 * galaxy.radius
    return replace(
        galaxy,
        dust=random.uniform(2.0, 4.0),
        dust_width=size * random.uniform(0.020, 0.030),
        dust_reach=reach,
        dust_offset=size * random.normal(0, 0.012),
        dust_bend=reach * random.normal(0, 0.12),
        dust_turn=turn,
    )


def scene(galaxy: Galaxy, size: int) -> Array:
    """The light of a galaxy on a fine grid.

    Parameters
    ----------
    galaxy : Galaxy
    size : int
        Pixels of the stamp along a side.

    Returns
    -------
    ndarray of float32, (3, M, M)
        Flux in each cell in g, r, i, nanomaggies; M is ``OVERSAMPLING * (size + 2 * MARGIN)``, and the middle of the
        grid is that of the stamp. Light outside the grid is lost.
    """
    cells = OVERSAMPLING * (size + 2 * MARGIN)
    line = ((np.arange(cells) - (cells - 1) / 2) / OVERSAMPLING).astype(np.float32)
    x, y = line[None, :], line[:, None]
    total = _light(galaxy, x, y)
    if galaxy.partner is not None:
        total += _light(galaxy.partner, x, y)
    for one, two, magnitude, width, g_r, r_i in galaxy.field:
        spot = np.exp(-((x - one) ** 2) / (2 * width**2)) * np.exp(-((y - two) ** 2) / (2 * width**2))
        spot /= 2 * np.pi * (OVERSAMPLING * width) ** 2
        for image, colour in zip(total, (-g_r, 0.0, r_i), strict=True):
            image += 10 ** (0.4 * (22.5 - magnitude + colour)) * spot
    return total


def _light(galaxy: Galaxy, x: Array, y: Array) -> Array:
    """Light of one galaxy, (3, M, M)."""
    x, y = x - np.float32(galaxy.x), y - np.float32(galaxy.y)
    flux = 10 ** (0.4 * (22.5 - galaxy.magnitude))
    total = np.zeros((len(BANDS), y.shape[0], x.shape[1]), np.float32)

    def add(pattern: Array, share: float, colours: tuple[float, float]) -> None:
        norm = pattern.sum()
        if norm > 0 and share > 0:
            g_r, r_i = (value + galaxy.redder for value in colours)
            bands = 10 ** (0.4 * np.array([-g_r, 0.0, r_i])) * (flux * share / norm)
            for image, scale in zip(total, bands.tolist(), strict=True):
                image += scale * pattern

    tail = abs(galaxy.tail)
    body = 1 - tail
    old = galaxy.bulge * body if galaxy.disc else body
    if not galaxy.disc:
        add(features.sersic(x, y, galaxy.radius, galaxy.bulge_index, galaxy.axis_ratio, galaxy.angle), old, _OLD)
    elif old > 0:
        ratio = 0.75 if galaxy.edge_on else 0.5 + 0.5 * galaxy.axis_ratio
        bulge = (galaxy.bulge_radius, galaxy.bulge_index, ratio, galaxy.angle, galaxy.boxy)
        add(features.sersic(x, y, *bulge), old, _OLD)
    if galaxy.disc and galaxy.edge_on:
        along, across = features.turned(x, y, galaxy.angle)
        add(features.edge_on_disc(along, across, galaxy.radius, galaxy.axis_ratio * galaxy.radius), body - old, _DISC)
    elif galaxy.disc:
        _add_disc(galaxy, x, y, body - old, add)
    if tail:
        radius = 2.2 * galaxy.radius if galaxy.disc else 1.3 * galaxy.radius
        sweep = np.sign(galaxy.tail) * 2.2
        add(features.tidal_tail(x, y, radius, galaxy.phase, sweep, 0.3 * radius), tail, _YOUNG)
    if galaxy.dust:
        along, across = features.turned(x, y, galaxy.angle + galaxy.dust_turn)
        lane = (galaxy.dust_width, galaxy.dust_reach, galaxy.dust_offset, galaxy.dust_bend)
        depth = features.dust_lane(along, across, galaxy.dust, *lane)
        # a little of the light lies in front of the lane
        for image, extinction in zip(total, _EXTINCTION, strict=True):
            image *= 0.12 + 0.88 * np.exp(-extinction * depth)
    return total


def _add_disc(galaxy: Galaxy, x: Array, y: Array, share: float, add: Any) -> None:
    """Disc, bar, ring, arms and knots, which share the light ``share``."""
    scale = galaxy.radius
    r, azimuth = features.face_on(x, y, galaxy.axis_ratio, galaxy.angle)
    smooth = np.exp(-r / scale)
    bar = galaxy.bar_share * share
    ring = galaxy.ring_share * (share - bar)
    arms = galaxy.arm_share * (share - bar)
    add(smooth, share - bar - ring - arms, _DISC if galaxy.arms or galaxy.ring else _OLD)
    if bar:
        along, across = r * np.cos(azimuth - galaxy.phase), r * np.sin(azimuth - galaxy.phase)
        add(features.bar(along, across, galaxy.bar, 0.3 * galaxy.bar), bar, _OLD)
    if ring:
        add(features.ring(r, galaxy.ring, 0.22 * scale), ring, _YOUNG)
    if arms:
        start = galaxy.bar if galaxy.bar else 0.6 * scale
        pattern = features.spiral_arms(
            r, azimuth, galaxy.arms, np.radians(galaxy.pitch), galaxy.phase, start, 2.0 + 0.6 * galaxy.arms
        )
        pattern = pattern * np.exp(-r / (1.35 * scale))
        where, weights = _knots(galaxy, start)
        add(pattern, 0.88 * arms, _YOUNG)
        add(features.knots(x, y, where, 0.11 * scale, weights), 0.12 * arms, _YOUNG)


def _knots(galaxy: Galaxy, start: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions on the sky of star-forming knots along the arms, and their brightness."""
    random = np.random.default_rng(galaxy.knots_seed)
    count = 14
    r = start + galaxy.radius * random.uniform(0.1, 2.2, count)
    azimuth = (
        galaxy.phase
        + np.log(r / start) / np.tan(np.radians(galaxy.pitch))
        + 2 * np.pi * random.integers(galaxy.arms, size=count) / galaxy.arms
        + random.normal(0, 0.08, count)
    )
    along, across = r * np.cos(azimuth), galaxy.axis_ratio * r * np.sin(azimuth)
    c, s = np.cos(galaxy.angle), np.sin(galaxy.angle)
    return np.stack([c * along - s * across, s * along + c * across], -1), random.exponential(1, count)
