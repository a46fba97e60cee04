"""A beating ventricle made of scatterers: wall, a part of it that echoes weakly, blood, and what lies around.

In the plane of the scan the ventricle is an ellipse. Its wall keeps its area as it contracts, so that it thickens;
blood is other blood in every frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError

Numbers = NDArray[np.float64]
AROUND, WALL, BLOOD, WEAK = 0, 1, 2, 3
REGIONS = ("around", "wall", "blood", "weak wall")


@dataclass(frozen=True)
class Ventricle:
    """Shape, motion and brightness.

    Parameters
    ----------
    centre : (float, float)
        x and z in m.
    axes : (float, float)
        Half the cavity's width and length in m, relaxed.
    tilt : float
        Of the long axis, in radians from z towards x.
    thickness : float
        Of the wall at the side in m, relaxed.
    contraction : float
        Share of the cavity's axes that is lost at the end of a contraction, below 1.
    period : float
        Of a beat in s.
    weak_at, weak_width : float
        Middle and width of the weak part of the wall, as an angle about the centre in radians, 0 towards +x and a
        quarter turn away from the probe.
    levels : (float, float, float, float)
        Echo strength of around, wall, blood and weak wall, in dB.
    """

    centre: tuple[float, float] = (0.0, 60e-3)
    axes: tuple[float, float] = (18e-3, 36e-3)
    tilt: float = 0.1
    thickness: float = 10e-3
    contraction: float = 0.2
    period: float = 0.9
    weak_at: float = 0.3
    weak_width: float = 1.0
    levels: tuple[float, float, float, float] = (-14.0, 0.0, -38.0, -20.0)

    def __post_init__(self) -> None:
        if min(*self.axes, self.thickness, self.period) <= 0 or not 0 <= self.contraction < 1:
            raise InputError(
                f"a ventricle with axes {self.axes} m, a wall of {self.thickness} m and contraction {self.contraction}",
                remedy="Lengths are positive, the contraction lies from 0 to below 1.",
            )

    def squeezed(self, time: float) -> float:
        """What the contraction has taken from the square of the cavity's relative size: 0 relaxed."""
        share = self.contraction * (0.5 - 0.5 * math.cos(2 * math.pi * time / self.period))
        return 1 - (1 - share) ** 2

    def relative(self, x: Numbers, z: Numbers) -> tuple[Numbers, Numbers]:
        """Elliptic radius (1 on the relaxed cavity's border) and angle of points in m."""
        across, along = self._turned(x - self.centre[0], z - self.centre[1], -1)
        return np.hypot(across / self.axes[0], along / self.axes[1]), np.arctan2(along, across)

    def regions(self, x: Numbers, z: Numbers, time: float) -> NDArray[np.uint8]:
        """Which region points in m belong to at a time in s: an index into ``REGIONS``."""
        radius, angle = self.relative(x, z)
        relaxed = np.sqrt(radius**2 + self.squeezed(time))  # where that tissue is when relaxed
        outside = (1 + self.thickness / self.axes[0]) ** 2
        found = np.full(np.shape(radius), AROUND, dtype=np.uint8)
        found[relaxed**2 < outside] = WALL
        turn = np.abs((angle - self.weak_at + np.pi) % (2 * np.pi) - np.pi)
        found[(found == WALL) & (turn < self.weak_width / 2)] = WEAK
        found[relaxed < 1] = BLOOD
        return found

    def moved(self, x: Numbers, z: Numbers, time: float) -> tuple[Numbers, Numbers]:
        """Where tissue that is at x, z when relaxed lies at a time; the area of any piece of it stays.

        The cavity's inside has no such place: points there go to its centre.
        """
        radius, _ = self.relative(x, z)
        shrunk = np.sqrt(np.maximum(radius**2 - self.squeezed(time), 0)) / np.maximum(radius, 1e-9)
        return self.centre[0] + shrunk * (x - self.centre[0]), self.centre[1] + shrunk * (z - self.centre[1])

    def _turned(self, x: Numbers, z: Numbers, sign: int) -> tuple[Numbers, Numbers]:
        cos, sin = math.cos(self.tilt), math.sin(self.tilt)
        return cos * x + sign * sin * z, -sign * sin * x + cos * z


def random_ventricle(draw: np.random.Generator) -> Ventricle:
    """A plausible one: as seen from the apex, within a sector of 11 cm and 75 degrees."""
    return Ventricle(
        centre=(draw.uniform(-6e-3, 6e-3), draw.uniform(52e-3, 66e-3)),
        axes=(draw.uniform(13e-3, 20e-3), draw.uniform(28e-3, 38e-3)),
        tilt=draw.uniform(-0.3, 0.3),
        thickness=draw.uniform(7e-3, 12e-3),
        contraction=draw.uniform(0.1, 0.3),
        period=draw.uniform(0.7, 1.1),
        weak_at=draw.choice([-1, 1]) * draw.uniform(0.0, 0.5) + draw.choice([0.0, np.pi]),
        weak_width=draw.uniform(0.6, 1.2),
        levels=(draw.uniform(-20, -8), 0.0, draw.uniform(-46, -32), draw.uniform(-24, -14)),
    )


class HeartScatterers:
    """Scatterers of a ventricle, whose places can be asked for at any time.

    Parameters
    ----------
    ventricle : Ventricle
    extent : (float, float, float, float)
        Least and largest x, least and largest z in m that they fill.
    density : float
        Scatterers a square metre. Ten or more in a resolution cell give speckle.
    draw : numpy Generator
    """

    def __init__(
        self,
        ventricle: Ventricle,
        extent: tuple[float, float, float, float],
        *,
        density: float = 8e6,
        draw: np.random.Generator,
    ) -> None:
        if not 0 < density < math.inf:
            raise InputError(f"{density} scatterers a square metre", remedy="It must be positive.")
        self.ventricle, self.extent, self.density = ventricle, extent, density
        x, z, strength = self._drawn(draw)
        kind = ventricle.regions(x, z, 0.0)
        tissue = kind != BLOOD
        self.x, self.z = x[tissue], z[tissue]
        self.amplitudes = strength[tissue] * _linear(ventricle.levels)[kind[tissue]]

    def at(self, time: float, draw: np.random.Generator) -> tuple[Numbers, Numbers, Numbers]:
        """x, z in m and amplitudes of all scatterers at a time in s; ``draw`` gives that frame's blood."""
        x, z = self.ventricle.moved(self.x, self.z, time)
        blood_x, blood_z, strength = self._drawn(draw)
        inside = self.ventricle.regions(blood_x, blood_z, time) == BLOOD
        amplitudes = strength[inside] * _linear(self.ventricle.levels)[BLOOD]
        return (
            np.concatenate([x, blood_x[inside]]),
            np.concatenate([z, blood_z[inside]]),
            np.concatenate([self.amplitudes, amplitudes]),
        )

    def _drawn(self, draw: np.random.Generator) -> tuple[Numbers, Numbers, Numbers]:
        left, right, near, far = self.extent
        count = round((right - left) * (far - near) * self.density)
        return draw.uniform(left, right, count), draw.uniform(near, far, count), draw.normal(size=count)


def _linear(levels: tuple[float, ...]) -> Numbers:
    return 10 ** (np.array(levels) / 20)
