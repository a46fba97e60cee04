"""A small residual network from an image of a galaxy to classes, or to vote fractions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from priorscope.backbones.loading import read_config
from priorscope.backbones.residual import ResidualBlock
from priorscope.backbones.state_dict import filled, read_safetensors
from priorscope.data.weights_file import save_file
from priorscope.errors import InputError
from priorscope_astro.conditions.tree import ANSWERS, ANSWERS_OF, QUESTIONS

FAMILY = "galaxy-classifier"
_CONFIG, _WEIGHTS = "priorscope.json", "model.safetensors"
#: Answers of each question: how the outputs of a head for votes are cut.
QUESTION_SIZES = tuple(len(ANSWERS_OF[question]) for question in QUESTIONS)
#: Concentrations lie between 1 (nothing known) and this (votes nearly certain): beyond, the loss hardly changes.
_MOST = 101.0
#: Added to what the last layer gives: new weights then start at concentrations of about 6, not at 51.
_START = -3.0


@dataclass(frozen=True)
class ClassifierSpec:
    """What a network takes and gives."""

    size: int
    """Pixels along a side."""
    channels: int = 3
    classes: tuple[str, ...] = ()
    """Names of the classes; none: votes at every question of the tree."""
    widths: tuple[int, ...] = (16, 32, 64, 128)
    integer: bool = True
    """Whether images are uint8 (and divided by 255), or float32 as they are."""


class GalaxyClassifier(nn.Module):
    """Residual blocks at 1/2, 1/4, ... of the image, a mean over positions, one linear layer.

    Parameters
    ----------
    spec : ClassifierSpec

    Raises
    ------
    InputError
        A size that cannot be halved that often, widths that are not multiples of 8, or a single class.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, spec: ClassifierSpec) -> None:
        super().__init__()
        if spec.size % 2 ** len(spec.widths) or spec.size < 2 ** len(spec.widths):
            raise InputError(f"images of {spec.size} pixels", remedy=f"Use a multiple of {2 ** len(spec.widths)}.")
        if any(width < 8 or width % 8 for width in spec.widths):
            raise InputError(f"widths {list(spec.widths)}", remedy="Use multiples of 8.")
        if len(spec.classes) == 1:
            raise InputError(f"the only class is {spec.classes[0]!r}", remedy="Give two or more, or none for votes.")
        self.spec = spec
        self.register_buffer("mean", torch.zeros(spec.channels))
        self.register_buffer("deviation", torch.ones(spec.channels))
        layers: list[nn.Module] = [nn.Conv2d(spec.channels, spec.widths[0], 3, stride=2, padding=1)]
        for one, two in pairwise(spec.widths):
            layers += [ResidualBlock(one), nn.Conv2d(one, two, 3, stride=2, padding=1)]
        layers += [ResidualBlock(spec.widths[-1]), nn.GroupNorm(8, spec.widths[-1]), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(spec.widths[-1], len(spec.classes) or len(ANSWERS))

    @classmethod
    def new(cls, spec: ClassifierSpec, seed: int = 0) -> GalaxyClassifier:
        """A network with new weights, fixed by the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(spec)

    def normalise_by(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        """Set mean and standard deviation of each channel of the images, which are taken out of them."""
        self.mean.copy_(torch.as_tensor(mean))
        self.deviation.copy_(torch.as_tensor(deviation).clamp_min(1e-6))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B, D) before the last layer: a space to compare sets of galaxies in.

        Parameters
        ----------
        images : Tensor, (B, C, H, H)
            uint8 or float32, as the spec says.

        Raises
        ------
        InputError
            Images of another kind or size.
        """
        spec = self.spec
        wanted = torch.uint8 if spec.integer else torch.float32
        if images.ndim != 4 or images.shape[1:] != (spec.channels, spec.size, spec.size) or images.dtype != wanted:
            raise InputError(
                f"images {tuple(images.shape)} of {images.dtype}; this classifier takes "
                f"(B, {spec.channels}, {spec.size}, {spec.size}) of {wanted}"
            )
        x = images.float() / 255 if spec.integer else images
        x = (x - self.mean[:, None, None]) / self.deviation[:, None, None]
        return self.body(x).mean((2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of the classes (B, classes), or concentrations (B, 37) of the votes, float32."""
        raw = self.head(self.features(images)).float()
        return raw if self.spec.classes else 1 + (_MOST - 1) * torch.sigmoid(raw + _START)

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities of the classes (B, classes), or expected vote fractions (B, 37); each question adds up to 1."""
        out = self(images)
        if self.spec.classes:
            return out.softmax(-1)
        parts = out.split(list(QUESTION_SIZES), -1)
        return torch.cat([part / part.sum(-1, keepdim=True) for part in parts], -1)

    def save(self, folder: str | Path) -> Path:
        """Write ``priorscope.json`` and ``model.safetensors`` into a folder that must not exist."""
        folder = Path(folder)
        folder.mkdir(parents=True)
        weights = {name: value.detach().float().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, folder / _WEIGHTS)
        (folder / _CONFIG).write_text(json.dumps({"family": FAMILY, "spec": asdict(self.spec)}, indent=2) + "\n")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> GalaxyClassifier:
        """Read what :meth:`save` wrote: on the CPU, in evaluation mode, without gradients.

        Raises
        ------
        InputError
            Another family, or weights that do not fit.
        """
        folder = Path(folder)
        content = read_config(folder, _CONFIG)
        if content.get("family") != FAMILY:
            raise InputError("does not describe a galaxy classifier", path=folder / _CONFIG)
        try:
            stated = content["spec"]
            spec = ClassifierSpec(**stated | {"classes": tuple(stated["classes"]), "widths": tuple(stated["widths"])})
            network = cls(spec)
        except (KeyError, TypeError) as error:
            raise InputError(f"has settings that are not understood ({error})", path=folder / _CONFIG) from None
        return filled(network, read_safetensors(folder / _WEIGHTS), folder / _WEIGHTS)
