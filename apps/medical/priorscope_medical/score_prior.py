"""NCSN++ as a prior on slices, trained here or published with DiffusionMBIR; and which prior a command means."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from priorscope.backbones.loading import model_folder, read_config, save_component
from priorscope.backbones.ncsnpp import NCSNpp, ncsnpp_denoiser
from priorscope.backbones.ncsnpp_checkpoint import load_ncsnpp
from priorscope.backbones.table import find_published, refuse_by_hand
from priorscope.data.files import write_text
from priorscope.device import resolve_device, resolve_dtype
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser, Level, Model, Prediction, StepInfo
from priorscope.errors import InputError
from priorscope_medical.configs import SolverConfig
from priorscope_medical.prior import SlicePrior, SliceValues, Unit, read_values
from priorscope_medical.table import MODELS


@dataclass
class ScorePrior:
    """NCSN++ with the meaning of its values; used as :class:`priorscope_medical.prior.SlicePrior` is.

    Parameters
    ----------
    network : NCSNpp
    denoiser : Denoiser
        On variance-exploding noise.
    values : SliceValues
    folder : Path, optional
    device : torch.device
    pixel_known : bool
        Whether ``values.pixel`` is the training slices'; published checkpoints do not say.
    """

    network: NCSNpp
    denoiser: Denoiser
    values: SliceValues
    folder: Path | None
    device: torch.device
    pixel_known: bool = True

    @classmethod
    def of(
        cls,
        network: NCSNpp,
        values: SliceValues,
        *,
        device: torch.device,
        folder: Path | None = None,
        pixel_known: bool = True,
    ) -> ScorePrior:
        """A network with its values, on a device."""
        network = network.to(device)
        return cls(network, ncsnpp_denoiser(network), values, folder, device, pixel_known)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: str = "auto") -> ScorePrior:
        """Read a folder that :meth:`save_pretrained` wrote."""
        folder = Path(folder)
        values = read_values(folder)
        return cls.of(load_ncsnpp(folder / "ncsnpp"), values, device=resolve_device(device), folder=folder)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the folder."""
        folder = Path(folder)
        write_text(folder / "values.json", json.dumps(asdict(self.values), indent=1) + "\n")
        save_component(self.network, folder / "ncsnpp")

    def exploding(self) -> Model:
        """The denoiser, whose noise explodes already."""
        return self.denoiser


Prior = SlicePrior | ScorePrior


def load_prior(config: SolverConfig, unit: Unit) -> Prior:
    """The prior a command means, checked against what is reconstructed.

    Parameters
    ----------
    config : SolverConfig
        ``prior``: the name of a bundled prior, a folder, or a .pth file of DiffusionMBIR.
    unit : {"attenuation", "intensity"}
        Of the slices to be reconstructed.

    Raises
    ------
    InputError
        No such prior, one of the other unit, or a checkpoint whose numbers are not explained.
    """
    source = config.prior or _default(unit)
    refuse_by_hand(find_published(source, MODELS))  # before its name is taken for a folder's
    path = Path(source).expanduser()
    prior: Prior
    if path.suffix in (".pth", ".pt", ".ckpt"):
        scale = config.prior_scale or (1.0 if unit == "intensity" else None)
        if scale is None:
            raise InputError(
                "the checkpoint does not say what its numbers mean",
                path=path,
                remedy="Give --prior-scale: the attenuation (water 1) that was 1 in training.",
            )
        network = load_ncsnpp(path)
        values = SliceValues(unit, 0.0, scale, size=network.config.image_size)
        prior = ScorePrior.of(network, values, device=resolve_device(config.device), pixel_known=False)
    elif config.prior_scale is not None:
        raise InputError(
            f"--prior-scale {config.prior_scale:g} of {source}, which says itself what its numbers mean",
            remedy="Leave it out: it is for published checkpoints (.pth).",
        )
    elif (path / "ncsnpp").is_dir():
        prior = ScorePrior.from_pretrained(path, device=config.device)
    else:
        prior = SlicePrior.from_pretrained(source, device=config.device)
    if prior.values.unit != unit:
        raise InputError(
            f"the prior {source} is of {prior.values.unit}, the task of {unit}",
            remedy="CT needs a prior of attenuation, MRI one of intensity.",
        )
    prior.network.eval().requires_grad_(False)
    return prior


def _default(unit: Unit) -> str:
    for row in MODELS:
        if row.bundled:
            folder = model_folder(row.name, ("values.json",), MODELS)
            if read_config(folder, "values.json").get("unit") == unit:
                return row.name
    raise InputError(f"no prior of {unit} is bundled", remedy="Name one with --prior: a folder that `train` wrote.")


class Autocast:
    """A model whose network runs in mixed precision; what it answers is of the sample's own type."""

    def __init__(self, model: Model, device: torch.device, dtype: torch.dtype) -> None:
        self.model, self.schedule = model, model.schedule
        self.device, self.dtype = device, dtype

    def __call__(
        self, x: torch.Tensor, t: Level, condition: Condition | None = None, info: StepInfo | None = None
    ) -> Prediction:
        with torch.autocast(self.device.type, self.dtype):
            found = self.model(x, t, condition, info)
        return Prediction(found.x0.to(x.dtype), found.eps.to(x.dtype))


def in_precision(model: Model, config: SolverConfig, device: torch.device) -> Model:
    """The model in the precision that the command asks for."""
    dtype = resolve_dtype(config.precision, device)
    return model if dtype == torch.float32 else Autocast(model, device, dtype)


def describe(prior: Any) -> dict[str, Any]:
    """What was used, for a report."""
    values = prior.values
    return {
        "network": type(prior.network).__name__,
        "weights": sum(weight.numel() for weight in prior.network.parameters()),
        "unit": values.unit,
        "offset": values.offset,
        "scale": values.scale,
        "size": values.size,
        "pixel": values.pixel if getattr(prior, "pixel_known", True) else None,
    }
