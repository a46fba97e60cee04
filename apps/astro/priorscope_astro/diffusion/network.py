"""The network: a U-Net on blocks of pixels, whose time embedding also holds what is asked of the galaxy."""

from __future__ import annotations

from typing import Any

import torch

from priorscope.diffusion.schedule import VPSchedule
from priorscope.errors import InputError
from priorscope_astro.conditions.condition import CONDITION_SIZE

#: Widths of the levels, and residual blocks in each, by size. Attention at the last level only. ``mini`` with three
#: bands in blocks of 2 has 1.29 M weights: 2.6 MB as float16.
SIZES: dict[str, tuple[tuple[int, ...], int]] = {
    "tiny": ((16, 32), 1),
    "mini": ((32, 56, 80), 1),
    "small": ((64, 96, 128), 1),
    "base": ((96, 192, 288), 2),
}
#: A cosine schedule whose last level is pure noise, so that nothing of the training images' mean leaks into it.
SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
    "clip_sample": False,
}


def new_unet(size: str = "mini", *, channels: int = 12, seed: int = 0) -> Any:
    """A ``UNet2DConditionModel`` with random weights, fixed by the seed.

    The condition's vector goes through two layers and is added to the embedding of the time (diffusers' class
    embedding of kind ``projection``), which scales and shifts the features of every residual block.

    Parameters
    ----------
    size : str
        One of :data:`SIZES`.
    channels : int
        Bands times pixels of a block.

    Raises
    ------
    InputError
        No such size.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    if size not in SIZES:
        raise InputError(f"size {size!r}", remedy=f"There are {', '.join(SIZES)}.")
    widths, blocks = SIZES[size]
    plain = len(widths) - 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(
            in_channels=channels,
            out_channels=channels,
            block_out_channels=widths,
            layers_per_block=blocks,
            down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
            mid_block_type="UNetMidBlock2D",
            up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
            norm_num_groups=8,
            attention_head_dim=16,
            resnet_time_scale_shift="scale_shift",
            class_embed_type="projection",
            projection_class_embeddings_input_dim=CONDITION_SIZE,
        )


def schedule() -> VPSchedule:
    """The schedule of :data:`SCHEDULER`."""
    return VPSchedule.from_scheduler_config(SCHEDULER)


class AnswersNetwork:
    """Ask a U-Net of :func:`new_unet`: ``network(x, label, answers=...)``, answers (B, 74)."""

    def __init__(self, unet: Any) -> None:
        self.unet = unet

    def __call__(self, x: torch.Tensor, label: torch.Tensor, *, answers: torch.Tensor) -> torch.Tensor:
        dtype = self.unet.dtype  # may be lower than that of the sampled state
        output = self.unet(
            x.to(dtype), label, encoder_hidden_states=None, class_labels=answers.to(dtype), return_dict=False
        )
        return output[0].to(x.dtype)
