"""Indoor scene kinds: a furnished room, and objects close to the camera in front of a room."""

from __future__ import annotations

import numpy as np

from priorscope.scenes.camera import Camera, random_view
from priorscope.scenes.furniture import AGAINST_WALL, FURNITURE, table
from priorscope.scenes.geometry import Array, box, quad, rotation_z, sheet, tube
from priorscope.scenes.large_objects import LARGE, person
from priorscope.scenes.materials import Look
from priorscope.scenes.small_objects import SMALL, strew, tool
from priorscope.scenes.thin import blinds
from priorscope.scenes.things import Thing, extent, moved, pick
from priorscope.scenes.world import Gate, Plot, Stage, World

from .lamps import light_room


def _shell(rng: np.random.Generator, look: Look, world: World, x: float, y: float, h: float) -> list[Gate]:
    """Floor, walls and ceiling of a room from (0, 0) to (x, y); skirting, beams, a pillar, pictures.

    Returns its windows, which the light comes in by.
    """
    gates: list[Gate] = []
    origin, ex, ey, ez = np.zeros(3), np.array([x, 0, 0.0]), np.array([0, y, 0.0]), np.array([0, 0, h])
    wall = look.wall()
    world.add(quad(origin, ex, ey), look.floor())
    world.add(quad(ez, ey, ex), look.wall() if rng.uniform() < 0.3 else look.material(("plain",), (0.95, 0.94, 0.92)))
    skirting = look.wood() if rng.uniform() < 0.7 else None
    sides = [(origin, ex), (ex, ey), (ex + ey, -ex), (ey, -ey)]
    for corner, along in sides:
        world.add(quad(corner, along, ez), wall if rng.uniform() < 0.7 else look.wall())
        length = float(np.linalg.norm(along))
        turn = np.arctan2(along[1], along[0])
        inward = np.array([-along[1], along[0], 0]) / length
        if skirting is not None:
            at = corner + along / 2 + inward * 0.006
            world.add(box(length, 0.012, 0.09).moved(at, rotation_z(turn)), skirting)
        gates += _hang(rng, look, world, corner, along / length, inward, length, h, turn)
    if rng.uniform() < 0.15:
        for t in np.arange(0.3, y, rng.uniform(0.6, 1.4)):
            world.add(box(x, 0.12, 0.15).moved((x / 2, t, h - 0.15)), look.wood())
    if rng.uniform() < 0.2:
        pillar = box(rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.6), h)
        world.add(pillar.moved((rng.choice([0.2, x - 0.2]), rng.uniform(0.3, 0.7) * y, 0)), look.wall())
    for _ in range(int(rng.integers(0, 3))):
        z = h - rng.uniform(0.05, 0.3)
        px = rng.uniform(0.05, 0.95) * x
        world.add(tube([(px, 0.05, z), (px, y / 2, z), (px, y - 0.05, z)], rng.uniform(0.015, 0.06)), look.any_object())
    return gates


def _hang(
    rng: np.random.Generator,
    look: Look,
    world: World,
    corner: Array,
    along: Array,
    inward: Array,
    length: float,
    h: float,
    turn: float,
) -> list[Gate]:
    """Pictures, mirrors, windows, a door, tools and boards on one wall, side by side; returns the windows."""
    gates: list[Gate] = []
    position = rng.uniform(0.1, 0.8)
    while position < length - 0.4:
        kind = rng.uniform()
        w = min(rng.uniform(0.3, 1.6), length - position - 0.1)
        tall = rng.uniform(0.3, 1.3)
        if kind < 0.35:
            mirror = rng.uniform() < 0.35
            face = look.mirror() if mirror else look.picture(width=(w, w), shift=False)
            tall = rng.uniform(0.8, 1.7) if mirror else tall
            thing: Thing = [
                (box(w, 0.03, tall), look.wood() if rng.uniform() < 0.5 else look.plastic()),
                (box(w - 0.06, 0.004, tall - 0.06).moved((0, 0.018, 0.03)), face),
            ]
            z = rng.uniform(0.1, 0.8) if mirror else rng.uniform(0.9, 1.5)
        elif kind < 0.55:
            pane, frame = look.view(), look.plastic()
            tall = rng.uniform(0.8, 1.5)
            thing = [(box(w, 0.04, tall), pane)]
            thing += [(box(0.05, 0.08, tall).moved((s * w / 2, 0, 0)), frame) for s in (-1, 0, 1)]
            thing += [(box(w + 0.05, 0.1, 0.05).moved((0, 0, t * tall - 0.02)), frame) for t in (0, 1)]
            z = rng.uniform(0.4, 1.0)
            if rng.uniform() < 0.3:
                thing += moved(blinds(rng, look, w, tall), (0, 0.09, 0))
            elif z + tall < h - 0.05:
                sill = corner + along * position + np.array([0, 0, z])
                gates.append(Gate(sill, along * w, np.array([0, 0, tall]), inward))
        elif kind < 0.67 and w > 0.7:
            leaf = look.wood() if rng.uniform() < 0.6 else look.any_object()
            thing = [(box(0.9, 0.06, 2.05), look.wood()), (box(0.8, 0.09, 2.0), leaf)]
            thing.append((box(0.12, 0.06, 0.025).moved((0.3, 0.06, 1.02)), look.metal()))
            w, z, tall = 0.9, 0.0, 2.05
        elif kind < 0.8:
            thing = []
            for _ in range(int(rng.integers(2, 9))):
                spot = (rng.uniform(-w, w) / 2, 0.03, rng.uniform(0, tall))
                thing += moved(tool(rng, look), spot, _UPRIGHT)
            z = 1.0
        elif kind < 0.9:
            thing = [(box(w, 0.22, 0.025), look.wood()), *strew(rng, look, 0.9 * w, 0.2, 0.025, 4)]
            z, tall = rng.uniform(1.1, 1.7), 0.4
        else:
            thing, z = [(box(w, 0.015, tall), look.anything())], rng.uniform(0.8, 1.4)
        if z + tall < h - 0.05:
            offset = 0.12 if kind >= 0.8 and kind < 0.9 else 0.02
            at = corner + along * (position + w / 2) + inward * offset
            world.put(thing, at[0], at[1], z, turn)
        position += w + rng.uniform(0.2, 1.5)
    return gates


_UPRIGHT = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])


def room(rng: np.random.Generator) -> Stage:
    """A furnished room seen from one of its ends."""
    look = Look(rng)
    world = World()
    x, y, h = rng.uniform(2.6, 7.0), rng.uniform(3.2, 9.0), rng.uniform(2.3, 3.4)
    gates = _shell(rng, look, world, x, y, h)
    eye = np.array([rng.uniform(0.2, 0.8) * x, rng.uniform(0.06, 0.25) * y + 0.15, rng.uniform(0.7, min(2.0, h - 0.4))])
    plot = Plot((0.03, 0.03), (x - 0.03, y - 0.03))
    close = rng.uniform() < 0.2
    plot.reserve(eye[:2] - 0.55, eye[:2] + [0.55, 0.6 if close else 0.9])
    if close:
        # something large in the foreground, beside the line of sight
        at = eye[:2] + [rng.choice([-1, 1]) * rng.uniform(0.35, 0.6), rng.uniform(0.9, 1.2)]
        _place_at(rng, world, plot, pick(rng, FURNITURE)(rng, look), at)
    _along_walls(rng, look, world, plot, x, y, h)
    for _ in range(int(rng.integers(1, 4 + int(x * y / 5)))):
        thing = pick(rng, FURNITURE)(rng, look)
        turn = rng.integers(4) * np.pi / 2 if rng.uniform() < 0.5 else rng.uniform(0, 2 * np.pi)
        at = plot.place(rng, thing, turn)
        if at is not None:
            world.put(thing, at[0], at[1], 0.0, turn)
    for _ in range(int(rng.integers(0, 10)) if rng.uniform() < 0.6 else 0):
        _stand(rng, world, plot, pick(rng, SMALL)(rng, look))
    if rng.uniform() < 0.35:
        _rug(rng, look, world, x, y)
    light_room(rng, look, world, (x, y, h), eye, gates)

    def propose(rng: np.random.Generator) -> Camera:
        position = eye + rng.normal(size=3) * [0.1, 0.05, 0.1]
        target = np.array([rng.uniform(0.1, 0.9) * x, rng.uniform(0.6, 1.0) * y, rng.uniform(0.2, 1.5)])
        return random_view(rng, position, target)

    return Stage(world, propose)


def _place_at(rng: np.random.Generator, world: World, plot: Plot, thing: Thing, at: Array) -> None:
    """Stand a thing at a given place where it fits into the plot."""
    low, high = extent(thing)
    if plot.is_free(at + low[:2], at + high[:2]):
        plot.reserve(at + low[:2], at + high[:2])
        world.put(thing, at[0], at[1], 0.0, rng.uniform(-0.3, 0.3))


def _stand(rng: np.random.Generator, world: World, plot: Plot, thing: Thing) -> None:
    """Stand a thing on the floor, turned at random, where the plot has a place for it."""
    turn = rng.uniform(0, 2 * np.pi)
    at = plot.place(rng, thing, turn)
    if at is not None:
        world.put(thing, at[0], at[1], 0.0, turn)


def _along_walls(rng: np.random.Generator, look: Look, world: World, plot: Plot, x: float, y: float, h: float) -> None:
    """Furniture with its back to the walls."""
    for side, length in ((0, x), (1, y), (3, y)):
        position = rng.uniform(0.0, 1.0)
        while position < length - 0.4:
            thing = pick(rng, AGAINST_WALL)(rng, look)
            low, high = extent(thing)
            w = float(high[0] - low[0])
            if high[2] < h and position + w < length:
                back, middle = float(high[1]) + 0.03, position + w / 2 - float(high[0] + low[0]) / 2
                # the far wall, the left wall, the right wall; a thing's front looks towards -y before it is turned
                at = {0: (middle, y - back), 1: (back, middle), 3: (x - back, length - middle)}[side]
                turn = {0: 0.0, 1: np.pi / 2, 3: -np.pi / 2}[side]
                corners = np.stack([low[:2], high[:2], [low[0], high[1]], [high[0], low[1]]])
                corners = corners @ rotation_z(turn)[:2, :2].T + at
                if plot.is_free(corners.min(axis=0), corners.max(axis=0)):
                    plot.reserve(corners.min(axis=0), corners.max(axis=0))
                    world.put(thing, *at, 0.0, turn)
            position += w + rng.uniform(0.05, 1.2)


def _rug(rng: np.random.Generator, look: Look, world: World, x: float, y: float) -> None:
    w, d = rng.uniform(0.3, 0.6) * x, rng.uniform(0.2, 0.5) * y
    world.put([(box(w, d, 0.012), look.fabric())], x / 2, 0.55 * y, 0.0, rng.normal() * 0.1)


def clutter(rng: np.random.Generator) -> Stage:
    """Objects close to the camera: on a table top, or standing and heaped on the floor of a workshop."""
    look = Look(rng)
    world = World()
    x, y, h = rng.uniform(3.0, 7.0), rng.uniform(3.5, 7.5), rng.uniform(2.4, 3.6)
    gates = _shell(rng, look, world, x, y, h)
    plot = Plot((0.03, 0.03), (x - 0.03, y - 0.03))
    centre = np.array([rng.uniform(0.4, 0.6) * x, rng.uniform(0.4, 0.6) * y, 0.0])
    if rng.uniform() < 0.3:
        eye, focus = _table_top(rng, look, world, plot, centre)
    else:
        eye, focus = _workshop(rng, look, world, plot, centre)
    plot.reserve(eye[:2] - 0.35, eye[:2] + 0.35)
    _along_walls(rng, look, world, plot, x, y, h)
    for _ in range(int(rng.integers(2, 9))):
        thing = pick(rng, FURNITURE)(rng, look)
        turn = rng.uniform(0, 2 * np.pi)
        at = plot.place(rng, thing, turn, tries=4)
        # what stands between the camera and the heap would hide it
        if at is not None and at[1] > centre[1] - 0.3:
            world.put(thing, at[0], at[1], 0.0, turn)
    light_room(rng, look, world, (x, y, h), eye, gates)

    def propose(rng: np.random.Generator) -> Camera:
        target = focus + rng.normal(size=3) * [0.25, 0.25, 0.12]
        return random_view(rng, eye + rng.normal(size=3) * 0.06, target)

    return Stage(world, propose, nearest=0.3)


def _table_top(rng: np.random.Generator, look: Look, world: World, plot: Plot, centre: Array) -> tuple[Array, Array]:
    """A table with many things on it, seen from 0.6 to 1.4 m; returns the camera's place and what it looks at."""
    w, d, z = rng.uniform(0.9, 2.0), rng.uniform(0.6, 1.1), rng.uniform(0.55, 0.95)
    top: Thing = [(box(w, d, 0.04).moved((0, 0, z - 0.04)), look.floor() if rng.uniform() < 0.2 else look.wood())]
    top += [
        (box(0.06, 0.06, z - 0.04).moved((sx * 0.45 * w, sy * 0.42 * d, 0)), look.wood())
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    top += strew(rng, look, w, d, z, int(rng.integers(8, 30)))
    world.put(top, centre[0], centre[1])
    plot.reserve(centre[:2] - [w / 2, d / 2], centre[:2] + [w / 2, d / 2])
    back = rng.uniform(0.35, 0.9) + d / 2
    eye = np.array([centre[0] + rng.normal() * 0.3, centre[1] - back, z + rng.uniform(0.2, 0.8)])
    return eye, np.array([centre[0], centre[1], z + 0.08])


def _workshop(rng: np.random.Generator, look: Look, world: World, plot: Plot, centre: Array) -> tuple[Array, Array]:
    """One large thing and a heap of others around it, seen from 1.3 to 3 m."""
    near = Plot(tuple(centre[:2] - [1.4, 0.9]), tuple(centre[:2] + [1.4, 1.3]))
    count = int(rng.integers(8, 30))
    if rng.uniform() < 0.55:
        maker = pick(rng, LARGE[:3]) if rng.uniform() < 0.8 else person
        thing = maker(rng, look)
        turn = rng.choice([0.0, np.pi]) + rng.normal() * 0.5
        at = near.place(rng, thing, turn, tries=40)
        if at is not None:
            world.put(thing, at[0], at[1], 0.0, turn)
    for _ in range(count):
        thing = pick(rng, FURNITURE if rng.uniform() < 0.55 else SMALL)(rng, look)
        _stand(rng, world, near, table(rng, look) if rng.uniform() < 0.1 else thing)
    for _ in range(int(rng.integers(0, 16))):
        _stand(rng, world, near, pick(rng, SMALL)(rng, look))
    for low, high in near.taken:
        plot.reserve(low, high)
    if rng.uniform() < 0.3:
        _cloth(rng, look, world, centre)
    eye = np.array([centre[0] + rng.normal() * 0.5, centre[1] - rng.uniform(1.5, 2.6), rng.uniform(0.5, 1.7)])
    eye[:2] = np.clip(eye[:2], plot.low + 0.15, plot.high - 0.15)
    return eye, np.array([centre[0], centre[1] + 0.2, rng.uniform(0.25, 0.7)])


def _cloth(rng: np.random.Generator, look: Look, world: World, centre: Array) -> None:
    """A curtain with folds behind the heap."""
    t, z = np.meshgrid(np.linspace(-1, 1, 40), np.linspace(0.02, rng.uniform(1.2, 2.2), 8))
    folds = 0.05 * np.sin(t * rng.uniform(15, 40) + z) + 0.04 * np.sin(t * rng.uniform(5, 9))
    width = rng.uniform(0.5, 1.4)
    world.add(sheet(np.stack([centre[0] + t * width, centre[1] + 1.35 + folds, z], axis=-1)), look.fabric())
