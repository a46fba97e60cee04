"""Published keys and shapes of DiffusionSat's U-Net and of the six decoders. Nothing is allocated: meta device."""

from __future__ import annotations

import re

import pytest
import torch

from priorscope.backbones import SD2_UNET
from priorscope_remote_sensing.decoder import DecoderConfig
from priorscope_remote_sensing.models import build_decoder
from priorscope_remote_sensing.satunet import SatUNet

#: Millions of parameters, specs/features.md 1 and 2.
PARAMETERS = {"satunet": 880.3, "gw_seg": 40.0, "lw_seg": 40.0, "gw_cls": 10.9, "moe_seg": 100.6, "moe_cls": 71.5}
#: Manifests that core/features checks.
OF_CORE = {"hyperfeatures-aggregation", "readout-spatial"}


@pytest.fixture
def read_shapes():
    """These manifests write a shape as 384x320x1x1, and that of a scalar as nothing."""

    def read(path):
        rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
        return {key: [int(side) for side in shape.split("x") if side] for key, shape, _ in rows}

    return read


def test_golden_manifest_features(golden_files, read_shapes):
    manifests = {path.stem.removeprefix("manifest-"): path for path in golden_files("features", "manifest-*")}
    for name, path in manifests.items():
        if name in OF_CORE:
            continue
        expected = read_shapes(path)
        with torch.device("meta"):
            if name == "diffusionsat-satunet":
                module, key = SatUNet(**SD2_UNET), "satunet"
            else:
                match = re.fullmatch(r"satdifuser-((gw|lw|moe)_(cls|seg))", name)
                assert match is not None, f"{name} is checked nowhere"
                key = match[1]
                head = {"cls": "classification", "seg": "segmentation"}[match[3]]
                classes = expected["decoder_head.2.bias" if match[3] == "cls" else "conv_seg.bias"][0]
                module = build_decoder(DecoderConfig(match[2], head, classes))
        assert {k: list(value.shape) for k, value in module.state_dict().items()} == expected, name
        count = sum(parameter.numel() for parameter in module.parameters()) / 1e6
        assert count == pytest.approx(PARAMETERS.get(key, count), abs=0.051), name
