"""Detectors on disk: our folder (config.json and model.safetensors), and CoAlign's directories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from priorscope.backbones.loading import read_config
from priorscope.data.files import writing
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
    if path.suffix == ".pth" or (path / "config.yaml").is_file():
        from priorscope_detection.coalign import load_coalign

        return load_coalign(path)
    if not path.is_dir():
        raise InputError("no such model folder", path=path, remedy="`priorscope models detection` lists names.")
    config = read_config(path)
    if config.pop("kind", None) != KIND:
        raise InputError("is no detector of priorscope", path=path / "config.json")
    found = config_from_plain(_Config, config, path=path / "config.json")
    network = filled(found.network, read_safetensors(path / WEIGHTS), path)
    return Detector(network, found.anchors, found.choice, found.trained_on, str(path))


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """A safetensors file, floating point in float32 (InputError where missing or damaged)."""
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise InputError("is missing", path=path, remedy="Was the download complete?") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot be read: {error}", path=path, remedy="Download it again.") from None
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def filled(spec: DetectorSpec, state: Mapping[str, torch.Tensor], path: Path) -> CollaborativeDetector:
    """A network with these weights, in evaluation mode, without gradients.

    Raises
    ------
    InputError
        A key is missing, unexpected or of another shape; weights that are not finite.
    """
    try:
        with torch.device("meta"):
            network = CollaborativeDetector(spec)
    except InputError as error:
        raise InputError(error.fact, path=path, remedy=error.remedy) from None
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    kinds = {
        "missing": [key for key in wanted if key not in state],
        "unexpected": [key for key in state if key not in wanted],
        "wrongly shaped": [
            f"{key} {tuple(state[key].shape)} instead of {shape}"
            for key, shape in wanted.items()
            if key in state and tuple(state[key].shape) != shape
        ],
        "not finite": [
            key
            for key in wanted
            if key in state and state[key].is_floating_point() and not bool(torch.isfinite(state[key]).all())
        ],
    }
    facts = [
        f"{len(keys)} {kind} ({', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''})"
        for kind, keys in kinds.items()
        if keys
    ]
    if facts:
        raise InputError(f"the weights do not fit: {'; '.join(facts)}", path=path, remedy="Was the download complete?")
    network.load_state_dict(dict(state), assign=True)
    return network.eval().requires_grad_(False)
