"""The flip test: what a network said of the mirrored crop, brought back to the crop.

Mirroring swaps left and right twice: in the picture, and in the names of the joints. ``flip_indices[k]`` is the
joint that joint ``k`` becomes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from priorscope.errors import InputError


def flip_back(heatmaps: torch.Tensor, flip_indices: Sequence[int], shift: bool = False) -> torch.Tensor:
    """Heatmaps [N, K, H, W] of mirrored crops as those of the crops.

    Parameters
    ----------
    shift : bool
        Move them one pixel to the right afterwards, the first column staying. Models in the classic convention need
        it (their mirrored pixel ``W - 1 - x`` stands for ``W - x``); unbiased ones (UDP, SDPose) do not.
    """
    indices = _indices(flip_indices, heatmaps.shape[1], heatmaps.device)
    back = heatmaps.flip(-1)[:, indices]
    return torch.cat([back[..., :1], back[..., :-1]], -1) if shift else back


def merge_flip(
    heatmaps: torch.Tensor, mirrored: torch.Tensor, flip_indices: Sequence[int], shift: bool = False
) -> torch.Tensor:
    """Mean of the heatmaps [N, K, H, W] of the crops and of those of the mirrored crops."""
    return (heatmaps + flip_back(mirrored, flip_indices, shift)) * 0.5


def flip_back_combined(heatmaps: torch.Tensor, flip_indices: Sequence[int]) -> torch.Tensor:
    """As :func:`flip_back` for the combined codec's [N, 3 K, H, W]: the x offsets (channels 3 k + 1) change sign."""
    n, channels, h, w = heatmaps.shape
    if channels % 3:
        raise InputError(f"{channels} channels", remedy="A combined target has three a joint: disc, offsets x and y.")
    joints = heatmaps.view(n, channels // 3, 3, h, w)
    back = joints.flip(-1)[:, _indices(flip_indices, channels // 3, heatmaps.device)]
    sign = torch.tensor([1, -1, 1], dtype=heatmaps.dtype, device=heatmaps.device)
    return (back * sign[:, None, None]).view_as(heatmaps)


def flip_coordinates(coordinates: torch.Tensor, flip_indices: Sequence[int], shift: float = 0.0) -> torch.Tensor:
    """Coordinates [N, K, 2] of mirrored crops, as shares (0 to 1) of the crop's size, as those of the crops.

    Parameters
    ----------
    shift : float
        Taken off x afterwards, as a share of the width; mmpose takes one pixel of the input, ``1 / width``.
    """
    indices = _indices(flip_indices, coordinates.shape[1], coordinates.device)
    swapped = coordinates[:, indices]
    return torch.stack([1 - swapped[..., 0] - shift, swapped[..., 1]], -1)


def _indices(flip_indices: Sequence[int], joints: int, device: torch.device) -> torch.Tensor:
    indices = torch.as_tensor(flip_indices, dtype=torch.long)
    if indices.ndim != 1 or not torch.equal(indices.sort().values, torch.arange(joints)):
        raise InputError(
            f"flip indices {indices.tolist()} do not order {joints} joints", remedy="Use those of the skeleton."
        )
    return indices.to(device)
