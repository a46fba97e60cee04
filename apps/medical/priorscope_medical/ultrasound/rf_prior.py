"""Priors of RF: a denoiser of short sequences of tissue, or of haze, in patches. For research use only.

A patch is 128 RF samples (at four a period) by 64 beams of several frames, as I and Q: 32 rows half a wavelength apart.
What tells haze from tissue is all inside: it is of lower frequency, wider across the beams, and hardly moves. The
network sees logarithms of power, since echoes span 50 dB; the diffusion itself runs on plain values (``mu`` 0), where
tissue and haze add up. With ``mu`` above 0 it runs on companded ones, as published.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from priorscope.backbones.loading import load_component, model_folder, read_config, save_component
from priorscope.data.files import write_text
from priorscope.device import resolve_device
from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.simple_sde import SimpleVESchedule
from priorscope.errors import InputError
from priorscope_medical.table import MODELS
from priorscope_medical.ultrasound.companding import compress, expand
from priorscope_medical.ultrasound.gain_network import GainNetwork
from priorscope_medical.ultrasound.quadrature import as_channels, as_rows

Part = Literal["tissue", "haze"]
#: Noise from 0 to 9.85 times the RMS of hazy RF.
SCHEDULE = SimpleVESchedule()


@dataclass(frozen=True)
class RfValues:
    """What a prior's numbers mean.

    Parameters
    ----------
    part : {"tissue", "haze"}
    frames : int
        Frames that the network sees together.
    rows, beams : int
        Of a patch: rows are half a wavelength apart.
    std : float
        Standard deviation of the values it was trained on: hazy RF has RMS 1.
    mu : float
        Above 0: the state is companded by this mu-law, with ``loudest`` as 1.
    loudest : float
    """

    part: Part
    frames: int = 6
    rows: int = 32
    beams: int = 64
    std: float = 0.7
    mu: float = 0.0
    loudest: float = 6.0

    def __post_init__(self) -> None:
        if self.part not in ("tissue", "haze"):
            raise InputError(f"part {self.part!r}", remedy="Use 'tissue' or 'haze'.")
        if min(self.frames, self.rows, self.beams) < 1 or not (self.std > 0 and self.loudest > 0 and self.mu >= 0):
            raise InputError(f"values of {self}", remedy="Numbers are positive, mu may be 0.")

    def to_network(self, values: torch.Tensor) -> torch.Tensor:
        """Values of hazy RMS 1 -> the state's."""
        return compress(values / self.loudest, strength=self.mu) if self.mu else values

    def from_network(self, x: torch.Tensor) -> torch.Tensor:
        """The state's -> values."""
        return self.loudest * expand(x, strength=self.mu) if self.mu else x


class RfNetwork(nn.Module):
    """I and Q of a noisy sequence (B, 2 frames, H, W) and log sigma (B,) -> its clean estimate, by gains."""

    def __init__(self, gains: GainNetwork) -> None:
        super().__init__()
        self.gains = gains

    def forward(self, x: torch.Tensor, level: torch.Tensor, top: torch.Tensor | None = None) -> torch.Tensor:
        gain, spectrum = self.gain_of(x, level, top)
        return self.back(gain * spectrum, x)

    def gain_of(
        self, x: torch.Tensor, level: torch.Tensor, top: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gains, and the coefficients of ``x`` that they belong to: both (B, bins, h, w)."""
        spectrum = self.gains.spectrum.forward(as_rows(x.float()))
        return self.gains(spectrum, level.float(), top), spectrum

    def back(self, spectrum: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Coefficients to I and Q like ``like``."""
        frames = (len(like), like.shape[1] // 2, *like.shape[2:])
        return as_channels(self.gains.spectrum.inverse(spectrum, frames)).to(like.dtype)


@dataclass
class RfPrior:
    """A denoiser of RF on the schedule of the published sampler, with the meaning of its values."""

    network: RfNetwork
    denoiser: Denoiser
    values: RfValues
    folder: Path | None
    device: torch.device

    @classmethod
    def new(cls, values: RfValues, *, seed: int = 0, device: torch.device | str = "cpu", **network: Any) -> RfPrior:
        """A prior with fresh weights, to train; ``network`` goes to :class:`~.gain_network.GainNetwork`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = GainNetwork(frames=values.frames, **network)
        return cls._of(made, values, None, torch.device(device))

    @classmethod
    def from_pretrained(cls, source: str | Path, *, device: str = "auto") -> RfPrior:
        """Read a bundled prior by its name, or a folder that :meth:`save_pretrained` wrote.

        Raises
        ------
        InputError
            No such model, an incomplete folder, or weights that do not fit.
        """
        folder = model_folder(source, ("network", "rf_values.json"), MODELS)
        try:
            values = RfValues(**read_config(folder, "rf_values.json"))
        except TypeError as error:
            raise InputError(f"holds unknown settings ({error})", path=folder / "rf_values.json") from None
        gains = load_component(GainNetwork, folder / "network", expect={"frames": values.frames})
        return cls._of(gains.float(), values, folder, resolve_device(device))

    @classmethod
    def _of(cls, gains: GainNetwork, values: RfValues, folder: Path | None, device: torch.device) -> RfPrior:
        network = RfNetwork(gains).to(device)
        return cls(network, Denoiser(network, SCHEDULE, "sample", time_label=_log_sigma), values, folder, device)

    def save_pretrained(self, folder: str | Path, *, half: bool = False) -> None:
        """Write the folder; ``half`` stores weights in float16."""
        folder = Path(folder)
        write_text(folder / "rf_values.json", json.dumps(asdict(self.values), indent=1) + "\n")
        save_component(self.network.gains, folder / "network", dtype=torch.float16 if half else torch.float32)


def _log_sigma(t: Any) -> Any:
    if isinstance(t, torch.Tensor):
        twice = 2 * math.log(SCHEDULE.base)
        return (torch.expm1(twice * t.double()) / twice).log().float() / 2
    return math.log(SCHEDULE(t)[1])
