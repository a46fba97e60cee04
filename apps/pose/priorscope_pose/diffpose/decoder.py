"""The pose decoder: noisy heatmaps look up, at three scales, where in the features to look."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from priorscope_pose.diffpose.layers import ConvNorm, StepEmbedding, TransformerLayer, group_norm, map_of, tokens_of


class Interact(nn.Module):
    """One scale of the lookup: where noisy heatmaps are high, features are read a second time.

    ``A = sigmoid(max over channels of noisy)``, then a convolution of ``concat(A * features, features)``. The half of
    that convolution which does not depend on the noisy heatmaps is :meth:`whole`; it is done once a clip, not once a
    step and a draw (ours; the same numbers).

    Parameters
    ----------
    width : int
        Channels of features, noisy heatmaps and result.
    kernel : int
    lookup : bool
        False joins features and noisy heatmaps plainly, which the paper reports to work badly.
    """

    def __init__(self, width: int, kernel: int, lookup: bool = True) -> None:
        super().__init__()
        self.lookup = lookup
        self.local = nn.Conv2d(width, width, kernel, padding=kernel // 2, bias=False)
        self.whole = nn.Conv2d(width, width, kernel, padding=kernel // 2)

    def forward(self, noisy: torch.Tensor, features: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """All (B, width, H, W); ``whole`` is what :meth:`whole` gave for ``features``."""
        looked = lookup_mask(noisy) * features if self.lookup else noisy
        return self.local(looked) + whole


def lookup_mask(noisy: torch.Tensor) -> torch.Tensor:
    """Where to look, (B, 1, H, W) in (0, 1), from noisy features (B, C, H, W)."""
    return noisy.amax(1, keepdim=True).sigmoid()


class PoseDecoder(nn.Module):
    """Estimate clean heatmaps from noisy ones, given the features of the key frame.

    Parameters
    ----------
    keypoints : int
        K.
    inside : int
        Channels of the features.
    width, heads : int
    grid : (int, int)
        Rows and columns of the features; heatmaps have four times as many.
    interaction : {"lookup", "concat"}

    Notes
    -----
    From the paper: the step's embedding re-scales the noisy heatmaps; features are up-sampled 1, 2, 4 times by
    deconvolutions and noisy heatmaps down-sampled 4, 2, 1 times by convolutions; the coarsest scale has transformers,
    the two finer ones convolutions; the three results are summed at the heatmaps' size, and a 3 x 3 convolution gives
    heatmaps. Ours: noisy heatmaps are first lifted to ``width`` channels by a convolution, where the step's embedding
    gives a factor and an offset a channel; one transformer layer each, with a position embedding; group norm;
    bilinear up-sampling; the bias of the last layer starts at 0.
    """

    def __init__(
        self, keypoints: int, inside: int, *, width: int, heads: int, grid: tuple[int, int], interaction: str = "lookup"
    ) -> None:
        super().__init__()
        self.grid = grid
        lookup = interaction == "lookup"
        # of the features, once a clip
        self.reduce = nn.Sequential(nn.Conv2d(inside, width, 1), group_norm(width))
        self.up = nn.ModuleList(_Deconvolution(width) for _ in range(2))
        # of the noisy heatmaps
        self.step = StepEmbedding(width, 2 * width)
        self.lift = nn.Conv2d(keypoints, width, 3, padding=1)
        self.down = nn.ModuleList(ConvNorm(width, width, 2) for _ in range(2))
        self.position = nn.Parameter(torch.empty(1, width, *grid))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.refine = nn.ModuleList([TransformerLayer(width, heads, 2), _conv(width), _conv(width)])
        # of both
        self.meet = nn.ModuleList(Interact(width, kernel, lookup) for kernel in (1, 3, 3))
        self.coarse = TransformerLayer(width, heads, 2)
        self.fine = nn.ModuleList(nn.Sequential(group_norm(width), nn.ReLU()) for _ in range(2))
        self.head = nn.Conv2d(width, keypoints, 3, padding=1)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def pyramid(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """All that a step needs of the features (B, inside, rows, columns); independent of the noise.

        Returns
        -------
        dict
            ``f1``, ``f2``, ``f3``: features at 1, 2, 4 times the grid; ``w1``, ``w2``, ``w3``: what the second half of
            each interaction makes of them. All (B, width, ...).
        """
        scales = [self.reduce(features)]
        for up in self.up:
            scales.append(up(scales[-1]))
        found = {f"f{place}": value for place, value in enumerate(scales, 1)}
        for place, (meet, value) in enumerate(zip(self.meet, scales, strict=True), 1):
            found[f"w{place}"] = meet.whole(value)  # type: ignore[operator]
        return found

    def forward(self, noisy: torch.Tensor, t: torch.Tensor, **pyramid: torch.Tensor) -> torch.Tensor:
        """Estimated heatmaps.

        Parameters
        ----------
        noisy : Tensor (B, K, 4 rows, 4 columns)
            Of about unit size.
        t : Tensor (B,)
            Noise levels.
        pyramid
            From :meth:`pyramid`.

        Returns
        -------
        Tensor (B, K, 4 rows, 4 columns)
            In heatmap units: about 0 to 1.
        """
        factor, offset = self.step(t)[..., None, None].chunk(2, 1)
        third = functional.relu(self.lift(noisy) * (1 + factor) + offset)
        second = self.down[0](third)
        first = self.down[1](second) + self.position
        first = map_of(self.refine[0](tokens_of(first)), *self.grid)
        second, third = self.refine[1](second), self.refine[2](third)

        met = self.meet[0](first, pyramid["f1"], pyramid["w1"])
        total = _enlarged(map_of(self.coarse(tokens_of(met)), *self.grid), 4)
        total = total + _enlarged(self.fine[0](self.meet[1](second, pyramid["f2"], pyramid["w2"])), 2)
        total = total + self.fine[1](self.meet[2](third, pyramid["f3"], pyramid["w3"]))
        return self.head(total)


def _conv(width: int) -> nn.Conv2d:
    """Nothing behind it: masks must reach from 0 to 1, so what they are made of may have either sign."""
    return nn.Conv2d(width, width, 3, padding=1)


class _Deconvolution(nn.Sequential):
    """Twice the size."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.ConvTranspose2d(width, width, 4, 2, 1, bias=False), group_norm(width), nn.ReLU())


def _enlarged(x: torch.Tensor, factor: int) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
