"""Small diffusion priors of 13-band Sentinel-2 patches: a U-Net on standardised log reflectance.

Made to serve where DiffusionSat cannot: no download, seconds on a laptop, all bands. A prior offers what
:class:`~priorscope_remote_sensing.backbone.DiffusionSat` offers, so that SatDiFuser's decoders stand on either.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from priorscope.backbones.latents import LatentSpace, Posterior
from priorscope.backbones.loading import read_config, save_component
from priorscope.backbones.prompt import prompt_state
from priorscope.backbones.stable_diffusion import UNetNetwork, load_schedule, load_unet
from priorscope.data.files import write_text
from priorscope.device import resolve_device
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.noise import Noise
from priorscope.diffusion.schedule import VPSchedule
from priorscope.errors import InputError
from priorscope.features.cache import content_hash
from priorscope.features.extractor import FeatureExtractor
from priorscope.features.forward import Features
from priorscope.features.modes import AtLevels, Key
from priorscope.features.tap import Tap, TapSet
from priorscope_remote_sensing.data.bands import SENTINEL2
from priorscope_remote_sensing.metadata import Metadata
from priorscope_remote_sensing.table import find_backbone

_PROMPT = (1, 1, 8)  # nothing is ever told to such a prior, but its class of network wants to be told something

#: Where a prior is looked at by default: the stream after each residual block of its upward half.
PRIOR_TAPS = TapSet("terrain-prior", (Tap("up_blocks.*.resnets.*", name="up_blocks_{0}_resnets_{1}"),), levels=(20,))

PRIOR_UNET: dict[str, Any] = {
    "block_out_channels": (48, 56, 56),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "attention_head_dim": (1, 2, 2),
    "cross_attention_dim": _PROMPT[-1],
    "use_linear_projection": True,
}
PRIOR_SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "v_prediction",
    "set_alpha_to_one": True,
}


class ReflectanceSpace(LatentSpace):
    """Log reflectance, standardised by band, each ``patch`` x ``patch`` block of pixels as one position; lossless.

    Images are (B, bands, H, W) reflectance, unlike those of other latent spaces: 0.1 is 10 %. A logarithm since
    light and shade multiply.

    Parameters
    ----------
    mean, std : sequence of float
        Of ``log(reflectance + offset)``, a band each.
    patch : int
    offset : float
        Keeps the darkest pixels, where the sensor's noise is as large as the signal, from dominating.
    bands : sequence of str
        Names, in order.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        patch: int = 2,
        offset: float = 0.01,
        bands: Sequence[str] = SENTINEL2,
    ) -> None:
        if not len(mean) == len(std) == len(bands) or not len(bands):
            raise InputError(f"{len(mean)} means and {len(std)} deviations for {len(bands)} bands")
        if patch < 1 or not offset > 0 or not all(value > 0 for value in std):
            raise InputError(f"patch {patch}, offset {offset} and deviations {list(std)} must be positive")
        self.mean, self.std = [float(value) for value in mean], [float(value) for value in std]
        self.factor, self.offset, self.bands = int(patch), float(offset), tuple(bands)
        self.channels = len(bands) * patch * patch

    def encode(self, image: torch.Tensor, posterior: Posterior = "mode", noise: Noise | None = None) -> torch.Tensor:
        if image.ndim != 4 or image.shape[1] != len(self.bands) or 0 in image.shape:
            raise InputError(
                f"images of shape {tuple(image.shape)}; expected (B, {len(self.bands)}, H, W)",
                remedy=f"The prior takes {', '.join(self.bands)}, in this order.",
            )
        if not image.is_floating_point() or not bool(image.isfinite().all()):
            raise InputError("an image is not floating-point or holds NaN", remedy="Fill pixels without data first.")
        height, width = image.shape[-2:]
        if height % self.factor or width % self.factor:
            raise InputError(
                f"an image of {height} x {width} does not divide into {self.factor} x {self.factor} patches",
                remedy="Pad or crop it first.",
            )
        mean, std = (image.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        # processing may leave reflectance a little below 0
        return functional.pixel_unshuffle(((image.clamp(min=0) + self.offset).log() - mean) / std, self.factor)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        mean, std = (latents.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (functional.pixel_shuffle(latents, self.factor) * std + mean).exp() - self.offset

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), **self.to_dict()}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        settings = {"patch": self.factor, "offset": self.offset, "bands": list(self.bands)}
        return {"_class_name": type(self).__name__, **settings, "mean": self.mean, "std": self.std}


@dataclass
class TerrainPrior:
    """A small prior with its latent space.

    Parameters
    ----------
    denoiser : Denoiser
    latents : ReflectanceSpace
    folder : Path, optional
        Where it was read from.
    device : torch.device
    """

    denoiser: Denoiser
    latents: ReflectanceSpace
    folder: Path | None
    device: torch.device

    @property
    def unet(self) -> Any:
        """The network, where taps are set."""
        network = self.denoiser.network
        assert isinstance(network, UNetNetwork)
        return network.unet

    @classmethod
    def new(cls, latents: ReflectanceSpace, *, seed: int = 0, device: torch.device | str = "cpu") -> TerrainPrior:
        """A prior with fresh weights: to train, or as the control that has learnt nothing."""
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = UNet2DConditionModel(in_channels=latents.channels, out_channels=latents.channels, **PRIOR_UNET)
        schedule = VPSchedule.from_scheduler_config(PRIOR_SCHEDULER)
        return cls(Denoiser(UNetNetwork(unet.to(device)), schedule, "v"), latents, None, torch.device(device))

    @classmethod
    def from_pretrained(cls, source: str | Path = "tiny-terrain", *, device: str = "auto") -> TerrainPrior:
        """Read a bundled prior by its name, or a folder that :meth:`save_pretrained` wrote.

        Raises
        ------
        InputError
            No such model, an incomplete folder, or weights that do not fit.
        """
        folder = find_backbone(str(source))
        space = read_config(folder / "vae")
        if space.pop("_class_name", None) != ReflectanceSpace.__name__:
            raise InputError("is no prior of reflectance", path=folder, remedy="DiffusionSat is loaded as such.")
        try:
            latents = ReflectanceSpace(**space)
        except TypeError as error:
            raise InputError(f"holds unknown or no settings ({error})", path=folder / "vae/config.json") from None
        schedule, predicts = load_schedule(folder / "scheduler")
        if predicts != "v":
            raise InputError(f"predicts {predicts}, but a prior of reflectance predicts v", path=folder / "scheduler")
        where = resolve_device(device)
        unet = load_unet(folder / "unet", expect={"in_channels": latents.channels}).to(where)
        return cls(Denoiser(UNetNetwork(unet), schedule, predicts), latents, folder, where)

    def save_pretrained(self, folder: str | Path, *, half: bool = False) -> None:
        """Write the folder; ``half`` stores weights in float16."""
        from priorscope.data.weights_file import save_file

        folder = Path(folder)
        write_text(folder / "vae/config.json", json.dumps(self.latents.to_dict(), indent=1) + "\n")
        write_text(folder / "scheduler/scheduler_config.json", json.dumps(PRIOR_SCHEDULER, indent=1) + "\n")
        save_component(self.unet, folder / "unet", dtype=torch.float16 if half else torch.float32)
        save_file({"state": torch.zeros(_PROMPT)}, folder / "empty_prompt.safetensors", {"format": "pt"})

    def condition(self, text: torch.Tensor | None = None, metadata: Metadata | None = None) -> Condition:
        """What the network is told: nothing. Metadata is an InputError."""
        if metadata is not None:
            raise InputError("metadata for a prior without metadata", remedy="Use DiffusionSat, or leave it out.")
        if text is None:
            text = torch.zeros(_PROMPT) if self.folder is None else prompt_state(self.folder)
        return Condition({"text": text.to(self.device)}, ["text"])

    def extractor(
        self,
        taps: str | Tap | TapSet | Sequence[Tap | str] = PRIOR_TAPS,
        *,
        levels: Sequence[float] = PRIOR_TAPS.levels,
        ensemble: int = 1,
    ) -> FeatureExtractor:
        """An extractor with these taps at these levels, steps of 1000; see :meth:`features`."""
        return FeatureExtractor(
            self.denoiser,
            self.latents,
            self.condition(),
            taps,
            mode=AtLevels(tuple(levels)),
            ensemble=ensemble,
            name=str(self.folder or "a new prior"),
            device=self.device,
        )

    def features(
        self,
        images: torch.Tensor,
        taps: str | Tap | TapSet | Sequence[Tap | str] = PRIOR_TAPS,
        *,
        levels: Sequence[float] = PRIOR_TAPS.levels,
        ensemble: int = 1,
        items: Sequence[int | str] | None = None,
        seed: int = 0,
        batch_size: int = 8,
    ) -> dict[Key, Features]:
        """Maps of images of any even size.

        Parameters
        ----------
        images : Tensor (B, 13, H, W)
            Reflectance, bands in the order of ``latents.bands``.
        taps, levels, ensemble
            As for :meth:`extractor`.
        items : sequence of int or str, optional
            Identities from which the noise derives. Default: each image's content.
        seed, batch_size : int

        Returns
        -------
        dict of level to dict of tap name to Tensor (B, C, h, w), float32
        """
        with torch.no_grad():
            encoded = self.latents.posterior(images.to(self.device))
        names = [content_hash(image) for image in encoded.mean] if items is None else items
        extractor = self.extractor(taps, levels=levels, ensemble=ensemble)
        return extractor.extract_latents(encoded, items=names, seed=seed, batch_size=batch_size)
