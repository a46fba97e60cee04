"""A diffusion prior of B-mode pictures without haze: the bundled one, one that was trained here, or zea's published."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from priorscope.backbones.loading import load_component, model_folder, read_config, save_component
from priorscope.backbones.table import find_published
from priorscope.data.files import write_text
from priorscope.device import Precision, resolve_device, resolve_dtype
from priorscope.diffusion.denoiser import Denoiser
from priorscope.errors import InputError
from priorscope_medical.table import MODELS
from priorscope_medical.ultrasound.angle_schedule import AngleSchedule
from priorscope_medical.ultrasound.zea_checkpoint import load_zea
from priorscope_medical.ultrasound.zea_unet import ZeaUNet

_VALUES, _UNET = "values.json", "unet"
_ZEA = ("config.json", "model.weights.h5")


@dataclass(frozen=True)
class EchoValues:
    """What a prior's numbers mean.

    Parameters
    ----------
    size : int
        Side of its training pictures, which the sector fills, in pixels.
    low, high : float
        Black and white.
    patch : int
        Each block of so many pixels a side is one position of the network.
    min_signal, max_signal : float
        Of its :class:`~.angle_schedule.AngleSchedule`.
    """

    size: int = 128
    low: float = -1.0
    high: float = 1.0
    patch: int = 1
    min_signal: float = 0.02
    max_signal: float = 0.95


class EchoPrior:
    """A network with the meaning of its values.

    Parameters
    ----------
    network : ZeaUNet
        With ``patch``^2 channels.
    values : EchoValues
    device : torch.device
    source : str
        Where it came from, for reports.
    dtype : torch.dtype
        That the network computes in; the weights stay in float32.
    """

    def __init__(
        self,
        network: ZeaUNet,
        values: EchoValues,
        *,
        device: torch.device,
        source: str = "",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if network.config.image_channels != values.patch**2:
            raise InputError(
                f"a network of {network.config.image_channels} channels for blocks of {values.patch} x {values.patch}",
                remedy="B-mode pictures have one channel: the network has as many as a block has pixels.",
            )
        self.network, self.values, self.device = network.to(device), values, device
        self.source, self.dtype = source, dtype
        self.denoiser = Denoiser(self._noise, AngleSchedule(values.min_signal, values.max_signal))

    @classmethod
    def new(cls, values: EchoValues, widths: tuple[int, ...], *, depth: int, seed: int, device: str) -> EchoPrior:
        """An untrained one."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = ZeaUNet(values.patch**2, list(widths), depth)
        return cls(network, values, device=resolve_device(device))

    @property
    def multiple(self) -> int:
        """Sides of pictures must be multiples of this."""
        return self.values.patch * 2**self.network.levels

    def to_network(self, grey: torch.Tensor) -> torch.Tensor:
        """Pictures from 0 (black) to 1 (white) in the network's numbers."""
        return grey * (self.values.high - self.values.low) + self.values.low

    def to_grey(self, x: torch.Tensor) -> torch.Tensor:
        """The way back, cut to 0 ... 1."""
        return ((x - self.values.low) / (self.values.high - self.values.low)).clamp(0, 1)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the folder that :func:`load_echo_prior` reads."""
        folder = Path(folder)
        write_text(folder / _VALUES, json.dumps(asdict(self.values), indent=1) + "\n")
        save_component(self.network, folder / _UNET)

    def describe(self) -> dict[str, Any]:
        """What was used, for a report."""
        weights = sum(weight.numel() for weight in self.network.parameters())
        return {"prior": self.source, "weights": weights} | asdict(self.values)

    def _noise(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        blocks = functional.pixel_unshuffle(x, self.values.patch)
        if self.dtype != torch.float32 and not self.network.training:
            with torch.autocast(self.device.type, self.dtype):
                found = self.network(blocks, label).to(x.dtype)
        else:
            found = self.network(blocks, label)
        return functional.pixel_shuffle(found, self.values.patch)


def load_echo_prior(source: str, *, device: str = "auto", precision: Precision = "auto") -> EchoPrior:
    """A prior by its name in the model table, its folder or its hub id, in evaluation mode without gradients.

    Parameters
    ----------
    source : str
        A bundled prior's name, a folder that :meth:`EchoPrior.save_pretrained` wrote, or a folder or hub id
        (``hf://owner/name``, too) of a diffusion model that zea has saved.
    device, precision : str
        As for commands.

    Raises
    ------
    InputError
        No such prior; weights that do not fit; pictures with more than one channel.
    """
    name = str(source).removeprefix("hf://")
    local = Path(name).expanduser()
    parts = (_VALUES, _UNET)
    row = find_published(name, MODELS)
    published = row is not None and row.loader == "zea"
    if published or (local / _ZEA[1]).exists() or not (local.exists() or row or "/" not in name):
        parts = _ZEA
    folder = model_folder(name, parts, MODELS)
    where = resolve_device(device)
    dtype = resolve_dtype(precision, where)
    if (folder / _ZEA[1]).exists():
        return _of_zea(folder, where, dtype, str(source))
    known = read_config(folder, _VALUES)
    try:
        values = EchoValues(**known)
    except TypeError as error:
        raise InputError(f"does not describe a prior of B-mode pictures ({error})", path=folder / _VALUES) from error
    network = load_component(ZeaUNet, folder / _UNET).eval().requires_grad_(False)
    return EchoPrior(network, values, device=where, source=str(source), dtype=dtype)


def _of_zea(folder: Path, device: torch.device, dtype: torch.dtype, source: str) -> EchoPrior:
    network, schedule, (low, high) = load_zea(folder)
    config = read_config(folder)["config"]
    shape = config.get("input_shape") or config.get("image_shape")
    if shape[0] != shape[1]:
        raise InputError(f"is a prior of {shape[0]} x {shape[1]} pixels; square pictures are expected", path=folder)
    values = EchoValues(int(shape[0]), low, high, 1, schedule.min_signal, schedule.max_signal)
    return EchoPrior(network, values, device=device, source=source, dtype=dtype)
