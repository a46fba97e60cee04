"""Where people are: a room, a studio or open ground, clutter, things in the way, light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from priorscope.scenes.camera import Camera
from priorscope.scenes.furniture import bin_, blocks, chair, floor_lamp, ladder, pile, sofa, stool
from priorscope.scenes.geometry import Mesh, box, cylinder, quad, rotation_z
from priorscope.scenes.materials import Look, Material
from priorscope.scenes.outdoor_objects import bollard, bush, car, house, parked_bicycle, sign, tree
from priorscope.scenes.small_objects import bag, ball, carton, pot_plant, screen, vessel
from priorscope.scenes.textures import texture_bank
from priorscope.scenes.things import Maker, Thing, extent, moved
from priorscope.scenes.world import Light, Sky, World

Array = NDArray[np.float64]

_INDOORS: list[Maker] = [
    *(chair, chair, stool, sofa, bin_, pile, pile, floor_lamp, ladder, blocks, pot_plant, pot_plant, bag, ball, carton),
    *(vessel, screen),
]
_OUTDOORS: list[Maker] = [car, bush, bush, bollard, sign, parked_bicycle, bin_, pile, pot_plant, blocks]
_STOCK = 6
"""Things of one maker that are built, each the first time it is asked for: they come in other colours each time."""


@dataclass(frozen=True)
class Obstacle:
    """A thing between the camera and the people, with the way it goes in a second."""

    thing: Thing
    place: Array
    turn: float
    velocity: Array

    def put(self, world: World, t: float) -> None:
        at = self.place + t * self.velocity
        world.put(self.thing, float(at[0]), float(at[1]), float(at[2]), self.turn)


@dataclass(frozen=True)
class Crowd:
    """What the setting has to know of the people: their middle, how far they reach, and where each stands (metres)."""

    middle: Array
    reach: float
    spots: Array


@lru_cache(maxsize=256)
def _built(maker: Maker, number: int) -> Thing:
    rng = np.random.default_rng([4711, number])
    return maker(rng, Look(rng))


def _recoloured(rng: np.random.Generator, thing: Thing) -> Thing:
    order = rng.permutation(3)
    gain = rng.uniform(0.5, 1.2, 3)

    def change(colour: tuple[float, float, float]) -> tuple[float, float, float]:
        r, g, b = (float(min(colour[k] * gain[i], 1.0)) for i, k in enumerate(order))
        return r, g, b

    return [(mesh, replace(m, dark=change(m.dark), light=change(m.light))) for mesh, m in thing]


def random_thing(rng: np.random.Generator, outdoors: bool) -> Thing:
    """Something out of the stock, in colours of its own; standing on z = 0 about the origin."""
    makers = _OUTDOORS if outdoors else _INDOORS
    return _copy(rng, makers[int(rng.integers(len(makers)))])


def _copy(rng: np.random.Generator, maker: Maker) -> Thing:
    thing = _built(maker, int(rng.integers(_STOCK)))
    return _recoloured(rng, thing) if rng.uniform() < 0.7 else thing


def furnish(rng: np.random.Generator, look: Look, world: World, camera: Camera, crowd: Crowd) -> bool:
    """Ground, walls or sky, clutter and light about the people; says whether it is outdoors."""
    kind = rng.uniform()
    outdoors = kind > 0.52
    if outdoors:
        _open_ground(rng, look, world, camera, crowd)
    elif kind < 0.42:
        _room(rng, look, world, camera, crowd)
    else:
        _studio(rng, look, world, camera, crowd)
    if kind < 0.42 or outdoors:
        _clutter(rng, world, camera, crowd, outdoors)
    return outdoors


def _room(rng: np.random.Generator, look: Look, world: World, camera: Camera, crowd: Crowd) -> None:
    """A floor, four walls and a ceiling around the camera and the people, turned at random."""
    turn = rng.uniform(0, np.pi / 2)
    axes = rotation_z(turn)[:, :2]
    inside = np.concatenate([crowd.spots, camera.position[None, :2]])
    # in the room's own frame; what people stretch out must not go through a wall
    local = (inside - crowd.middle[:2]) @ axes[:2]
    low = local.min(axis=0) - rng.uniform(0.15, 2.0, 2) - [0.2, 0.2]
    high = local.max(axis=0) + rng.uniform(0.15, 2.0, 2) + [0.2, 0.2]
    low, high = np.minimum(low, -crowd.reach - 0.2), np.maximum(high, crowd.reach + 0.2)
    h = max(rng.uniform(2.3, 3.4), camera.position[2] + 0.3, 2 * crowd.middle[2] + 0.4)

    def corner(x: float, y: float, z: float = 0.0) -> Array:
        return np.array([*(crowd.middle[:2] + axes[:2] @ [x, y]), z])

    a, b, c, d = corner(*low), corner(high[0], low[1]), corner(*high), corner(low[0], high[1])
    up = np.array([0, 0, h])
    world.add(quad(a, b - a, d - a), look.floor())
    world.add(quad(a + up, d - a, b - a), look.material(("plain",), (0.95, 0.94, 0.92)))
    wall = look.wall()
    for one, two in ((a, b), (b, c), (c, d), (d, a)):
        world.add(quad(one, two - one, up), wall if rng.uniform() < 0.75 else look.wall())
        along = two - one
        length = float(np.linalg.norm(along))
        inward = np.array([-along[1], along[0], 0.0]) / length
        for _ in range(int(rng.integers(0, 4))):
            w, tall, z = rng.uniform(0.3, 1.5), rng.uniform(0.3, 1.5), rng.uniform(0.2, 1.5)
            at = one + along * rng.uniform(0.1, 0.9) + inward * 0.03 + [0, 0, z]
            kind = rng.uniform()
            face = look.picture(width=(w, w)) if kind < 0.5 else look.any_object() if kind < 0.8 else look.view()
            world.add(box(w, 0.03, tall).moved(at, rotation_z(float(np.arctan2(along[1], along[0])))), face)
    size = float(np.abs(high - low).max())
    x, y = rng.uniform(0.7 * low, 0.7 * high)
    _lamps(rng, world, corner(x, y, h - 0.2), 0.5 * size)


def _studio(rng: np.random.Generator, look: Look, world: World, camera: Camera, crowd: Crowd) -> None:
    """A floor and one backdrop: a photograph, a pattern, or nearly nothing."""
    away = crowd.middle[:2] - camera.position[:2]
    away = away / (np.linalg.norm(away) + 1e-9)
    side = np.array([-away[1], away[0]])
    back = crowd.middle[:2] + away * (crowd.reach + rng.uniform(0.3, 4.0))
    w = 30.0
    foot = np.array([*(back + side * w / 2), 0.0])
    along = np.array([*(-side * w), 0.0])
    kind = rng.uniform()
    face = look.picture(width=(1.5, 6.0)) if kind < 0.4 else look.anything() if kind < 0.7 else look.wall()
    world.add(quad(foot, along, np.array([0, 0, 14.0])), replace(face, glow=0.0, metal=0.0))
    ground = np.array([*(crowd.middle[:2] - 20), 0.0])
    world.add(
        quad(ground, np.array([40.0, 0, 0]), np.array([0, 40.0, 0])), look.floor() if rng.uniform() < 0.6 else face
    )
    lamp = camera.position + np.array([*(side * rng.uniform(-3, 3)), rng.uniform(0.5, 2.5)])
    _lamps(rng, world, lamp, float(np.linalg.norm(lamp - crowd.middle)))


def _lamps(rng: np.random.Generator, world: World, at: Array, reach: float) -> None:
    t = rng.uniform(-0.3, 0.35)
    colour = np.array([1 + 0.8 * t, 1.0, 1 - 0.9 * t])
    world.above = float(np.exp(rng.uniform(np.log(0.2), np.log(0.8)))) * np.ones(3)
    world.below = world.above * rng.uniform(0.3, 0.8)
    world.lights.append(
        Light(at, rng.uniform(0.5, 1.4) * colour / colour.mean(), rng.uniform(0.05, 0.3), reach=max(reach, 1.0))
    )


def _open_ground(rng: np.random.Generator, look: Look, world: World, camera: Camera, crowd: Crowd) -> None:
    """Ground and sky, houses or bushes far behind, the sun or an overcast day."""
    draws: list[Callable[[], Material]] = [look.ground, look.ground, look.asphalt, look.paving, look.floor]
    start = np.array([*(crowd.middle[:2] - 60), 0.0])
    ground = replace(draws[int(rng.integers(len(draws)))](), polish=0.0)
    world.add(quad(start, np.array([120.0, 0, 0]), np.array([0, 120.0, 0])), ground)
    names = texture_bank().names["smooth_noise"]
    blue = rng.uniform() < 0.6
    zenith = np.array([0.2, 0.4, 0.8]) * rng.uniform(0.5, 1.3) if blue else np.full(3, rng.uniform(0.5, 1.0))
    horizon = np.array([0.8, 0.9, 1.0]) * rng.uniform(0.6, 1.1)
    world.sky = Sky(zenith, horizon, np.full(3, 1.0), names[int(rng.integers(len(names)))], rng.uniform(0, 0.8))
    world.above = (0.5 * zenith + 0.5 * horizon) * rng.uniform(0.35, 0.7)
    world.below = np.array([0.35, 0.33, 0.28]) * rng.uniform(0.3, 0.8)
    if blue:
        angle, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(18, 75))
        toward = np.array([np.cos(height) * np.cos(angle), np.cos(height) * np.sin(angle), np.sin(height)])
        sun = rng.uniform(0.8, 1.9) * np.array([1.08, 1.0, rng.uniform(0.75, 0.95)])
        world.lights.append(Light(toward, sun, 0.01, is_sun=True))
    away = crowd.middle[:2] - camera.position[:2]
    heading = float(np.arctan2(away[1], away[0]))
    for _ in range(int(rng.integers(0, 5))):
        far = crowd.reach + rng.uniform(3, 22)
        angle = heading + rng.normal() * 0.5
        at = crowd.middle[:2] + far * np.array([np.cos(angle), np.sin(angle)])
        if rng.uniform() < 0.5:
            size = rng.uniform(2.5, 9), rng.uniform(2, 6), rng.uniform(2.5, 12)
            world.add(box(*size).moved((at[0], at[1], 0), rotation_z(rng.uniform(0, np.pi))), look.facade())
        else:
            thing = _copy(rng, (house, tree, bush)[int(rng.integers(3))])
            low, high = extent(thing)
            if float(np.abs([low[:2], high[:2]]).max()) < far - crowd.reach:
                world.put(thing, at[0], at[1], 0.0, rng.uniform(0, 2 * np.pi))


def _clutter(rng: np.random.Generator, world: World, camera: Camera, crowd: Crowd, outdoors: bool) -> None:
    """Things that stand about, mostly behind the people and never on them, nor between them and the camera."""
    away = crowd.middle[:2] - camera.position[:2]
    distance = float(np.linalg.norm(away)) + 1e-9
    away = away / distance
    side = np.array([-away[1], away[0]])
    spread = 0.6 * camera.field_of_view
    for _ in range(int(rng.integers(1, 9))):
        thing = random_thing(rng, outdoors)
        low, high = extent(thing)
        wide = float(np.abs([low[:2], high[:2]]).max())
        depth = crowd.reach + wide + rng.uniform(0.0, 5.0 if outdoors else 1.8)
        at = crowd.middle[:2] + away * depth + side * (depth + distance) * np.tan(spread) * rng.uniform(-1, 1)
        if rng.uniform() < 0.3:
            # beside them
            at = crowd.middle[:2] + side * rng.choice([-1, 1]) * (crowd.reach + wide) + away * rng.uniform(-0.5, 1.5)
        if np.linalg.norm(crowd.spots - at, axis=-1).min() > 0.7 * wide + 0.35:
            world.put(thing, at[0], at[1], 0.0, rng.uniform(0, 2 * np.pi))


def random_obstacle(
    rng: np.random.Generator, look: Look, camera: Camera, target: Array, size: float, outdoors: bool, moving: bool
) -> Obstacle:
    """Something that hides part of what lies at `target`, (3,), of about `size` metres; moving, it passes across."""
    share = rng.uniform(0.35, 0.8)
    point = camera.position + share * (target - camera.position)
    across = camera.rotation[0]
    wide = share * size
    kind = rng.uniform()
    if kind < 0.3:
        # a pole, a door frame, a trunk
        r = wide * rng.uniform(0.03, 0.09)
        bar = cylinder(r, 4.0, segments=10) if rng.uniform() < 0.6 else box(2 * r, 2 * r, 4.0)
        thing: Thing = [(bar, look.any_object())]
        base = min(point[2] - 2.0, 0.0)
    elif kind < 0.6:
        # a board, a counter, a box: its edge lies somewhere across the body
        w, h = wide * rng.uniform(0.2, 0.7), wide * rng.uniform(0.15, 0.5)
        thing = [(box(w, 0.1 * w, h), look.anything() if rng.uniform() < 0.5 else look.wood())]
        base = point[2] - h * rng.uniform(0.2, 0.9)
    else:
        thing = random_thing(rng, outdoors)
        low, high = extent(thing)
        scale = wide * rng.uniform(0.25, 0.5) / float((high - low).max())
        thing = [(_scaled(mesh, scale), material) for mesh, material in moved(thing, tuple(-0.5 * (low + high)))]
        base = point[2] + wide * rng.normal() * 0.15
    offset = across * wide * rng.normal() * 0.22
    velocity = across * rng.choice([-1, 1]) * wide * rng.uniform(0.4, 2.5) if moving else np.zeros(3)
    at = np.array([point[0] + offset[0], point[1] + offset[1], base])
    return Obstacle(thing, at, float(np.arctan2(across[1], across[0])) + rng.normal() * 0.2, velocity)


def _scaled(mesh: Mesh, scale: float) -> Mesh:
    return Mesh(scale * mesh.vertices, mesh.faces, mesh.uv, mesh.weld)


def seat(rng: np.random.Generator, look: Look, height: float) -> Thing:
    """What somebody sits on: a block, a stool or a bench whose top is at `height` metres."""
    material = look.wood() if rng.uniform() < 0.5 else look.any_object()
    w = rng.uniform(0.3, 0.5)
    kind = rng.uniform()
    if kind < 0.4:
        thing: Thing = [(box(w, w, height), material)]
    elif kind < 0.7:
        thing = [
            (cylinder(0.5 * w, 0.05).moved((0, 0, height - 0.05)), material),
            (cylinder(0.05, height - 0.05), material),
        ]
    else:
        legs = [box(0.05, 0.05, height - 0.05).moved((0.45 * w * x, 0.45 * w * y, 0)) for x in (-1, 1) for y in (-1, 1)]
        thing = [(box(w, w, 0.05).moved((0, 0, height - 0.05)), material), *((leg, material) for leg in legs)]
        if rng.uniform() < 0.6:
            thing.append((box(w, 0.04, 0.45).moved((0, 0.5 * w, height)), material))
    return thing
