"""An asinh stretch of flux that can be undone: y = asinh(x / beta) / asinh(scale / beta), a beta and a scale a band.

Near 0 it is linear, with the sky's noise spread over about the same range everywhere; far above beta it is logarithmic
(asinh magnitudes, Lupton et al. 1999). A model of flux keeps its parameters in its checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorscope.errors import InputError


@dataclass(frozen=True)
class AsinhStretch:
    """Stretch of images whose third axis from the end is the band.

    Parameters
    ----------
    beta : tuple of float
        Softening a band, in the flux's unit, above 0: the standard deviation of the sky, mostly.
    scale : tuple of float
        Flux a band that becomes 1, above 0. Brighter pixels become more than 1 and are not cut.
    """

    beta: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.beta or len(self.beta) != len(self.scale):
            raise InputError(f"a stretch with {len(self.beta)} beta and {len(self.scale)} scales", remedy="One a band.")
        for name, values in (("beta", self.beta), ("scale", self.scale)):
            if not all(math.isfinite(value) and value > 0 for value in values):
                raise InputError(f"{name} of a stretch is {list(values)}", remedy="Give numbers above 0.")

    def _parameters(self, images: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if images.ndim < 3 or images.shape[-3] != len(self.beta):
            raise InputError(
                f"images of shape {images.shape} for a stretch of {len(self.beta)} bands",
                remedy="Give arrays (..., bands, H, W).",
            )
        beta = np.asarray(self.beta)[:, None, None]
        return beta, np.arcsinh(np.asarray(self.scale)[:, None, None] / beta)

    def apply(self, flux: ArrayLike) -> NDArray[np.float64]:
        """Stretch flux (..., bands, H, W); about 0 for sky, 1 at ``scale``.

        Raises
        ------
        InputError
            Another number of bands.
        """
        flux = np.asarray(flux)
        beta, top = self._parameters(flux)
        return np.arcsinh(flux / beta) / top

    def invert(self, stretched: ArrayLike) -> NDArray[np.float64]:
        """Flux of stretched images (..., bands, H, W), in the unit of ``beta``."""
        stretched = np.asarray(stretched)
        beta, top = self._parameters(stretched)
        return beta * np.sinh(stretched * top)

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint: plain lists."""
        return {"kind": "asinh", "beta": list(self.beta), "scale": list(self.scale)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AsinhStretch:
        """The reverse of :meth:`to_dict`.

        Raises
        ------
        InputError
            Another kind of stretch, a missing or unknown name, values that are no numbers.
        """
        if values.get("kind", "asinh") != "asinh":
            raise InputError(f"a stretch of kind {values['kind']!r}", remedy="This version knows asinh.")
        names = set(values) - {"kind"}
        if names != {"beta", "scale"}:
            raise InputError(f"a stretch with {sorted(names)}", remedy="It has beta and scale.")
        try:
            return cls(*(tuple(float(one) for one in values[name]) for name in ("beta", "scale")))
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"a stretch with {dict(values)}", remedy="beta and scale are lists of numbers.") from error
