"""The detector that a training begins with."""

from __future__ import annotations

from dataclasses import replace

import torch

from priorscope.errors import InputError
from priorscope_detection.checkpoints import Detector
from priorscope_detection.configs import TrainConfig
from priorscope_detection.network.detector import CollaborativeDetector
from priorscope_detection.network.spec import RUN_STAGES, SIZES, DetectorSpec
from priorscope_detection.predictor import find_detector


def start_detector(config: TrainConfig) -> Detector:
    """New, or from ``config.start``; for the codec's stage a detector with attention gets a new CoDiff.

    Raises
    ------
    InputError
        A stage that needs another before it, a range that the network's stride does not divide, an unknown model.
    """
    if config.stage == "detector":
        if config.start:
            detector = find_detector(config.start)
            if detector.spec.fusion == "codiff":
                raise InputError(
                    "a detector with CoDiff cannot go back to stage detector",
                    path=config.start,
                    remedy="Train the one with attention that it came from.",
                )
            _refuse_others(config, detector.spec)
            detector.network.requires_grad_(True)
            return detector
        spec = replace(SIZES[config.size], fusion=config.fusion)
        if config.extent is not None:
            spec = replace(spec, extent=config.extent)
        return Detector(_new(spec, config.loop.seed))
    if not config.start:
        before = {"codec": "a detector with attention", "diffusion": "stage codec"}.get(config.stage, "stage diffusion")
        raise InputError(f"stage {config.stage} starts from {before}", remedy="Name its run folder with --start.")
    detector = find_detector(config.start)
    _refuse_others(config, replace(detector.spec, fusion="attention"))
    if detector.spec.fusion == "codiff":
        if config.stage in RUN_STAGES and not detector.network.codiff.network.out.weight.any():
            raise InputError(
                f"stage {config.stage} starts from a trained diffusion, the one there is as new",
                path=config.start,
                remedy="Train --stage diffusion from it first.",
            )
        return detector
    if config.stage != "codec" or detector.spec.fusion != "attention":
        raise InputError(
            f"stage {config.stage} cannot start from a detector with fusion {detector.spec.fusion}",
            path=config.start,
            remedy="Train one with --fusion attention, then --stage codec from it, then --stage diffusion.",
        )
    network = _new(replace(detector.spec, fusion="codiff"), config.loop.seed)
    network.load_state_dict(network.state_dict() | detector.network.state_dict())
    return replace(detector, network=network)


def _refuse_others(config: TrainConfig, spec: DetectorSpec) -> None:
    """A detector that is started from is what it is: options of a new one must not ask for another (InputError)."""
    if config.fusion != spec.fusion:
        raise InputError(
            f"--fusion {config.fusion}, but the detector there has the fusion {spec.fusion}",
            path=config.start,
            remedy=f"Say --fusion {spec.fusion} to train it on, or leave out --start.",
        )
    size = SIZES[config.size]
    asked = config.size != TrainConfig.size  # the default cannot be told from nothing
    if asked and (size.filters, size.layers, size.cell) != (spec.filters, spec.layers, spec.cell):
        raise InputError(
            f"--size {config.size}, but the detector there has another", path=config.start, remedy="Leave one out."
        )
    if config.extent is not None and config.extent != spec.extent:
        raise InputError(
            f"--extent {config.extent}, but the detector there covers {spec.extent} m",
            path=config.start,
            remedy="Leave one out.",
        )


def _new(spec: DetectorSpec, seed: int) -> CollaborativeDetector:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CollaborativeDetector(spec)
