"""What each command can be told. Needs no torch, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from priorscope.training.settings import LoopConfig

POLICY_HELP = (
    "ddpm; ddim:STEPS[:trailing]; rti:LEVELS (rti:2,1,0) or rti:auto[:CALLS], each with :noised, :deterministic, "
    ":official, :linear after it; streaming[:STRIDE]; consistency[:CHAIN]"
)


@dataclass(frozen=True)
class CollectConfig:
    """Demonstrations of an expert: a planner for Push-T, the scripted policies of Meta-World."""

    environment: Annotated[str, tyro.conf.Positional]
    """pusht, or metaworld:TASK (metaworld:pick-place)."""
    out: Path = Path("demonstrations")
    """pusht: a folder *.zarr in the layout of Diffusion Policy; metaworld: a file *.npz."""
    episodes: int = 200
    """Successful episodes that are kept."""
    seed: int = 0
    """The first seed; each try takes the next. Keep away from those you evaluate on (Push-T: 100000 and up)."""
    attempts: int = 0
    """Most tries; 0: four times the episodes."""
    images: bool = False
    """Push-T: keep 96 x 96 images too."""
    noise: float = 0.0
    """Deviation of what is added to the actions that are done, in their unit (Push-T: pixels of 512; 8 is a good
    choice); the expert's own actions are recorded. A policy learns from it how to get back on its way."""
    max_steps: int = 0
    """Longest episode; 0: the environment's own limit."""
    resume: bool = False
    """Push-T: add to the folder until it holds that many."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a policy on demonstrations."""

    data: Annotated[str, tyro.conf.Positional]
    """A *.zarr or *.zarr.zip of Push-T, a LeRobotDataset's folder, robomimic's *.hdf5, or a *.npz."""
    out: Path = Path("runs/robotics-train")
    """Run folder; the model is out/model, what to look at is out/report.html."""
    objective: Literal["diffusion", "streaming", "consistency"] = "diffusion"
    """What is trained: a diffusion policy, one for streaming, or the one-step student of --teacher."""
    teacher: str = ""
    """For consistency: the policy that is distilled."""
    start: str = ""
    """Go on from this policy's weights; its sizes and its normaliser count."""
    observe: tuple[str, ...] = ()
    """Observations that the policy sees, in this order; default: obs, where there is one, else all vectors."""
    network: Literal["unet", "transformer"] = "unet"
    size: Literal["tiny", "small", "medium", "published"] = "small"
    """U-Net widths 64-128, 64-128-256, 128-256-512 or 256-512-1024; transformer of 64, 128, 192 or 256 channels."""
    conditioning: Literal["global", "local", "inpaint"] = "global"
    """How the U-Net is told observations; the transformer has them as memory."""
    horizon: int = 16
    """Steps of a plan."""
    n_obs_steps: int = 2
    """Observations that a plan is made from."""
    n_action_steps: int = 8
    """Steps of a plan that are executed."""
    noise_steps: int = 100
    """Noise levels."""
    normalizer: Literal["limits", "robomimic"] = "limits"
    """limits: everything to [-1, 1] by its range; robomimic: as published for its absolute actions: positions by their
    range, rotations and grippers as they are, one factor for all of a vector of observations."""
    discrete: tuple[str, ...] = ()
    """Dimensions of the action that take few values, INDEX:VALUES[:SCALE] (-1:-1,1). They are not normalised."""
    discrete_scale: float = 1.0
    """What the discrete dimensions are divided by, so that a warm start can change its mind; 10 as published. Not for
    those that have a SCALE of their own."""
    crop: int = 0
    """Side of the random crops of images; 0: seven eighths."""
    max_episodes: int = 0
    """Most episodes to learn from; 0: all."""
    held_out: float = 0.05
    """Share of the episodes that is held out; 0: none."""
    split_seed: int = 42
    """Which ones."""
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LoopConfig(
            steps=5000, batch_size=256, lr=1e-3, warmup=200, weight_decay=1e-6, ema=0.999, validate_every=1000
        )
    )


@dataclass(frozen=True)
class EvaluateConfig:
    """Success, score and latency of one policy, or of several on the same episodes."""

    model: Annotated[str, tyro.conf.Positional]
    """Name in the model table, model folder, run folder of train, or a .ckpt file."""
    environment: Annotated[str, tyro.conf.Positional] = "pusht"
    """pusht, metaworld:TASK, or gym:ID."""
    out: Path = Path("runs/robotics-evaluate")
    """Run folder; what to look at is out/report.html."""
    policy: str = "rti:2,1,0"
    """How plans are made: see --compare."""
    compare: tuple[str, ...] = ()
    """Several, the first is what the others are compared with: ddpm; ddim:STEPS[:trailing]; rti:LEVELS (rti:2,1,0) or
    rti:auto[:CALLS], each with :noised, :deterministic, :official, :linear after it; streaming[:STRIDE];
    consistency[:CHAIN]; each may have :do=N after it, to execute N actions of a plan, and @MODEL for another model."""
    episodes: int = 50
    first_seed: int = 100000
    """Episodes have the seeds from this one on; Push-T's are the published initial states."""
    batch_size: int = 10
    """Environments side by side."""
    n_action_steps: int = 0
    """Steps of a plan that are executed; 0: the model's own. RTI's publication: 1."""
    discrete: tuple[str, ...] = ()
    """Instead of the model's: INDEX:VALUES[:SCALE[:GUESS]], or `none`; `robomimic-clip`, `robomimic-scale`."""
    max_steps: int = 0
    """Longest episode; 0: the environment's own limit."""
    films: int = 2
    """Episodes of each policy that are filmed."""
    latency_calls: int = 30
    """Calls that are timed alone, for one environment and for a batch; 0: none."""
    contraction: bool = True
    """Measure how much of a difference between two guesses a warm-started run leaves."""
    device: str = "auto"
    seed: int = 0
    """Of the policies' noise; each episode's derives from it and the episode's seed."""
    max_seconds: float = 0.0
    """Stop after this time and keep the episodes that have ended; --resume goes on. 0: no limit."""
    resume: bool = False
    """Go on with an evaluation that was cut off."""


@dataclass(frozen=True)
class DemoConfig:
    """One episode twice, with warm-started and with full plans, filmed side by side; and how long each plan takes."""

    model: Annotated[str, tyro.conf.Positional] = "tiny-pusht"
    """Name in the model table, model folder, run folder of train, or a .ckpt file."""
    environment: Annotated[str, tyro.conf.Positional] = "pusht"
    """pusht, or gym:ID; Meta-World's tasks cannot be drawn."""
    out: Path = Path("runs/robotics-demo")
    """Run folder; replaced if a demo made it."""
    policy: str = "rti:20,10,0:do=1"
    """rti:LEVELS or rti:auto; others as of evaluate's --compare."""
    full: str = "ddpm"
    """What it is compared with."""
    episode: int = 100000
    """Seed of the episode."""
    n_action_steps: int = 0
    """Steps of a plan that are executed; 0: the model's own."""
    max_steps: int = 0
    """Longest episode; 0: the environment's own limit."""
    latency_calls: int = 20
    """Plans of each policy that are timed alone, in turns."""
    device: str = "auto"
    """auto, cpu, cuda."""
    seed: int = 0
    """Of the policies' noise."""


@dataclass(frozen=True)
class RolloutConfig:
    """One episode, filmed."""

    model: Annotated[str, tyro.conf.Positional]
    """Name in the model table, model folder, run folder of train, or a .ckpt file."""
    environment: Annotated[str, tyro.conf.Positional] = "pusht"
    """pusht, metaworld:TASK, or gym:ID."""
    out: Path = Path("rollout.mp4")
    """*.mp4 or *.gif; where the environment cannot be drawn, a *.npz of the actions that were done (steps, action), as
    the policy gave them, the score and the success."""
    policy: str = "rti:2,1,0"
    """ddpm; ddim:STEPS[:trailing]; rti:LEVELS; streaming[:STRIDE]; consistency[:CHAIN]."""
    episode: int = 100000
    """Seed of the episode."""
    n_action_steps: int = 0
    """Steps of a plan that are executed; 0: the model's own."""
    max_steps: int = 0
    """Longest episode; 0: the environment's own limit."""
    device: str = "auto"
    seed: int = 0
    overwrite: bool = False
    """Replace an existing file."""


@dataclass(frozen=True)
class PredictConfig:
    """Plans for recorded observations: what a policy would do at each step of an episode."""

    model: Annotated[str, tyro.conf.Positional]
    """Name in the model table, model folder, run folder of train, or a .ckpt file."""
    data: Annotated[str, tyro.conf.Positional]
    """Demonstrations, as of train."""
    out: Path = Path("plans.npz")
    """plans (steps, horizon, action), actions (steps, action), calls (steps,)."""
    episode: int = 0
    policy: str = "rti:2,1,0"
    """ddpm; ddim:STEPS[:trailing]; rti:LEVELS; consistency[:CHAIN]."""
    device: str = "auto"
    seed: int = 0
    overwrite: bool = False
    """Replace an existing file."""


@dataclass(frozen=True)
class ConvertConfig:
    """A policy as a folder of safetensors and JSON, ours or LeRobot's."""

    model: Annotated[str, tyro.conf.Positional]
    """A .ckpt file of Diffusion Policy, a folder of LeRobot, or a model folder."""
    out: Annotated[Path, tyro.conf.Positional]
    """A folder that does not exist yet."""
    layout: Literal["priorscope", "lerobot"] = "priorscope"
