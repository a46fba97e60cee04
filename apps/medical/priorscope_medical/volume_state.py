"""Where a long reconstruction stands: all that it needs to go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from priorscope.errors import InputError
from priorscope.inverse.operator import LinearOperator, checked


@dataclass(frozen=True)
class VolumeState:
    """A run of :func:`~priorscope_medical.dds.dds` or :func:`~priorscope_medical.mbir.diffusion_mbir` after some steps.

    Parameters
    ----------
    step : int
        How many steps are done.
    x : Tensor (slices, 1, H, W)
        The noisy volume.
    duals : dict of str to Tensor
        Of the total variation between slices.
    """

    step: int
    x: torch.Tensor
    duals: dict[str, torch.Tensor]

    def taken_up(self, operator: LinearOperator, y: torch.Tensor, steps: int) -> tuple[int, torch.Tensor]:
        """The steps done and the volume, for a run of ``steps`` on this measurement to go on from.

        Raises
        ------
        InputError
            The state is of other slices, of another size, or of a run with other steps.
        """
        x = checked(self.x, operator.domain, "volume to go on from").to(y.device, y.dtype.to_real())
        if len(x) != len(y) or not 0 < self.step < steps:
            raise InputError(
                f"a state of {len(x)} slices after {self.step} of {steps} steps, for {len(y)} measured slices",
                remedy="Go on with the options that the run began with.",
            )
        return self.step, x


def slice_names(slices: Sequence[int | str] | None, y: torch.Tensor) -> Sequence[int | str]:
    """What each slice of a measurement is called, which its noise derives from: by default its number.

    Raises
    ------
    InputError
        There is no slice, or not one name for each.
    """
    names = range(len(y)) if slices is None else slices
    if not len(y) or len(names) != len(y):
        raise InputError(f"{len(names)} names for {len(y)} slices", remedy="Give at least one slice, and each a name.")
    return names
