"""What a trained SatDiFuser is, beside its weights. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from priorscope.errors import InputError
from priorscope_remote_sensing.data.bands import BandRecipe

Task = Literal["classification", "multi-label", "segmentation"]
FeatureMode = Literal["levels", "inversion", "official"]


@dataclass(frozen=True)
class SatDiFuserSettings:
    """Everything about a model but its weights.

    Parameters
    ----------
    task : {"classification", "multi-label", "segmentation"}
    classes : tuple of str
        Names, by index.
    bands : BandRecipe
        What the images are made of, and how stored numbers become 0 ... 1.
    backbone : str
        Name or folder of the diffusion model that the features are of.
    mode : {"levels", "inversion", "official"}
        How features are taken: the latent noised to each level, one call a level; along a DDIM inversion of
        ``steps``; or along the inversion as SatDiFuser's code does it, every output read as epsilon.
    steps : int
        Of the inversion that save steps refer to.
    image_size : int
        Longer side of the images that the backbone sees, in pixels.
    mean, std : float
        Subtracted, and divided by, before the backbone.
    prompt : str
    use_metadata : bool
    no_data : int, optional
        Index of a class that means "no data".
    """

    task: Task
    classes: tuple[str, ...]
    bands: BandRecipe
    backbone: str
    mode: FeatureMode = "levels"
    steps: int = 50
    image_size: int = 256
    mean: float = 0.5
    std: float = 0.5
    prompt: str = "A satellite image"
    use_metadata: bool = False
    no_data: int | None = None

    def __post_init__(self) -> None:
        if self.task not in ("classification", "multi-label", "segmentation"):
            raise InputError(f"task {self.task!r}", remedy="Use 'classification', 'multi-label' or 'segmentation'.")
        if self.mode not in ("levels", "inversion", "official"):
            raise InputError(f"feature mode {self.mode!r}", remedy="Use 'levels', 'inversion' or 'official'.")
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise InputError(f"classes {list(self.classes)} are empty or repeat themselves")
        if self.image_size < 1 or not (self.std > 0 and math.isfinite(self.mean)):
            raise InputError(f"image_size {self.image_size}, mean {self.mean}, std {self.std}")
        if self.no_data is not None and not 0 <= self.no_data < len(self.classes):
            raise InputError(f"no_data {self.no_data} is none of {len(self.classes)} classes")

    @property
    def head(self) -> Literal["classification", "segmentation"]:
        """The kind of decoder head."""
        return "segmentation" if self.task == "segmentation" else "classification"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> SatDiFuserSettings:
        """From JSON; unknown or ill-typed entries are an InputError."""
        if unknown := sorted(set(content) - {field.name for field in fields(cls)}):
            raise InputError(f"unknown settings: {', '.join(unknown)}")
        try:
            bands = dict(content["bands"])
            clip = bands.get("clip")
            if isinstance(content["classes"], str) or isinstance(bands["bands"], str):
                raise TypeError("classes and bands are lists of names")
            bands |= {"bands": tuple(bands["bands"]), "clip": None if clip is None else (clip[0], clip[1])}
            return cls(**{**content, "classes": tuple(content["classes"]), "bands": BandRecipe(**bands)})
        except (KeyError, TypeError, IndexError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"settings of a model: {type(error).__name__} {error}") from None
