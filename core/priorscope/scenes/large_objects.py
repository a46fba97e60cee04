"""People, bicycles and motorcycles: what stands in the middle of a picture, indoors or out."""

from __future__ import annotations

import numpy as np

from .geometry import Mesh, blob, box, cylinder, ellipsoid, revolve, rods, rotation_x, rotation_y, torus, tube
from .materials import Look, Material
from .things import Maker, Thing, moved


def person(rng: np.random.Generator, look: Look) -> Thing:
    """A standing figure of rounded parts, 1.1 to 1.95 m tall."""
    s = rng.uniform(1.1, 1.95) / 1.75
    skin, shirt, trousers, hair = look.skin(), look.fabric(), look.fabric(), look.rubber()
    wide = rng.uniform(0.85, 1.25)
    thing: Thing = []
    for side in (-1, 1):
        stride = rng.normal() * 0.12
        foot = (side * 0.1, stride, 0.04)
        thing.append((tube([foot, (side * 0.1, stride * 0.4, 0.45), (side * 0.09, 0, 0.88)], 0.075 * wide), trousers))
        thing.append((ellipsoid(0.05, 0.13, 0.045, 8).moved((side * 0.1, stride - 0.06, 0)), hair))
        elbow = (side * 0.29 * wide, rng.normal() * 0.1, 1.1)
        hand = (side * rng.uniform(0.15, 0.35), rng.uniform(-0.35, 0.1), rng.uniform(0.75, 1.2))
        thing.append((tube([(side * 0.2 * wide, 0, 1.4), elbow, hand], 0.05), shirt))
        thing.append((ellipsoid(0.045, 0.045, 0.07, 8).moved((hand[0], hand[1], hand[2] - 0.07)), skin))
    body = revolve([(0, 0.8), (0.17, 0.85), (0.15, 1.1), (0.21, 1.35), (0.13, 1.48), (0.06, 1.55)], 18, sharp=2)
    body = Mesh(body.vertices * [wide, 0.65 * wide, 1], body.faces, body.uv, body.weld)
    thing += [(body, shirt), (ellipsoid(0.085, 0.1, 0.125, 12).moved((0, 0, 1.5)), skin)]
    thing.append((ellipsoid(0.09, 0.105, 0.09, 12).moved((0, 0.02, 1.6)), hair))
    return [(Mesh(mesh.vertices * s, mesh.faces, mesh.uv, mesh.weld), material) for mesh, material in thing]


def wheel(rng: np.random.Generator, radius: float, width: float, rubber: Material, metal: Material) -> Thing:
    """A spoked wheel in the x-z plane, standing on z = 0."""
    upright = rotation_x(np.pi / 2)
    thing: Thing = [(torus(radius - width, width, 26, 8).moved((0, 0, radius), upright), rubber)]
    rim = torus(radius - 2 * width, width * 0.45, 22, 5)
    thing.append((rim.moved((0, 0, radius), upright), metal))
    thing.append((cylinder(0.25 * radius, 1.6 * width, segments=14).moved((0, 0.8 * width, radius), upright), metal))
    spokes = int(rng.choice([5, 6, 8, 14, 28]))
    thin = 0.08 / spokes if spokes > 8 else rng.uniform(0.008, 0.025)
    angle = np.arange(spokes) * 2 * np.pi / spokes + rng.uniform(0, 1)
    ends = (radius - 2 * width) * np.stack([np.cos(angle), 0 * angle, np.sin(angle)], axis=-1) + [0, 0, radius]
    thing.append((rods(np.broadcast_to([0, 0, radius], ends.shape), ends, thin), metal))
    return thing


def bicycle(rng: np.random.Generator, look: Look) -> Thing:
    """A bicycle seen as wheels, frame, fork, handlebar, saddle."""
    rubber, metal, paint = look.rubber(), look.metal(), look.plastic()
    r, base = rng.uniform(0.26, 0.36), rng.uniform(0.95, 1.1)
    rear, front = (-base / 2, 0, r), (base / 2, 0, r)
    thing = moved(wheel(rng, r, 0.025, rubber, metal), (-base / 2, 0, 0))
    thing += moved(wheel(rng, r, 0.025, rubber, metal), (base / 2, 0, 0))
    crank, seat, head = (-0.1, 0, 0.28), (-0.25, 0, 0.8), (0.36, 0, 0.82)
    for a, b in ((rear, crank), (rear, seat), (crank, seat), (crank, head), (seat, head), (head, front)):
        thing.append((tube([a, b], 0.018), paint))
    thing.append((tube([(0.3, -0.28, 0.98), (0.36, 0, 0.95), (0.3, 0.28, 0.98)], 0.014), metal))
    thing.append((ellipsoid(0.13, 0.07, 0.04, 12).moved((-0.27, 0, 0.8)), rubber))
    thing.append((cylinder(0.09, 0.02).moved((-0.1, 0.01, 0.28), rotation_x(np.pi / 2)), metal))
    return thing


def motorbike(rng: np.random.Generator, look: Look) -> Thing:
    """A machine on two fat wheels: tank, engine block, saddle, exhaust, fork, lamp, mudguards."""
    rubber, metal, paint, dark = look.rubber(), look.metal(), look.car_paint(), look.rubber()
    r, base = rng.uniform(0.27, 0.34), rng.uniform(1.2, 1.55)
    width = rng.uniform(0.045, 0.08)
    thing = moved(wheel(rng, r, width, rubber, metal), (-base / 2, 0, 0))
    thing += moved(wheel(rng, r, width, rubber, metal), (base / 2, 0, 0))
    thing.append((box(rng.uniform(0.3, 0.5), 0.28, rng.uniform(0.25, 0.35)).moved((0, 0, 0.25)), metal))
    for px in rng.uniform(-0.12, 0.15, 2):
        fins = revolve([(0.08, 0.04 * k + 0.02 * (k % 2)) for k in range(6)], 12)
        thing.append((fins.moved((px, 0, 0.48), rotation_y(rng.normal() * 0.4)), metal))
    thing.append((blob(rng, 0.28, 0.15, 0.13, rough=0.08).moved((0.12, 0, 0.66)), paint))
    thing.append((blob(rng, 0.34, 0.13, 0.08, rough=0.05).moved((-0.36, 0, 0.66)), dark))
    top = (base / 2 - 0.25, 0.0, rng.uniform(0.88, 1.05))
    for side in (-0.1, 0.1):
        thing.append((tube([(base / 2, side, r), (top[0], side, top[2])], 0.025), metal))
        thing.append((tube([(-base / 2, side, r), (-0.2, side, 0.62)], 0.03), dark))
        thing.append((tube([(-0.1, side, 0.3), (-base / 2 + 0.1, side * 1.3, 0.3)], 0.03), dark))
    bar = top[2] + 0.08
    thing.append(
        (tube([(top[0] - 0.12, -0.38, bar), (top[0], 0, bar - 0.03), (top[0] - 0.12, 0.38, bar)], 0.016), metal)
    )
    lamp = ellipsoid(0.08, 0.09, 0.09, 16).moved((top[0] + 0.12, 0, top[2] - 0.15))
    thing += [(lamp, metal), (tube([top, (0.0, 0, 0.7), (-0.2, 0, 0.35)], 0.035), paint)]
    for side in (-1, 1)[: int(rng.integers(1, 3))]:
        path = [(0.1, side * 0.17, 0.45), (0.15, side * 0.2, 0.3), (-0.1, side * 0.2, 0.25), (-0.75, side * 0.2, 0.33)]
        thing.append((tube(path, rng.uniform(0.03, 0.055), 10), metal))
    if rng.uniform() < 0.3:
        fairing = blob(rng, 0.2, 0.17, 0.16, rough=0.06).moved((base / 2 - 0.2, 0, top[2] - 0.35), rotation_y(-0.3))
        thing.append((fairing, paint))
    for x in (-base / 2, base / 2):
        angle = np.linspace(0.4, 2.6, 9)
        ends = np.stack([np.cos(angle), 0 * angle, np.sin(angle)], axis=-1) * (r + 0.03) + [x, 0, r]
        thing.append((tube(ends, 0.05, 6), paint))
    return thing


LARGE: list[Maker] = [bicycle, motorbike, motorbike, person]
