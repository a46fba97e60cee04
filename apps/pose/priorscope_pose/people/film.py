"""Renders a shot: its pictures, sharp or blurred by motion, and what is true of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.scenes.camera import Camera, pixel_centres
from priorscope.scenes.shading import shade
from priorscope.scenes.world import Caster, Hits, World

from .figure import Figure, Placed
from .flesh import PARTS
from .light import light_along
from .sensor import Sensor
from .setting import Obstacle
from .truth import MINIMAL_AREA, PersonTruth, Truth, project, visibility

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shot:
    """All that a seed stands for: who does what where, and who films it how."""

    figures: list[Figure]
    scenery: World
    obstacles: list[Obstacle]
    camera: Camera
    pan: Array
    sensor: Sensor
    start: float


@dataclass(frozen=True)
class _Moment:
    """The world at one time: which mesh is whose and what."""

    world: World
    caster: Caster
    placed: list[Placed]
    owner: NDArray[np.int16]
    part: NDArray[np.int16]
    moves: NDArray[np.bool_]


class Film:
    """Renders the frames of a shot."""

    def __init__(self, shot: Shot, height: int, width: int, seed: int, fine: bool) -> None:
        self.shot, self.shape, self.seed, self.fine = shot, (height, width), seed, fine
        self.gain: float | None = None

    def frame(self, t: float, number: int, shutter: float = 0.0) -> tuple[NDArray[np.uint8], Truth]:
        """The picture at time `t`, exposed for `shutter` seconds about it, and its truth."""
        height, width = self.shape
        moment = self._moment(t)
        camera = self._camera(t)
        rays = camera.rays(*pixel_centres(height, width), height, width)
        hits = moment.caster.cast(camera.position, rays)
        truth = self._truth(moment, camera, hits)
        if self.fine:
            light = self._fine(moment, camera)
        else:
            light = self._light(moment, camera, hits, rays)
        if shutter > 0:
            light = self._blurred(t, shutter, moment, hits, light)
        light = light.reshape(height, width, 3)
        if self.gain is None:
            self.gain = self.shot.sensor.gain(light)
        rng = np.random.default_rng([self.seed, 31, number])
        return self.shot.sensor.develop(light, self.gain, rng), truth

    def _camera(self, t: float) -> Camera:
        camera = self.shot.camera
        return Camera(camera.position + (t - self.shot.start) * self.shot.pan, camera.rotation, camera.field_of_view)

    def _moment(self, t: float) -> _Moment:
        still = self.shot.scenery
        fields: dict[str, Any] = {name: getattr(still, name) for name in ("above", "below", "haze", "sky", "lights")}
        world = World(**fields, meshes=list(still.meshes), materials=list(still.materials))
        owner, part = [-1] * len(world.meshes), [-1] * len(world.meshes)
        placed = [figure.at(t) for figure in self.shot.figures]
        for number, (figure, body) in enumerate(zip(self.shot.figures, placed, strict=True)):
            for piece in body.pieces:
                world.add(piece.mesh, figure.materials[piece.role])
                owner.append(number)
                part.append(PARTS.index(piece.part))
        moves = [who >= 0 for who in owner]
        for obstacle in self.shot.obstacles:
            obstacle.put(world, t)
        moves += [True] * (len(world.meshes) - len(moves))
        more = [-1] * (len(world.meshes) - len(owner))
        to_array = [np.array(values, dtype=np.int16) for values in (owner + more, part + more)]
        return _Moment(world, Caster(world), placed, to_array[0], to_array[1], np.array(moves))

    def _light(self, moment: _Moment, camera: Camera, hits: Hits, rays: Array) -> NDArray[np.floating]:
        pixel = 1 / camera.intrinsics(*self.shape)[0, 0]
        return light_along(moment.world, moment.caster, hits, rays, camera.position, pixel)

    def _fine(self, moment: _Moment, camera: Camera) -> NDArray[np.floating]:
        """The better light at twice the resolution, averaged."""
        height, width = 2 * self.shape[0], 2 * self.shape[1]
        rays = camera.rays(*pixel_centres(height, width), height, width)
        hits = moment.caster.cast(camera.position, rays)
        rng = np.random.default_rng([self.seed, 41])
        pixel = 1 / camera.intrinsics(height, width)[0, 0]
        light = shade(moment.world, moment.caster, hits, rays, camera.position, (height, width), pixel, rng)
        return light.reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3)).reshape(-1, 3)

    def _blurred(
        self, t: float, shutter: float, middle: _Moment, hits: Hits, light: NDArray[np.floating]
    ) -> NDArray[np.floating]:
        """The mean of three to nine moments while the shutter is open; `light` is that of the middle one.

        A camera at rest sees new light only where something moves or has moved.
        """
        count = self._moments(t, shutter)
        height, width = self.shape
        rest = not self.shot.pan.any()
        busy = np.zeros(height * width, dtype=bool)
        busy[hits.ray[middle.moves[hits.part]]] = True
        total = light.copy()
        for share in np.linspace(-0.5, 0.5, count):
            if share == 0:
                continue
            other = self._moment(t + share * shutter)
            camera = self._camera(t + share * shutter)
            rays = camera.rays(*pixel_centres(height, width), height, width)
            found = other.caster.cast(camera.position, rays)
            there = busy.copy()
            there[found.ray[other.moves[found.part]]] = True
            if not rest:
                there[:] = True
            now = light.copy()
            where = np.flatnonzero(there)
            row = np.full(height * width, -1)
            row[where] = np.arange(len(where))
            keep = there[found.ray]
            some = Hits(
                row[found.ray[keep]], *(values[keep] for values in (found.face, found.part, found.distance, found.bary))
            )
            now[where] = self._light(other, camera, some, rays[where])
            total += now
        return total / count

    def _moments(self, t: float, shutter: float) -> int:
        """As many moments, an odd number, as bring two of them within three pixels of each other; at most nine."""
        ends = []
        for time in (t - 0.5 * shutter, t + 0.5 * shutter):
            joints = [figure.at(time).joints for figure in self.shot.figures]
            things = [obstacle.place + time * obstacle.velocity for obstacle in self.shot.obstacles]
            ends.append(
                project(self._camera(time), np.concatenate([*joints, *(at[None] for at in things)]), *self.shape)
            )
        in_front = (ends[0][1] > 0.1) & (ends[1][1] > 0.1)
        way = np.linalg.norm(ends[0][0] - ends[1][0], axis=-1)[in_front]
        return int(2 * np.clip(np.ceil(way.max(initial=0.0) / 6), 1, 4) + 1)

    def _truth(self, moment: _Moment, camera: Camera, hits: Hits) -> Truth:
        height, width = self.shape
        owner, part = (np.full((height, width), -1, dtype=np.int16) for _ in range(2))
        owner.ravel()[hits.ray] = moment.owner[hits.part]
        part.ravel()[hits.ray] = moment.part[hits.part]
        people = []
        for number, (figure, placed) in enumerate(zip(self.shot.figures, moment.placed, strict=True)):
            mask = owner == number
            area = int(mask.sum())
            if area < MINIMAL_AREA:
                continue
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=float)
            at, depth = project(camera, placed.joints, height, width)
            inside = (depth > 0.01) & (at >= -0.5).all(axis=-1) & (at < [width - 0.5, height - 0.5]).all(axis=-1)
            seen = visibility(moment.caster, camera, placed, figure, moment.owner == number, moment.part)
            v = np.where(inside, 1 + seen, 0)
            head, far = project(camera, placed.head, height, width)
            front = head[far > 0.01] + 0.5
            head_box = np.zeros(4) if len(front) == 0 else np.concatenate([front.min(axis=0), front.max(axis=0)])
            joints = np.column_stack([at, v])
            people.append(PersonTruth(joints, box, float(area), head_box, number, figure.motion.action))
        return Truth(tuple(people), owner, part)
