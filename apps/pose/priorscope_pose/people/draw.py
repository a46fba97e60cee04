"""Pictures and clips of people, with their truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope.scenes.materials import Look
from priorscope.scenes.world import World

from .figure import Figure, random_figure
from .film import Film, Shot
from .framing import random_camera
from .motion import ACTIONS
from .sensor import random_sensor
from .setting import Crowd, Obstacle, furnish, random_obstacle, seat
from .truth import Truth

Array = NDArray[np.float64]

HELD_OUT_SEED = 1_000_000_000
"""From here on the seeds are for held-out pictures; training uses smaller ones only."""

GENERATOR_VERSION = 1
"""Goes up whenever a seed gives another picture than before."""

MAX_PEOPLE = 8
_SIDES = (16, 4096)


def draw_people(
    seed: int,
    height: int = 160,
    width: int = 128,
    people: int | None = None,
    *,
    action: str | None = None,
    occluders: float = 0.35,
    fine: bool = False,
) -> tuple[NDArray[np.uint8], Truth]:
    """Draw people who do something somewhere.

    Parameters
    ----------
    seed : int
        0 or more; fixes everything. From `HELD_OUT_SEED` on seeds are for held-out pictures.
    height, width : int
        Pixels, 16 to 4096.
    people : int, optional
        1 to 8; by default the seed chooses 1 to 4.
    action : str, optional
        One of `motion.ACTIONS` for everybody; by default each does what the seed says.
    occluders : float
        The probability, 0 to 1, that something stands in the way; sometimes two things do.
    fine : bool
        Soft shadows, mirrors and smooth edges, at ten times the time.

    Returns
    -------
    image : ndarray, uint8, (H, W, 3)
    truth : Truth

    Raises
    ------
    InputError
        For an argument out of range.
    """
    check_request(seed, height, width, people, action, occluders)
    shot = compose(seed, height, width, people, action=action, occluders=occluders)
    return Film(shot, height, width, seed, fine).frame(shot.start, 0)


def draw_clip(
    seed: int,
    frames: int = 5,
    height: int = 160,
    width: int = 128,
    people: int | None = None,
    *,
    action: str | None = None,
    occluders: float = 0.5,
    blur: float | None = None,
    rate: float = 12.0,
) -> tuple[NDArray[np.uint8], list[Truth]]:
    """Film people who move; what `draw_people` says holds here too.

    Parameters
    ----------
    seed, height, width, people, action
        As in `draw_people`.
    frames : int
        1 to 1000.
    occluders : float
        The probability that something is in the way; in a clip it passes across the picture, most of the time.
    blur : float, optional
        The share of the time between frames, 0 to 1, in which the shutter is open; by default the seed chooses, and
        one clip in four is sharp. The truth is that of the middle of this time.
    rate : float
        Frames a second.

    Returns
    -------
    images : ndarray, uint8, (frames, H, W, 3)
    truths : list of Truth
        One a frame; a person has the same track id in all of them.
    """
    check_request(seed, height, width, people, action, occluders)
    if isinstance(frames, bool) or not isinstance(frames, int | np.integer) or not 1 <= frames <= 1000:
        raise InputError(f"a clip of {frames!r} frames cannot be drawn", remedy="Give 1 to 1000.")
    if not (rate > 0 and np.isfinite(rate)):
        raise InputError(f"the frame rate is {rate!r}", remedy="Give frames a second, more than 0.")
    rng = np.random.default_rng([seed, 21])
    drawn = 0.0 if rng.uniform() < 0.25 else rng.uniform(0.25, 0.95)
    shutter = drawn if blur is None else blur
    if not 0 <= shutter <= 1:
        raise InputError(f"blur is {blur!r}", remedy="Give 0 (sharp) to 1 (the shutter is always open).")
    shot = compose(seed, height, width, people, action=action, occluders=occluders, clip=frames / rate)
    film = Film(shot, height, width, seed, False)
    images, truths = [], []
    for number in range(frames):
        image, truth = film.frame(shot.start + number / rate, number, shutter / rate)
        images.append(image)
        truths.append(truth)
    return np.stack(images), truths


def check_request(seed: int, height: int, width: int, people: int | None, action: str | None, occluders: float) -> None:
    """Raise InputError for what `draw_people` does not take."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"a picture's seed is {seed!r}", remedy="Give a whole number, 0 or more.")
    for name, side in (("height", height), ("width", width)):
        if not isinstance(side, int | np.integer) or not _SIDES[0] <= side <= _SIDES[1]:
            raise InputError(f"the {name} of a picture is {side!r}", remedy="Give {} to {} pixels.".format(*_SIDES))
    if people is not None and (not isinstance(people, int | np.integer) or not 1 <= people <= MAX_PEOPLE):
        raise InputError(f"{people!r} people cannot be drawn", remedy=f"Give 1 to {MAX_PEOPLE}.")
    if action is not None and action not in ACTIONS:
        raise InputError(f"there is no action {action!r}", remedy=f"Choose one of {', '.join(ACTIONS)}.")
    if not 0 <= occluders <= 1:
        raise InputError(f"occluders is {occluders!r}", remedy="Give a probability, 0 to 1.")


def compose(
    seed: int,
    height: int,
    width: int,
    people: int | None = None,
    *,
    action: str | None = None,
    occluders: float = 0.35,
    clip: float = 0.0,
) -> Shot:
    """The shot that a seed stands for; `clip` is the length of a clip in seconds, 0 for a picture."""
    rng = np.random.default_rng([seed, 11])
    look = Look(rng)
    count = int(rng.integers(1, 5)) if people is None else people
    start = rng.uniform(0, 3)
    # scenes may be wild, that is of any colours, but people are not
    plain = Look(rng)
    plain.wild = False
    figures = [random_figure(rng, plain, np.zeros(2), action) for _ in range(count)]
    figures = [_centred(figure, start + 0.5 * clip, _spot(rng, number)) for number, figure in enumerate(figures)]
    moments = [start] if clip == 0 else [start, start + 0.5 * clip, start + clip]
    joints = np.stack([figure.at(t).joints for t in moments for figure in figures])
    camera = random_camera(rng, joints, height, width)
    middle = joints.reshape(-1, 3).mean(axis=0)
    flat = joints[..., :2].reshape(-1, 2)
    reach = float(np.linalg.norm(flat - middle[:2], axis=-1).max()) + 0.1
    crowd = Crowd(middle, reach, flat[::3])
    scenery = World()
    outdoors = furnish(rng, look, scenery, camera, crowd)
    for figure in figures:
        if figure.motion.action == "sit":
            _seat(rng, look, scenery, figure, start + 0.5 * clip)
    size = float(np.ptp(joints[0], axis=0).max())
    wanted = (rng.uniform() < occluders) + (rng.uniform() < 0.3 * occluders)
    obstacles = []
    for _ in range(wanted):
        target = joints[0][int(rng.integers(joints.shape[1]))]
        moving = clip > 0 and rng.uniform() < 0.75
        obstacle = random_obstacle(rng, look, camera, target, size, outdoors, moving)
        # it passes in the middle of the clip
        at = obstacle.place - obstacle.velocity * (start + rng.uniform(0, 1) * clip)
        obstacles.append(Obstacle(obstacle.thing, at, obstacle.turn, obstacle.velocity))
    pan = np.zeros(3)
    if clip > 0 and rng.uniform() < 0.35:
        pan = rng.normal(size=3) * [1, 1, 0.3] * 0.25 * size
    return Shot(figures, scenery, obstacles, camera, pan, random_sensor(rng, height), start)


def _spot(rng: np.random.Generator, number: int) -> Array:
    """Where somebody stands in the middle of the time: the first in the middle, others near enough to overlap."""
    if number == 0:
        return np.zeros(2)
    angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 0.75) + 0.35 * np.sqrt(number) * rng.uniform(0.3, 1.6)
    return far * np.array([np.cos(angle), np.sin(angle)])


def _centred(figure: Figure, t: float, spot: Array) -> Figure:
    """The figure where its motion has brought it to `spot` at the time `t`."""
    travel = np.array(figure.motion.at(t).travel)
    return Figure(figure.build, figure.outfit, figure.motion, figure.materials, spot - travel)


def _seat(rng: np.random.Generator, look: Look, world: World, figure: Figure, t: float) -> None:
    placed = figure.at(t)
    hips = next(piece.mesh for piece in placed.pieces if piece.part == "hips")
    height = max(float(hips.vertices[:, 2].min()) + 0.02, 0.08)
    middle = placed.joints[[11, 12], :2].mean(axis=0)
    world.put(seat(rng, look, height), float(middle[0]), float(middle[1]), 0.0, figure.motion.yaw)
