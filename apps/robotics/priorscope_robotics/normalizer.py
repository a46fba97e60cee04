"""How actions and observations are brought to the range that networks see: Diffusion Policy's linear normaliser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import nn

from priorscope.errors import InputError

#: Statistics of a field, over all time steps of a data set: vectors (D,).
Statistics = Mapping[str, torch.Tensor]

STATISTICS = ("min", "max", "mean", "std")
_RANGE_OF_STATISTICS = 1e-7


def statistics(values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Minimum, maximum, mean and standard deviation (N - 1) of (..., D) over all but the last axis."""
    values = values.reshape(-1, values.shape[-1]).float()
    return {"min": values.amin(0), "max": values.amax(0), "mean": values.mean(0), "std": values.std(0)}


class FieldScale(nn.Module):
    """``x scale + offset`` on the last axis of one field; buffers, never trained.

    Parameters
    ----------
    scale, offset : Tensor (D,)
    stats : mapping
        ``min``, ``max``, ``mean`` and ``std`` of what it was fitted to; kept for the record.
    """

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, scale: torch.Tensor, offset: torch.Tensor, stats: Statistics) -> None:
        super().__init__()
        self.register_buffer("scale", scale.float())
        self.register_buffer("offset", offset.float())
        self.input_stats = nn.Module()
        for name in STATISTICS:
            self.input_stats.register_buffer(name, stats[name].float())

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        """To the network's range; the last axis must be D, or anything where D is 1."""
        return x * self.scale.to(x.dtype) + self.offset.to(x.dtype)

    def unnormalize(self, x: torch.Tensor) -> torch.Tensor:
        """Back to the field's unit."""
        return (x - self.offset.to(x.dtype)) / self.scale.to(x.dtype)


def fit_field(
    stats: Statistics,
    mode: Literal["limits", "gaussian"] = "limits",
    *,
    fit_offset: bool = True,
    range_eps: float = 1e-4,
) -> FieldScale:
    """Scale a field to [-1, 1], or to mean 0 and deviation 1.

    Parameters
    ----------
    stats : mapping
        As :func:`statistics` gives.
    mode : {"limits", "gaussian"}
    fit_offset : bool
        Without, zero stays zero.
    range_eps : float
        Dimensions that vary less are not scaled: a constant one becomes 0. Published normalisers that are fitted to
        data use 1e-4, those made from statistics 1e-7.
    """
    low, high = stats["min"].float(), stats["max"].float()
    if mode == "gaussian":
        spread = stats["std"].float()
        scale = 1 / torch.where(spread < range_eps, 1.0, spread)
        offset = -stats["mean"].float() * scale if fit_offset else torch.zeros_like(scale)
    elif mode != "limits":
        raise InputError(f"normalisation {mode!r}", remedy="Use 'limits' or 'gaussian'.")
    elif fit_offset:
        still = high - low < range_eps
        scale = 2 / torch.where(still, 2.0, high - low)
        offset = torch.where(still, -low, -1 - scale * low)
    else:
        size = torch.maximum(low.abs(), high.abs())
        scale = 1 / torch.where(size < range_eps, 1.0, size)
        offset = torch.zeros_like(scale)
    return FieldScale(scale, offset, stats)


def range_field(stats: Statistics) -> FieldScale:
    """Each dimension to [-1, 1], from statistics."""
    return fit_field(stats, range_eps=_RANGE_OF_STATISTICS)


def identity_field(stats: Statistics) -> FieldScale:
    """Left as it is: actions that are normalised already."""
    return FieldScale(torch.ones_like(stats["min"]), torch.zeros_like(stats["min"]), stats)


def largest_field(stats: Statistics) -> FieldScale:
    """One factor for all dimensions, 1 over the largest absolute value (robomimic's low-dimensional observations)."""
    largest = torch.maximum(stats["max"].max(), stats["min"].abs().max())
    largest = torch.where(largest == 0, 1.0, largest)  # nothing but zeros stays so
    return FieldScale(torch.full_like(stats["max"], 1.0) / largest, torch.zeros_like(stats["max"]), stats)


def absolute_action_field(stats: Statistics) -> FieldScale:
    """Positions to [-1, 1]; six-number rotations and the gripper as they are (robomimic's absolute actions).

    The field has 10 numbers an arm: position 3, rotation 6, gripper 1.
    """
    size = len(stats["min"])
    if size % 10:
        raise InputError(f"absolute actions of {size} numbers", remedy="They have 10 an arm.")
    position = torch.arange(size) % 10 < 3
    ranged, same = range_field(stats), identity_field(stats)
    return FieldScale(
        torch.where(position, ranged.scale, same.scale), torch.where(position, ranged.offset, same.offset), stats
    )


def image_field() -> FieldScale:
    """Images from [0, 1] to [-1, 1]."""
    values = {"min": 0.0, "max": 1.0, "mean": 0.5, "std": (1 / 12) ** 0.5}
    stats = {name: torch.tensor([value]) for name, value in values.items()}
    return FieldScale(torch.tensor([2.0]), torch.tensor([-1.0]), stats)


def field_key(name: str) -> str:
    """A field's name as a part of a state dict's keys, which dots would cut."""
    return name.replace(".", "_")


class LinearNormalizer(nn.Module):
    """One :class:`FieldScale` a field; its state dict has the published keys ``params_dict.FIELD.scale``, ...

    Parameters
    ----------
    fields : mapping of str to FieldScale
    """

    def __init__(self, fields: Mapping[str, FieldScale]) -> None:
        super().__init__()
        self.params_dict = nn.ModuleDict({field_key(name): field for name, field in fields.items()})

    @classmethod
    def empty(cls, sizes: Mapping[str, int]) -> LinearNormalizer:
        """To be filled by ``load_state_dict``: fields of these sizes that change nothing."""
        blank = {name: {key: torch.zeros(size) for key in STATISTICS} for name, size in sizes.items()}
        return cls({name: identity_field(stats) for name, stats in blank.items()})

    def field(self, name: str) -> FieldScale:
        """The scale of one field."""
        key = field_key(name)
        if key not in self.params_dict:
            raise InputError(f"no normaliser for {name!r}", remedy=f"There are {', '.join(self.params_dict)}.")
        return self.params_dict[key]  # type: ignore[return-value]

    def normalize(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """(..., D) of field ``name`` to the network's range; images (..., C, H, W) too."""
        return self.field(name).normalize(x)

    def unnormalize(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """(..., D) of field ``name`` back to its unit."""
        return self.field(name).unnormalize(x)


def published_sizes(keys: Iterable[str], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Fields and sizes that the ``params_dict.FIELD.scale`` among ``keys`` tell."""
    found = {}
    for key in keys:
        if key.startswith("params_dict.") and key.endswith(".scale"):
            found[key.removeprefix("params_dict.").removesuffix(".scale")] = shapes[key][0]
    return found
