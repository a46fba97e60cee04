"""What goes wrong between agents: poses that are off, sweeps that are late, agents that drop out; and what they send.

Each draw derives from (seed, frame, agent), so that neither the order of frames, nor the number of workers, nor which
other agents are there changes it, and all methods of an evaluation face the same disturbances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from priorscope.diffusion.noise import item_seed
from priorscope.errors import InputError
from priorscope_detection.data.frame import Frame, Frames
from priorscope_detection.data.rigid import Array, matrix_pose, pose_matrix

Distribution = Literal["gaussian", "laplace"]
_DISTRIBUTIONS = ("gaussian", "laplace")


@dataclass(frozen=True)
class Disturbance:
    """How poses, times and presence of agents are disturbed.

    Attributes
    ----------
    position : float
        Standard deviation (Gaussian) or scale b (Laplace; its standard deviation is b sqrt 2) of x and y, metres.
    yaw : float
        The same of the yaw, degrees.
    distribution : {"gaussian", "laplace"}
    ego : bool
        Whether the ego's pose is disturbed too, as in CoAlign's protocol; OpenCOOD leaves it clean.
    delay : float
        Age of what all other agents send, milliseconds: a whole number of frames.
    drop : float
        Chance, 0 ... 1, that another agent is not there in a frame. The ego always is.
    """

    position: float = 0.0
    yaw: float = 0.0
    distribution: Distribution = "gaussian"
    ego: bool = True
    delay: float = 0.0
    drop: float = 0.0

    def __post_init__(self) -> None:
        for name, words in (
            ("position", "pose noise in metres"),
            ("yaw", "yaw noise in degrees"),
            ("delay", "milliseconds"),
        ):
            value = getattr(self, name)
            if not np.isfinite(value) or value < 0:
                raise InputError(f"{name} of a disturbance is {value} ({words})", remedy="Give 0 or more.")
        if not 0 <= self.drop <= 1:
            raise InputError(f"drop of a disturbance is {self.drop}", remedy="Give a chance of 0 ... 1.")
        if self.distribution not in _DISTRIBUTIONS:
            raise InputError(
                f"pose noise cannot be {self.distribution!r}", remedy=f"Choose {' or '.join(_DISTRIBUTIONS)}."
            )


def read_disturbed(frames: Frames, index: int, how: Disturbance, *, seed: int) -> Frame:
    """A frame of a data set as it arrives: late, incomplete, with poses that are off."""
    return disturb(frames.read(index, delay=how.delay), how, seed=seed)


def disturb(frame: Frame, how: Disturbance, *, seed: int) -> Frame:
    """Drop agents and disturb poses of a frame; sweeps, clean poses and truth stay.

    A delay is a matter of reading: see `read_disturbed`.
    """
    kept = tuple(
        agent
        for number, agent in enumerate(frame.agents)
        if number == 0 or _generator(seed, frame.name, agent.name, "drop").random() >= how.drop
    )
    agents = tuple(
        agent
        if number == 0 and not how.ego
        else replace(agent, pose=noisy_pose(agent.pose, how, seed=seed, frame=frame.name, agent=agent.name))
        for number, agent in enumerate(kept)
    )
    return replace(frame, agents=agents)


def noisy_pose(pose: Array, how: Disturbance, *, seed: int, frame: str, agent: str) -> Array:
    """A pose, (4, 4), with noise added to x, y and yaw; height, roll and pitch stay.

    Doubling `position` doubles the same draw: a curve over the strength is one over the same directions.
    """
    if how.position == 0 and how.yaw == 0:
        return pose
    offset = pose_offset(how, seed=seed, frame=frame, agent=agent)
    told = matrix_pose(pose)
    told[[0, 1, 4]] += offset
    return pose_matrix(told)


def pose_offset(how: Disturbance, *, seed: int, frame: str, agent: str) -> Array:
    """What is added to x, y (metres) and yaw (degrees), (3,)."""
    generator = _generator(seed, frame, agent, "pose")
    unit = generator.standard_normal(3) if how.distribution == "gaussian" else generator.laplace(size=3)
    return unit * [how.position, how.position, how.yaw]


def _generator(seed: int, frame: str, agent: str, use: str) -> np.random.Generator:
    return np.random.default_rng(item_seed(item_seed(item_seed(seed, frame), agent), use))


def official_pose_noise(
    generator: np.random.RandomState, agents: int, *, position: float, yaw: float, distribution: Distribution
) -> Array:
    """CoAlign's draws for the poses of one frame, (agents, 6): x, y, z, roll, yaw, pitch.

    Agent by agent, first x and y, then yaw, from numpy's legacy generator. The published loop seeds it (303) once a
    setting, but draws in the workers of its data loader, where it is seeded anew: its figures cannot be repeated draw
    by draw, and neither can a run of that code. For parity of single draws only.
    """
    draw = generator.normal if distribution == "gaussian" else generator.laplace
    noise = np.zeros((agents, 6))
    for row in noise:
        row[:2] = draw(0, position, size=2)
        row[4] = draw(0, yaw, size=1)[0]
    return noise


@dataclass(frozen=True)
class Sent:
    """Bytes that each agent but the ego sends for one frame, by what is sent.

    Attributes
    ----------
    points : ndarray, int64, (A - 1,)
        Early fusion: four float32 a point.
    boxes : ndarray, int64, (A - 1,)
        Late fusion: seven float32 and a score a box.
    features : ndarray, int64, (A - 1,)
        Intermediate fusion: the feature map.
    pose : int
        Six float32, in every case; not part of the others.
    """

    points: NDArray[np.int64]
    boxes: NDArray[np.int64]
    features: NDArray[np.int64]
    pose: int = 24


def bandwidth(
    frame: Frame,
    *,
    feature_shape: Sequence[int] = (),
    compression: float = 1.0,
    bytes_per_value: int = 4,
    boxes: Sequence[int] | None = None,
) -> Sent:
    """How many bytes each other agent of a frame sends.

    Parameters
    ----------
    frame : Frame
    feature_shape : sequence of int
        Of the map that one agent sends, (C, H, W). Of multi-scale fusion, add the calls up.
    compression : float
        Factor by which an encoder makes the channels fewer before they are sent (CoAlign: 32 for 256 to 8).
    bytes_per_value : int
        4 for float32, 2 for half precision, 1 for bytes.
    boxes : sequence of int, optional
        How many boxes each other agent found.

    Raises
    ------
    InputError
        compression is below 1, or does not divide the channels.
    """
    others = frame.agents[1:]
    if not np.isfinite(compression) or compression < 1:
        raise InputError(f"features compressed by {compression}", remedy="Give a factor of 1 or more.")
    channels = (feature_shape[0] if feature_shape else 0) / compression
    if channels != round(channels):
        raise InputError(f"{feature_shape[0]} channels cannot be compressed by {compression:g}")
    if boxes is not None and len(boxes) != len(others):
        raise InputError(f"{len(boxes)} numbers of boxes for {len(others)} agents that send")
    values = round(channels) * int(np.prod(feature_shape[1:])) if feature_shape else 0
    return Sent(
        np.array([16 * len(agent.points) for agent in others], np.int64),
        np.array([32 * count for count in boxes or [0] * len(others)], np.int64),
        np.full(len(others), values * bytes_per_value, np.int64),
    )
