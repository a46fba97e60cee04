"""Vehicles that follow each other and stop at lights: the intelligent driver model (Treiber et al. 2000), lane by lane.

Each lane is a ring: who leaves at the end comes in at the start, far from what the agents see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from priorscope_detection.data.rigid import Array

from .bodies import VEHICLES, draw_size
from .roads import LANE, Layout, Road
from .settings import STEP, StreetSettings

_WARM_UP = 200
_GREEN, _ALL_RED = 12.0, 3.5
_ACCELERATION, _BRAKING, _HEADWAY, _GAP = 1.5, 2.0, 1.2, 2.0
_SHARES = (0.72, 0.14, 0.09, 0.05)


@dataclass(frozen=True)
class Traffic:
    """K moving vehicles over T moments.

    Attributes
    ----------
    kinds : tuple of str
    sizes : ndarray, (K, 3)
        l, w, h.
    places : ndarray, (T, K, 3)
        x, y, yaw; world.
    speeds : ndarray, (T, K)
        Metres a second.
    jumps : ndarray, bool, (K,)
        Whether it went from the end of its ring to the start within these moments.
    """

    kinds: tuple[str, ...]
    sizes: Array
    places: Array
    speeds: Array
    jumps: np.ndarray


def draw_kind(rng: np.random.Generator) -> str:
    return str(rng.choice(VEHICLES, p=_SHARES))


def drive(rng: np.random.Generator, layout: Layout, settings: StreetSettings) -> Traffic:
    """Fill the lanes and drive for as many moments as the scenario has, after 20 s that nobody sees."""
    phase = rng.uniform(0, 2 * (_GREEN + _ALL_RED))
    kinds: list[str] = []
    sizes, places, speeds, jumps = [], [], [], []
    for number, road in enumerate(layout.roads):
        for direction in (1, -1):
            for lane in range(road.lanes):
                new_kinds, size, u, v = _lane(rng, layout, settings, number, direction, phase)
                s = u if direction > 0 else road.length - u
                offset = np.clip(
                    rng.normal(scale=0.12, size=len(new_kinds)), -0.2, 0.2
                )  # a bus has 0.37 m to each side
                xy, yaw = road.at(s, -direction * LANE * (lane + 0.5) + offset)
                yaw = yaw + (0.0 if direction > 0 else np.pi) + rng.normal(scale=0.01, size=len(new_kinds))
                kinds += new_kinds
                sizes.append(size)
                places.append(np.concatenate([xy, yaw[..., None]], axis=-1))
                speeds.append(v)
                jumps.append((np.diff(u, axis=0) < -road.length / 2).any(axis=0))
    return Traffic(
        tuple(kinds),
        np.concatenate(sizes),
        np.concatenate(places, axis=1),
        np.concatenate(speeds, axis=1),
        np.concatenate(jumps),
    )


def _lane(
    rng: np.random.Generator, layout: Layout, settings: StreetSettings, number: int, direction: int, phase: float
) -> tuple[list[str], Array, Array, Array]:
    """Kinds, sizes (K, 3), places along the direction of travel (T, K) and speeds (T, K) of one lane."""
    road = layout.roads[number]
    stop, box_end = _crossing(layout, number, road, direction)
    spacing = rng.uniform(16, 40) / max(settings.traffic, 1e-3)
    u = np.arange(rng.uniform(0, spacing), road.length - 16, max(spacing, 15.0))
    u = u + rng.uniform(-1, 1, len(u))
    u = u[(u < stop - 2) | (u > box_end + 12)] if stop < np.inf else u
    if not settings.traffic:
        u = u[:0]
    kinds = [draw_kind(rng) for _ in u]
    sizes = np.array([draw_size(rng, kind) for kind in kinds]).reshape(-1, 3)
    wished = np.clip(rng.normal(11, 1.8, len(u)), 6, 15)
    v = wished * 0.6
    rows_u, rows_v = [], []
    for step in range(_WARM_UP + settings.frames):
        if step >= _WARM_UP:
            rows_u.append(u)
            rows_v.append(v)
        red = stop < np.inf and not _is_green(phase + step * STEP, number)
        u, v = _advance(u, v, wished, sizes[:, 0], road.length, stop if red else np.inf)
    shape = (settings.frames, len(kinds))
    return kinds, sizes, np.array(rows_u).reshape(shape), np.array(rows_v).reshape(shape)


def _crossing(layout: Layout, number: int, road: Road, direction: int) -> tuple[float, float]:
    """Where a lane's stop line is, and where the crossing ends, along the direction of travel."""
    if layout.crossing is None:
        return np.inf, np.inf
    middle = layout.crossing[number]
    at = middle if direction > 0 else road.length - middle
    other = layout.roads[1 - number]
    sine = abs(np.sin(other.heading - road.heading))
    reach = (other.half + road.half * abs(np.cos(other.heading - road.heading))) / sine + 3.0
    return at - reach, at + reach


def _is_green(time: float, number: int) -> bool:
    turn = _GREEN + _ALL_RED
    return number * turn <= time % (2 * turn) < number * turn + _GREEN


def _advance(u: Array, v: Array, wished: Array, lengths: Array, ring: float, stop: float) -> tuple[Array, Array]:
    """One step of the intelligent driver model on a ring; `stop` is a closed stop line."""
    if not len(u):
        return u, v
    order = np.argsort(u)
    ahead = np.empty_like(order)
    ahead[order] = np.roll(order, -1)
    gap = (u[ahead] - u) % ring
    gap = np.where(gap == 0, ring, gap) - (lengths + lengths[ahead]) / 2
    lead = v[ahead]
    # a closed line is a standing car for those who can still stop before it
    to_line = stop - u - lengths / 2
    held = (to_line > 0) & (to_line > v * v / (2 * 3.5) - 0.5) & (to_line + 1.0 < gap)
    gap, lead = np.where(held, to_line + 1.0, gap), np.where(held, 0.0, lead)
    gap = np.maximum(gap, 0.1)
    wanted = _GAP + np.maximum(0, v * _HEADWAY + v * (v - lead) / (2 * np.sqrt(_ACCELERATION * _BRAKING)))
    push = _ACCELERATION * (1 - (v / wished) ** 4 - (wanted / gap) ** 2)
    faster = np.maximum(v + np.clip(push, -8, _ACCELERATION) * STEP, 0)
    return (u + (v + faster) / 2 * STEP) % ring, faster
