"""Codecs of bird's-eye-view features: the published compressor, and ours whose latent has mean 0 and variance 1."""

from __future__ import annotations

import torch
from torch import nn


class NaiveCompressor(nn.Module):
    """OpenCOOD's compressor: one convolution down to ``width / ratio`` channels, two back up.

    Keys are those of OpenCOOD's ``NaiveCompressor``. CoDiff uses one that was not published; from its shapes it is this
    encoder and this decoder apart.
    """

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        code = width // ratio
        self.encoder = nn.Sequential(nn.Conv2d(width, code, 3, 1, 1), nn.BatchNorm2d(code, eps=1e-3, momentum=0.01))
        self.encoder.append(nn.ReLU())
        self.decoder = _decoder(code, width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, width, H, W) through the bottleneck and back."""
        return self.decoder(self.encoder(features))


class FeatureCodec(nn.Module):
    """An autoencoder of features whose latent has zero mean and unit variance a channel (ours).

    The encoder ends in a batch norm without weights where the published one has a ReLU: its running statistics are the
    normalisation, learned with the codec and fixed in evaluation mode. A batch has thousands of cells, so they follow
    quickly (momentum 0.1). The released diffusion works on values of 0 and more as if they were in [0, 1].

    Parameters
    ----------
    width, latent : int
        Channels of the features and of the latent.
    """

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        middle = max(latent, width // 2)
        self.encoder = nn.Sequential(
            nn.Conv2d(width, middle, 3, 1, 1, bias=False),
            nn.BatchNorm2d(middle, eps=1e-3),
            nn.ReLU(),
            nn.Conv2d(middle, latent, 1, bias=False),
            nn.BatchNorm2d(latent, affine=False),
        )
        self.decoder = _decoder(latent, width, momentum=0.1)

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """Latent (B, latent, H, W) of features (B, width, H, W)."""
        return self.encoder(features)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Features of 0 and more (B, width, H, W)."""
        return self.decoder(latent)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Through the bottleneck and back."""
        return self.decode(self.encode(features))


def reconstruction_loss(codec: FeatureCodec, features: torch.Tensor) -> torch.Tensor:
    """Squared error of a codec over the features' own mean square: 1 is what a decoder of zeros has.

    Cells where nothing is seen are most of a map; they count once as a whole and the others once as a whole, where a
    cell counts as seen if its features are larger than their mean over the map.
    """
    error = (codec(features) - features).square().mean(1)
    power = features.square().mean(1)
    seen = power > power.mean((1, 2), keepdim=True)
    total = power.mean().clamp(min=1e-12)
    loss = error.new_zeros(())
    for part in (seen, ~seen):
        loss = loss + torch.where(part, error, 0).sum() / part.sum().clamp(min=1)
    return loss / (2 * total)


def _decoder(code: int, width: int, momentum: float = 0.01) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(code, width, 3, 1, 1),
        nn.BatchNorm2d(width, eps=1e-3, momentum=momentum),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, 1, 1),
        nn.BatchNorm2d(width, eps=1e-3, momentum=momentum),
        nn.ReLU(),
    )
