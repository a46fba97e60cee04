"""The sizes of PrimeDepth's networks, and what its small decoder is given at each of its steps."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from priorscope.backbones.stable_diffusion import SD2_UNET, SD_VAE
from priorscope.errors import InputError
from priorscope_depth.primedepth.source import SIZES

#: Stable Diffusion 2.1's text tower, the same sizes as 2.0's (manifest-primedepth-full.tsv).
_TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "max_position_embeddings": 77,
    "hidden_act": "gelu",
}


@dataclass(frozen=True)
class Architecture:
    """Sizes of a PrimeDepth model; the default is the published one.

    Parameters
    ----------
    unet : dict
        Of the frozen U-Net, as diffusers' ``UNet2DConditionModel`` takes them.
    vae : dict
        Of the autoencoder whose encoder is used, as diffusers' ``AutoencoderKL`` takes them.
    text : dict or None
        Of the text tower, as transformers' ``CLIPTextConfig`` takes them; None where there is none.
    tokens : int
        Tokens of a caption's state; each attention head gives so many maps.
    ratio : float
        Width of the decoder that is trained, against the U-Net's.
    head_channels : int
        Largest width of its attention heads.
    refined : int
        Channels that it hands to the depth head.
    head : dict
        Sizes of the depth head, a decoder as the autoencoder's: ``block_out_channels``, ``layers_per_block``.
    """

    unet: dict[str, Any] = field(default_factory=lambda: dict(SD2_UNET))
    vae: dict[str, Any] = field(default_factory=lambda: dict(SD_VAE))
    text: dict[str, Any] | None = field(default_factory=lambda: dict(_TEXT))
    tokens: int = 77
    ratio: float = 0.5
    head_channels: int = 64
    refined: int = 512
    head: dict[str, Any] = field(
        default_factory=lambda: {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
    )

    def save(self, path: Path) -> None:
        """Write the sizes as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Architecture:
        """Sizes that :meth:`save` wrote."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"does not hold the sizes of a PrimeDepth model ({error})", path=path) from None

    @classmethod
    def of(cls, checkpoint: Path) -> Architecture:
        """The sizes of a checkpoint: those in ``primedepth.json`` beside it, else the published ones."""
        beside = checkpoint.parent / SIZES
        return cls.load(beside) if beside.is_file() else cls()


@dataclass(frozen=True)
class Step:
    """One step of the decoders: the frozen one's, and the trained one's that goes along with it.

    Parameters
    ----------
    feature : str
        The residual block of the U-Net whose input, features and skip connection side by side, is looked at.
    channels : int
        Of that input.
    previous, mirrored : str or None
        Transformers whose attention is looked at: the one before this step, and the one at the same place of the
        encoder. None where that block has none.
    heads : tuple of int
        Attention heads of those two that are there.
    width : int
        Channels of the trained decoder's step.
    attends : bool
        Whether the trained decoder attends after this step, as the U-Net does.
    enlarges : bool
        Whether it doubles the size at the end.
    """

    feature: str
    channels: int
    previous: str | None
    mirrored: str | None
    heads: tuple[int, ...]
    width: int
    attends: bool
    enlarges: bool


def decoder_steps(architecture: Architecture) -> list[Step]:
    """The steps of a model, from the lowest level to the largest map.

    Source: PrimeDepth, ``labeller.py`` (specs/depth.md 2a): the blocks of the decoder are paired with those of the
    encoder that their skip connections come from.
    """
    config = architecture.unet
    widths, layers = config["block_out_channels"], config["layers_per_block"]
    levels = len(widths)
    heads = config["attention_head_dim"]
    # the encoder's blocks in order: channels that it hands on, transformer, heads
    encoder: list[tuple[int, str | None, int]] = [(widths[0], None, 0)]
    for level, width in enumerate(widths):
        attends = "CrossAttn" in config["down_block_types"][level]
        for place in range(layers):
            path = f"down_blocks.{level}.attentions.{place}" if attends else None
            encoder.append((width, path, heads[level]))
        if level < levels - 1:
            encoder.append((width, None, 0))
    steps: list[Step] = []
    previous: tuple[str | None, int] = ("mid_block.attentions.0", heads[-1])
    below = widths[-1]
    for block, level in enumerate(reversed(range(levels))):
        attends = "CrossAttn" in config["up_block_types"][block]
        for place in range(layers + 1):
            skipped, mirrored, mirrored_heads = encoder.pop()
            given = [count for path, count in (previous, (mirrored, mirrored_heads)) if path is not None]
            steps.append(
                Step(
                    feature=f"up_blocks.{block}.resnets.{place}",
                    channels=below + skipped,
                    previous=previous[0],
                    mirrored=mirrored,
                    heads=tuple(given),
                    width=int(widths[level] * architecture.ratio),
                    attends=attends,
                    enlarges=level > 0 and place == layers,
                )
            )
            below = widths[level]
            previous = (f"up_blocks.{block}.attentions.{place}" if attends else None, heads[level])
    return steps
