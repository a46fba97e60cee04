"""The six combinations of a fuser and a head."""

from __future__ import annotations

from priorscope_remote_sensing.decoder import Decoder, DecoderConfig
from priorscope_remote_sensing.fusers import ExpertFuser, GlobalFuser, LocalFuser
from priorscope_remote_sensing.heads import Classifier
from priorscope_remote_sensing.upernet import UPerNet


class GlobalClassifier(GlobalFuser, Classifier):
    """Global weights, classification."""


class GlobalSegmenter(GlobalFuser, UPerNet):
    """Global weights, segmentation."""


class LocalClassifier(LocalFuser, Classifier):
    """Localised weights, classification."""


class LocalSegmenter(LocalFuser, UPerNet):
    """Localised weights, segmentation."""


class ExpertClassifier(ExpertFuser, Classifier):
    """Mixture of experts, classification."""


class ExpertSegmenter(ExpertFuser, UPerNet):
    """Mixture of experts, segmentation."""


_DECODERS: dict[tuple[str, str], type[Decoder]] = {
    ("gw", "classification"): GlobalClassifier,
    ("gw", "segmentation"): GlobalSegmenter,
    ("lw", "classification"): LocalClassifier,
    ("lw", "segmentation"): LocalSegmenter,
    ("moe", "classification"): ExpertClassifier,
    ("moe", "segmentation"): ExpertSegmenter,
}


def build_decoder(config: DecoderConfig) -> Decoder:
    """The decoder that ``config`` describes, with fresh weights."""
    return _DECODERS[config.fuser, config.head](config)
