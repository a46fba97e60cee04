"""Where a long reconstruction stands: all that it needs to go on."""

from __future__ import annotations

from dataclasses import dataclass

import torch


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
