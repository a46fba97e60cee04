"""Classes of a map: their names and colours, as a table, as a picture, and inside a GeoTIFF."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import write_text
from priorscope.data.images import write_png
from priorscope.errors import InputError

UNLABELLED = 255
"""Value of pixels without a class in label arrays and maps (uint8)."""

MAX_CLASSES = UNLABELLED
MISSING_COLOUR = (112, 112, 112)

_COLOURS = (
    *((230, 159, 0), (0, 114, 178), (0, 158, 115), (240, 228, 66), (204, 121, 167), (86, 180, 233), (213, 94, 0)),
    *((120, 94, 60), (170, 220, 120), (90, 60, 150), (250, 180, 180), (20, 80, 40), (150, 200, 200), (90, 90, 90)),
)
"""Okabe and Ito's colours, which colour-blind readers can tell apart, then others."""

_BY_WORD = {
    **{"forest": (0, 104, 55), "tree": (0, 104, 55), "wood": (0, 104, 55), "shrub": (166, 118, 29)},
    **{"schrub": (166, 118, 29), "grass": (166, 217, 106), "pasture": (186, 228, 130), "meadow": (166, 217, 106)},
    **{"crop": (253, 191, 111), "cultivated": (253, 191, 111), "vegetation": (120, 190, 90), "orchard": (230, 140, 80)},
    **{"vineyard": (180, 90, 160), "water": (49, 130, 189), "river": (90, 160, 220), "sea": (33, 90, 160)},
    **{"lake": (49, 130, 189), "artificial": (202, 0, 32), "built": (202, 0, 32), "residential": (222, 80, 60)},
    **{"industrial": (150, 60, 140), "highway": (90, 90, 90), "road": (90, 90, 90), "bare": (200, 180, 150)},
    **{"soil": (200, 180, 150), "snow": (235, 245, 255), "wetland": (100, 180, 180), "cattle": (120, 60, 20)},
}


@dataclass(frozen=True)
class Legend:
    """Names and colours of the classes 0, 1, ...

    Attributes
    ----------
    names : tuple of str
    colours : tuple of (r, g, b), 0..255
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise InputError(f"a map has 1 to {MAX_CLASSES} classes, not {len(self.names)}")
        if len(set(self.names)) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise InputError(f"class names are given twice: {', '.join(twice)}")
        if len(self.colours) != len(self.names):
            raise InputError(f"{len(self.colours)} colours for {len(self.names)} classes")
        if any(len(colour) != 3 or not all(0 <= part <= 255 for part in colour) for colour in self.colours):
            raise InputError("a colour is three numbers in 0..255")

    @classmethod
    def of(cls, names: Sequence[str], colours: Mapping[str, tuple[int, int, int]] | None = None) -> Legend:
        """Give every class a colour: the one asked for, else a customary one (forests green), else the next free."""
        given = dict(colours or {})
        unknown = set(given) - set(names)
        if unknown:
            raise InputError(f"colours are given for classes that are not there: {', '.join(sorted(unknown))}")
        taken = set(given.values())
        chosen: list[tuple[int, int, int]] = []
        for name in names:
            colour = given.get(name) or next(
                (c for word, c in _BY_WORD.items() if word in name.lower() and c not in taken), None
            )
            colour = colour or next((c for c in _COLOURS if c not in taken), None) or _drawn(len(chosen), taken)
            taken.add(colour)
            chosen.append(colour)
        return cls(tuple(names), tuple(chosen))

    def paint(self, classes: NDArray[Any]) -> NDArray[np.uint8]:
        """Class indices [H, W] -> RGB [H, W, 3]; :data:`UNLABELLED` is grey.

        Raises
        ------
        InputError
            An index has no class.
        """
        classes = np.asarray(classes)
        if classes.ndim != 2 or classes.dtype.kind not in "iu":
            raise InputError(f"integer classes [H, W] can be painted, not {classes.dtype} {list(classes.shape)}")
        strange = (classes != UNLABELLED) & ((classes < 0) | (classes >= len(self.names)))
        if strange.any():
            raise InputError(f"class {classes[strange][0]} is not one of the {len(self.names)} of the legend")
        table = np.empty((256, 3), np.uint8)
        table[:] = MISSING_COLOUR
        table[: len(self.colours)] = self.colours
        return table[classes]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: a list of value, name and colour, and the value without class."""
        rows = [
            {"value": index, "name": name, "colour": "#{:02x}{:02x}{:02x}".format(*colour)}
            for index, (name, colour) in enumerate(zip(self.names, self.colours, strict=True))
        ]
        return {"classes": rows, "nodata": UNLABELLED}

    def mark(self, dataset: Any, description: str) -> None:
        """Write colour table, description and class names into a GeoTIFF that is open for writing."""
        table = {index: (*colour, 255) for index, colour in enumerate(self.colours)}
        dataset.write_colormap(1, {**table, UNLABELLED: (0, 0, 0, 0)})
        dataset.set_band_description(1, description)
        dataset.update_tags(1, **{f"CLASS_{index}": name for index, name in enumerate(self.names)})

    def write_category_names(self, raster: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the side file ``RASTER.aux.xml`` from which GDAL and QGIS take the names of the classes."""
        names = "".join(f"<Category>{escape(name)}</Category>" for name in self.names)
        text = (
            f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand></PAMDataset>'
        )
        return write_text(f"{Path(raster)}.aux.xml", text + "\n", overwrite=overwrite)

    def write(
        self, stem: str | PathLike[str], *, more: Mapping[str, Any] | None = None, overwrite: bool = False
    ) -> tuple[Path, Path]:
        """Write ``STEM_legend.json`` and ``STEM_legend.png``; `more` goes into the JSON file too."""
        stem = Path(stem)
        text = json.dumps({**self.as_dict(), **(more or {})}, indent=2, ensure_ascii=False)
        table = write_text(stem.with_name(f"{stem.name}_legend.json"), text + "\n", overwrite=overwrite)
        picture = stem.with_name(f"{stem.name}_legend.png")
        return table, write_png(picture, self.picture(), overwrite=overwrite)

    def picture(self) -> NDArray[np.uint8]:
        """The legend as a picture, uint8 [H, W, 3]: a swatch and a name a line."""
        from PIL import Image, ImageDraw, ImageFont

        font, line, pad = ImageFont.load_default(), 22, 8
        with contextlib.suppress(TypeError):  # Pillow before 10.1 has one size
            font = ImageFont.load_default(14)
        widths = [font.getlength(name) for name in self.names]
        size = (int(max(widths)) + 28 + 3 * pad, line * len(self.names) + 2 * pad)
        image = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(image)
        for row, (name, colour) in enumerate(zip(self.names, self.colours, strict=True)):
            top = pad + row * line
            draw.rectangle((pad, top + 2, pad + 28, top + line - 4), fill=colour, outline=(60, 60, 60))
            draw.text((2 * pad + 28, top + 2), name, fill=(20, 20, 20), font=font)
        return np.asarray(image)


def _drawn(index: int, taken: set[tuple[int, int, int]]) -> tuple[int, int, int]:
    rng = np.random.default_rng(index)
    while True:
        red, green, blue = (int(part) for part in rng.integers(20, 236, 3))
        if (red, green, blue) not in taken:
            return red, green, blue
