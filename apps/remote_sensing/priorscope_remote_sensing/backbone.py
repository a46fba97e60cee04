"""DiffusionSat as a frozen backbone: its folder, read strictly, and what it is told about an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from priorscope.backbones.latents import LatentSpace, load_latent_space
from priorscope.backbones.loading import load_component
from priorscope.backbones.stable_diffusion import UNetNetwork, load_schedule
from priorscope.device import Precision, inference_layout, resolve_device, resolve_dtype
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser
from priorscope.errors import InputError
from priorscope_remote_sensing.metadata import Metadata, normalise
from priorscope_remote_sensing.satunet import SatUNet
from priorscope_remote_sensing.table import ZENODO


class SatNetwork(UNetNetwork):
    """Ask a :class:`SatUNet` in the library's way: ``network(x, label, text=..., metadata=...)``."""

    unet: SatUNet

    def __init__(self, unet: SatUNet) -> None:
        super().__init__(unet)

    def __call__(  # type: ignore[override]
        self,
        x: torch.Tensor,
        label: torch.Tensor,
        *,
        text: torch.Tensor,
        metadata: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Output of the U-Net for latents ``x`` (B, 4, h, w) and normalised ``metadata`` (B, 7)."""
        dtype = self.unet.dtype
        output = self.unet(x.to(dtype), label, text.to(dtype), metadata=metadata, return_dict=False)
        return output[0].to(x.dtype)


@dataclass
class DiffusionSat:
    """A loaded DiffusionSat.

    Parameters
    ----------
    denoiser : Denoiser
        Around the :class:`SatUNet`, with the parametrisation that the folder's scheduler states.
    latents : LatentSpace
    folder : Path
        Where text encoder and tokenizer are.
    device : torch.device
    """

    denoiser: Denoiser
    latents: LatentSpace
    folder: Path
    device: torch.device

    @property
    def unet(self) -> SatUNet:
        """The network, where taps are set."""
        network = self.denoiser.network
        assert isinstance(network, SatNetwork)
        return network.unet

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        resolution: int = 512,
        use_metadata: bool = True,
        checkpoint: str = "checkpoint-150000",
        ema: bool = False,
        device: str = "auto",
        precision: Precision = "auto",
    ) -> DiffusionSat:
        """Load a published folder.

        Parameters
        ----------
        source : str or Path
            The root that holds ``resolution512/`` and ``resolution256/``, or one of these folders: a diffusers
            pipeline (``vae``, ``text_encoder``, ``tokenizer``, ``scheduler``) with ``checkpoint-150000/unet``. Our
            own pretraining writes the same folder with the network in ``unet``.
        resolution : {512, 256}
            Which of the two.
        use_metadata : bool
            Keep the metadata embeddings. SatDiFuser's own code drops them.
        checkpoint : str
            Sub-folder of the U-Net; where the folder has none, ``unet`` is read.
        ema : bool
            Read the averaged weights, ``unet_ema``.
        device, precision : str
            Of the U-Net; the autoencoder stays in float32.

        Raises
        ------
        InputError
            No such folder, an incomplete one, or weights that do not fit.
        """
        folder = _locate(Path(source).expanduser(), resolution)
        schedule, predicts = load_schedule(folder / "scheduler")
        where = resolve_device(device)
        latents = load_latent_space(folder / "vae")
        inner = folder / checkpoint if (folder / checkpoint).is_dir() else folder
        path = inner / ("unet_ema" if ema else "unet")
        unet = load_component(
            SatUNet, path, dtype=resolve_dtype(precision, where), expect={"in_channels": latents.channels}
        )
        if not use_metadata:
            unet.drop_metadata()
        layout = inference_layout(where)
        unet.to(where, memory_format=layout)
        latents.to(where, memory_format=layout)
        denoiser = Denoiser(SatNetwork(unet), schedule, predicts)
        return cls(denoiser, latents, folder, where)

    def condition(self, text: torch.Tensor, metadata: Metadata | Sequence[Metadata | None] | None = None) -> Condition:
        """What the network is told.

        Parameters
        ----------
        text : Tensor (1, tokens, width)
            Of :func:`prompt_state`.
        metadata : Metadata, or one (or None) an image, optional
            In natural units; None where nothing is known.
        """
        tensors = {"text": text.to(self.device)}
        shared = {"text"}
        if metadata is not None:
            if self.unet.metadata_embedding is None:
                raise InputError("metadata for a model without metadata", remedy="Load it with use_metadata=True.")
            one = isinstance(metadata, Metadata)
            rows = normalise([metadata] if isinstance(metadata, Metadata) else metadata)
            tensors["metadata"] = torch.from_numpy(rows).to(self.device)
            shared |= {"metadata"} if one else set()
        return Condition(tensors, shared)


def _locate(source: Path, resolution: int) -> Path:
    if resolution not in ZENODO:
        raise InputError(f"DiffusionSat at {resolution} pixels", remedy="There are 512 and 256.")
    for folder in (source / f"resolution{resolution}", source):
        if (folder / "vae").is_dir():
            return folder
    raise InputError(
        f"holds no DiffusionSat model: neither vae/ nor resolution{resolution}/vae/",
        path=source,
        remedy=f"Download Zenodo record {ZENODO[resolution]}, unpack it as resolution{resolution}/ and give the folder "
        "around it.",
    )
