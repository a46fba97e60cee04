"""What looks at a frame: crops (B, 3, H, W) to features (B, C, H / 16, W / 16)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from priorscope.backbones.loading import load_component, locate
from priorscope.errors import InputError
from priorscope_pose.diffpose.layers import ConvNorm, group_norm, map_of
from priorscope_pose.diffpose.spec import DiffPoseSpec


class FrameEncoder(nn.Module):
    """A backbone; ``channels`` is the C of its features."""

    channels: int

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Crops (B, 3, H, W), normalised by ImageNet's mean and deviation, to (B, C, H / 16, W / 16)."""
        raise NotImplementedError


class ConvEncoder(FrameEncoder):
    """A small residual network (ours), for training on a CPU.

    Parameters
    ----------
    widths : sequence of int
        Four widths, at strides 2, 4, 8 and 16; a residual block follows at the last three.
    """

    def __init__(self, widths: tuple[int, ...] | list[int] = (24, 48, 96, 128)) -> None:
        super().__init__()
        if len(widths) != 4:
            raise InputError(f"{len(widths)} widths of a conv backbone", remedy="Give four, for strides 2, 4, 8, 16.")
        self.channels = widths[-1]
        parts: list[nn.Module] = [ConvNorm(3, widths[0], 2)]
        for inside, outside in pairwise(widths):
            parts += [ConvNorm(inside, outside, 2), _Residual(outside)]
        self.net = nn.Sequential(*parts)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.net(frames)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = ConvNorm(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), group_norm(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(x + self.second(self.first(x)))


class TransformersEncoder(FrameEncoder):
    """A vision transformer of transformers with patches of 16 pixels.

    Parameters
    ----------
    kind : {"vitpose", "vit"}
        ``VitPoseBackbone`` (pretrained on people), or ``ViTModel`` (on ImageNet). Its class token is dropped.
    size : (int, int)
        Width and height of crops.
    settings : mapping
        Changes to the configuration's defaults, which are those of ViT-B.
    """

    def __init__(self, kind: str, size: tuple[int, int], settings: dict[str, Any]) -> None:
        super().__init__()
        width, height = size
        if kind == "vitpose":
            from transformers import VitPoseBackbone, VitPoseBackboneConfig

            count = settings.get("num_hidden_layers", 12)
            config = VitPoseBackboneConfig(image_size=[height, width], out_indices=[count], **settings)
            self.net: nn.Module = VitPoseBackbone(config)
        else:
            from transformers import ViTConfig, ViTModel

            config = ViTConfig(image_size=(height, width), **settings)
            self.net = ViTModel(config, add_pooling_layer=False)
        self.kind = kind
        self.channels = config.hidden_size
        self.grid = (height // 16, width // 16)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        found = self.net(frames)
        tokens = found.feature_maps[-1] if self.kind == "vitpose" else found.last_hidden_state[:, 1:]
        return map_of(tokens, *self.grid)

    def load_pretrained(self, source: str | Path) -> None:
        """Fill the weights from a folder or a cached hub id, such as ``usyd-community/vitpose-base-simple``.

        Position embeddings of another size of crops are interpolated for ``vit``.

        Raises
        ------
        InputError
            It is missing, or does not fit.
        """
        folder = locate(source, ["config.json", "model.safetensors"])
        if self.kind == "vitpose":
            from transformers import VitPoseForPoseEstimation

            state = load_component(VitPoseForPoseEstimation, folder).backbone.state_dict()
        else:
            from transformers import ViTForImageClassification

            state = load_component(ViTForImageClassification, folder).vit.state_dict()
            name = "embeddings.position_embeddings"
            state[name] = _resized(state[name], self.grid)
        wanted = {key: value.shape for key, value in self.net.state_dict().items()}
        if {key: value.shape for key, value in state.items()} != wanted:
            raise InputError(
                f"the weights do not fit a {self.kind} backbone of width {self.channels} and crops of {self.grid[1]} x "
                f"{self.grid[0]} cells",
                path=folder,
                remedy="Give the backbone_settings of that checkpoint.",
            )
        self.net.load_state_dict(state)


def _resized(embedding: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Position embeddings (1, 1 + side^2, C), the first of the class token, for another grid."""
    count = embedding.shape[1] - 1
    if count == grid[0] * grid[1]:
        return embedding
    side = round(count**0.5)
    square = map_of(embedding[:, 1:], side, count // side)
    found = nn.functional.interpolate(square, grid, mode="bicubic", align_corners=False)
    return torch.cat([embedding[:, :1], found.flatten(2).transpose(1, 2)], 1)


def frame_encoder(spec: DiffPoseSpec) -> FrameEncoder:
    """The backbone that ``spec`` names, with fresh weights."""
    settings = dict(spec.backbone_settings)
    try:
        if spec.backbone == "conv":
            return ConvEncoder(**settings)
        return TransformersEncoder(spec.backbone, spec.input_size, settings)
    except TypeError as error:
        raise InputError(f"backbone_settings of {spec.backbone}: {error}") from None
