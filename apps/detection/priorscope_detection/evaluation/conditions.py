"""What an evaluation asks: models and how they are asked, disturbances, and the frames between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_detection.configs import EvaluateConfig, ModelConfig
from priorscope_detection.data.frame import Frame, Frames, delay_steps
from priorscope_detection.data.rigid import Array
from priorscope_detection.messages import vehicles_only
from priorscope_detection.noise import Disturbance, disturb


@dataclass(frozen=True)
class Condition:
    """A disturbance and the seed that it is drawn with.

    Attributes
    ----------
    how : Disturbance
    seed : int
    """

    how: Disturbance
    seed: int

    @property
    def setting(self) -> str:
        """The disturbance without its seed, such as ``0.4m 0.4deg 200ms``."""
        return f"{self.how.position:g}m {self.how.yaw:g}deg {self.how.delay:g}ms"

    @property
    def name(self) -> str:
        """With the seed."""
        return f"{self.setting} seed {self.seed}"


def conditions_of(config: EvaluateConfig) -> list[Condition]:
    """The base condition first, then those of the curves; each once.

    Where nothing is drawn (no noise, no dropped agents) one seed is enough.

    Raises
    ------
    InputError
        Disturbances that cannot be, or no seed.
    """
    if not config.noise_seeds or min(config.noise_seeds) < 0:
        raise InputError(f"--noise-seeds {config.noise_seeds}", remedy="Give one or more, of 0 or more.")
    base = Disturbance(
        config.pose_noise,
        config.yaw_noise,
        "laplace" if config.laplace else "gaussian",
        ego=config.noisy_ego,
        delay=config.delay,
        drop=config.drop_agents,
    )
    wanted = [base]
    if config.robustness:
        wanted += [replace(base, position=sigma, yaw=sigma) for sigma in config.sigmas]
        wanted += [replace(base, delay=delay) for delay in config.delays]
    found: dict[str, Condition] = {}
    for how in wanted:
        drawn = how.position > 0 or how.yaw > 0 or how.drop > 0
        for seed in config.noise_seeds if drawn else config.noise_seeds[:1]:
            condition = Condition(how, seed)
            found.setdefault(condition.name, condition)
    return list(found.values())


def curves_of(
    base: Disturbance, sigmas: Sequence[float], delays: Sequence[float]
) -> tuple[dict[float, str], dict[float, str]]:
    """Settings of the curves by what stands on their axes: pose noise (m and degrees), and delay (ms)."""
    return (
        {sigma: Condition(replace(base, position=sigma, yaw=sigma), 0).setting for sigma in sigmas},
        {delay: Condition(replace(base, delay=delay), 0).setting for delay in delays},
    )


def models_of(config: EvaluateConfig) -> dict[str, ModelConfig]:
    """The models that are compared, by what the tables call them.

    Raises
    ------
    InputError
        An entry of --compare that cannot be read, or the same twice.
    """
    found = {config.settings.model: config.settings}
    for text in config.compare:
        if text in found:
            raise InputError(f"{text!r} is compared twice", remedy="Name each once.")
        found[text] = _asked(text, config.settings)
    return found


def _asked(text: str, settings: ModelConfig) -> ModelConfig:
    source, *options = text.split(":")
    if not text:
        raise InputError("--compare names nothing", remedy="Name a model, or how --model is asked otherwise: :steps=8.")
    # another model is asked with its own steps and start
    asked = settings if not source else replace(settings, model=source, steps=None, start=None)
    for option in options:
        name, _, value = option.partition("=")
        if name == "steps" and value.isascii() and value.isdigit():
            asked = replace(asked, steps=int(value))
        elif name == "start" and value in ("noise", "coarse"):
            asked = replace(asked, start="noise" if value == "noise" else "coarse")
        elif name == "poses" and value in ("corrected", "told"):
            asked = replace(asked, correct_poses=value == "corrected")
        else:
            raise InputError(
                f"--compare {text!r}: {option!r} is no option",
                remedy="Options are steps=NUMBER, start=noise, start=coarse, poses=corrected, poses=told.",
            )
    return asked


class Reader:
    """Frames of an evaluation; those read last are kept, since several conditions ask for them in turn.

    Parameters
    ----------
    frames : Frames
    reach : float
        Metres.
    """

    def __init__(self, frames: Frames, reach: float) -> None:
        self.frames, self.reach = frames, reach
        self._index = -1
        self._kept: dict[float, Frame] = {}
        self._truth: tuple[Array, NDArray[np.int64]] | None = None

    def read(self, index: int, delay: float) -> Frame:
        """A frame without noise."""
        if index != self._index:
            self._index, self._kept, self._truth = index, {}, None
        if delay not in self._kept:
            self._kept[delay] = self.frames.read(index, delay=delay).within(self.reach)
        return self._kept[delay]

    def truth(self, index: int) -> tuple[Array, NDArray[np.int64]]:
        """The vehicles of a frame (N, 7), and the points that all agents have on each without disturbance (N,)."""
        now = self.read(index, 0.0)
        if self._truth is None:
            now = vehicles_only(now)
            self._truth = now.truth.boxes, now.points_in_boxes().sum(0)
        return self._truth

    def disturbed(self, index: int, condition: Condition) -> Frame:
        """A frame as it arrives under a condition."""
        return disturb(self.read(index, condition.how.delay), condition.how, seed=condition.seed)


def check_heard(conditions: Sequence[Condition], frames: Frames) -> None:
    """Refuse disturbances of frames that have one agent each: the figures would say that they harm nothing."""
    disturbed = [each for each in conditions if each.how.position or each.how.yaw or each.how.delay or each.how.drop]
    if frames.single and disturbed:
        raise InputError(
            f"a disturbance of {disturbed[0].setting}, but each frame of {frames.title} has one agent",
            remedy="Leave out pose noise, delay, loss of agents and --robustness.",
        )


def check_delays(conditions: Sequence[Condition], period: float) -> None:
    """Refuse delays between two frames, which are ``period`` milliseconds apart (InputError)."""
    for condition in conditions:
        delay_steps(condition.how.delay, period)
