"""What a policy is made of, as plain values: the config.json of a model folder. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from priorscope.errors import InputError

Conditioning = Literal["global", "local", "inpaint", "memory"]
Setting = bool | int | float | list[int]


@dataclass(frozen=True)
class Observation:
    """One kind of observation."""

    name: str
    shape: tuple[int, ...]
    """(D,), or (C, H, W) of images."""
    kind: Literal["vector", "image"] = "vector"
    first_half: bool = False
    """The environment gives values and, after them, as many flags of what is visible; only the values are used."""


@dataclass(frozen=True)
class ImageSettings:
    """How camera images become vectors."""

    crop: tuple[int, int] | None = None
    features: int = 64
    keypoints: int = 32
    shared: bool = False
    """One encoder for all cameras."""
    random_crop: bool = True
    norm: Literal["group", "batch"] = "group"
    centre: Literal["floor", "round"] = "floor"
    """Where the middle crop of an odd remainder lies: robomimic's or torchvision's way."""


@dataclass(frozen=True)
class Diffusion:
    """The noise that the network was trained with."""

    steps: int = 100
    beta_schedule: str = "squaredcos_cap_v2"
    beta_start: float = 0.0001
    beta_end: float = 0.02
    prediction_type: Literal["epsilon", "sample", "v"] = "epsilon"
    clip: float = 1.0
    """Largest absolute value of a clean sample; 0: not clipped."""
    variance: Literal["small", "large"] = "small"


@dataclass(frozen=True)
class DiscreteAction:
    """A dimension of the action that takes few values, such as a gripper that is open or shut.

    The network sees the values divided by ``scale``. A denoiser that starts from the last plan can hardly change its
    mind over a value of 1; over one of 0.1 it can.
    """

    index: int
    """Which dimension; negative numbers count from the end of the action."""
    values: tuple[float, ...] = (-1.0, 1.0)
    scale: float = 1.0
    """What the training data were divided by."""
    guess_scale: float = 0.0
    """The plan that the next run starts from gets its value divided by this; 0: what the network said stays (training
    data that are scaled need no more)."""


@dataclass(frozen=True)
class PolicySpec:
    """Sizes, conditioning, noise and normalisation of a policy."""

    observations: tuple[Observation, ...]
    """In the order in which their features are joined."""
    action_dim: int
    horizon: int = 16
    """Steps of a plan; the first is the time of the first observation."""
    n_obs_steps: int = 2
    n_action_steps: int = 8
    """Steps of a plan that are executed."""
    first_action: int = 1
    """Index in the plan of the first action that is executed."""
    conditioning: Conditioning = "global"
    """How a plan is conditioned on observations: as one vector, step by step, as known entries of the trajectory, or
    as the memory of a transformer."""
    network: Literal["unet", "transformer"] = "unet"
    network_settings: dict[str, Setting] = field(default_factory=dict)
    diffusion: Diffusion = field(default_factory=Diffusion)
    image: ImageSettings = field(default_factory=ImageSettings)
    normalizer: Literal["linear", "lerobot", "lerobot-old"] = "linear"
    normalizer_modes: dict[str, str] = field(default_factory=dict)
    """LeRobot's modes by field."""
    objective: Literal["diffusion", "streaming", "consistency"] = "diffusion"
    """What the network was trained to say."""
    discrete: tuple[DiscreteAction, ...] = ()
    largest_moves: tuple[float, ...] = ()
    """How far observations moved in 1, 2, ... steps of the training data at most
    (:func:`priorscope_robotics.policies.rti.move_size`); empty: not known."""
    family: str = "priorscope"
    """Whose checkpoint it was."""
    trained_on: str = ""

    def check(self) -> PolicySpec:
        """Refuse what does not fit together; returns itself.

        Raises
        ------
        InputError
        """
        if not self.observations or self.action_dim < 1:
            raise InputError("a policy needs observations and actions")
        if not 1 <= self.n_obs_steps <= self.horizon:
            raise InputError(f"{self.n_obs_steps} observation steps in a horizon of {self.horizon}")
        last = self.first_action + self.n_action_steps
        if self.first_action < 0 or self.n_action_steps < 1 or last > self.horizon:
            raise InputError(
                f"{self.n_action_steps} actions from step {self.first_action} do not fit a horizon of {self.horizon}",
                remedy="Use fewer action steps or a longer horizon.",
            )
        if self.network == "unet":
            widths = self.network_settings.get("down_dims", [0, 0, 0])
            stride = 2 ** (len(widths) - 1) if isinstance(widths, list | tuple) else 1
            if self.horizon % stride:
                raise InputError(
                    f"a horizon of {self.horizon} does not fit a U-Net that halves it to a {stride}th",
                    remedy=f"Use a horizon that is a multiple of {stride}.",
                )
        if (self.conditioning == "memory") != (self.network == "transformer" and self.conditioning != "inpaint"):
            raise InputError(f"conditioning {self.conditioning!r} for a {self.network}")
        if self.conditioning in ("inpaint", "local") and self.images:
            raise InputError("images condition a network as one vector", remedy="Use the conditioning 'global'.")
        for dim in self.discrete:
            if not -self.action_dim <= dim.index < self.action_dim:
                raise InputError(f"discrete dimension {dim.index} of actions with {self.action_dim} numbers")
            if len(set(dim.values)) < 2 or dim.scale <= 0 or dim.guess_scale < 0:
                raise InputError(f"discrete dimension {dim.index}: values {dim.values}, scale {dim.scale}")
        return self

    @property
    def images(self) -> tuple[Observation, ...]:
        """The observations that are images."""
        return tuple(entry for entry in self.observations if entry.kind == "image")

    @property
    def feature_dim(self) -> int:
        """Numbers that describe one observed time step."""
        return sum(self.image.features if entry.kind == "image" else entry.shape[0] for entry in self.observations)

    @property
    def trajectory_dim(self) -> int:
        """Numbers of one step of what is denoised."""
        return self.action_dim + (self.feature_dim if self.conditioning == "inpaint" else 0)
