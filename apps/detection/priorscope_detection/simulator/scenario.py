"""A scenario: one street, its traffic, and what the agents in it measure at each moment."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.diffusion.noise import item_seed
from priorscope.errors import InputError
from priorscope_detection.data.frame import Agent, Frame, Truth, delay_steps
from priorscope_detection.data.rigid import Array, box_of_matrix, inverse, pose_matrix

from .bodies import Bodies, draw_size
from .lidar import Returns, Triangles, sweep
from .roads import KERB, PAVEMENT, Layout, draw_layout
from .settings import STEP, StreetSettings
from .traffic import Traffic, drive

UNIT = "-1"
_UNIT_HEIGHT = 5.0
_MAST = 0.45
#: Agents and vehicles are numbered from here; the ego has the smallest number, so it sorts first.
_FIRST_ID = 1000


@dataclass(frozen=True)
class Seen:
    """What one agent has to say of a moment.

    Attributes
    ----------
    name : str
    pose : ndarray, (6,)
        LiDAR in the world: x, y, z, roll, yaw, pitch (degrees).
    speed : float
        Metres a second.
    returns : Returns
    listed : ndarray, int, (L,)
        The bodies in its list (rows of the scenario's bodies).
    hits : ndarray, int, (K,)
        Returns from each body.
    """

    name: str
    pose: Array
    speed: float
    returns: Returns
    listed: NDArray[np.integer]
    hits: NDArray[np.int64]


class Scenario:
    """A street and what happens in it, from a seed.

    Parameters
    ----------
    seed : int
    settings : StreetSettings

    Notes
    -----
    Street and traffic derive from the seed, a sweep's noise from (seed, moment, agent): any moment can be had alone,
    and comes out the same. World axes are as CARLA's and OPV2V's files use them: nothing tells left from right.
    """

    def __init__(self, seed: int, settings: StreetSettings | None = None) -> None:
        self.seed = seed
        self.settings = settings or StreetSettings()
        rng = np.random.default_rng(item_seed(seed, "street"))
        self.layout: Layout = draw_layout(rng, self.settings)
        self.traffic: Traffic = drive(rng, self.layout, self.settings)
        self._still = Triangles(self.layout.vertices, self.layout.faces, self.layout.shine)
        self._parked(rng)
        self._people(rng)
        self.kinds = (*self.traffic.kinds, *self._parked_kinds, *["pedestrian"] * len(self._walks))
        self.paint = np.clip(rng.beta(1.5, 2.0, len(self.kinds)), 0.05, 0.95)
        self.carriers = self._carriers(rng)
        #: the number of each body
        self.ids = self._numbers(rng)
        self.carriers.sort(key=lambda row: self.ids[row])
        self.agents = tuple(str(self.ids[row]) for row in self.carriers)
        if self.settings.road_side_unit:
            self.agents += (UNIT,)
        self._unit_yaw = float(rng.uniform(-180, 180))

    def bodies(self, moment: int) -> Bodies:
        """Everything that can move, at a moment."""
        return Bodies(self.kinds, self._boxes(moment), self.paint)

    def seen(self, moment: int, *, only: Sequence[str] | None = None) -> list[Seen]:
        """What the agents (or only some) measure at a moment.

        Raises
        ------
        InputError
            The scenario has no such moment.
        """
        if not 0 <= moment < self.settings.frames:
            raise InputError(f"moment {moment} of a scenario of {self.settings.frames}")
        bodies = self.bodies(moment)
        vertices, faces, shine, owner = bodies.triangles()
        layers = [self._still, Triangles(vertices, faces, shine, owner)]
        return [self._measure(name, moment, bodies, layers) for name in self.agents if only is None or name in only]

    def frame(self, moment: int, *, delay: float = 0.0) -> Frame:
        """The moment as a frame, the ego first; the others as of `delay` milliseconds before (or the first moment)."""
        steps = delay_steps(delay, 1000 * STEP)
        now = self.seen(moment)
        before = max(moment - steps, 0)
        late = {seen.name: seen for seen in self.seen(before, only=self.agents[1:])} if before < moment else {}
        boxes = self._boxes(moment)
        ego = pose_matrix(now[0].pose)
        rows: dict[str, tuple[Array, str]] = {}
        listed_by: dict[str, list[str]] = {}
        for seen in now:
            for row in seen.listed:
                identity = str(self.ids[row])
                if identity == now[0].name:
                    continue
                listed_by.setdefault(identity, []).append(seen.name)
                if identity not in rows:
                    rows[identity] = (_seen_from(ego, boxes[row]), self.kinds[row])
        agents = []
        for seen in now:
            used = late.get(seen.name, seen)
            pose = pose_matrix(used.pose)
            kind: Any = "infrastructure" if seen.name == UNIT else "vehicle"
            age = (moment - before) * (1000 * STEP) if used is not seen else 0.0
            agents.append(Agent(seen.name, used.returns.points, pose, pose, kind, age))
        return Frame(f"{self.name}/{moment:06d}", tuple(agents), Truth.of(rows, listed_by))

    @property
    def name(self) -> str:
        return f"street_{self.seed:06d}"

    def _boxes(self, moment: int) -> Array:
        traffic = self.traffic
        driven = np.column_stack(
            [traffic.places[moment, :, :2], traffic.sizes[:, 2] / 2, traffic.sizes, traffic.places[moment, :, 2]]
        )
        return np.concatenate([driven, self._parked_boxes, self._walking(moment)])

    def _parked(self, rng: np.random.Generator) -> None:
        spots = self.layout.parking[rng.uniform(size=len(self.layout.parking)) < self.settings.parked]
        self._parked_kinds = tuple("van" if rng.uniform() < 0.12 else "car" for _ in spots)
        sizes = np.array([draw_size(rng, kind) for kind in self._parked_kinds]).reshape(-1, 3)
        sizes[:, 0] = np.minimum(sizes[:, 0], 5.4)
        self._parked_boxes = np.column_stack([spots[:, :2], sizes[:, 2] / 2, sizes, spots[:, 2]]).reshape(-1, 7)

    def _people(self, rng: np.random.Generator) -> None:
        """Walks along the pavements: road, s, d, speed along s, and size."""
        walks = []
        for number, road in enumerate(self.layout.roads):
            for side in (-1, 1):
                for _ in range(int(rng.poisson(6))):
                    s, d = rng.uniform(10, road.length - 10), side * (road.half + rng.uniform(1.2, PAVEMENT - 0.4))
                    walks.append(
                        [number, s, d, rng.choice([-1, 1]) * rng.uniform(0.0, 1.6), *draw_size(rng, "pedestrian")]
                    )
        table = np.array(walks).reshape(-1, 7)
        places = np.array([self.layout.roads[int(w[0])].at(w[1], w[2])[0] for w in table]).reshape(-1, 2)
        free = np.ones(len(table), bool)
        for number, road in enumerate(self.layout.roads):
            free &= (table[:, 0] == number) | (np.abs(road.place(places)[1]) > road.half + 2)
        self._walks = table[free]

    def _walking(self, moment: int) -> Array:
        boxes = np.zeros((len(self._walks), 7))
        for number, road in enumerate(self.layout.roads):
            mine = self._walks[:, 0] == number
            walks = self._walks[mine]
            xy, yaw = road.at(walks[:, 1] + walks[:, 3] * moment * STEP, walks[:, 2])
            boxes[mine] = np.column_stack(
                [xy, walks[:, 6] / 2 + KERB, walks[:, 4:7], yaw + np.where(walks[:, 3] < 0, np.pi, 0.0)]
            )
        return boxes

    def _carriers(self, rng: np.random.Generator) -> list[int]:
        """The connected cars: the moving one nearest to the middle, and others around it; parked ones if need be."""
        middle = self.settings.frames // 2
        boxes = self._boxes(middle)
        count = len(self.traffic.kinds)
        light = np.array([kind in ("car", "van") for kind in self.kinds])
        moving = np.zeros(len(self.kinds), bool)
        moving[:count] = ~self.traffic.jumps
        away = np.hypot(boxes[:, 0], boxes[:, 1])
        usable = light & (moving | (np.arange(len(self.kinds)) >= count))
        rank = np.lexsort([away, ~moving])
        ranked = [int(row) for row in rank if usable[row]]
        if len(ranked) < self.settings.cars:
            raise InputError(
                f"street {self.seed} has {len(ranked)} cars, {self.settings.cars} are to be connected",
                remedy="Ask for more traffic or fewer connected cars.",
            )
        ego = ranked[0]
        near = np.hypot(*(boxes[:, :2] - boxes[ego, :2]).T) <= self.settings.spread
        others = [row for row in ranked[1:] if near[row]]
        driving = [row for row in others if moving[row]]
        chosen = [int(row) for row in rng.permutation(driving)][: self.settings.cars - 1]
        rest = [row for row in others if row not in chosen] + [row for row in ranked[1:] if not near[row]]
        return [ego, *chosen, *rest[: self.settings.cars - 1 - len(chosen)]]

    def _numbers(self, rng: np.random.Generator) -> NDArray[np.int64]:
        numbers = _FIRST_ID + rng.permutation(len(self.kinds))
        ego = self.carriers[0]
        smallest = int(numbers.argmin())
        numbers[[ego, smallest]] = numbers[[smallest, ego]]
        return numbers

    def _measure(self, name: str, moment: int, bodies: Bodies, layers: list[Triangles]) -> Seen:
        rng = np.random.default_rng(item_seed(item_seed(self.seed, moment), name))
        velocity, turning, speed, own = np.zeros(3), 0.0, 0.0, None
        if name == UNIT:
            pose = np.array([*self.layout.pole, _UNIT_HEIGHT + 0.5, 0.0, self._unit_yaw, 0.0])
        else:
            own = self.carriers[self.agents.index(name)]
            x, y, _, _, _, h, yaw = bodies.boxes[own]
            tilt = rng.normal(scale=self.settings.tilt, size=2) if self.settings.tilt else np.zeros(2)
            pose = np.array([x, y, h + _MAST, tilt[0], np.degrees(yaw), tilt[1]])
            velocity, turning, speed = self._motion(own, moment)
        returns = sweep(
            layers, pose_matrix(pose), self.settings.lidar, rng, velocity=velocity, turning=turning, own=own
        )
        hits = np.bincount(returns.owner[returns.owner >= 0], minlength=len(self.kinds))
        away = np.hypot(*(bodies.boxes[:, :2] - pose[:2]).T)
        listed = hits >= self.settings.listed_hits if self.settings.listed_hits else away <= self.settings.lidar.reach
        listed = listed & np.array([kind != "pedestrian" for kind in self.kinds])
        if own is not None:
            listed[own] = False
        return Seen(name, pose, speed, returns, np.flatnonzero(listed), hits)

    def _motion(self, row: int, moment: int) -> tuple[Array, float, float]:
        """Velocity (3,), yaw rate and speed of a carrier."""
        if row >= len(self.traffic.kinds):
            return np.zeros(3), 0.0, 0.0
        places, speed = self.traffic.places[:, row], float(self.traffic.speeds[moment, row])
        yaw = places[moment, 2]
        before, after = max(moment - 1, 0), min(moment + 1, self.settings.frames - 1)
        turned = (places[after, 2] - places[before, 2]) / max(after - before, 1) / STEP
        return speed * np.array([np.cos(yaw), np.sin(yaw), 0.0]), float(turned), speed


def _seen_from(ego: Array, box: Array) -> Array:
    """A world box in the frame of a pose, by the same way as boxes of a file go."""
    world = pose_matrix([*box[:3], 0.0, np.degrees(box[6]), 0.0])
    return box_of_matrix(inverse(ego) @ world, box[3:6])


class Streets:
    """Scenarios as a data set without files: see `priorscope_detection.data.frame.Frames`.

    Parameters
    ----------
    seeds : sequence of int
        One scenario each.
    settings : StreetSettings, optional
    keep : int
        So many scenarios stay in memory.
    """

    period = 1000 * STEP
    single = False

    def __init__(self, seeds: Sequence[int], settings: StreetSettings | None = None, *, keep: int = 4) -> None:
        self.seeds = [int(seed) for seed in seeds]
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise InputError(
                f"{len(self.seeds)} seeds, {len(set(self.seeds))} of them different",
                remedy="Give each once, 0 or more.",
            )
        self.settings = settings or StreetSettings()
        self.title = f"{len(self.seeds)} simulated streets"
        self._keep = max(keep, 1)
        self._scenarios: OrderedDict[int, Scenario] = OrderedDict()

    def __len__(self) -> int:
        return len(self.seeds) * self.settings.frames

    def name(self, index: int) -> str:
        return f"{self.sequence(index)}/{index % self.settings.frames:06d}"

    def sequence(self, index: int) -> str:
        return f"street_{self.seeds[index // self.settings.frames]:06d}"

    def read(self, index: int, *, delay: float = 0.0) -> Frame:
        """See `Frames.read`."""
        return self.scenario(self.seeds[index // self.settings.frames]).frame(index % self.settings.frames, delay=delay)

    def scenario(self, seed: int) -> Scenario:
        """The scenario of a seed."""
        if seed not in self._scenarios:
            self._scenarios[seed] = Scenario(seed, self.settings)
            while len(self._scenarios) > self._keep:
                self._scenarios.popitem(last=False)
        self._scenarios.move_to_end(seed)
        return self._scenarios[seed]
