"""SDPose's network: crops of people to heatmaps, by one pass of a diffusion model's U-Net that ends at a tap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from priorscope.backbones.folding import fold_constants
from priorscope.backbones.latents import LatentSpace, Posterior
from priorscope.backbones.pages import give_back
from priorscope.backbones.stable_diffusion import UNetNetwork, sincos_embedding
from priorscope.diffusion.noise import Noise, required
from priorscope.errors import InputError
from priorscope.features.forward import Tapped
from priorscope_pose.geometry.flip import merge_flip
from priorscope_pose.sdpose.head import HeatmapHead
from priorscope_pose.sdpose.settings import PoseSettings


class SDPoseNetwork(nn.Module):
    """A latent space, a U-Net tapped at one place, and a head on what is seen there.

    No noise is added: the U-Net sees the clean latent of the crop, a fixed level, the empty prompt and the task.

    Parameters
    ----------
    unet : UNet2DConditionModel
        With a class embedding for the task vector (``class_embed_type="projection"``).
    head : HeatmapHead
        In float32, whatever the U-Net's precision.
    latents : LatentSpace
    prompt : Tensor (1, tokens, cross_attention_dim)
        State of the empty prompt: two tokens as published.
    settings : PoseSettings

    Raises
    ------
    InputError
        Parts that do not fit each other, and crop sizes that the U-Net's levels do not divide.
    """

    def __init__(
        self, unet: Any, head: HeatmapHead, latents: LatentSpace, prompt: torch.Tensor, settings: PoseSettings
    ) -> None:
        super().__init__()
        self.unet = unet
        self.head = head
        self.latents = latents
        self.settings = settings
        self.truncated = False
        self.register_buffer("prompt", prompt, persistent=False)
        for name, vector in (("task", settings.task), ("reconstruction_task", settings.reconstruction_task)):
            self.register_buffer(name, sincos_embedding(vector), persistent=False)
        self._tapped = Tapped(unet, settings.tap)
        self._check()

    def _check(self) -> None:
        config, settings = self.unet.config, self.settings
        if config.class_embed_type != "projection":
            raise InputError("an SDPose U-Net needs a class embedding for the task vector")
        if config.in_channels != self.latents.channels:
            raise InputError(f"a U-Net of {config.in_channels} channels on latents of {self.latents.channels}")
        if self.get_buffer("prompt").shape[-1] != config.cross_attention_dim:
            raise InputError(
                f"a prompt state of width {self.get_buffer('prompt').shape[-1]} for a U-Net that takes "
                f"{config.cross_attention_dim}",
                remedy="Is the text encoder that of this U-Net?",
            )
        channels = tap_channels(self.unet, settings.tap)
        if channels is not None and channels != self.head.channels:
            raise InputError(
                f"{settings.tap} of this U-Net has {channels} channels, but the head takes {self.head.channels}",
                remedy="Are U-Net and head those of one model?",
            )
        unit = self.latents.factor * 2**self.unet.num_upsamplers
        if any(side % unit for side in settings.input_size):
            raise InputError(
                f"crops of {settings.input_size[0]} x {settings.input_size[1]}", remedy=f"Take multiples of {unit}."
            )

    def features(self, latents: torch.Tensor) -> torch.Tensor:
        """The tap's map (B, C, h, w), in float32, for clean latents; nothing of the U-Net after the tap runs."""
        if self.truncated:
            return self._ask(latents, self.get_buffer("task")).float()
        _, maps = self._tapped.watch(lambda: self._ask(latents, self.get_buffer("task")))
        return maps[self._tapped.names[0]]

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Heatmaps (B, K, h, w), float32 and unbounded, of latents (B, channels, H / factor, W / factor)."""
        return self.head(self.features(latents))

    def reconstruct(self, latents: torch.Tensor) -> torch.Tensor:
        """The U-Net's own output under the reconstruction task: a latent, for training's auxiliary loss."""
        if getattr(self.unet, "is_folded", False):
            raise InputError("a folded model knows one task only", remedy="Load it with fold=False.")
        return self._ask(latents, self.get_buffer("reconstruction_task"))

    def _ask(self, latents: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        rows = len(latents)
        label = torch.full((rows,), self.settings.label, device=latents.device).long()
        text = self.get_buffer("prompt").expand(rows, -1, -1)
        return UNetNetwork(self.unet)(latents, label, text=text, task=task.expand(rows, -1))

    def encode(
        self, images: torch.Tensor, *, posterior: Posterior = "mode", noise: Noise | None = None, draws: int = 1
    ) -> torch.Tensor:
        """Scaled latents of images.

        Parameters
        ----------
        images : Tensor (draws * B, 3, H, W) in [-1, 1]
        posterior : {"mode", "sample"}
            The mode is deterministic; "sample" is what the official code does.
        noise : Noise, optional
            For "sample": asked for B rows, ``draws`` times.
        draws : int
            Parts of the batch that draw one after the other: 2 for a batch and its mirror images.
        """
        if posterior == "mode":
            return self.latents.encode(images)
        if posterior != "sample":
            raise InputError(f"posterior {posterior!r}", remedy="Use 'mode' or 'sample'.")
        source = required(noise)
        found = self.latents.posterior(images)
        drawn = [source.like(part) for part in found.mean.chunk(draws)]
        return found.mean + found.std * torch.cat(drawn)

    def heatmaps(
        self,
        images: torch.Tensor,
        *,
        flip_indices: Sequence[int] | None = None,
        posterior: Posterior = "mode",
        noise: Noise | None = None,
    ) -> torch.Tensor:
        """Heatmaps of crops.

        Parameters
        ----------
        images : Tensor (B, 3, H, W) in [-1, 1], RGB
            Of ``settings.input_size``.
        flip_indices : sequence of int, optional
            Those of the skeleton: what each keypoint becomes in a mirror. Asks for the flip test, whose result is
            the mean over the image and its mirror image; both go through the network in one batch of 2 B.
        posterior, noise
            As for :meth:`encode`. With the flip test ``noise`` is asked twice, for B rows each: the official code
            encodes the mirror image anew.

        Returns
        -------
        Tensor (B, K, h, w), float32
        """
        width, height = self.settings.input_size
        if images.ndim != 4 or images.shape[1:] != (3, height, width):
            raise InputError(f"crops of shape {tuple(images.shape)}; this model takes (B, 3, {height}, {width})")
        if flip_indices is None:
            return self(self.encode(images, posterior=posterior, noise=noise))
        both = torch.cat([images, images.flip(-1)])
        straight, mirrored = self(self.encode(both, posterior=posterior, noise=noise, draws=2)).chunk(2)
        return merge_flip(straight, mirrored, flip_indices)

    def fold(self) -> None:
        """Make the network cheaper, in place and for good: for inference only, with results equal to rounding.

        Level, prompt and task are folded into the U-Net (:mod:`priorscope.backbones.folding`); what lies after the
        tap, and the autoencoder's way back to pixels, are let go. Such a model cannot be trained or saved.
        """
        unet, vae = self.unet, getattr(self.latents, "vae", None)
        if vae is not None:
            give_back(vae.decoder.up_blocks.parameters())
            vae.decoder.up_blocks = nn.ModuleList()
        self.latents.lean()
        fold_constants(unet, self.settings.label, self.get_buffer("prompt"), self.get_buffer("task"))
        kind, _, number = self.settings.tap.partition(".")
        if kind != "up_blocks" or not number.isdigit():
            return  # the hooks still end the pass at the tap
        gone = [unet.conv_norm_out, unet.conv_out, *unet.up_blocks[int(number) + 1 :]]
        give_back(parameter for module in gone if module is not None for parameter in module.parameters())
        unet.up_blocks = unet.up_blocks[: int(number) + 1]
        unet.conv_norm_out, unet.conv_out = None, nn.Identity()
        self.truncated = True

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """``torch.compile`` the folded U-Net and the head; arguments are torch's."""
        if not self.truncated:
            raise InputError("only a folded model can be compiled", remedy="Load it with fold=True.")
        self.unet.compile(*args, **kwargs)
        self.head.compile(*args, **kwargs)


def tap_channels(unet: Any, tap: str) -> int | None:
    """Channels of an up-block's or the middle block's output; None where the path is another."""
    widths = list(unet.config.block_out_channels)
    if tap == "mid_block":
        return int(widths[-1])
    kind, _, number = tap.partition(".")
    if kind != "up_blocks" or not number.isdigit() or int(number) >= len(widths):
        return None
    return int(widths[::-1][int(number)])
