"""A convolutional network from the crop's pixels to heatmaps: what SDPose is measured against.

Crops, codec, head, loss and decoding are SDPose's; what differs is that the features come from residual convolutions
that nobody has pretrained.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from priorscope.backbones.loading import read_config
from priorscope.backbones.residual import ResidualBlock
from priorscope.backbones.state_dict import filled, read_safetensors
from priorscope.data.weights_file import save_file
from priorscope.errors import InputError
from priorscope_pose.geometry.flip import merge_flip
from priorscope_pose.sdpose.head import HeatmapHead
from priorscope_pose.sdpose.settings import FILE, PoseSettings
from priorscope_pose.skeletons import skeleton as find_skeleton

FAMILY = "conv-pose"
_WEIGHTS = "model.safetensors"
#: Channels at 1/4, 1/8 and 1/16 of the crop: about as many weights as SDPose's networks of these names.
SIZES: dict[str, tuple[int, ...]] = {"tiny": (40, 64, 104), "mini": (48, 96, 152), "small": (56, 112, 176, 224)}


class ConvPoseNetwork(nn.Module):
    """Residual blocks on ever smaller maps, then back to 1/4 of the crop, then SDPose's head.

    Parameters
    ----------
    settings : PoseSettings
        Of which ``tap`` and the tasks say nothing here.
    widths : sequence of int
        Channels at 1/4, 1/8, ... of the crop; multiples of 8.
    blocks : int
        Residual blocks a level, on the way down and on the way up.

    Raises
    ------
    InputError
        Sizes that do not divide, or heatmaps of another size than half of the crop.
    """

    def __init__(self, settings: PoseSettings, widths: Sequence[int] = SIZES["mini"], blocks: int = 1) -> None:
        super().__init__()
        unit = 4 * 2 ** (len(widths) - 1)
        if any(side % unit for side in settings.input_size):
            raise InputError(f"crops of {settings.input_size}", remedy=f"Take multiples of {unit}.")
        if settings.heatmap_size != (settings.input_size[0] // 2, settings.input_size[1] // 2):
            raise InputError(f"heatmaps of {settings.heatmap_size} for crops of {settings.input_size}")
        if any(width % 8 or width < 8 for width in widths):
            raise InputError(f"widths {list(widths)}", remedy="Use multiples of 8.")
        self.settings, self.widths, self.blocks = settings, tuple(widths), blocks
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0] // 2, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(widths[0] // 2, widths[0], 3, stride=2, padding=1),
        )
        self.down = nn.ModuleList(_blocks(width, blocks) for width in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(one, two, 3, stride=2, padding=1) for one, two in pairwise(widths))
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose2d(two, one, 4, stride=2, padding=1) for one, two in pairwise(widths)
        )
        self.up = nn.ModuleList(_blocks(width, blocks) for width in widths[:-1])
        self.head = HeatmapHead(widths[0], len(find_skeleton(settings.skeleton)))

    @classmethod
    def new(
        cls,
        size: str = "mini",
        *,
        skeleton: str = "coco",
        input_size: tuple[int, int] = (96, 128),
        sigma: float | None = None,
        seed: int = 0,
    ) -> ConvPoseNetwork:
        """A network with new weights; arguments as for :func:`priorscope_pose.sdpose.small.new_model`."""
        if size not in SIZES:
            raise InputError(f"size {size!r}", remedy=f"There are {', '.join(SIZES)}.")
        heatmap = (input_size[0] // 2, input_size[1] // 2)
        settings = PoseSettings(skeleton, "", input_size, heatmap, heatmap[0] / 32 if sigma is None else sigma)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(settings, SIZES[size])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Heatmaps (B, K, H / 2, W / 2), float32, of crops (B, 3, H, W) in [-1, 1]."""
        x = self.stem(images)
        kept = []
        for level, blocks in enumerate(self.down):
            x = blocks(x)
            if level < len(self.shrink):
                kept.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.enlarge))):
            x = self.up[level](self.enlarge[level](x) + kept[level])
        return self.head(x)

    def heatmaps(
        self, images: torch.Tensor, *, flip_indices: Sequence[int] | None = None, **_ignored: Any
    ) -> torch.Tensor:
        """As :meth:`priorscope_pose.sdpose.network.SDPoseNetwork.heatmaps`; there is no posterior to sample from."""
        width, height = self.settings.input_size
        if images.ndim != 4 or images.shape[1:] != (3, height, width):
            raise InputError(f"crops of shape {tuple(images.shape)}; this model takes (B, 3, {height}, {width})")
        if flip_indices is None:
            return self(images)
        straight, mirrored = self(torch.cat([images, images.flip(-1)])).chunk(2)
        return merge_flip(straight, mirrored, flip_indices)

    def save(self, folder: str | Path) -> Path:
        """Write ``priorscope.json`` and ``model.safetensors`` into a folder that must not exist."""
        folder = Path(folder)
        folder.mkdir(parents=True)
        weights = {name: value.detach().float().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, folder / _WEIGHTS)
        content = {"family": FAMILY, "widths": self.widths, "blocks": self.blocks, "settings": asdict(self.settings)}
        (folder / FILE).write_text(json.dumps(content, indent=2) + "\n")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> ConvPoseNetwork:
        """Read what :meth:`save` wrote: on the CPU, in evaluation mode, without gradients.

        Raises
        ------
        InputError
            Another family, or weights that do not fit.
        """
        folder = Path(folder)
        content = read_config(folder, FILE)
        if content.get("family") != FAMILY:
            raise InputError("does not describe a conv network", path=folder / FILE)
        try:
            stated: dict[str, Any] = {
                key: tuple(v) if isinstance(v, list) else v for key, v in content["settings"].items()
            }
            network = cls(PoseSettings(**stated), content["widths"], content["blocks"])
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"has settings that are not understood ({error})", path=folder / FILE) from None
        return filled(network, read_safetensors(folder / _WEIGHTS), folder / _WEIGHTS)


def is_conv_folder(source: str | Path) -> bool:
    """Whether a model is a folder that :meth:`ConvPoseNetwork.save` wrote."""
    folder = Path(source).expanduser()
    return (folder / FILE).is_file() and read_config(folder, FILE).get("family") == FAMILY


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))
