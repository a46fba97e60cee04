"""NCSNv2 as the joint-diffusion family uses it: residual blocks at full resolution, refined from coarse to fine.

The published network accepts a flag for downsampling and ignores it; what grows with depth is the dilation only. It is
told no noise level: its output is divided by the level's standard deviation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.schedule import Schedule
from priorscope.errors import InputError


class NCSNv2(ModelMixin, ConfigMixin):
    """The score network, times minus the noise's standard deviation: it estimates what :func:`ncsnv2_denoiser` asks.

    Parameters
    ----------
    image_channels : int
    channels : int
        Width of the first blocks; the others have twice as many.
    kernel_size : int
        Of the residual blocks. Even sizes pad one pixel less before than after, as Keras does.

    Source: Song and Ermon 2020 (improved techniques for training score-based models); tristan-deep/joint-diffusion.
    """

    @register_to_config
    def __init__(self, image_channels: int = 1, channels: int = 64, kernel_size: int = 3) -> None:
        super().__init__()
        if min(image_channels, channels, kernel_size) < 1:
            raise InputError(f"NCSNv2 of {image_channels} and {channels} channels, kernels of {kernel_size}")
        narrow, wide, k = channels, 2 * channels, kernel_size
        self.begin = _Conv(image_channels, narrow, 3, bias=True)
        self.blocks = nn.ModuleList(
            [
                _Residual(narrow, narrow, k),
                _Residual(narrow, narrow, k),
                _Residual(narrow, wide, k),
                _Residual(wide, wide, k),
                _Residual(wide, wide, k, dilation=2),
                _Residual(wide, wide, k, dilation=2),
                _Residual(wide, wide, k, dilation=4),
                _Residual(wide, wide, k, dilation=4),
            ]
        )
        self.refine = nn.ModuleList(
            [
                _Refine([wide], wide),
                _Refine([wide, wide], wide),
                _Refine([wide, wide], wide),
                _Refine([narrow, wide], narrow, last=True),
            ]
        )
        self.norm = _norm(narrow)
        self.end = _Conv(narrow, image_channels, 3, bias=True)

    def forward(self, x: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """``x`` (B, image_channels, H, W) of any size to the same shape; ``label`` is not used."""
        h = functional.relu(self.begin(x))
        levels = []
        for index, block in enumerate(self.blocks):
            h = block(h)
            if index % 2:
                levels.append(h)
        h = self.refine[0]([levels[3]])
        for refine, level in zip(list(self.refine)[1:], levels[2::-1], strict=True):
            h = refine([level, h])
        return self.end(functional.relu(self.norm(h)))


def ncsnv2_denoiser(network: NCSNv2, schedule: Schedule) -> Denoiser:
    """The network on a variance-exploding schedule: score = network(x) / sigma, so eps = -network(x)."""
    return Denoiser(lambda x, label: -network(x), schedule)


def load_keras_weights(network: NCSNv2, arrays: Mapping[str, Any]) -> None:
    """Fill ``network`` with the published network's weights.

    Parameters
    ----------
    arrays : mapping of str to array
        By Keras' path (``sequential_231/conv2d_231/kernel``), kernels as (height, width, in, out). Their numbers say
        in which order the layers were made, which is this network's; the order of a file is another.

    Raises
    ------
    InputError
        Too many or too few arrays, or one of another shape.
    """
    convolutions = _sorted(arrays, "conv2d")
    norms = _sorted(arrays, "batch_normalization")
    own: dict[str, torch.Tensor] = {}
    modules = dict(network.named_modules())
    plain = [name for name, module in modules.items() if isinstance(module, nn.Conv2d)]
    normed = [name for name, module in modules.items() if isinstance(module, nn.BatchNorm2d)]
    if len(convolutions) != len(plain) or len(norms) != len(normed):
        raise InputError(
            f"{len(convolutions)} convolutions and {len(norms)} normalisations, NCSNv2 has {len(plain)} and "
            f"{len(normed)}",
            remedy="Are these the weights of this network?",
        )
    for name, layer in zip(plain, convolutions, strict=True):
        own[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(np.transpose(layer["kernel"], (3, 2, 0, 1))))
        if "bias" in layer:
            own[f"{name}.bias"] = torch.from_numpy(np.array(layer["bias"]))
    for name, layer in zip(normed, norms, strict=True):
        for ours, theirs in _NORM.items():
            own[f"{name}.{ours}"] = torch.from_numpy(np.array(layer[theirs]))
    expected = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    wrong = [
        f"{key} {tuple(own[key].shape) if key in own else 'missing'} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key not in own or own[key].shape != value.shape
    ] + [f"{key} too many" for key in own if key not in expected]
    if wrong:
        raise InputError(
            f"{len(wrong)} weights do not fit, the first: {wrong[0]}", remedy="Check channels and kernel_size."
        )
    network.load_state_dict(own, strict=False)


_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def _sorted(arrays: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """The layers of a kind, by their number: {"kernel": ..., "bias": ...}."""
    layers: dict[int, dict[str, Any]] = {}
    for path, value in arrays.items():
        found = re.search(rf"(?:^|[/|]){kind}(?:_(\d+))?[/|](\w+)$", path)
        if found:
            layers.setdefault(int(found[1] or 0), {})[found[2]] = value
    return [layers[number] for number in sorted(layers)]


class _Conv(nn.Conv2d):
    """A convolution of stride 1 with Keras' "same" padding."""

    def __init__(self, inside: int, outside: int, size: int, *, dilation: int = 1, bias: bool = False) -> None:
        super().__init__(inside, outside, size, dilation=dilation, bias=bias)
        total = dilation * (size - 1)
        self.around = (total // 2, total - total // 2) * 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.pad(x, self.around))


class _Residual(nn.Module):
    """Twice convolution, normalisation, ReLU; plus the input, which a convolution brings to width and dilation."""

    def __init__(self, inside: int, outside: int, size: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.conv_0 = _Conv(inside, outside, size, dilation=dilation)
        self.norm_0 = _norm(outside)
        self.conv_1 = _Conv(outside, outside, size, dilation=dilation)
        self.norm_1 = _norm(outside)
        self.shortcut: nn.Module
        if inside != outside:
            self.shortcut = _Conv(inside, outside, 1)
        else:
            self.shortcut = _Conv(inside, outside, 3, dilation=dilation) if dilation > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = functional.relu(self.norm_0(self.conv_0(x)))
        return functional.relu(self.norm_1(self.conv_1(h))) + self.shortcut(x)


class _Units(nn.Module):
    """x + ReLU(conv(ReLU(conv(x)))), several times."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_Conv(channels, channels, 3) for _ in range(2 * count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for first, second in zip(self.convs[::2], self.convs[1::2], strict=True):
            x = x + functional.relu(second(functional.relu(first(x))))
        return x


class _Refine(nn.Module):
    """Adapt each input, add them, pool what lies around, and adapt again."""

    def __init__(self, inputs: Sequence[int], channels: int, *, last: bool = False) -> None:
        super().__init__()
        self.adapt = nn.ModuleList(_Units(width, 2) for width in inputs)
        self.fuse = nn.ModuleList(_Conv(width, channels, 3, bias=True) for width in inputs if len(inputs) > 1)
        self.pool = nn.ModuleList(_Conv(channels, channels, 3) for _ in range(2))
        self.finish = _Units(channels, 3 if last else 1)

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        adapted = [units(x) for units, x in zip(self.adapt, inputs, strict=True)]
        h = adapted[0]
        if len(adapted) > 1:
            h = self.fuse[0](adapted[0]) + self.fuse[1](adapted[1])
        total = h
        for conv in self.pool:
            h = functional.max_pool2d(functional.relu(conv(h)), 5, 1, 2)
            total = total + h
        return self.finish(total)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
