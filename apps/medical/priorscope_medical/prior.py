"""Priors on slices: a denoiser, and how the values of a slice become the network's."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from priorscope.backbones.loading import load_component, model_folder, read_config, save_component
from priorscope.backbones.stable_diffusion import load_schedule
from priorscope.data.files import write_text
from priorscope.device import resolve_device
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser, Level, Model, Prediction, StepInfo
from priorscope.diffusion.schedule import Schedule, VESchedule, VPSchedule
from priorscope.errors import InputError
from priorscope.training.aids import RoutingConfig
from priorscope.training.task_routing import add_routing
from priorscope_medical.table import MODELS

Unit = Literal["attenuation", "intensity"]

#: A small U-Net of diffusers for slices of about 100 pixels: seconds an epoch on a CPU, 1.5 million parameters.
SLICE_UNET: dict[str, Any] = {
    "block_out_channels": (48, 64, 72),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "attention_head_dim": 36,
}
SLICE_SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "v_prediction",
    "set_alpha_to_one": True,
}


@dataclass(frozen=True)
class SliceValues:
    """What a slice's numbers mean, and the affine map to the network's: ``(value - offset) / scale``.

    Parameters
    ----------
    unit : {"attenuation", "intensity"}
        Attenuation relative to water (air 0, water 1), or intensity relative to a volume's 99.9 % quantile.
    offset, scale : float
    patch : int
        Each block of ``patch`` x ``patch`` pixels is one position of the network, for speed.
    size : int
        Side of the training slices in pixels; other sizes run, too.
    pixel : float
        Side of a training pixel in mm.
    """

    unit: Unit
    offset: float
    scale: float
    patch: int = 1
    size: int = 256
    pixel: float = 1.0

    def __post_init__(self) -> None:
        if self.unit not in ("attenuation", "intensity"):
            raise InputError(f"unit {self.unit!r}", remedy="Use 'attenuation' or 'intensity'.")
        if not (self.scale > 0 and self.pixel > 0 and self.patch >= 1 and self.size >= 1):
            raise InputError(f"scale {self.scale}, pixel {self.pixel}, patch {self.patch} and size {self.size}")

    def to_network(self, values: torch.Tensor) -> torch.Tensor:
        """Slices in their unit -> the network's numbers."""
        return (values - self.offset) / self.scale

    def from_network(self, x: torch.Tensor) -> torch.Tensor:
        """The network's numbers -> slices in their unit."""
        return x * self.scale + self.offset


def read_values(folder: Path) -> SliceValues:
    """``values.json`` of a prior's folder; InputError for unknown, missing or senseless settings."""
    try:
        return SliceValues(**read_config(folder, "values.json"))
    except (TypeError, InputError) as error:
        if isinstance(error, InputError) and error.path is not None:
            raise
        raise InputError(
            f"holds unknown or no settings ({error})", path=folder / "values.json", remedy="Copy the prior again."
        ) from None


class PatchedUNet(nn.Module):
    """A ``UNet2DModel`` on blocks of pixels: (B, 1, H, W) and (B,) -> (B, 1, H, W).

    Sides that do not divide are padded with their border values, and cut off again.
    """

    def __init__(self, unet: Any, patch: int) -> None:
        super().__init__()
        self.unet = unet
        self.patch = patch
        self.multiple = patch * 2 ** (len(unet.config.block_out_channels) - 1)

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        bottom, right = -height % self.multiple, -width % self.multiple
        padded = functional.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x
        blocks = functional.pixel_unshuffle(padded, self.patch).to(self.unet.dtype)
        output = self.unet(blocks, label, return_dict=False)[0].to(x.dtype)
        return functional.pixel_shuffle(output, self.patch)[..., :height, :width]


def _routed(unet: Any) -> list[nn.Module]:
    """The blocks that keep their number of channels: residual ones and attentions."""
    parts = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    resnets = [block for part in parts for block in part.resnets if block.in_channels == block.out_channels]
    return [*resnets, *(block for part in parts for block in getattr(part, "attentions", None) or ())]


class OnVarianceExploding:
    """A model of a variance-preserving schedule, asked on a variance-exploding one.

    At equal signal-to-noise ratio the two noisy samples differ by a factor alone, x_VP = alpha x_VE, and (x0, eps) are
    the same. Ratios beyond the VP schedule's first and last step are told as that step.

    Parameters
    ----------
    model : Model
        On a :class:`VPSchedule`.
    schedule : VESchedule
    """

    def __init__(self, model: Model, schedule: VESchedule) -> None:
        if not isinstance(model.schedule, VPSchedule):
            raise InputError(f"a model on a {type(model.schedule).__name__}", remedy="It must be on a VPSchedule.")
        self.model = model
        self.schedule: Schedule = schedule
        levels = model.schedule.alphas_cumprod
        # decreasing log-SNR, 0.5 log(alpha^2 / sigma^2)
        self._log_snr = torch.from_numpy(levels / (1 - levels)).log() / 2

    def __call__(
        self, x: torch.Tensor, t: Level, condition: Condition | None = None, info: StepInfo | None = None
    ) -> Prediction:
        if isinstance(t, torch.Tensor) and t.ndim:
            raise InputError("one level for all items is needed here")
        ratio = self.schedule.log_snr(float(t))
        known = self._log_snr
        level = float(len(known) - 1)
        if ratio >= float(known[0]):
            level = 0.0
        elif ratio > float(known[-1]):
            above = int(torch.searchsorted(-known, -ratio))
            lower, upper = float(known[above - 1]), float(known[above])
            level = above - 1 + (lower - ratio) / (lower - upper)
        return self.model(x * self.model.schedule(level)[0], level, condition, info)


@dataclass
class SlicePrior:
    """A denoiser of slices, with the meaning of their values.

    Parameters
    ----------
    network : PatchedUNet
    denoiser : Denoiser
    values : SliceValues
    folder : Path, optional
        Where it was read from.
    device : torch.device
    """

    network: PatchedUNet
    denoiser: Denoiser
    values: SliceValues
    folder: Path | None
    device: torch.device

    @classmethod
    def new(
        cls,
        values: SliceValues,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        routing: RoutingConfig | None = None,
    ) -> SlicePrior:
        """A prior with fresh weights, to train; ``routing`` gives each noise level its own channels."""
        from diffusers.models.unets.unet_2d import UNet2DModel

        channels = values.patch**2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = UNet2DModel(
                sample_size=values.size // values.patch, in_channels=channels, out_channels=channels, **SLICE_UNET
            )
        if routing is not None:
            add_routing(unet, routing, blocks=_routed(unet))
        return cls._of(unet, VPSchedule.from_scheduler_config(SLICE_SCHEDULER), values, None, torch.device(device))

    @classmethod
    def from_pretrained(cls, source: str | Path, *, device: str = "auto") -> SlicePrior:
        """Read a bundled prior by its name, or a folder that :meth:`save_pretrained` wrote.

        Raises
        ------
        InputError
            No such model, an incomplete folder, or weights that do not fit.
        """
        from diffusers.models.unets.unet_2d import UNet2DModel

        folder = model_folder(source, ("unet", "scheduler", "values.json"), MODELS)
        values = read_values(folder)
        schedule, kind = load_schedule(folder / "scheduler")
        if kind != "v":
            raise InputError(f"predicts {kind!r}", path=folder / "scheduler", remedy="Slice priors predict 'v'.")
        where = resolve_device(device)
        unet = load_component(UNet2DModel, folder / "unet", expect={"in_channels": values.patch**2})
        if "task_routing" in unet.config:
            add_routing(unet, blocks=_routed(unet))
        return cls._of(unet, schedule, values, folder, where)

    @classmethod
    def _of(
        cls, unet: Any, schedule: VPSchedule, values: SliceValues, folder: Path | None, device: torch.device
    ) -> SlicePrior:
        network = PatchedUNet(unet, values.patch).to(device)
        return cls(network, Denoiser(network, schedule, "v"), values, folder, device)

    def save_pretrained(self, folder: str | Path, *, half: bool = False) -> None:
        """Write the folder; ``half`` stores weights in float16."""
        folder = Path(folder)
        write_text(folder / "values.json", json.dumps(asdict(self.values), indent=1) + "\n")
        write_text(folder / "scheduler/scheduler_config.json", json.dumps(SLICE_SCHEDULER, indent=1) + "\n")
        save_component(self.network.unet, folder / "unet", dtype=torch.float16 if half else torch.float32)

    def exploding(self) -> OnVarianceExploding:
        """The prior on a variance-exploding schedule, for :func:`priorscope_medical.mbir.diffusion_mbir`."""
        return OnVarianceExploding(self.denoiser, VESchedule(0.01, 100.0))
