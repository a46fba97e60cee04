"""Edges from photographs: the network of the decoupled process, and the sampler around it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from priorscope.backbones.latents import AutoencoderSpace, LatentSpace, load_latent_space
from priorscope.backbones.loading import load_component, save_component
from priorscope.data.files import write_text
from priorscope.data.images import check_rgb
from priorscope.device import Precision, inference_layout, resolve_device, resolve_dtype
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.decoupled import DecoupledDenoiser, brownian_bridge, decoupled_times
from priorscope.diffusion.noise import Noise, item_seed
from priorscope.diffusion.sampling import sample
from priorscope.errors import InputError
from priorscope.predictors.geometry import Geometry
from priorscope.predictors.tiling import predict_tiled
from priorscope_depth.trained import SMALL_UNET, read_trained

#: The small autoencoder of edge maps, three levels (a quarter of the size) as published, but narrow.
SMALL_VAE: dict[str, Any] = {
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (16, 32, 48),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
}
_KIND = "diffusion-edge"
#: The part that a model folder names where the other is not trained yet.
_AUTOENCODER = "autoencoder"


class EdgeNetwork:
    """Ask a ``UNet2DModel`` for C and noise: ``network(x, label, image=...)``.

    The image enters beside the noisy latent, each ``factor`` x ``factor`` block of its pixels as channels: no pixel of
    it is lost on the way to the latent's size.
    """

    def __init__(self, unet: Any, factor: int) -> None:
        self.unet = unet
        self.factor = factor

    def __call__(self, x: torch.Tensor, label: torch.Tensor, *, image: torch.Tensor) -> torch.Tensor:
        """(B, 2 c, h, w) of ``x`` (B, c, h, w) and ``image`` (B, 3, h factor, w factor) in [-1, 1]."""
        given = torch.cat([x, functional.pixel_unshuffle(image, self.factor)], dim=1).to(self.unet.dtype)
        return self.unet(given, label, return_dict=False)[0].to(x.dtype)


def edge_denoiser(unet: Any, factor: int) -> DecoupledDenoiser:
    """The network as a model of the decoupled process; it is told 1000 t, for its embedding of whole steps."""
    return DecoupledDenoiser(EdgeNetwork(unet, factor), time_label=lambda t: 1000 * t)


@dataclass(frozen=True)
class EdgeResult:
    """Edges of one image.

    Attributes
    ----------
    values : ndarray, float32, (H, W)
        Strength in [0, 1], at the image's own size. No calibrated probability.
    model : str
    """

    values: NDArray[np.float32]
    model: str


class EdgePredictor:
    """DiffusionEdge: an edge map is generated in a latent space, given the image.

    Parameters
    ----------
    unet : UNet2DModel
    latents : LatentSpace
        Of edge maps (B, 1, H, W) in [-1, 1].
    name : str
    device : torch.device
    generates : bool
        False: only the autoencoder is trained yet, and edges of a picture would be noise.
    """

    def __init__(
        self,
        unet: Any,
        latents: LatentSpace,
        *,
        name: str,
        device: torch.device | str = "cpu",
        generates: bool = True,
    ) -> None:
        self.unet = unet
        self.latents = latents
        self.name = name
        self.generates = generates
        self.device = torch.device(device)
        self.denoiser = edge_denoiser(unet, latents.factor)
        levels = len(unet.config.block_out_channels)
        self.geometry = Geometry(0, multiple=latents.factor * 2 ** (levels - 1))

    @classmethod
    def new(cls, *, channels: int = 3, seed: int = 0) -> EdgePredictor:
        """A small one with random weights."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_2d import UNet2DModel

        if channels < 1:
            raise InputError(f"a latent of {channels} channels", remedy="Use 1 or more; 3 are published.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vae = AutoencoderKL(**SMALL_VAE, latent_channels=channels, scaling_factor=1.0)
            space = AutoencoderSpace(vae)
            given = channels + 3 * space.factor**2
            unet = UNet2DModel(in_channels=given, out_channels=2 * channels, **SMALL_UNET)
        return cls(unet, space, name="new")

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, device: str = "auto", precision: Precision = "auto"
    ) -> EdgePredictor:
        """Load what :meth:`save` wrote.

        Raises
        ------
        InputError
            No such folder, or one of another kind or with other weights.
        """
        from diffusers.models.unets.unet_2d import UNet2DModel

        folder = Path(folder)
        unread = "DiffusionEdge's published .pt files are not read."
        about, name = read_trained(folder, _KIND, what="an edge model", command="train-edges", unread=unread)
        where = resolve_device(device)
        space = load_latent_space(folder / "vae").to(where)
        wanted = {"in_channels": space.channels + 3 * space.factor**2, "out_channels": 2 * space.channels}
        unet = load_component(UNet2DModel, folder / "unet", dtype=resolve_dtype(precision, where), expect=wanted)
        unet.to(where, memory_format=inference_layout(where))
        return cls(unet, space, name=name, device=where, generates=about.get("part") != _AUTOENCODER)

    def save(self, folder: Path, *, autoencoder_only: bool = False) -> None:
        """Write the model folder, in float32; it must not exist. It says if only its autoencoder is trained."""
        folder.mkdir(parents=True)
        about = {"kind": _KIND} | ({"part": _AUTOENCODER} if autoencoder_only else {})
        write_text(folder / "priorscope.json", json.dumps(about) + "\n")
        save_component(self.unet, folder / "unet")
        save_component(self.latents.vae, folder / "vae")  # type: ignore[attr-defined]

    @torch.no_grad()
    def __call__(
        self,
        images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
        *,
        seed: int = 0,
        items: Sequence[int | str] | None = None,
        steps: int = 5,
        ensemble: int = 1,
        tile: int = 320,
        overlap: int = 80,
        blend: Literal["feather", "count"] = "feather",
        batch_size: int = 4,
    ) -> list[EdgeResult]:
        """Edges of images, one after the other.

        Parameters
        ----------
        images : ndarray of uint8 (H, W, 3), or a sequence of them
        seed : int
        items : sequence of int or str, optional
            What each image's noise derives from, with ``seed``. Default: its position.
        steps : int
            Of the diffusion; a short one is added at the end.
        ensemble : int
            Predictions an image, averaged.
        tile, overlap : int
            Larger images are predicted in tiles, each from noise of its own; a tile of 0: whole.
        blend : {"feather", "count"}
            See :func:`~priorscope.predictors.predict_tiled`.
        batch_size : int
            Tiles a call. Does not change the result.
        """
        pictures = [images] if isinstance(images, np.ndarray) else list(images)
        for picture in pictures:
            check_rgb(picture)
        if ensemble < 1 or batch_size < 1:
            raise InputError(f"an ensemble of {ensemble} in batches of {batch_size}", remedy="Use 1 or more.")
        if tile and (tile % self.geometry.multiple or not 0 <= overlap < tile):
            raise InputError(
                f"tiles of {tile} pixels that overlap by {overlap}",
                remedy=f"Use a multiple of {self.geometry.multiple}, or 0, and a smaller overlap.",
            )
        times = decoupled_times(steps)
        keys: list[int | str] = list(range(len(pictures))) if items is None else list(items)
        if len(keys) != len(pictures):
            raise InputError(f"{len(keys)} item names for {len(pictures)} images")
        results = []
        for picture, key in zip(pictures, keys, strict=True):
            image = torch.from_numpy(picture).permute(2, 0, 1)[None].float().div(127.5).sub(1).to(self.device)
            image, frame = self.geometry.prepare(image)
            total = torch.zeros(1, 1, *image.shape[-2:], device=self.device)
            for member in range(ensemble):
                run = _Run(self, times, item_seed(item_seed(seed, key), member))
                if tile and max(image.shape[-2:]) > tile:
                    total += predict_tiled(image, run, tile=tile, overlap=overlap, batch_size=batch_size, blend=blend)
                else:
                    total += run(image)
            values = self.geometry.restore(total / ensemble, frame)[0, 0].clamp(0, 1)
            results.append(EdgeResult(values.cpu().numpy(), self.name))
        return results

    def generate(self, image: torch.Tensor, times: Sequence[float], noise: Noise) -> torch.Tensor:
        """Edge maps (B, 1, H, W) in [0, 1], not clamped, of ``image`` (B, 3, H, W) in [-1, 1]."""
        size = image.shape[-2] // self.latents.factor, image.shape[-1] // self.latents.factor
        start = noise.draw((image.shape[0], self.latents.channels, *size), device=image.device)
        condition = Condition({"image": image})
        latents = sample(self.denoiser, start, times, step=brownian_bridge, noise=noise, condition=condition)
        return self.latents.decode(latents).float() / 2 + 0.5


class _Run:
    """Predicts crops of one image, each from noise by its number: results do not depend on how they are batched."""

    def __init__(self, predictor: EdgePredictor, times: Sequence[float], seed: int) -> None:
        self.predictor = predictor
        self.times = times
        self.seed = seed
        self.done = 0

    def __call__(self, crops: torch.Tensor) -> torch.Tensor:
        numbers = range(self.done, self.done + len(crops))
        self.done += len(crops)
        return self.predictor.generate(crops, self.times, Noise.for_items(self.seed, numbers))
