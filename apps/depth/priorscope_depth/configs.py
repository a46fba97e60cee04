"""What each command can be told. Needs no torch, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

Device = str
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Format = Literal["png", "npy", "npz", "colour", "ply"]
DepthSet = Literal["nyuv2", "kitti", "eth3d", "scannet", "diode", "scenes"]
NormalsSet = Literal["nyuv2", "scannet", "ibims", "sintel", "oasis"]


@dataclass(frozen=True)
class ModelConfig:
    """Which model, and how it is asked."""

    model: str = "tiny-depth"
    """Name in the model table (`priorscope models`), hub id (owner/name), or folder in diffusers' layout."""
    family: Literal["lotus-g", "lotus-d", "marigold", "e2e-ft", "e2e-ft-sd", "genpercept"] | None = None
    """Family of a folder whose name does not tell."""
    task: Literal["depth", "normals"] | None = None
    """Task of a folder whose name does not tell."""
    space: Literal["depth", "disparity"] | None = None
    """Space of a folder whose name does not tell."""
    steps: int | None = None
    """Solver steps (Marigold); the other families are one-step models."""
    posterior: Literal["mode", "sample"] = "mode"
    """How the image is encoded: deterministic, or sampled as in Lotus' own code."""
    resolution: int | None = None
    """Longer side while processing, in pixels; 0: the image's own. Default: the model's (768 for published ones)."""
    official_geometry: bool = False
    """Lotus' own geometry (parity): no padding, nearest-neighbour back to the image's size."""
    tiled_vae: bool = False
    """Run the autoencoder in tiles: less memory on large images."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N."""
    precision: Precision = "auto"
    """auto is bfloat16 on a GPU and float32 on the CPU."""
    seed: int = 0
    """Fixes every result; an image's noise derives from it and the image's name."""
    ensemble: int = 1
    """Predictions an image, aligned and reduced (generative models)."""
    batch_size: int = 1
    """Images of equal size a batch."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""


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
    """Spaces to align in; an affine-invariant prediction is defined in its own only."""
    kitti_region: Literal["eigen", "garg"] = "eigen"
    """Part of a KITTI image that counts."""
    baselines: bool = True
    """Also score the best constant and the best plane, both fitted to the truth."""
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
    """Train a one-step disparity model on procedural scenes (a first, plain recipe)."""

    out: Path = Path("runs/train")
    """Run folder; the model is out/model."""
    scenes: Path = Path("runs/scenes")
    """Folder of rendered scenes."""
    count: int = 2000
    """Render this many scenes into the folder first (those that are there are kept); 0: take what is there."""
    workers: int = 1
    """Processes that render."""
    model: str | None = None
    """Lotus-D folder or name to fine-tune; default: a small U-Net from random weights."""
    size: int = 256
    """Longer side of the training views, and of what the model will process, in pixels."""
    steps: int = 2000
    """Optimiser steps in all."""
    max_seconds: float = 0.0
    """Stop after this time with a checkpoint; --resume goes on. 0: no limit."""
    batch_size: int = 16
    """Scenes a step."""
    loss: Literal["relative-l1", "mse"] = "relative-l1"
    """On pixels, weighted as AbsRel weighs them; or squared on latents, as Lotus has it."""
    lr: float = 1e-3
    """Highest learning rate of AdamW; warm-up, then a cosine down to 1 %."""
    weight_decay: float = 1e-2
    """Of AdamW."""
    warmup: int = 100
    """Steps of the linear warm-up."""
    ema: float = 0.999
    """Decay of the weights' running average, which is what gets saved."""
    validation: int = 32
    """Held-out scenes to measure on while training; 0: none."""
    validate_every: int = 500
    """Steps."""
    log_every: int = 50
    """Steps."""
    checkpoint_every: int = 500
    """Steps."""
    seed: int = 0
    """Fixes weights, order and augmentation."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N."""
    resume: bool = False
    """Go on with a run that was cut off."""


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
