"""What each command can be told. Needs no torch, so that ``--help`` answers at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from priorscope.errors import InputError
from priorscope.training.settings import LoopConfig

Device = str
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Format = Literal["png", "npy", "npz", "colour", "ply"]
DepthSet = Literal["nyuv2", "kitti", "eth3d", "scannet", "diode", "scenes"]
NormalsSet = Literal["nyuv2", "scannet", "ibims", "sintel", "oasis"]


def refuse_idle(config: Any, names: Sequence[str], reason: str) -> None:
    """Refuse options that would change nothing (InputError), where they have another value than their default.

    Parameters
    ----------
    config : dataclass instance
        Options whose defaults are plain values.
    names : sequence of str
        Fields, as options are called with underscores.
    reason : str
        What the message says behind the option's name.
    """
    for name in names:
        if getattr(config, name) != getattr(type(config), name):
            raise InputError(f"--{name.replace('_', '-')} {reason}", remedy="Leave it out.")


def check_depth_scale(scale: float) -> None:
    """Raise :class:`InputError` unless ``scale`` is a positive number of metres a unit."""
    if not 0 < scale < float("inf"):
        raise InputError(f"--depth-scale {scale:g}", remedy="Give metres a unit: 0.001 for millimetres.")


@dataclass(frozen=True)
class ModelConfig:
    """Which model, and how it is asked."""

    model: str = "tiny-depth"
    """Name in the model table (`priorscope models`), hub id (owner/name), folder in diffusers' layout, or PrimeDepth's
    checkpoint file."""
    family: Literal["lotus-g", "lotus-d", "marigold", "e2e-ft", "e2e-ft-sd", "genpercept"] | None = None
    """Family of a folder whose name does not tell."""
    task: Literal["depth", "normals"] | None = None
    """Task of a folder whose name does not tell."""
    space: Literal["depth", "disparity"] | None = None
    """Space of a folder whose name does not tell."""
    steps: int | None = None
    """Solver steps (Marigold); the other families are one-step models."""
    posterior: Literal["mode", "sample"] = "mode"
    """How the image is encoded: deterministic, or sampled as in the own code of Lotus and PrimeDepth."""
    caption: str = ""
    """PrimeDepth: what all pictures show, in words, or `blip2`, which describes each (as the authors do; BLIP-2 must be
    in the local cache). Default: the empty prompt; what that costs was not measured."""
    caption_file: Path | None = None
    """PrimeDepth: captions by file name, as a JSON object or as lines NAME<TAB>CAPTION."""
    caption_model: str = "Salesforce/blip2-opt-2.7b"
    """Hub id (in the local cache) or folder of the BLIP-2 model that --caption blip2 asks."""
    deterministic: bool = False
    """PrimeDepth: add no noise at all. Default: noise that follows from --seed and the image's name."""
    resolution: int | None = None
    """Longer side while processing, in pixels; 0: the image's own. Default: the model's (768 for published ones)."""
    official_geometry: bool = False
    """The authors' own geometry (parity), of Lotus, Marigold and PrimeDepth: no padding; with Lotus nearest-neighbour
    back to the image's size."""
    tiled_vae: bool = False
    """Run the autoencoder in tiles: less memory on large images."""
    compile: bool = False
    """torch.compile the network: the first image of each size takes minutes, the others less time."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N."""
    precision: Precision = "auto"
    """auto is bfloat16 on a GPU and float32 on the CPU."""
    seed: int = 0
    """Fixes every result; an image's noise derives from it and the image's name."""
    ensemble: int = 1
    """Predictions an image, aligned and reduced (generative models)."""
    ensemble_with: str | None = None
    """Average with a second model (name, hub id or folder), fitted to the first by a robust scale and shift."""
    ensemble_space: Literal["depth", "disparity"] | None = None
    """Where the two are fitted and averaged; default: the space of the one that is affine-invariant."""
    batch_size: int = 1
    """Images of equal size a batch."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""

    def of_another(self, model: str) -> ModelConfig:
        """Another model by its own defaults, with only what says where and how networks run taken over."""
        same = ("device", "precision", "tiled_vae", "compile")
        return ModelConfig(model, **{name: getattr(self, name) for name in same})


@dataclass(frozen=True)
class PredictConfig:
    """Depth, disparity or normals of images, folders of images, and videos."""

    inputs: tyro.conf.Positional[tuple[Path, ...]]
    """Images, folders (searched with their sub-folders) and videos."""
    out: Path = Path("out")
    """Folder for the results; made where missing."""
    formats: tuple[Format, ...] = ("png", "npy", "colour")
    """What to write: png (16 bit), npy, npz, colour (a picture), ply (point cloud)."""
    tile: int = 0
    """Predict images larger than this in tiles of this many pixels, at full resolution; 0: whole."""
    intrinsics: tuple[float, float, float, float] | None = None
    """fx fy cx cy in pixels, for the point cloud."""
    fov: float = 60.0
    """Horizontal field of view in degrees, assumed for the point cloud where there are no intrinsics."""
    near: float = 1.0
    """Distance that the nearest point of an affine-invariant prediction gets in the point cloud."""
    far: float = 10.0
    """And the farthest."""
    lidar: Path | None = None
    """Metres: fit to known points of the picture, u,v,depth rows in .csv, .npy or .npz, or a sparse 16-bit depth PNG as
    KITTI's; for several pictures a folder of such files under the pictures' names."""
    distances: tuple[str, ...] = ()
    """Metres: fit to two or more distances typed as u,v,metres (column, row, planar depth), for one picture."""
    max_depth: float = 250.0
    """Pixels with a metric depth beyond this have none."""
    frames: Literal["shared", "independent", "previous"] = "shared"
    """Noise of a video's frames (generative models): one for all, each its own, or one for all and a start from the
    last frame's latents."""
    frame_level: float | None = None
    """Level (0 to 999) at which --frames previous starts; default: the first of the run that leaves a signal."""
    align_frames: bool = False
    """Fit every frame of a video to the one before by a robust scale and shift."""
    overwrite: bool = False
    """Replace results that are there already."""
    settings: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure a model on a depth benchmark in its archive layout, or on held-out procedural scenes."""

    dataset: tyro.conf.Positional[DepthSet]
    """nyuv2, kitti, eth3d, scannet, diode: Marigold's evaluation archives. scenes: needs no data."""
    data: Path | None = None
    """Folder of the archives (it holds nyuv2/, kitti/, ...), or of the extracted files."""
    list_file: Path | None = None
    """List of samples, where it does not lie beside the archive."""
    out: Path = Path("runs/evaluate")
    """Run folder: metrics, per-image rows, report.html."""
    compat: Literal["priorscope", "lotus", "marigold"] = "priorscope"
    """Whose deviations from the plain protocol to reproduce."""
    alignments: tuple[Literal["depth", "disparity"], ...] = ("depth", "disparity")
    """Spaces to align in; an affine-invariant prediction is defined in its own only, a metric one in both."""
    kitti_region: Literal["eigen", "garg"] = "eigen"
    """Part of a KITTI image that counts."""
    baselines: bool = True
    """Also score the best constant and the best plane, both fitted to the truth."""
    compare: tuple[str, ...] = ()
    """Further models whose rows stand beside this one's in the spaces they have: depth-anything-v2-small, depthpro."""
    limit: int = 0
    """Only the first so many images, for a quick look; 0: all. For scenes: how many (default 200)."""
    resume: bool = False
    """Go on with a run that was cut off."""
    settings: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)


@dataclass(frozen=True)
class EvaluateNormalsConfig:
    """Measure a normals model on a set of DSINE's evaluation archive."""

    dataset: tyro.conf.Positional[NormalsSet]
    data: Path = Path("dsine_eval")
    """dsine_eval.zip, or the folder that holds it or its contents."""
    out: Path = Path("runs/evaluate-normals")
    """Run folder: metrics, per-image rows, report.html."""
    compat: Literal["priorscope", "lotus", "marigold"] = "priorscope"
    """Whose deviations from the plain protocol to reproduce."""
    pooling: Literal["pixels", "images"] = "pixels"
    """Pool errors over all pixels of the set (DSINE, Lotus) or average figures of images (Marigold)."""
    limit: int = 0
    """Only the first so many images; 0: all."""
    resume: bool = False
    """Go on with a run that was cut off."""
    settings: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)


@dataclass(frozen=True)
class TrainConfig:
    """Train a depth or normals model: on your own pairs, on Hypersim and Virtual KITTI 2, or on procedural scenes."""

    out: Path = Path("runs/train")
    """Run folder; the model is out/model, what to look at is out/report.html."""
    model: str = "tiny-depth"
    """What to start from: a name in the model table, hub id or folder of a depth model, or of Stable Diffusion 2; or
    `new`, a small network with random weights."""
    recipe: Literal["auto", "pixels", "lotus", "marigold", "e2e-ft"] = "auto"
    """auto: what the model's authors do; for our small models pixels, the evaluation's own error made smooth."""
    family: Literal["lotus-g", "lotus-d", "marigold", "e2e-ft", "e2e-ft-sd"] | None = None
    """What `new` or Stable Diffusion becomes (lotus-d), or the family of a folder whose name does not tell."""
    task: Literal["depth", "normals"] | None = None
    """Likewise (depth)."""
    space: Literal["depth", "disparity"] | None = None
    """Likewise (disparity for Lotus, else depth)."""
    posterior: Literal["mode", "sample"] | None = None
    """How images are encoded while training; default: as the authors do."""
    pairs: tuple[Path, ...] = ()
    """Folders of your own images with depth."""
    hypersim: Path | None = None
    """Folder of Hypersim in its public layout."""
    vkitti: Path | None = None
    """Folder of Virtual KITTI 2 in its public layout."""
    scenes: Path | None = None
    """Folder of rendered scenes (`priorscope depth scenes`)."""
    stream: int = 0
    """So many procedural scenes, rendered when they are needed (give --workers)."""
    shares: tuple[float, ...] = ()
    """How often a batch comes from each of the sets, in the order above (Lotus: 0.9 Hypersim, 0.1 VKITTI)."""
    depth_scale: float = 0.001
    """Metres a unit of 16-bit PNG depth in --pairs."""
    pairs_disparity: bool = False
    """The maps in --pairs hold disparity (1/m), not depth."""
    pairs_normals_x: Literal["right", "left"] = "right"
    """Where the x axis of normals in --pairs points; y is up, z towards the viewer."""
    views: Literal["auto", "random", "published"] = "auto"
    """random: crops, mirroring, colours; published: each set's own transform. auto: published for Hypersim and VKITTI
    with a published recipe, else random."""
    size: int = 0
    """Longer side of random views, and what the model will process, in pixels; 0: the model's own resolution."""
    norm: Literal["auto", "instnorm", "truncnorm", "perscene", "disparity", "trunc_disparity"] = "auto"
    """How metric depth becomes what is painted; auto: trunc_disparity or truncnorm, by the model's space."""
    detail: float = 1.0
    """Weight of Lotus' detail preserver; 0 switches it off."""
    held_out: int = 32
    """Pairs kept out of training to look at (of --pairs at most a tenth); 0: none."""
    save_float32: bool = False
    """Save the weights in float32 rather than float16."""
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(default_factory=LoopConfig)


@dataclass(frozen=True)
class ScenesConfig:
    """Render procedural scenes with exact depth and normals into a folder of shards."""

    out: Path = Path("runs/scenes")
    """Folder; whole shards that are there already are kept."""
    count: int = 1000
    """How many."""
    first_seed: int = 0
    """Seed of the first; scenes from 1000000000 on are held out."""
    height: int = 192
    width: int = 256
    workers: int = 1
    """Processes."""


@dataclass(frozen=True)
class DemoConfig:
    """Depth of a real photograph whose true depth is known, with a report to look at."""

    out: Path = Path("runs/demo")
    """Run folder; replaced if a demo made it."""
    model: str = "tiny-depth"
    """Name in the model table, hub id or folder."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N."""
    scenes: int = 24
    """Held-out procedural scenes to measure on as well; 0: none."""
