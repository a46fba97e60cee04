"""The head of SDPose: a feature map to one heatmap a keypoint, twice the size."""

from __future__ import annotations

import torch
from torch import nn

from priorscope.errors import InputError

#: The five tensors of the published file, in its order.
HEAD_KEYS = (
    "deconv_layers.0.weight",
    "conv_layers.0.weight",
    "conv_layers.0.bias",
    "final_layer.weight",
    "final_layer.bias",
)


class HeatmapHead(nn.Module):
    """Enlarge by 2, mix channels, give heatmaps; each layer but the last followed by instance norm and SiLU.

    The norms have neither weights nor running statistics. So the answer does not depend on the scale of a feature
    channel, but on the whole crop, its black border included: crops must have the size that the model was trained on.
    Weights are those of the published files to the name; mmpose's own head of that name (batch norm, ReLU) fits them
    not. Works in float32 whatever the features are, also under autocast: a heatmap is read to a fraction of a pixel.

    Parameters
    ----------
    channels : int
        Of the feature map: 320 for 17 keypoints, 640 for 133 as published.
    keypoints : int

    Source: SDPose-OOD, ``HeatmapHead`` with ``use_silu``; first weights Normal(0, 0.001), biases 0.
    """

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        if channels < 1 or keypoints < 1:
            raise InputError(f"a head of {channels} channels and {keypoints} keypoints")
        self.deconv_layers = nn.Sequential(
            nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False),
            nn.InstanceNorm2d(channels),
            nn.SiLU(),
        )
        self.conv_layers = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.InstanceNorm2d(channels), nn.SiLU())
        self.final_layer = nn.Conv2d(channels, keypoints, 1)
        for layer in (self.deconv_layers[0], self.conv_layers[0], self.final_layer):
            assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
            nn.init.normal_(layer.weight, std=0.001)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    @property
    def channels(self) -> int:
        """Channels of the feature map that it takes."""
        return self.final_layer.in_channels

    @property
    def keypoints(self) -> int:
        """Heatmaps that it gives."""
        return self.final_layer.out_channels

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Heatmaps of feature maps, for every row of the batch.

        Parameters
        ----------
        features : Tensor (B, C, h, w)

        Returns
        -------
        Tensor (B, K, 2 h, 2 w), float32; no activation: values are unbounded and may be negative.

        Notes
        -----
        The official head takes a tuple of maps and uses its last. Where the official pipeline (``mode=None``) hands
        it a bare tensor, "the last" is the last row of the batch, and all other people are lost. Not copied here.
        """
        if features.ndim != 4 or features.shape[1] != self.channels:
            raise InputError(f"features of shape {tuple(features.shape)} for a head of {self.channels} channels")
        with torch.autocast(features.device.type, enabled=False):
            dtype = self.final_layer.weight.dtype  # float64 in tests
            return self.final_layer(self.conv_layers(self.deconv_layers(features.to(dtype))))

    @classmethod
    def from_state(cls, state: dict[str, torch.Tensor]) -> HeatmapHead:
        """A head with published weights, in float32; its sizes are read off them.

        Raises
        ------
        InputError
            Missing or unexpected keys, or shapes that do not belong together.
        """
        missing = [key for key in HEAD_KEYS if key not in state]
        unexpected = sorted(set(state) - set(HEAD_KEYS))
        if missing or unexpected:
            words = [f"lacks {', '.join(missing)}"] if missing else []
            words += [f"has unexpected {', '.join(unexpected[:3])}"] if unexpected else []
            raise InputError(f"is no SDPose head: it {' and '.join(words)}")
        final = state["final_layer.weight"]
        if final.ndim != 4:
            raise InputError(f"is no SDPose head: final_layer.weight has shape {tuple(final.shape)}")
        head = cls(final.shape[1], final.shape[0])
        try:
            head.load_state_dict({key: value.float() for key, value in state.items()})
        except RuntimeError as error:
            raise InputError(f"is no SDPose head: {' '.join(str(error).split())[:300]}") from None
        return head
