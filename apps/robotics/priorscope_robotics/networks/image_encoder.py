"""The encoder of camera images: a crop, ResNet-18 with GroupNorm, spatial softmax, a linear layer and ReLU."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from priorscope.errors import InputError

Norm = Literal["group", "batch"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. Norms keep the names bn1, bn2 of the ResNet they come from."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm = "group") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = _norm(outputs, norm)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = _norm(outputs, norm)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), _norm(outputs, norm))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        return self.relu(h + (x if self.downsample is None else self.downsample(x)))


def _norm(channels: int, norm: Norm) -> nn.Module:
    return nn.GroupNorm(channels // 16, channels) if norm == "group" else nn.BatchNorm2d(channels)


def resnet18_trunk(channels: int = 3, norm: Norm = "group") -> nn.Sequential:
    """ResNet-18 without its head: (B, C, H, W) -> (B, 512, H / 32, W / 32). Groups of 16 channels are normalised."""

    def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(BasicBlock(inputs, outputs, stride, norm), BasicBlock(outputs, outputs, 1, norm))

    return nn.Sequential(
        nn.Conv2d(channels, 64, 7, 2, 3, bias=False),
        _norm(64, norm),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        stage(64, 64, 1),
        stage(64, 128, 2),
        stage(128, 256, 2),
        stage(256, 512, 2),
    )


class SpatialSoftmax(nn.Module):
    """Where each of K feature maps has its mass: (B, C, H, W) -> (B, K, 2), x before y, from -1 to 1 inclusive.

    Source: Finn et al. 2016, "Deep spatial autoencoders"; ``robomimic/models/base_nets.py``.
    """

    pos_x: torch.Tensor
    pos_y: torch.Tensor
    temperature: torch.Tensor

    def __init__(self, channels: int, height: int, width: int, keypoints: int = 32) -> None:
        super().__init__()
        self.nets = nn.Conv2d(channels, keypoints, 1)
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        self.register_buffer("temperature", torch.ones(1))
        self.register_buffer("pos_x", x.reshape(1, -1))
        self.register_buffer("pos_y", y.reshape(1, -1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = (self.nets(x).flatten(2) / self.temperature).softmax(-1)
        return torch.stack([(weight * self.pos_x).sum(-1), (weight * self.pos_y).sum(-1)], -1)


class ImageEncoder(nn.Module):
    """A camera image as a vector: (B, C, H, W) -> (B, features), never negative.

    Parameters
    ----------
    shape : (int, int, int)
        C, H, W of what comes in.
    crop : (int, int) or None
        Height and width of the part that is looked at: at random in training, one place for each image, and in the
        middle otherwise. None: all of it.
    features, keypoints : int
    random_crop : bool
        Otherwise the middle is looked at in training too.
    norm : {"group", "batch"}
        "batch" is torchvision's ResNet.
    centre : {"floor", "round"}
        Where the middle crop begins: half the remainder rounded down (robomimic), or to the nearest even number
        (torchvision).
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        crop: tuple[int, int] | None = None,
        *,
        features: int = 64,
        keypoints: int = 32,
        random_crop: bool = True,
        norm: Norm = "group",
        centre: Literal["floor", "round"] = "floor",
    ) -> None:
        super().__init__()
        channels, height, width = shape
        if crop is not None and (crop[0] > height or crop[1] > width):
            raise InputError(f"a crop of {crop[0]} x {crop[1]} from images of {height} x {width}")
        self.shape = (channels, height, width)
        self.crop = crop
        self.random_crop = random_crop
        self.centre = centre
        height, width = crop or (height, width)
        self.backbone = resnet18_trunk(channels, norm)
        self.pool = SpatialSoftmax(512, -(-height // 32), -(-width // 32), keypoints)
        self.out = nn.Linear(2 * keypoints, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if tuple(x.shape[1:]) != self.shape:
            raise InputError(f"images of shape {tuple(x.shape[1:])} for an encoder of {self.shape} (channels first)")
        return self.out(self.pool(self.backbone(self.cropped(x))).flatten(1)).relu()

    def cropped(self, x: torch.Tensor) -> torch.Tensor:
        """The part of (B, C, H, W) that is looked at, (B, C, h, w)."""
        if self.crop is None:
            return x
        free = x.shape[2] - self.crop[0], x.shape[3] - self.crop[1]
        if self.training and self.random_crop:
            tops, lefts = (torch.randint(0, room + 1, (len(x),)).tolist() for room in free)
        else:
            top, left = (round(room / 2) if self.centre == "round" else room // 2 for room in free)
            return x[:, :, top : top + self.crop[0], left : left + self.crop[1]]
        rows = [
            image[:, top : top + self.crop[0], left : left + self.crop[1]]
            for image, top, left in zip(x, tops, lefts, strict=True)
        ]
        return torch.stack(rows)


def encoder_keys(name: str) -> list[tuple[str, str]]:
    """Prefixes of our keys and of robomimic's for the camera ``name``, which Diffusion Policy's files use."""
    ours = f"encoders.{name}."
    theirs = f"obs_encoder.obs_nets.{name}."
    return [
        (f"{ours}backbone.", f"{theirs}backbone.nets."),
        (f"{ours}pool.nets.", f"{theirs}pool.nets."),
        (f"{ours}pool.", f"{theirs}pool."),
        (f"{ours}out.", f"{theirs}nets.3."),
    ]
