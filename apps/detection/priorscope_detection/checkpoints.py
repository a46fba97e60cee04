"""Detectors on disk: our folder (config.json and model.safetensors), and CoAlign's directories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from priorscope.backbones.loading import read_config
from priorscope.backbones.state_dict import filled, read_safetensors
from priorscope.data.files import writing
from priorscope.data.weights_file import save_file
from priorscope.errors import InputError
from priorscope.evaluation.config import config_from_plain, plain
from priorscope_detection.anchors import AnchorGrid, Placement
from priorscope_detection.network.detector import CollaborativeDetector
from priorscope_detection.network.spec import DetectorSpec
from priorscope_detection.post_processing import PostProcessing

WEIGHTS = "model.safetensors"
KIND = "priorscope-detector"


@dataclass(frozen=True)
class AnchorSettings:
    """The anchors of a detector; their range and stride are the detector's.

    Parameters
    ----------
    size : tuple of float
        Length, width, height in metres.
    yaws : tuple of float
        Degrees.
    z : float
        Of their centres, in metres.
    placement : {"cells", "published"}
        See :class:`~priorscope_detection.anchors.AnchorGrid`.
    """

    size: tuple[float, float, float] = (3.9, 1.6, 1.56)
    yaws: tuple[float, ...] = (0.0, 90.0)
    z: float = -1.0
    placement: Placement = "cells"

    def grid(self, spec: DetectorSpec) -> AnchorGrid:
        """The anchors on a detector's map of heads."""
        if len(self.yaws) != spec.anchors:
            raise InputError(f"anchors with yaws {self.yaws} for a detector with {spec.anchors} a cell")
        return AnchorGrid(spec.extent, spec.cell[:2], spec.head_stride, self.size, self.yaws, self.z, self.placement)


@dataclass
class Detector:
    """A network and what its outputs mean.

    Parameters
    ----------
    network : CollaborativeDetector
    anchors : AnchorSettings
    choice : PostProcessing
        How boxes are chosen.
    trained_on : str
        A word on the data.
    source : str
        Where it was read from.
    """

    network: CollaborativeDetector
    anchors: AnchorSettings = field(default_factory=AnchorSettings)
    choice: PostProcessing = field(default_factory=PostProcessing)
    trained_on: str = ""
    source: str = ""

    @property
    def spec(self) -> DetectorSpec:
        """The network's settings."""
        return self.network.spec

    def anchor_boxes(self) -> torch.Tensor:
        """The anchors (H, W, A, 7), float64, as :mod:`priorscope_detection.targets` and the decoding want them."""
        return self.anchors.grid(self.spec).boxes()


@dataclass(frozen=True)
class _Config:
    network: DetectorSpec
    anchors: AnchorSettings
    choice: PostProcessing
    trained_on: str = ""


def save_detector(detector: Detector, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Write a model folder; ``dtype`` is what weights are stored in (running statistics stay in float32)."""
    folder = Path(folder)
    weights = {name for name, _ in detector.network.named_parameters()}
    state = {
        key: value.detach().cpu().to(dtype if key in weights else value.dtype).contiguous()
        for key, value in detector.network.state_dict().items()
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / WEIGHTS, {"format": "pt"})
        config = _Config(detector.spec, detector.anchors, detector.choice, detector.trained_on)
        text = json.dumps({"kind": KIND, **plain(config)}, indent=2)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    return folder


def load_detector(source: str | Path) -> Detector:
    """Read a detector: our folder, or a directory (or one .pth file in it) of CoAlign's.

    Raises
    ------
    InputError
        Nothing there, neither of both, damaged files, or weights that do not fit to the last key.
    """
    path = Path(source).expanduser()
    if (path / "config.yaml").is_file() and (path / "environment.json").is_file():
        raise InputError(
            "is a run folder without a model",
            path=path,
            remedy="A training that was cut off goes on with --resume; an evaluation has no model.",
        )
    if path.suffix == ".pth" or (path / "config.yaml").is_file():
        from priorscope_detection.coalign import load_coalign

        return load_coalign(path)
    if not path.is_dir():
        fact = "is no folder of a model" if path.exists() else "no such model folder"
        raise InputError(fact, path=path, remedy="`priorscope models detection` lists names.")
    if not (path / "config.json").is_file():
        raise InputError(
            "holds no model: neither config.json nor config.yaml",
            path=path,
            remedy="Name a run folder of `priorscope detection train`, its model, or a directory of CoAlign's.",
        )
    config = read_config(path)
    if config.pop("kind", None) != KIND:
        raise InputError("is no detector of priorscope", path=path / "config.json")
    found = config_from_plain(_Config, config, path=path / "config.json")
    network = network_of(found.network, read_safetensors(path / WEIGHTS), path)
    return Detector(network, found.anchors, found.choice, found.trained_on, str(path))


def network_of(spec: DetectorSpec, state: Mapping[str, torch.Tensor], path: Path) -> CollaborativeDetector:
    """A network with these weights, in evaluation mode, without gradients.

    Raises
    ------
    InputError
        Settings that make no sense, or weights that do not fit to the last key.
    """
    try:
        with torch.device("meta"):
            network = CollaborativeDetector(spec)
    except InputError as error:
        raise InputError(error.fact, path=path, remedy=error.remedy) from None
    return filled(network, state, path)
