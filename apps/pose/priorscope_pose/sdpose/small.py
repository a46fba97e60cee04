"""Small SDPose networks with new weights, to be trained here: the published architecture at a hundredth of its size."""

from __future__ import annotations

from typing import Any

import torch

from priorscope.backbones.latents import LatentSpace, PatchSpace
from priorscope.backbones.stable_diffusion import TASK_SWITCHER
from priorscope.errors import InputError
from priorscope_pose.sdpose.head import HeatmapHead
from priorscope_pose.sdpose.network import SDPoseNetwork, tap_channels
from priorscope_pose.sdpose.settings import PoseSettings
from priorscope_pose.skeletons import skeleton as find_skeleton

#: Widths and attention heads of the U-Net's levels, from the largest map to the smallest. Attention at the last only.
#: The head has as many channels as the first number: 16, fewer than keypoints, are for tests, not for learning.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"block_out_channels": (16, 32, 48), "attention_head_dim": (1, 1, 2)},
    "mini": {"block_out_channels": (48, 48, 64), "attention_head_dim": (1, 1, 2)},
    "small": {"block_out_channels": (32, 64, 96, 128), "attention_head_dim": (1, 2, 3, 4)},
}


def new_unet(size: str = "mini", *, channels: int = 48) -> Any:
    """A U-Net of one of :data:`SIZES` with random weights, for latents of ``channels``; also a prior to pretrain.

    It takes a task vector's four sines and cosines as ``class_labels`` and a prompt of width 16, as all of this
    package's networks do, so that what was pretrained as a diffusion model is a start for :func:`new_model`.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    if size not in SIZES:
        raise InputError(f"size {size!r}", remedy=f"There are {', '.join(SIZES)}.")
    sizes = SIZES[size]
    levels = len(sizes["block_out_channels"])
    plain = levels - 1
    return UNet2DConditionModel(
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * plain,
        norm_num_groups=8,
        cross_attention_dim=16,
        use_linear_projection=True,
        **sizes,
        **TASK_SWITCHER,
    )


def new_model(
    size: str = "mini",
    *,
    skeleton: str = "coco",
    input_size: tuple[int, int] = (96, 128),
    tap: str | None = None,
    latents: LatentSpace | None = None,
    unet: Any = None,
    sigma: float | None = None,
    seed: int = 0,
) -> SDPoseNetwork:
    """A network to train.

    Parameters
    ----------
    size : {"tiny", "mini", "small"}
        Of the U-Net (:data:`SIZES`).
    skeleton : str
        Says how many heatmaps there are.
    input_size : tuple of int
        (width, height) of the crops in pixels: multiples of the latent space's factor times 2 for each halving of
        the U-Net, which is 16 for "tiny" and "mini", 32 for "small" with the default space.
    tap : str, optional
        Default: the last up-block, as the published body model; the one before it has more channels at the same
        resolution, as the published whole-body model. The head doubles the resolution of what is tapped.
    latents : LatentSpace, optional
        Default: blocks of 4 x 4 pixels as positions, lossless and without weights.
    unet : UNet2DConditionModel, optional
        A pretrained one instead of ``size``, as :func:`new_unet` makes it; it is trained on, not copied.
    sigma : float, optional
        Of the targets, in heatmap pixels. Default: the published share of the heatmap's width, 1 / 32.
    seed : int
        Of the new weights. The state of torch's generator stays as it was.

    Returns
    -------
    SDPoseNetwork
        On the CPU, in training mode, with gradients.

    Notes
    -----
    The prompt is zeros: there is no text encoder whose empty answer it could be.
    """
    space = PatchSpace(4) if latents is None else latents
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if unet is None:
            unet = new_unet(size, channels=space.channels)
        tap = tap or f"up_blocks.{len(unet.config.block_out_channels) - 1}"
        width = tap_channels(unet, tap)
        if width is None:
            raise InputError(f"tap {tap!r}", remedy="Use up_blocks.N or mid_block.")
        head = HeatmapHead(width, len(find_skeleton(skeleton)))
    halvings = _halvings(unet, tap)
    scale = space.factor * 2**halvings
    heatmap_size = (2 * input_size[0] // scale, 2 * input_size[1] // scale)
    settings = PoseSettings(skeleton, tap, input_size, heatmap_size, heatmap_size[0] / 32 if sigma is None else sigma)
    prompt = torch.zeros(1, 2, unet.config.cross_attention_dim)
    return SDPoseNetwork(unet.train().requires_grad_(True), head, space, prompt, settings)


def _halvings(unet: Any, tap: str) -> int:
    """By how many powers of 2 a tap's map is smaller than the latent: an up-block's output is enlarged already."""
    enlarged = 0 if tap == "mid_block" else min(int(tap.rpartition(".")[2]) + 1, unet.num_upsamplers)
    return int(unet.num_upsamplers) - enlarged
