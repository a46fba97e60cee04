"""The trained part of PrimeDepth: a decoder of half the U-Net's width that reads its preimage, and the depth head."""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional

from priorscope.backbones.ldm_names import residual_name, vae_name
from priorscope.errors import InputError
from priorscope.features.attention import GRID
from priorscope.features.forward import Features
from priorscope_depth.primedepth.architecture import Architecture, Step, decoder_steps

#: Of the group normalisations of the autoencoder's encoder and of the heads; latent diffusion has 1e-6 there.
EPSILON = 1e-5


class Labeller(nn.Module):
    """Depth from a preimage. The modules have the published names, the layers inside a block diffusers' own.

    Parameters
    ----------
    architecture : Architecture

    Raises
    ------
    InputError
        A ratio that leaves a step without channels.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.steps = decoder_steps(architecture)
        if min(step.width for step in self.steps) < 1:
            raise InputError(
                f"a decoder {architecture.ratio:g} times as wide as the frozen network has no channels left",
                remedy="Use a ratio of about 0.5.",
            )
        maps = GRID * GRID + architecture.tokens  # of an attention head
        config = architecture.unet
        self.convs_features = nn.ModuleDict()
        self.convs_attentions = nn.ModuleDict()
        self.convs_merge = nn.ModuleDict()
        merged = []
        for number, step in enumerate(self.steps):
            name = str(number)
            streams = int(architecture.ratio * step.channels)
            self.convs_features[name] = nn.Conv2d(step.channels, streams, 1)
            if step.heads:
                attended = int(architecture.ratio * maps * step.heads[0])
                self.convs_attentions[name] = nn.Conv2d(maps * sum(step.heads), attended, 1)
                streams += attended
            self.convs_merge[name] = nn.Conv2d(streams, streams, 1)
            merged.append(streams)
        self.refiner = Refiner(
            self.steps,
            merged,
            time_width=4 * config["block_out_channels"][0],
            text_width=config["cross_attention_dim"],
            head_channels=architecture.head_channels,
            refined=architecture.refined,
        )
        self.depth_predictor = depth_head(architecture)

    def forward(self, preimage: Features, text: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Inverse depth in each of three channels, known up to scale and shift.

        Parameters
        ----------
        preimage : dict of str to Tensor
            Emptied on the way, so that what was read needs no memory any more.
        text : Tensor (B, tokens, width)
        embedding : Tensor (1 or B, time width)
            The U-Net's embedding of the level.

        Returns
        -------
        Tensor (B, 3, H, W), unbounded; larger is nearer.
        """
        return self.depth_predictor(self.refine(preimage, text, embedding))

    def refine(self, preimage: Features, text: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """What the depth head is given, (B, refined, h, w); arguments as for :meth:`forward`."""
        hidden: torch.Tensor | None = None
        for number, step in enumerate(self.steps):
            merged = self.merge(number, preimage)
            hidden = merged if hidden is None else torch.cat([hidden, merged], 1)
            del merged
            size = None
            if step.enlarges:  # to whatever size the U-Net's next features have, also an odd one
                following = preimage[self.steps[number + 1].feature]
                size = (following.shape[-2], following.shape[-1])
            hidden = self.refiner.step(number, hidden, text, embedding, size)
        assert hidden is not None
        return self.refiner.out(hidden)

    def merge(self, number: int, preimage: Features) -> torch.Tensor:
        """One step's features and attention, projected and mixed."""
        step, name = self.steps[number], str(number)
        feature = preimage.pop(step.feature)
        size = (feature.shape[-2], feature.shape[-1])
        streams = [self.convs_features[name](feature)]
        if step.heads:
            maps = []
            for path in (step.previous, step.mirrored):
                if path is not None:
                    # a block's attention is read before it is enlarged: the previous one's may be half the size
                    maps += [_resized(preimage.pop(f"{path}.{kind}"), size) for kind in ("self", "cross")]
            streams.append(self.convs_attentions[name](torch.cat(maps, 1)))
        return self.convs_merge[name](torch.cat(streams, 1))


class Refiner(nn.Module):
    """The decoder that is trained: residual blocks, attention to the caption, enlargement; no encoder of its own."""

    def __init__(
        self,
        steps: list[Step],
        merged: list[int],
        *,
        time_width: int,
        text_width: int,
        head_channels: int,
        refined: int,
    ) -> None:
        super().__init__()
        self.output_blocks = nn.ModuleList()
        before = 0
        for step, streams in zip(steps, merged, strict=True):
            width = step.width
            parts: list[nn.Module] = [
                ResnetBlock2D(
                    in_channels=before + streams,
                    out_channels=width,
                    temb_channels=time_width,
                    groups=_largest_divisor(before + streams, 32),
                    groups_out=_largest_divisor(width, 32),
                    eps=1e-5,
                )
            ]
            if step.attends:
                wide = _largest_divisor(width, head_channels)
                parts.append(
                    Transformer2DModel(
                        width // wide,
                        wide,
                        in_channels=width,
                        norm_num_groups=_largest_divisor(width, 32),
                        cross_attention_dim=text_width,
                        use_linear_projection=True,
                    )
                )
            if step.enlarges:
                parts.append(Upsample2D(width, use_conv=True))
            self.output_blocks.append(nn.ModuleList(parts))
            before = width
        self.out = nn.Sequential(
            nn.GroupNorm(_largest_divisor(before, 32), before), nn.SiLU(), nn.Conv2d(before, refined, 3, padding=1)
        )

    def step(
        self,
        number: int,
        hidden: torch.Tensor,
        text: torch.Tensor,
        embedding: torch.Tensor,
        size: tuple[int, int] | None,
    ) -> torch.Tensor:
        """One step; ``size`` is that of the next where this one enlarges."""
        for part in self.output_blocks[number].children():
            if isinstance(part, ResnetBlock2D):
                hidden = part(hidden, embedding)
            elif isinstance(part, Transformer2DModel):
                hidden = part(hidden, encoder_hidden_states=text, return_dict=False)[0]
            else:
                hidden = part(hidden, size)
        return hidden


def depth_head(architecture: Architecture) -> Decoder:
    """A decoder like the autoencoder's, from refined features to three channels of inverse depth."""
    widths = architecture.head["block_out_channels"]
    head = Decoder(
        in_channels=architecture.refined,
        out_channels=3,
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=tuple(widths),
        layers_per_block=architecture.head["layers_per_block"],
        norm_num_groups=architecture.head.get("norm_num_groups", 32),
    )
    return set_epsilon(head)


def set_epsilon(module: nn.Module) -> nn.Module:
    """The same module with :data:`EPSILON` in every group normalisation."""
    for part in module.modules():
        if isinstance(part, nn.GroupNorm):
            part.eps = EPSILON
    return module


def labeller_name(key: str, levels: int = 4) -> str:
    """A key of a :class:`Labeller` as the published checkpoint calls it, behind ``labeller.``."""
    part, _, rest = key.partition(".")
    if part == "depth_predictor":
        return f"{part}.{vae_name(rest, levels)}"
    if key.startswith("refiner.output_blocks."):
        _, _, number, place, inner = key.split(".", 4)
        return f"refiner.output_blocks.{number}.{place}.{residual_name(inner) if place == '0' else inner}"
    return key


def _resized(value: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(value.shape[-2:]) == size:
        return value
    return functional.interpolate(value, size, mode="bilinear", align_corners=False)


def _largest_divisor(number: int, most: int) -> int:
    return next(divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0)
