"""A beating heart with four chambers, as the apex sees it, made of scatterers.

Shapes are drawn in the heart's own frame at rest: u across, v from the apex (0) along the long axis, in m. The wall is
what lies between chambers and the outer border; motion draws the border of the chambers inwards and the base towards
the apex. Blood is other blood in every frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_medical.ultrasound.heart_scatterers import AROUND, BLOOD, WALL

Numbers = NDArray[np.float64]
RIM = 3
#: What an index of a region means: pericardium and annulus, the brightest, are the rim.
CHAMBER_REGIONS = ("around", "wall", "blood", "rim")


@dataclass(frozen=True)
class FourChambers:
    """Shape, place, motion and brightness of a heart.

    Parameters
    ----------
    apex : (float, float)
        x and z in m.
    tilt : float
        Of the long axis, in radians from z towards x.
    mirrored : bool
        Whether the right side of the heart lies at the right of the picture.
    length, width : float
        Of the left ventricle's cavity at rest in m, from apex to base and half across.
    thickness : float
        Of its wall in m.
    right : float
        Half the right ventricle's width in m; 0: there is none in the picture.
    atria : float
        Half the atria's length in m; 0: none.
    contraction : float
        Share of its width that the left ventricle loses.
    period, phase : float
        Of a beat, in s, and where in it the sequence begins, from 0 to 1.
    levels : (float, float, float, float)
        Echo strength of around, wall, blood and rim in dB.
    bumps : tuple of (float, float, float, float, float)
        Waves that bend the shapes: shift in u and in v in m, wave numbers along u and v in radians per m, phase.
    """

    apex: tuple[float, float] = (0.0, 25e-3)
    tilt: float = 0.0
    mirrored: bool = False
    length: float = 75e-3
    width: float = 20e-3
    thickness: float = 10e-3
    right: float = 13e-3
    atria: float = 20e-3
    contraction: float = 0.25
    period: float = 0.9
    phase: float = 0.0
    levels: tuple[float, float, float, float] = (-16.0, 0.0, -40.0, 9.0)
    bumps: tuple[tuple[float, float, float, float, float], ...] = ()

    def __post_init__(self) -> None:
        if min(self.length, self.width, self.thickness, self.period) <= 0 or min(self.right, self.atria) < 0:
            raise InputError(f"a heart with {self}", remedy="Lengths and the period are positive.")
        if not 0 <= self.contraction < 0.5:
            raise InputError(f"contraction {self.contraction}", remedy="Use 0 to below 0.5.")

    def squeeze(self, time: float) -> float:
        """How far the beat has gone at a time in s: 0 at rest, 1 contracted."""
        return 0.5 - 0.5 * math.cos(2 * math.pi * (time / self.period + self.phase))

    def rest_regions(self, u: Numbers, v: Numbers) -> NDArray[np.uint8]:
        """Region of points in the heart's frame at rest."""
        waves = [(du, dv, np.cos(ku * u + kv * v + phase)) for du, dv, ku, kv, phase in self.bumps]
        u, v = u + sum(du * wave for du, _, wave in waves), v + sum(dv * wave for _, dv, wave in waves)
        cavity, outer = self._left(u, v, 0.0), self._left(u, v, self.thickness)
        found = np.full(np.shape(u), AROUND, dtype=np.uint8)
        rim = outer & ~self._left(u, v, self.thickness - 2e-3) & (u > 0)
        found[outer] = WALL
        blood = cavity
        if self.right:
            chamber, wall = self._right(u, v, 0.0) & ~outer, self._right(u, v, 4e-3) & ~outer
            found[wall] = WALL
            blood = blood | chamber
        if self.atria:
            walls, inside = np.zeros_like(cavity), np.zeros_like(cavity)
            for centre in (0.0, *([self._right_centre] if self.right else [])):
                walls |= self._atrium(u, v, centre, 3.5e-3)
                inside |= self._atrium(u, v, centre, 0.0)
            far = walls & ~inside & (v > self.length + 1.4 * self.atria)
            found[walls & (found == AROUND)] = WALL
            rim = rim | far
            blood = blood | inside
        found[rim & ~blood] = RIM
        found[blood] = BLOOD
        base = (np.abs(v - self.length - 1e-3) < 2e-3) & (found != AROUND)
        hinges = np.abs(np.abs(u) - self.width) < 3e-3
        found[base & hinges] = RIM
        return found

    def placed(self, u: Numbers, v: Numbers) -> tuple[Numbers, Numbers]:
        """x and z in m of points in the heart's frame."""
        u = -u if self.mirrored else u
        cos, sin = math.cos(self.tilt), math.sin(self.tilt)
        return self.apex[0] + cos * u + sin * v, self.apex[1] - sin * u + cos * v

    def framed(self, x: Numbers, z: Numbers) -> tuple[Numbers, Numbers]:
        """The heart's frame from x and z in m: the inverse of :meth:`placed`."""
        cos, sin = math.cos(self.tilt), math.sin(self.tilt)
        x, z = x - self.apex[0], z - self.apex[1]
        u, v = cos * x - sin * z, sin * x + cos * z
        return (-u if self.mirrored else u), v

    def moved(self, u: Numbers, v: Numbers, time: float) -> tuple[Numbers, Numbers]:
        """Where points that are at u, v when at rest are at a time, in the heart's frame."""
        du, dv = self._displacement(u, v, time)
        return u + du, v + dv

    def regions(self, x: Numbers, z: Numbers, time: float) -> NDArray[np.uint8]:
        """Region of points in m at a time in s: an index into ``CHAMBER_REGIONS``."""
        u, v = self.framed(x, z)
        rest_u, rest_v = u, v
        for _ in range(6):  # the displacement changes by less than itself: this settles
            du, dv = self._displacement(rest_u, rest_v, time)
            rest_u, rest_v = u - du, v - dv
        return self.rest_regions(rest_u, rest_v)

    def leaflets(self, time: float, density: float, draw: np.random.Generator) -> tuple[Numbers, Numbers]:
        """Points of the valves' leaflets in m, so many a metre of leaflet, 1.5 mm thick."""
        ends = [(-self.width, self.width)]
        if self.right:
            centre = self._right_centre
            ends.append((centre - 0.8 * self.right, centre + 0.8 * self.right))
        us, vs = [], []
        for left, right in ends:
            reach = 0.47 * (right - left)
            turn = math.radians(65) * (1 - self.squeeze(time)) ** 2 + math.radians(8)
            for hinge, way in ((left, 1.0), (right, -1.0)):
                count = max(8, round(density * reach))
                along = draw.uniform(0, reach, count)
                bow = 0.12 * reach * np.sin(np.pi * along / reach)
                us.append(hinge + way * (along * math.cos(turn) - bow * math.sin(turn)))
                vs.append(self.length - along * math.sin(turn) - bow * math.cos(turn) + draw.normal(0, 0.5e-3, count))
        u, v = np.concatenate(us), np.concatenate(vs)
        _, dv = self._displacement(u, np.full_like(u, self.length), time)
        return self.placed(u, v + dv)

    @property
    def _right_centre(self) -> float:
        return -(self.width + self.thickness + 0.85 * self.right)

    def _left(self, u: Numbers, v: Numbers, grown: float) -> NDArray[np.bool_]:
        middle, half = 0.55 * self.length, 0.55 * self.length + grown
        ellipse = (u / (self.width + grown)) ** 2 + ((v - middle) / half) ** 2 < 1
        straight = (np.abs(u) < 0.96 * self.width + grown) & (v > middle)
        return (ellipse | straight) & (v < self.length) & (v > -grown)

    def _right(self, u: Numbers, v: Numbers, grown: float) -> NDArray[np.bool_]:
        middle, half = 0.62 * self.length, 0.44 * self.length + grown
        ellipse = ((u - self._right_centre) / (1.25 * self.right + grown)) ** 2 + ((v - middle) / half) ** 2 < 1
        return ellipse & (v < self.length)

    def _atrium(self, u: Numbers, v: Numbers, centre: float, grown: float) -> NDArray[np.bool_]:
        across = 0.95 * self.width if centre == 0 else 1.15 * self.right
        middle = self.length + self.atria
        ellipse = ((u - centre) / (across + grown)) ** 2 + ((v - middle) / (1.1 * self.atria + grown)) ** 2 < 1
        return ellipse & (v > self.length)

    def _displacement(self, u: Numbers, v: Numbers, time: float) -> tuple[Numbers, Numbers]:
        now = self.squeeze(time)
        near = np.exp(-((u / (2.2 * self.width)) ** 2 + ((v - 0.55 * self.length) / (0.75 * self.length)) ** 2))
        down = np.clip(v / self.length, 0, 1)
        beyond = np.exp(-np.clip(v / self.length - 1, 0, None) / 0.5) * np.exp(-((u / (3.5 * self.width)) ** 2))
        return -self.contraction * now * u * near, -0.6 * self.contraction * now * 0.3 * self.length * down * beyond


def random_chambers(draw: np.random.Generator) -> FourChambers:
    """A plausible heart, sometimes cut by the picture, turned or with fewer chambers."""
    width, length = draw.uniform(15e-3, 27e-3), draw.uniform(60e-3, 90e-3)
    return FourChambers(
        apex=(draw.uniform(-15e-3, 15e-3), draw.uniform(12e-3, 38e-3)),
        tilt=draw.normal(0, 0.25) if draw.random() < 0.8 else draw.uniform(-1.6, 1.6),
        mirrored=bool(draw.random() < 0.35),
        length=length,
        width=width,
        thickness=draw.uniform(6e-3, 14e-3),
        right=0.0 if draw.random() < 0.2 else draw.uniform(8e-3, 18e-3),
        atria=0.0 if draw.random() < 0.15 else draw.uniform(13e-3, 26e-3),
        contraction=draw.uniform(0.08, 0.35),
        period=draw.uniform(0.6, 1.1),
        phase=draw.uniform(0, 1),
        levels=(draw.uniform(-26, -6), 0.0, draw.uniform(-50, -30), draw.uniform(3, 14)),
        bumps=tuple(_bump(draw) for _ in range(5)),
    )


def _bump(draw: np.random.Generator) -> tuple[float, float, float, float, float]:
    turn, number = draw.uniform(0, 2 * np.pi), 2 * np.pi / draw.uniform(22e-3, 70e-3)
    along, across = draw.normal(0, 1.3e-3, 2)
    return along, across, number * math.cos(turn), number * math.sin(turn), draw.uniform(0, 2 * np.pi)


class ChamberScatterers:
    """Scatterers of a heart with four chambers, whose places can be asked for at any time.

    Parameters
    ----------
    heart : FourChambers
    extent : (float, float, float, float)
        Least and largest x, least and largest z in m that they fill.
    density : float
        Scatterers a square metre.
    draw : numpy Generator
    """

    def __init__(
        self,
        heart: FourChambers,
        extent: tuple[float, float, float, float],
        *,
        density: float,
        draw: np.random.Generator,
    ) -> None:
        if not 0 < density < math.inf:
            raise InputError(f"{density} scatterers a square metre", remedy="It must be positive.")
        self.heart, self.extent, self.density = heart, extent, density
        self.gains = 10 ** (np.array(heart.levels) / 20)
        u, v, strength = self._drawn(draw)
        kind = heart.rest_regions(u, v)
        tissue = kind != BLOOD
        self.u, self.v = u[tissue], v[tissue]
        uneven = _uneven(self.u, self.v, draw)
        self.amplitudes = strength[tissue] * self.gains[kind[tissue]] * uneven

    def at(self, time: float, draw: np.random.Generator) -> tuple[Numbers, Numbers, Numbers]:
        """x, z in m and amplitudes of all scatterers at a time in s; ``draw`` gives that frame's blood and leaflets."""
        u, v, strength = self._drawn(draw)
        blood = self.heart.rest_regions(u, v) == BLOOD
        x, z = self.heart.placed(*self.heart.moved(np.append(self.u, u[blood]), np.append(self.v, v[blood]), time))
        leaflet_x, leaflet_z = self.heart.leaflets(time, 1.5e-3 * self.density, draw)
        leaflet = draw.normal(size=len(leaflet_x)) * 10 ** (3 / 20)
        amplitudes = [self.amplitudes, strength[blood] * self.gains[BLOOD], leaflet]
        return np.append(x, leaflet_x), np.append(z, leaflet_z), np.concatenate(amplitudes)

    def _drawn(self, draw: np.random.Generator) -> tuple[Numbers, Numbers, Numbers]:
        left, right, near, far = self.extent
        count = round((right - left) * (far - near) * self.density)
        x, z = draw.uniform(left, right, count), draw.uniform(near, far, count)
        return *self.heart.framed(x, z), draw.normal(size=count)


def _uneven(u: Numbers, v: Numbers, draw: np.random.Generator) -> Numbers:
    """Tissue that echoes more here and less there, by some dB over a centimetre or two."""
    decibel, strength = np.zeros_like(u), draw.uniform(0.8, 2.6)
    for _ in range(8):
        wave = draw.normal(0, 2 * np.pi / 30e-3, 2)
        decibel += strength * np.cos(wave[0] * u + wave[1] * v + draw.uniform(0, 2 * np.pi))
    return np.asarray(10 ** (decibel / 20), dtype=np.float64)
