"""LeRobot's normaliser: the statistics of each field and how they are used, as its files have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from priorscope.errors import InputError
from priorscope_robotics.normalizer import field_key

Mode = Literal["MEAN_STD", "MIN_MAX", "IDENTITY"]

#: What LeRobot adds to a range or deviation that may be 0.
_EPS = 1e-8
_NEEDED: dict[str, tuple[str, ...]] = {"MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max"), "IDENTITY": ()}


class LeRobotField(nn.Module):
    """MIN_MAX to [-1, 1], MEAN_STD, or nothing.

    Parameters
    ----------
    mode : {"MEAN_STD", "MIN_MAX", "IDENTITY"}
    stats : mapping of str to Tensor
        Those of the mode, (D,), or (C, 1, 1) of images.
    shifted : bool
        The older layout adds 1e-8 to every range and not only to one that is 0.

    Notes
    -----
    A constant dimension becomes -1 (Diffusion Policy's normaliser makes it 0). It is written as (x - min) / range, not
    as a scale and an offset, which would cancel to nothing there.
    """

    def __init__(self, mode: str, stats: Mapping[str, torch.Tensor], *, shifted: bool = False) -> None:
        super().__init__()
        if mode not in _NEEDED:
            raise InputError(f"normalisation {mode!r}", remedy=f"Known are {', '.join(_NEEDED)}.")
        self.mode = mode
        self.shifted = shifted
        for name in _NEEDED[mode]:
            if name not in stats:
                raise InputError(f"the normalisation {mode} lacks {name!r}")
            self.register_buffer(name, stats[name].float())

    def _moves(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = (getattr(self, name).to(x.dtype) for name in _NEEDED[self.mode])
        return first, second

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode == "IDENTITY":
            return x
        first, second = self._moves(x)
        if self.mode == "MEAN_STD":
            return (x - first) / (second + _EPS)
        width = second - first
        width = width + _EPS if self.shifted else torch.where(width == 0, _EPS, width)
        return 2 * ((x - first) / width) - 1

    def unnormalize(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode == "IDENTITY":
            return x
        first, second = self._moves(x)
        if self.mode == "MEAN_STD":
            return x * second + first
        width = second - first
        if not self.shifted:
            width = torch.where(width == 0, _EPS, width)
        return (x + 1) / 2 * width + first


class LeRobotNormalizer(nn.Module):
    """One :class:`LeRobotField` a field.

    Parameters
    ----------
    modes : mapping of str to str
        Of each field.
    stats : mapping of str to mapping
        Statistics of each field; None for those that ``load_state_dict`` will fill, given ``shapes``.
    shifted : bool
        See :class:`LeRobotField`.
    """

    def __init__(
        self, modes: Mapping[str, str], stats: Mapping[str, Mapping[str, torch.Tensor]], *, shifted: bool = False
    ) -> None:
        super().__init__()
        self.fields = nn.ModuleDict(
            {field_key(name): LeRobotField(mode, stats.get(name, {}), shifted=shifted) for name, mode in modes.items()}
        )

    @classmethod
    def empty(
        cls, modes: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], *, shifted: bool = False
    ) -> LeRobotNormalizer:
        """To be filled by ``load_state_dict``."""
        stats = {name: {stat: torch.zeros(shapes[name]) for stat in _NEEDED.get(modes[name], ())} for name in modes}
        return cls(modes, stats, shifted=shifted)

    def field(self, name: str) -> LeRobotField:
        """The normalisation of one field."""
        key = field_key(name)
        if key not in self.fields:
            raise InputError(f"no normaliser for {name!r}", remedy=f"There are {', '.join(self.fields)}.")
        return self.fields[key]  # type: ignore[return-value]

    def normalize(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """(..., D), or images (..., C, H, W), of field ``name`` to the network's range."""
        return self.field(name).normalize(x)

    def unnormalize(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """(..., D) of field ``name`` back to its unit."""
        return self.field(name).unnormalize(x)


def needed_statistics(mode: str) -> tuple[str, ...]:
    """Which statistics a mode uses."""
    if mode not in _NEEDED:
        raise InputError(f"normalisation {mode!r}", remedy=f"Known are {', '.join(_NEEDED)}.")
    return _NEEDED[mode]
