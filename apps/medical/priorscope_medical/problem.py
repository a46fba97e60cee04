"""What is to be solved: a measurement, its operator and noise, and where the result lies. For research use only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from priorscope.inverse.operator import LinearOperator
from priorscope.inverse.rays import RayTransform
from priorscope_medical.volumes import Volume, as_hounsfield

Modality = Literal["CT", "MRI"]
#: CT values relative to water, air to dense bone; MR values relative to their 99.9 % quantile.
DATA_RANGE: dict[Modality, float] = {"CT": 4.0, "MRI": 1.0}
#: Differences from which noise can be told within about a twentieth.
_ENOUGH = 500


@dataclass(frozen=True)
class Problem:
    """A measurement of a stack of slices, in the units of the methods.

    Parameters
    ----------
    y : Tensor (slices, *operator.range)
        Line integrals of attenuation relative to water in mm, or k-space of images divided by `scale`.
    operator : LinearOperator
        From real slices (B, 1, H, W).
    noise : float
        Standard deviation of the noise in `y`; of complex values, of either part.
    grid : Volume
        Where the result lies, with its unit: ``attenuation`` or ``intensity``. Its values mean nothing unless `truth`
        is known.
    hounsfield : bool
        Whether the result is written in HU.
    scale : float
        Numbers of the file, or of the scanner, for 1 of the methods; 1 for CT.
    truth : Tensor (slices, 1, H, W), optional
    first : int
        Number of the first slice in its volume.
    crop : (int, int), optional
        Height and width of the middle that is delivered.
    settings : dict
        How the measurement was made or read: numbers, text and lists.
    notes : tuple of str
        What had to be assumed.
    """

    y: torch.Tensor
    operator: LinearOperator
    noise: float
    grid: Volume
    hounsfield: bool = False
    scale: float = 1.0
    truth: torch.Tensor | None = None
    first: int = 0
    crop: tuple[int, int] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def modality(self) -> Modality:
        return "CT" if isinstance(self.operator, RayTransform) else "MRI"

    @property
    def names(self) -> range:
        """Numbers of the slices, which their noise derives from."""
        return range(self.first, self.first + len(self.y))

    def part(self, items: slice) -> tuple[LinearOperator, torch.Tensor]:
        """Operator and measurement of some slices."""
        return self.operator.part(items), self.y[items]

    def residuals(self, x: torch.Tensor, batch_size: int = 32) -> torch.Tensor:
        """``|A x - y| / |y|`` of every slice: (slices,), float64; 0 for a slice in which nothing was measured."""
        found = torch.empty(len(x), dtype=torch.float64)
        for start in range(0, len(x), batch_size):
            items = slice(start, start + batch_size)
            operator, y = self.part(items)
            size = torch.linalg.vector_norm(y.flatten(1), dim=1).double()
            off = torch.linalg.vector_norm((operator(x[items].to(y.device)) - y).flatten(1), dim=1).double()
            found[items] = torch.where(size > 0, off / size.clamp(min=1e-300), 0.0).cpu()
        return found

    def on_grid(self, x: torch.Tensor) -> Volume:
        """Slices (slices, 1, H, W) of the methods' unit as a volume on the grid, cut to what is delivered."""
        values = x[:, 0].detach().cpu().float().numpy()
        if self.crop is not None:
            from priorscope_medical.kspace import centre_crop

            values = np.ascontiguousarray(centre_crop(values, self.crop))
        return self.grid.with_data(values)

    def written(self, volume: Volume) -> Volume:
        """A volume of the methods' unit in the unit of the file."""
        if self.hounsfield:
            return as_hounsfield(volume)
        return volume if self.scale == 1.0 else volume.with_data(volume.data * np.float32(self.scale))

    def spread(self, std: Volume) -> Volume:
        """A map of standard deviations in the unit of the file."""
        factor = 1000.0 if self.hounsfield else self.scale
        return std.with_data(std.data * np.float32(factor), "HU" if self.hounsfield else None)

    def to(self, device: torch.device) -> Problem:
        """The measurement on a device; the operator follows it."""
        return replace(self, y=self.y.to(device))


def estimated_noise(y: torch.Tensor, modality: Modality) -> float:
    """Standard deviation of the noise in a measurement, from what changes from one sample to the next.

    CT: second and fourth differences along the detector, the slices and the views, over all rays that something
    attenuates. The object adds to each of them, so the smallest counts. MRI: the measured values in the outer tenth of
    the readout. Median deviations, so that edges hardly count; never below a ten-thousandth of the root mean square,
    which stands for rounding.
    """
    floor = 1e-4 * float(y.abs().square().mean().sqrt())
    if modality == "CT":
        found = [_deviation(_differences(y, 2, 2))]
        others = [_differences(y, axis, order) for axis in (2, 0, 3) for order in (2, 4)]
        found += [_deviation(values) for values in others if len(values) >= _ENOUGH]
        deviation = min(found)
    else:
        edge = max(1, y.shape[-2] // 20)
        outer = torch.cat([y[..., :edge, :], y[..., -edge:, :]], -2)
        deviation = _deviation(torch.view_as_real(outer[outer != 0]).flatten())
    return max(deviation, floor, 1e-12)


def _differences(y: torch.Tensor, axis: int, order: int) -> torch.Tensor:
    """Differences of an even order, as large as one value's noise, where the ray in the middle meets something."""
    count = y.shape[axis] - order
    if count < 1:
        return y.new_empty(0)
    bend = y.diff(n=order, dim=axis) / math.comb(2 * order, order) ** 0.5
    through = y.narrow(axis, order // 2, count) > 0.05 * y.max()
    return bend[through] if bool(through.any()) else bend.flatten()


def _deviation(values: torch.Tensor) -> float:
    """Standard deviation of normal numbers, most of which are; 0 of none."""
    return float((values - values.median()).abs().median()) / 0.6745 if len(values) else 0.0
