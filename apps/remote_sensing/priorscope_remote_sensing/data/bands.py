"""Which bands a model takes, under which names, and how their numbers become inputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError

SENTINEL2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""The 13 bands of Sentinel-2 L1C in the order of their wavelengths (L2A products leave B10 out)."""

EUROSAT_ORDER = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
"""The order of the bands inside EuroSAT's 13-band files: B8A comes last (torchgeo, ``EuroSAT.all_band_names``)."""

_COMMON = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir"}
_SYNONYMS = {"r": "red", "g": "green", "b": "blue", "near infrared": "nir", "near-infrared": "nir", "n": "nir"}
_CODE = re.compile(r"^b?(\d{1,2})(a?)(?:[ _]\d+m)?(?:\s*-\s*(.+))?$")


@lru_cache(maxsize=4096)
def _identity(name: str) -> tuple[str | None, str | None]:
    """Code ("B04", "B8A") and common name ("red") of a band; what the name does not tell is None.

    "B04" with its zero is how Sentinel-2 is written, so it tells the colour too. "B4" does not: it is red on
    Landsat 8 and near infrared on Landsat 7.
    """
    text = " ".join(str(name).strip().lower().split())
    match = _CODE.match(text)
    if match is None:
        return None, _SYNONYMS.get(text, text)
    number, letter, rest = match.groups()
    if rest and rest.startswith(("vh", "vv", "hh", "hv")):
        return None, text  # GEO-Bench numbers its radar channels too: "04 - VV.Imaginary" is no optical band 4
    code = f"B{int(number)}A" if letter else f"B{int(number):02d}"
    if rest:
        return code, _SYNONYMS.get(rest, rest)
    return code, _COMMON.get(code) if len(number) == 2 else None


def same_band(first: str, second: str) -> bool:
    """Whether two names mean the same band.

    Understood: Sentinel-2 codes ("B04", "B4", "B8A", "B04_10m"), GEO-Bench's "04 - Red", and "Red", "R", "NIR".
    Two codes are compared as codes, otherwise the common names decide. Codes are taken for Sentinel-2's: a Landsat
    file's "B4" counts as "B04", whatever that satellite sees there. Name such bands by colour.
    """
    code_a, common_a = _identity(first)
    code_b, common_b = _identity(second)
    if code_a is not None and code_b is not None:
        return code_a == code_b
    return common_a is not None and common_a == common_b


def band_indices(
    wanted: Sequence[str],
    names: Sequence[str | None] | None,
    count: int,
    *,
    path: str | PathLike[str] | None = None,
) -> list[int]:
    """Positions of the wanted bands among those of a file.

    Parameters
    ----------
    wanted : sequence of str
        Names, in the order a model takes them.
    names : sequence of str or None
        Names of the file's bands; None where it gives none.
    count : int
        How many bands the file has.
    path : path-like, optional
        Named in errors.

    Returns
    -------
    list of int
        0-based. A file without names that has exactly as many bands as are wanted is taken in its own order.

    Raises
    ------
    InputError
        The file gives no names and has another number of bands; a name is missing, or fits two bands.
    """
    if names is not None and len(names) != count:
        raise InputError(f"{len(names)} band names were given for a file of {count} bands", path=path)
    if names is None or all(name is None for name in names):
        if count == len(wanted):
            return list(range(count))
        raise InputError(
            f"has {count} bands without names, and the model takes {len(wanted)}: {', '.join(wanted)}",
            path=path,
            remedy="Say what the bands are, in the file's order: band_names=('B01', 'B02', ...) in Python, "
            "--band-names B01 B02 ... on the command line.",
        )
    found = []
    for name in wanted:
        places = [index for index, other in enumerate(names) if other is not None and same_band(name, other)]
        if len(places) != 1:
            listed = ", ".join("(unnamed)" if other is None else other for other in names)
            many = "no band" if not places else f"{len(places)} bands"
            raise InputError(
                f"has {many} that can be {name}; its bands are {listed}",
                path=path,
                remedy="Name the bands in the file's order with band_names.",
            )
        found.append(places[0])
    return found


@dataclass(frozen=True)
class BandRecipe:
    """The bands a model takes and the numbers it wants.

    Attributes
    ----------
    bands : tuple of str
        Names, in the model's order.
    divisor : float
        Stored values are divided by it.
    clip : tuple of float or None
        Limits afterwards.
    """

    bands: tuple[str, ...]
    divisor: float = 1.0
    clip: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        if isinstance(self.bands, str):
            raise InputError(f"bands are several names, not {self.bands!r}", remedy=f"Write ({self.bands!r},).")
        if not self.bands or not self.divisor > 0:
            raise InputError(f"a band recipe needs bands and a positive divisor, not {self.bands}, {self.divisor}")

    def indices(
        self, names: Sequence[str | None] | None, count: int, *, path: str | PathLike[str] | None = None
    ) -> list[int]:
        """Positions of the recipe's bands in a file; see :func:`band_indices`."""
        return band_indices(self.bands, names, count, path=path)

    def scale(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Stored values, any shape -> float32 model inputs of the same shape. NaN stays NaN."""
        scaled = np.asarray(values).astype(np.float32) / np.float32(self.divisor)
        return scaled if self.clip is None else np.clip(scaled, *self.clip, out=scaled)


RECIPES: dict[str, BandRecipe] = {
    "sentinel2-rgb": BandRecipe(("B04", "B03", "B02"), 4095.0),
    "sentinel2-rgb-reflectance": BandRecipe(("B04", "B03", "B02"), 0.4095),
    "sentinel2": BandRecipe(SENTINEL2, 10000.0, None),
    "rgb": BandRecipe(("Red", "Green", "Blue"), 255.0),
    # SatDiFuser clips the 8-bit values of m-chesapeake to [0, 1] without dividing by 255
    "chesapeake-official": BandRecipe(("Red", "Green", "Blue"), 1.0),
}
"""Recipes by name. "sentinel2-rgb" (/4095) and "rgb" (/255) are SatDiFuser's for Sentinel-2 and aerial images;
"sentinel2-rgb-reflectance" is the first for values stored as reflectance 0..1 instead of its ten-thousandfold."""


def ndvi(red: NDArray[Any], nir: NDArray[Any]) -> NDArray[np.float32]:
    """Normalised difference vegetation index (nir - red) / (nir + red).

    Parameters
    ----------
    red, nir : ndarray, equal shapes
        Reflectance, or digital numbers on one scale without offset.

    Returns
    -------
    ndarray of float32, [-1, 1] for values >= 0
        NaN where both are 0.
    """
    red, nir = np.asarray(red, np.float32), np.asarray(nir, np.float32)
    if red.shape != nir.shape:
        raise InputError(f"red {list(red.shape)} and near infrared {list(nir.shape)} have different shapes")
    total = nir + red
    return np.divide(nir - red, total, out=np.full_like(total, np.nan), where=total != 0)
