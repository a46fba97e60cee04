"""The spatio-temporal representation learner: features of 2d + 1 frames to those of the key frame."""

from __future__ import annotations

import torch
from torch import nn

from priorscope.errors import InputError
from priorscope_pose.diffpose.backbones import FrameEncoder
from priorscope_pose.diffpose.layers import TransformerLayer, map_of, tokens_of


class SpatioTemporalLearner(nn.Module):
    """A backbone on each frame, then pre-norm transformer layers over the tokens of all frames.

    Parameters
    ----------
    encoder : FrameEncoder
    frames : int
        2 d + 1.
    grid : (int, int)
        Rows and columns of the features.
    width, layers, heads : int
    outside : int
        Channels of the result.

    Notes
    -----
    From the paper: patch embedding, a learnable position embedding for each frame, concatenation over frames, L
    pre-norm layers, an MLP on the layer norm that joins the frames. Ours: a patch is one cell (the result must keep the
    features' grid); the MLP sees, at each cell, the normalised tokens of all frames side by side, has one hidden layer
    of ``width`` and GELU; attention is over all cells of all frames at once.
    """

    def __init__(
        self,
        encoder: FrameEncoder,
        *,
        frames: int,
        grid: tuple[int, int],
        width: int,
        layers: int,
        heads: int,
        outside: int,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.encoder = encoder
        self.patch = nn.Linear(encoder.channels, width)
        self.position = nn.Parameter(torch.empty(frames, grid[0] * grid[1], width))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.layers = nn.ModuleList(TransformerLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.join = nn.Sequential(nn.Linear(frames * width, width), nn.GELU(), nn.Linear(width, outside))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Crops (B, T, 3, H, W) to features (B, outside, H / 16, W / 16).

        Raises
        ------
        InputError
            The number of frames or the size is not what the model is made for.
        """
        count = len(self.position)
        size = tuple(16 * side for side in self.grid)
        if frames.ndim != 5 or frames.shape[1] != count or tuple(frames.shape[-2:]) != size:
            raise InputError(
                f"crops of shape {tuple(frames.shape)} for a model of {count} frames of {size[1]} x {size[0]} pixels"
            )
        seen = self.encoder(frames.flatten(0, 1))
        tokens = self.patch(tokens_of(seen)).unflatten(0, frames.shape[:2])
        tokens = (tokens + self.position).flatten(1, 2)
        for layer in self.layers:
            tokens = layer(tokens)
        # (B, T, N, width) to (B, N, T width)
        joined = self.norm(tokens).unflatten(1, (count, -1)).transpose(1, 2).flatten(2)
        return map_of(self.join(joined), *self.grid)
