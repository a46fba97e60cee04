"""What each command can be told. Needs no torch, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from priorscope.training.settings import LoopConfig

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Split = Literal["auto", "train", "valid", "test", "all"]
Keep = Literal["maps", "latents", "none"]


@dataclass(frozen=True)
class DataConfig:
    """Labelled images: a task of GEO-Bench, EuroSAT, or your own rasters with labels."""

    data: str
    """Name of a GEO-Bench task (m-eurosat, ...) or its folder; EuroSAT's folder; a raster or a folder of rasters."""
    root: Path | None = None
    """Folder of GEO-Bench, where GEO_BENCH_DIR does not say it."""
    partition: str = "default"
    """GEO-Bench: all labels, or fewer, such as 0.01x_train."""
    labels: Path | None = None
    """Labels of rasters: a class raster, a folder of them named as the images, or a file of polygons or points."""
    column: str | None = None
    """Column of a vector file that holds the class."""
    layer: str | None = None
    """Layer of a vector file with several."""
    classes: tuple[str, ...] = ()
    """Class rasters: value=name for each class (1=water 2=forest); not needed where the raster names its classes, as
    our maps do. Vector files: the values that count, in order; default all."""
    recipe: str | None = None
    """Band recipe: rgb, sentinel2-rgb, sentinel2-rgb-reflectance, sentinel2. Default: the backbone's or the set's."""
    bands: tuple[str, ...] = ()
    """Instead of a recipe: the bands the model takes, in its order, by name."""
    divisor: float = 1.0
    """With --bands: what stored values are divided by; then they are clipped to 0 ... 1."""
    band_names: tuple[str, ...] = ()
    """Names of the rasters' bands in the files' order, where the files do not tell."""
    crs: str | None = None
    """Projection to read rasters in (EPSG:32633), where they have different ones."""
    patch: int = 64
    """Side of the patches that rasters are cut into, in pixels."""
    least_labelled: float = 0.02
    """Patches with a smaller share of labelled pixels are left out."""
    block: float = 0.0
    """Side of the geographic blocks that are held out whole, in map units; 0: four patches, in a small
    area fewer."""
    test_share: float = 0.3
    """Share of the blocks that is held out."""
    split_seed: int = 0
    """Which blocks (and, where EuroSAT's lists are missing, which images) are held out."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a SatDiFuser decoder on features of a frozen diffusion model."""

    source: Annotated[DataConfig, tyro.conf.arg(name="")]
    out: Path = Path("runs/train")
    """Run folder; the model is out/model, what to look at is out/report.html."""
    backbone: str = "tiny-terrain"
    """Name in the model table (`priorscope models remote-sensing`) or folder of the diffusion model."""
    resolution: Literal[256, 512] = 256
    """Which of DiffusionSat's two models, where the folder holds both."""
    fuser: Literal["gw", "lw", "moe"] = "gw"
    """One weight a tap (gw), weights by position (lw), or a mixture of experts (moe)."""
    mode: Literal["levels", "inversion", "official"] = "levels"
    """levels: three calls of the network an image; inversion: the ten of a DDIM inversion; official: these as
    SatDiFuser's code makes them, every output read as noise."""
    save_steps: tuple[int, ...] = (47, 45, 40)
    """Where features are taken, as steps of a run of 50; 48 is the cleanest."""
    image_size: int = 0
    """Side to which images are enlarged for the backbone, in pixels; 0: the backbone's own."""
    projection: int = 384
    """Channels of the fused maps (a multiple of 4)."""
    head_channels: int = 512
    """Channels of the segmentation head."""
    experts: int = 8
    """Experts a scale (moe)."""
    top_k: int = 2
    """Experts that an image goes through after the warm-up (moe)."""
    dense_steps: int = 100
    """Steps during which all images go through all experts (moe)."""
    balance: float = 0.0
    """Weight of a loss that spreads images over the experts (moe); SatDiFuser has none."""
    use_metadata: bool = False
    """Tell the backbone position, resolution and date of rasters that state them; SatDiFuser does not."""
    augment: bool = False
    """Turn and mirror training images."""
    keep: Keep = "latents"
    """What stays on disk between passes. latents: each image is encoded once, and each pass draws new noise; maps:
    the network runs once an image (20 MB each at 256 px); none: nothing."""
    cache: Path | None = None
    """Where it is kept; default: out/cache."""
    held_out: int = 256
    """At most so many held-out images are looked at; 0: none."""
    patience: int = 0
    """Stop after so many looks without a better one; 0: go on to the end. The best model is kept either way."""
    epochs: int = 0
    """Passes over the training set instead of --steps, an eighth of them warm-up; SatDiFuser's are 40."""
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LoopConfig(
            batch_size=32,
            lr=1e-2,
            lr_final=1e-3,
            warmup=250,
            optimizer="adam",
            weight_decay=0.0,
            clip=0.0,
            ema=0.0,
            validate_every=100,
            checkpoint_every=100,
        )
    )


@dataclass(frozen=True)
class ModelConfig:
    """Which model, and how it is asked."""

    model: Path
    """Model folder, out/model of a training."""
    backbone: str | None = None
    """Where its backbone is, if not where it was when it was trained."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N."""
    precision: Precision = "auto"
    """Of the backbone; auto is bfloat16 on a GPU and float32 on the CPU."""
    batch_size: int = 4
    """Images or tiles a call."""
    seed: int = 0
    """Of the noise, which also depends on each image's content."""


@dataclass(frozen=True)
class PredictConfig:
    """Land-cover maps of whole scenes, or classes of images, by what the model was trained for."""

    inputs: tyro.conf.Positional[tuple[Path, ...]]
    """Rasters or pictures, or folders of them (searched with their sub-folders)."""
    settings: Annotated[ModelConfig, tyro.conf.arg(name="")]
    out: Path = Path("out")
    """Folder for the results; made where missing."""
    band_names: tuple[str, ...] = ()
    """Names of the files' bands in their order, where the files do not tell."""
    crs: str | None = None
    """Write maps in this projection (EPSG:32633); default: the scene's own."""
    tile: int = 0
    """Side of the tiles a scene is mapped in, in pixels; 0: the size of the images the model was trained on."""
    overlap: int = -1
    """Least overlap of neighbouring tiles, over which they are blended; -1: a quarter of a tile."""
    confidence: bool = False
    """Write the probability of the chosen class as well, in per cent."""
    date: str | None = None
    """Date of the images (2018-08-30), for models that are told metadata; default: what a raster states."""
    cloud_cover: float | None = None
    """Cloud cover from 0 to 1, likewise."""
    overwrite: bool = False
    """Replace results that are there already."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure a model on labelled images: SatDiFuser's own figures beside correct ones."""

    source: Annotated[DataConfig, tyro.conf.arg(name="")]
    settings: Annotated[ModelConfig, tyro.conf.arg(name="")]
    split: Split = "auto"
    """Of GEO-Bench and EuroSAT: auto is test. Of rasters: train and test are the blocks of a training with the same
    data options (labels, --patch, --least-labelled, --block, --test-share, --split-seed); auto is all."""
    limit: int = 0
    """Only so many images, drawn from all, for a quick look; 0: all."""
    out: Path = Path("runs/evaluate")
    """Run folder: metrics, per-image rows, report.html."""
    resume: bool = False
    """Go on with a run that was cut off."""


@dataclass(frozen=True)
class DemoConfig:
    """Map a procedural landscape: a head learns from some blocks and maps the others, with a report to look at."""

    out: Path = Path("runs/demo-remote-sensing")
    """Run folder; replaced if a demo made it."""
    size: int = 384
    """Side of the scene, in pixels."""
    seed: int = 0
    """Of the scene, the blocks and the training."""
    steps: int = 250
    """Training steps of the head."""
    control: bool = False
    """Also train the head on the same network with random weights."""
    backbone: str = "tiny-terrain"
    """Name in the model table or folder; one that takes the bands of Sentinel-2."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N."""
