"""What each command can be told. Needs no torch, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from priorscope.training.settings import LoopConfig
from priorscope_astro.accept_config import AcceptConfig
from priorscope_astro.classifier.command_config import TrainClassifierConfig
from priorscope_astro.demo_config import DemoConfig
from priorscope_astro.evaluation_config import EvaluateConfig
from priorscope_astro.plan_config import PlanConfig
from priorscope_astro.simulator.config import SimulateConfig

__all__ = [
    "DemoConfig",
    "EvaluateConfig",
    "GenerateConfig",
    "PlanConfig",
    "SimulateConfig",
    "TrainClassifierConfig",
    "TrainConfig",
]

CatalogueFormat = Literal["ecsv", "votable", "fits"]


@dataclass(frozen=True)
class TrainConfig:
    """Train a model of galaxies on your own images: a small one of ours, or GalaxySD further."""

    data: tyro.conf.Positional[Path]
    """A simulated survey's folder, flux stamps (.npz, .h5), or galaxies in a public layout: Galaxy Zoo 2's tables and
    JPEGs, Galaxy10 DECaLS (.h5), Zoobot's galaxy-datasets (parquet), pairs of NAME.jpg and NAME.txt (GalaxySD)."""
    method: Literal["diffusion", "galaxysd"] = "diffusion"
    """diffusion: our own pixel model, told vote fractions; galaxysd: Stable Diffusion 1.5 or GalaxySD, told
    captions."""
    mode: Literal["flux", "display"] = "flux"
    """flux: linear flux in float bands, of stamps only; display: 8-bit RGB, from which no flux can be recovered."""
    out: Path = Path("runs/train")
    """Run folder; the model is out/model, what to look at is out/report.html."""
    splits: Path | None = None
    """A table that says which galaxies belong to train, validation and test (`plan` writes one): only train is learnt,
    validation is looked at. Default: a tenth, 256 at most, is held out at random."""
    side: int = 64
    """Pixels of the images. Stamps are cut to it, displays resized (galaxysd: 424 as published)."""
    patch: int | None = None
    """Side of the blocks of pixels that the network takes as one position: 4 is four times as fast and coarser.
    Default: 2, or that of --start."""
    size: str | None = None
    """Of a new network: tiny, mini (1.3 M weights), small or base. Default: mini, or that of --start."""
    start: str = "new"
    """diffusion: new, or the folder or run folder of a model to train further; galaxysd: folder or hub id of what to
    begin with."""
    base: str | None = None
    """galaxysd: Stable Diffusion 1.5, where --start holds HCP-Diffusion's files."""
    question_dropout: float = 0.1
    """Share of the answered questions that are hidden, so that later any part may be asked for."""
    condition_dropout: float = 0.1
    """Share of the galaxies of which nothing is told: what guidance needs. GalaxySD's published training had 0."""
    turn: bool = True
    """Turn and mirror images at random. GalaxySD's published training did not."""
    trained_on: str = ""
    """Words about the data, for the model folder."""
    save_float32: bool = False
    """Save weights as float32 rather than float16."""
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(default_factory=LoopConfig)


@dataclass(frozen=True)
class GenerateConfig:
    """Draw the galaxies of a plan, with a catalogue that says where each came from."""

    plan: tyro.conf.Positional[Path]
    """What `priorscope astro plan` wrote."""
    out: Path = Path("runs/generate")
    """Folder: images/, catalogue.ecsv, and the rows as they come (items.jsonl)."""
    model: str = "galaxysd"
    """One of ours: tiny-galaxies (bundled), a run folder or model folder; or GalaxySD: its name, hub id or folder."""
    base: str | None = None
    """GalaxySD: folder or hub id of Stable Diffusion 1.5, where --model holds HCP-Diffusion's files."""
    splits: Path | None = None
    """The splits that the plan was made with. Default: splits.ecsv beside the plan, where it is there."""
    pool: Path | None = None
    """GalaxySD: folder or .zip of the real galaxies that drawings start from: the plan's references, or, where it names
    none, pictures called by the ids of training galaxies. None of the test split is used."""
    start: Literal["reference", "moments", "noise"] = "reference"
    """GalaxySD: from a noised galaxy of the pool, as published; from noise with the mean and variance of the pool, in
    which no galaxy can be seen; or from noise alone, which gives pictures that are too bright."""
    rescale: Literal["mean", "rms"] = "mean"
    """GalaxySD: what the embedding of a prompt with weights keeps: its mean, as published, which is near 0 and may make
    weights act far more or less than they say; or its root mean square."""
    steps: int | None = None
    """Default: 40 for GalaxySD, as published; 20 for ours."""
    guidance: float | None = None
    """How strongly the condition is followed; 1: as it is. Default: 6.5 for GalaxySD, as published; 1.5 for ours."""
    solver: str | None = None
    """Default: euler-ancestral for GalaxySD, as published; dpmpp-2m for ours."""
    cache: int = 0
    """From 2 on: only every so many steps is computed in full, the rest reuses features (DeepCache)."""
    catalogue: tuple[CatalogueFormat, ...] = ("ecsv",)
    """Formats of the catalogue."""
    fits: Literal["bands", "cube"] = "bands"
    """Of flux: an HDU for each band, or all in one cube."""
    batch_size: int = 4
    """Images a batch. Memory grows with it; results hardly depend on it."""
    limit: int = 0
    """Only the plan's first so many rows; 0: all."""
    accept: AcceptConfig = field(default_factory=AcceptConfig)
    resume: bool = False
    """Go on with a run that was cut off."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto is bfloat16 on a GPU and float32 on the CPU."""
