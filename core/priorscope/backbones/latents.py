"""Latent spaces: where an image lives while a diffusion model works on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn import functional

from priorscope.backbones.folding import lean
from priorscope.backbones.loading import load_component, read_config
from priorscope.backbones.streaming import stream
from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError

Posterior = Literal["mode", "sample"]

#: Side of the tiles of a tiled autoencoder, in pixels; they overlap by a quarter.
_TILE = 320


@dataclass(frozen=True)
class LatentDistribution:
    """What an encoder says about images: mean and standard deviation (B, C, h, w), scaled; std 0 where it is certain.

    One encoding serves every member of an ensemble, whether each draws its own latent or all take the mean.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def rows(self, index: torch.Tensor) -> LatentDistribution:
        """The distribution of some rows, which may repeat."""
        return LatentDistribution(self.mean[index], self.std[index])


class LatentSpace:
    """Encoder and decoder between images and latents.

    Images are (B, 3, H, W) in [-1, 1], latents (B, channels, H / factor, W / factor).

    ``channels`` and ``factor`` are attributes; image sides must be multiples of ``factor`` unless a subclass
    says otherwise.
    """

    channels: int
    factor: int

    def encode(self, image: torch.Tensor, posterior: Posterior = "mode", noise: Noise | None = None) -> torch.Tensor:
        """Latents of ``image``. A sampled posterior draws from ``noise``; deterministic spaces ignore both."""
        raise NotImplementedError

    def posterior(self, image: torch.Tensor) -> LatentDistribution:
        """All that :meth:`encode` may give for ``image``, by one encoding; certain in a deterministic space."""
        mean = self.encode(image)
        return LatentDistribution(mean, torch.zeros_like(mean))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Images of ``latents``, nominally in [-1, 1], not clamped."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """What :meth:`encode` depends on besides weights; JSON values, for the key of a cache."""
        return {"space": f"{type(self).__name__} {self.factor} {self.channels}"}

    def to(self, *args: Any, **kwargs: Any) -> LatentSpace:
        """Move and cast, as ``nn.Module.to``."""
        return self

    def lean(self) -> None:
        """Make the networks cheaper for inference, with equal results to rounding; none here."""

    def compile(self) -> None:
        """``torch.compile`` the decoder; nothing to do here."""


class PixelSpace(LatentSpace):
    """The identity, for models that work on pixels."""

    channels = 3
    factor = 1

    def encode(self, image: torch.Tensor, posterior: Posterior = "mode", noise: Noise | None = None) -> torch.Tensor:
        return image

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents


class PatchSpace(LatentSpace):
    """Each ``patch`` x ``patch`` block of pixels as one position: lossless, no weights (pixel unshuffle).

    The latent space of small models that are trained here: a U-Net works on a grid 1 / ``patch`` the size.
    """

    def __init__(self, patch: int = 4, in_channels: int = 3) -> None:
        if patch < 1:
            raise InputError(f"patch size {patch}")
        self.factor = patch
        self.channels = in_channels * patch * patch

    def encode(self, image: torch.Tensor, posterior: Posterior = "mode", noise: Noise | None = None) -> torch.Tensor:
        _check_multiple(image, self.factor)
        return functional.pixel_unshuffle(image, self.factor)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return functional.pixel_shuffle(latents, self.factor)


class AutoencoderSpace(LatentSpace):
    """The latent space of a diffusers ``AutoencoderKL``, scaled by its ``scaling_factor``.

    Parameters
    ----------
    vae : AutoencoderKL
    tiled : bool
        Encode and decode in overlapping tiles (diffusers' tiling): memory stays bounded on large images; each
        tile then has its own normalisation statistics, which changes the result a little.

    Notes
    -----
    An image whose sides are no multiples of 8 is floored by the encoder: up to 7 rows and columns are lost, as
    in Lotus' official geometry. The posterior's log-variance is clamped to [-30, 20].
    """

    def __init__(self, vae: Any, *, tiled: bool = False) -> None:
        self.vae = vae
        self.scaling = float(vae.config.scaling_factor)
        self.channels = int(vae.config.latent_channels)
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.streamed = False
        if tiled:
            vae.enable_tiling()
            # by default the tile is what the configuration calls sample_size, which may be anything
            vae.tile_sample_min_size, vae.tile_latent_min_size = _TILE, _TILE // self.factor

    def encode(self, image: torch.Tensor, posterior: Posterior = "mode", noise: Noise | None = None) -> torch.Tensor:
        if posterior not in ("mode", "sample"):
            raise InputError(f"posterior {posterior!r}", remedy="Use 'mode' or 'sample'.")
        distribution = self._distribution(image)
        latents = distribution.mean
        if posterior == "sample":
            if noise is None:
                raise InputError("a sampled posterior needs noise", remedy="Pass noise=Noise.per_item(seeds).")
            latents = latents + distribution.std * noise.like(latents)
        return latents * self.scaling

    def posterior(self, image: torch.Tensor) -> LatentDistribution:
        distribution = self._distribution(image)
        return LatentDistribution(distribution.mean * self.scaling, distribution.std * self.scaling)

    def _distribution(self, image: torch.Tensor) -> Any:
        """diffusers' distribution of latents, not scaled."""
        if min(image.shape[-2:]) < self.factor:
            raise InputError(
                f"an image of {image.shape[-2]} x {image.shape[-1]} is smaller than one latent pixel, "
                f"{self.factor} x {self.factor}",
                remedy="Process it at a higher resolution, or with padding (not in the official geometry).",
            )
        return self.vae.encode(image.to(self.vae.dtype)).latent_dist

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.vae.decode((latents / self.scaling).to(self.vae.dtype)).sample

    def to(self, *args: Any, **kwargs: Any) -> AutoencoderSpace:
        self.vae.to(*args, **kwargs)
        return self

    def lean(self) -> None:
        """In strips of rows on a CPU or where memory is to be bounded, else with leaner blocks; where it is now."""
        on_gpu = self.vae.device.type == "cuda"
        self.streamed = (self.vae.use_tiling or not on_gpu) and stream(self.vae)
        if not self.streamed:
            lean(self.vae, phases=True)

    def compile(self) -> None:
        if not self.streamed:  # a loop over strips is none for a compiler
            self.vae.decoder.compile()


def load_latent_space(folder: Path, *, dtype: torch.dtype = torch.float32, tiled: bool = False) -> LatentSpace:
    """Load the latent space of a model folder's ``vae`` sub-folder, by the class its configuration names."""
    config = read_config(folder)
    name = config.get("_class_name")
    if name == "PatchSpace":
        return PatchSpace(int(config["patch"]))
    if name != "AutoencoderKL":
        raise InputError(f"holds a {name}, not an AutoencoderKL", path=folder)
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderSpace(load_component(AutoencoderKL, folder, dtype=dtype), tiled=tiled)


def _check_multiple(image: torch.Tensor, factor: int) -> None:
    height, width = image.shape[-2:]
    if height % factor or width % factor:
        raise InputError(
            f"an image of {height} x {width} does not divide into {factor} x {factor} patches",
            remedy="Pad it first (priorscope.predictors.Geometry does).",
        )
