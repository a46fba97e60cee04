"""What each command can be told. Needs no torch, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from priorscope.training.settings import LoopConfig
from priorscope_detection.data.open import Layout
from priorscope_detection.network.spec import Stage, Start
from priorscope_detection.simulator.settings import COMPACT, StreetSettings

Device = str
Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class ModelConfig:
    """Which model, and how it is asked."""

    model: str = "tiny-detection"
    """Name in the model table (`priorscope models detection`), or a folder: ours, a training's run folder, or one of
    CoAlign's (config.yaml and net_epoch*.pth)."""
    steps: int | None = None
    """CoDiff: solver steps; any number without retraining. 0: boxes of the coarse fused feature, without diffusion.
    Default: the model's own."""
    start: Start | None = None
    """CoDiff: whether a run starts from noise or from the coarse fused feature. Default: the model's own."""
    score_threshold: float | None = None
    """Boxes with a lower score are left out. Default: the model's own, 0.2 unless it says otherwise."""
    nms: float | None = None
    """Of two boxes that overlap more (rotated IoU in bird's-eye view) than this, only the better stays. Default: the
    model's own, 0.15 unless it says otherwise."""
    correct_poses: bool = False
    """Correct the poses that agents tell by the boxes that each finds alone (CoAlign's agent-object pose graph) before
    they are brought together."""
    published_frames: bool = False
    """Group each agent's points in its own LiDAR frame, as CoAlign does, instead of levelled and at the ego's height. A
    LiDAR on a pole then loses what lies below the detector's range."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N."""
    precision: Precision = "auto"
    """auto is bfloat16 on a GPU and float32 on the CPU."""
    seed: int = 0
    """Of CoDiff's noise."""


@dataclass(frozen=True)
class SimulateConfig:
    """Drive several cars and a road-side unit through drawn streets; their LiDAR sweeps in OPV2V's layout."""

    out: Path = Path("runs/streets")
    """Folder; the scenarios are out/SPLIT/street_SEED."""
    count: int = 10
    """Scenarios."""
    first_seed: int = 0
    """Seed of the first; seeds from 1000000000 on are held out."""
    split: str = "train"
    """Name of the split."""
    workers: int = 1
    """Processes."""
    streets: StreetSettings = field(default_factory=StreetSettings)
    """What a scenario is."""


@dataclass(frozen=True)
class PredictConfig:
    """Boxes around vehicles, from the sweeps of one agent or of several."""

    inputs: tyro.conf.Positional[tuple[Path, ...]]
    """Sweeps of one agent (.pcd, .bin), scenarios, or data sets."""
    out: Path = Path("out")
    """Folder for the results; made where missing."""
    formats: tuple[Literal["json", "kitti", "picture", "view", "rerun"], ...] = ("json", "kitti", "picture")
    """What to write for each frame: json (boxes in the ego's LiDAR frame), kitti (KITTI's text form; of data that are
    not KITTI's in a camera frame at the LiDAR), picture (bird's-eye view with points, boxes and truth), view (the same
    in three dimensions, a page for the browser), rerun (a recording for Rerun, where rerun-sdk is installed)."""
    layout: Layout = "auto"
    """How data sets are laid out."""
    limit: int = 0
    """Only the first so many frames of each data set; 0: all."""
    reach: float = 70.0
    """Agents further from the ego than this, in metres, are not heard."""
    pose_noise: float = 0.0
    """Standard deviation of the noise that is added to x and y of all poses, in metres. Of data sets, as the next two:
    a sweep by itself is of one agent."""
    yaw_noise: float = 0.0
    """The same of the yaw, in degrees."""
    delay: float = 0.0
    """Age of what other agents send, in milliseconds: a whole number of frames."""
    overwrite: bool = False
    """Replace results that are there already."""
    settings: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)


@dataclass(frozen=True)
class TrainConfig:
    """Train a detector with a fusion; then, on one with attention, CoDiff's codec, its diffusion, and both together."""

    data: tyro.conf.Positional[str]
    """Data set (of DAIR-V2X-C one split: FOLDER/train); simulated:COUNT drives so many scenarios through drawn streets
    first, into the run folder."""
    layout: Layout = "auto"
    """How the data set is laid out."""
    out: Path = Path("runs/train")
    """Run folder; the model is out/model, what to look at is out/report.html."""
    stage: Stage = "detector"
    """detector: all but CoDiff. codec: CoDiff's autoencoder of features; diffusion: its denoiser in that latent;
    finetune: denoiser, decoder and heads, on whole runs of 1 to 8 steps. The rest is frozen. joint: everything, on
    such runs. codec and diffusion --start from the stage before, the last two from diffusion."""
    fusion: Literal["none", "late", "early", "max", "attention", "v2x"] = "attention"
    """How the agents of a new detector are brought together. none and late learn from single agents."""
    size: Literal["tiny", "micro", "mini", "small", "medium", "opv2v", "dair"] = "mini"
    """Of a new detector. tiny is for trials, micro (a square of 51 m), mini and small for a CPU, medium for a GPU;
    opv2v and dair are those of CoAlign."""
    extent: tuple[float, float, float, float, float, float] | None = None
    """Range of a new detector: x, y, z of the lower and the upper corner, in metres. Default: the size's."""
    start: str = ""
    """A trained model to start from: a run folder or a model folder."""
    held_out: int = 32
    """Frames kept out of training to look at: whole sequences, of a data set a tenth at most. 0: none."""
    reach: float = 70.0
    """Agents further from the ego than this, in metres, are not heard."""
    pose_noise: float = 0.4
    """Standard deviation of the noise that is added to x and y of all poses, in metres."""
    yaw_noise: float = 0.4
    """The same of the yaw, in degrees."""
    laplace: bool = False
    """Laplace noise with these scales instead of Gaussian noise."""
    vary_noise: bool = True
    """Each example has between nothing and all of the noise. False: all of it, as published."""
    noisy_ego: bool = True
    """The ego's pose is disturbed too."""
    max_delay: float = 0.0
    """What other agents send is up to so old, in milliseconds; each example has a delay of its own."""
    drop_agents: float = 0.1
    """Chance that another agent is not there."""
    flip: bool = True
    """Mirror half of the examples."""
    rotation: float = 45.0
    """Largest turn of all agents, in degrees."""
    scaling: float = 0.05
    """Lengths are changed by up to this share."""
    box_weight: float | None = None
    """Weight of the detector's loss on what the diffusion estimates, beside the diffusion's own. Default: 0 in stage
    diffusion, 1 in stages finetune and joint."""
    published_frames: bool = False
    """As for predict."""
    streets: StreetSettings = field(default_factory=StreetSettings)
    """What a scenario is, for simulated:COUNT."""
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(default_factory=LoopConfig)


@dataclass(frozen=True)
class EvaluateConfig:
    """Average precision, and how it falls with pose noise and delay."""

    data: tyro.conf.Positional[str]
    """Data set (of DAIR-V2X-C one split: FOLDER/val); simulated:COUNT drives so many held-out scenarios through drawn
    streets first, into the run folder."""
    layout: Layout = "auto"
    """How the data set is laid out."""
    out: Path = Path("runs/evaluate")
    """Run folder: rows as they come (items.jsonl), metrics.json, report.html."""
    compare: tuple[str, ...] = ()
    """More models on the same frames and disturbances: FOLDER, or FOLDER:steps=8:start=noise:poses=corrected (start is
    noise or coarse, poses corrected or told). With no FOLDER, as in :steps=8, it is --model asked otherwise."""
    pose_noise: float = 0.0
    """Standard deviation of the noise that is added to x and y of all poses, in metres."""
    yaw_noise: float = 0.0
    """The same of the yaw, in degrees."""
    laplace: bool = False
    """Laplace noise with these scales instead of Gaussian noise."""
    noisy_ego: bool = True
    """The ego's pose is disturbed too, as in CoAlign's protocol."""
    delay: float = 0.0
    """Age of what other agents send, in milliseconds: a whole number of frames."""
    drop_agents: float = 0.0
    """Chance that another agent is not there."""
    robustness: bool = False
    """Measure the curves over --sigmas and --delays too."""
    sigmas: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6)
    """With --robustness: pose noise of the curve, in metres and degrees; the delay stays at --delay."""
    delays: tuple[float, ...] = (0.0, 100.0, 200.0, 300.0, 400.0, 500.0)
    """With --robustness: delays of the curve, in milliseconds; the pose noise stays at --pose-noise and --yaw-noise."""
    noise_seeds: tuple[int, ...] = (0,)
    """Each disturbance is drawn once for each of these; figures are their means."""
    reach: float = 70.0
    """Agents further from the ego than this, in metres, are not heard."""
    compression: float = 1.0
    """For the count of bytes: as if features were compressed by this factor before they are sent."""
    bytes_per_value: int = 4
    """For the count of bytes: of a feature's value."""
    limit: int = 0
    """Only the first so many frames; 0: all. Figures are then those of this part."""
    skip: int = 0
    """Leave out so many frames at the beginning of each sequence. There, messages cannot be as old as asked: with
    delays up to 500 ms and a frame every 100 ms, 5 frames."""
    pictures: int = 4
    """Frames that the report shows."""
    streets: StreetSettings = field(default_factory=StreetSettings)
    """What a scenario is, for simulated:COUNT."""
    resume: bool = False
    """Go on with a run that was cut off."""
    settings: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)


@dataclass(frozen=True)
class DemoConfig:
    """A simulated junction with noisy poses: boxes before and after fusion, and the robustness curve."""

    out: Path = Path("runs/demo")
    """Run folder; replaced if a demo made it."""
    compare: tuple[str, ...] = ()
    """Models beside --model, as for evaluate. Default: for the bundled model, what it is to be compared with; for
    another with CoDiff, itself without diffusion."""
    scenarios: int = 6
    """Junctions that are driven through; the pictures show the first."""
    pose_noise: float = 0.4
    """Standard deviation of the noise on x and y of all poses, in metres."""
    yaw_noise: float = 0.4
    """The same of the yaw, in degrees."""
    delay: float = 200.0
    """Age of what other agents send, in milliseconds."""
    sigmas: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6)
    """Pose noise of the curve, in metres and degrees."""
    delays: tuple[float, ...] = (0.0, 100.0, 200.0, 300.0, 400.0, 500.0)
    """Delays of the curve, in milliseconds."""
    streets: StreetSettings = field(default_factory=lambda: replace(COMPACT, kind="crossing", frames=7))
    """What a scenario is; of its frames those count that have messages as old as the longest delay."""
    settings: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)
