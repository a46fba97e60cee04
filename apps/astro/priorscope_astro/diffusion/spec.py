"""What a model of galaxies is, besides its weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from priorscope.backbones.loading import read_config
from priorscope.errors import InputError
from priorscope.evaluation.config import config_from_plain, plain
from priorscope_astro.demo_config import BUNDLED, BUNDLED_FOLDER

Mode = Literal["display", "flux"]
#: The file of a model folder that holds the spec.
FILE = "priorscope.json"
_FAMILY = "galaxy-diffusion"


@dataclass(frozen=True)
class ModelSpec:
    """How images and what the network sees belong together.

    The network's values are ``(y - offset) / scale`` in each band, where y is the stretched flux (``flux``) or the
    8-bit value / 255 (``display``).
    """

    mode: Mode
    """display: 8-bit RGB, from which no flux can be recovered; flux: linear flux, stretched."""
    side: int
    """Of the square images, pixels."""
    bands: tuple[str, ...]
    """Names, in order; R, G, B of displays."""
    offset: tuple[float, ...]
    """Of each band."""
    scale: tuple[float, ...]
    """Of each band; above 0."""
    patch: int = 2
    """Side of the blocks of pixels that the network takes as one position."""
    stretch: Mapping[str, Any] | None = None
    """Parameters of the asinh stretch (flux): see :class:`priorscope_astro.imaging.stretch.AsinhStretch`."""
    unit: str = ""
    """Of the flux, as astropy writes it."""
    sky_sigma: tuple[float, ...] = ()
    """Standard deviation of the training stamps' sky in each band, in that unit; () where not known."""
    pixel_scale: float | None = None
    """Arcsec a pixel; None where it is not known."""
    trained_on: str = ""
    """Words for people."""

    def check(self) -> ModelSpec:
        """Refuse what does not fit together.

        Raises
        ------
        InputError
            Names the key.
        """
        count = len(self.bands)
        if self.mode not in ("display", "flux"):
            raise InputError(f"mode {self.mode!r}", remedy="Use 'display' or 'flux'.")
        if self.mode == "display" and count != 3:
            raise InputError(f"a display of {count} bands", remedy="It has three: R, G, B.")
        if self.mode == "flux" and (self.stretch is None or not self.unit):
            raise InputError("a model of flux needs a stretch and a unit")
        if not count or len(self.offset) != count or len(self.scale) != count or not all(s > 0 for s in self.scale):
            raise InputError(f"{count} bands have offsets {self.offset} and scales {self.scale}")
        if self.sky_sigma and len(self.sky_sigma) != count:
            raise InputError(f"{count} bands have {len(self.sky_sigma)} sky_sigma")
        if self.patch < 1 or self.side < 1 or self.side % self.patch:
            raise InputError(f"images of {self.side} pixels in blocks of {self.patch}", remedy="Use a multiple.")
        return self

    def write(self, folder: Path) -> None:
        """Write ``priorscope.json`` into a model folder."""
        content = {"family": _FAMILY, **plain(dataclasses.asdict(self))}
        (folder / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> ModelSpec:
        """Read it back.

        Raises
        ------
        InputError
            It is missing, damaged, or of another kind of model.
        """
        content = read_config(folder, FILE)
        family = content.pop("family", None)
        if family != _FAMILY:
            raise InputError(f"is a model of the family {family!r}, not {_FAMILY!r}", path=folder / FILE)
        spec = config_from_plain(cls, content, path=folder / FILE)
        try:
            return spec.check()
        except InputError as error:
            raise InputError(error.fact, path=folder / FILE, remedy=error.remedy) from None


def model_folder(path: str | Path) -> Path:
    """The model's own folder: that of the bundled model by its name, of a run folder the one in it, else itself."""
    folder = BUNDLED_FOLDER if str(path) == BUNDLED else Path(path).expanduser()
    return folder / "model" if is_galaxy_model(folder / "model") else folder


def is_galaxy_model(folder: Path) -> bool:
    """Whether a folder holds a model of ours (GalaxySD's folders do not have the file)."""
    return (folder / FILE).is_file() and read_config(folder, FILE).get("family") == _FAMILY
