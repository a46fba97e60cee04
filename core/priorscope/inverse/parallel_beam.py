"""Parallel-beam computed tomography."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch

from priorscope.errors import InputError
from priorscope.inverse.fbp import FilterName, angular_weights, backproject, filter_sinogram, pixel_places
from priorscope.inverse.operator import image_size
from priorscope.inverse.rays import (
    Projector,
    RayTransform,
    degrees_to_radians,
    length_in_mm,
    rays_over,
    steps_across,
)

Convention = Literal["centred", "skimage", "official"]


class ParallelBeam(RayTransform):
    """Sinograms of slices under parallel rays, with the exact adjoint and filtered back-projection.

    At angle 0 the rays run down the columns and detectors count along a row; angles turn as in scikit-image. A volume
    is (slices, 1, H, W); every slice is projected by itself.

    Parameters
    ----------
    size : int or (int, int)
        Height and width of a slice in pixels.
    angles : array of float
        (views,) in degrees; any number, order and spacing.
    detectors : int, optional
        How many; by default they cover the slice's diagonal, with a detector (or a gap) in the middle as the slice
        has a pixel (or a gap) there, so that views along the axes need no interpolation.
    pixel : float
        Side of a pixel in mm. With 1 a sinogram is in pixels, as scikit-image's.
    pitch : float, optional
        Distance of neighbouring detectors in mm; by default the pixel.
    axis_offset : float
        Where the rotation axis falls on the detector, in mm from its middle towards higher detectors.
    rays_per_detector : int, optional
        Rays averaged over a detector's width; by default as many as pixels fit into it, one at least.
    convention : {"centred", "skimage", "official"}
        ``centred``: the axis goes through the middle of the slice and falls on the detector's middle.
        ``skimage``: through pixel H // 2, W // 2 and onto detector ``detectors // 2``, as scikit-image's radon.
        ``official``: DiffusionMBIR's, half a pixel off where the parities of size and detectors differ; square slices.
    projector, memory_limit
        See :class:`priorscope.inverse.rays.RayTransform`.

    Notes
    -----
    DiffusionMBIR's "A^T" carries the constant pi / (2 views), and its lambda and rho were tuned with it. With the exact
    adjoint the same balance of data against prior needs :attr:`mbir_weight` in front of both A^T A and A^T y: solve
    ``(w A^T A + rho D^T D) x = w A^T y + ...``, for instance with the operator ``sqrt(w) * A`` and the measurement
    ``sqrt(w) * y``. Then published values of lambda and rho keep their meaning, for any number of views and any pitch.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        angles: object,
        *,
        detectors: int | None = None,
        pixel: float = 1.0,
        pitch: float | None = None,
        axis_offset: float = 0.0,
        rays_per_detector: int | None = None,
        convention: Convention = "centred",
        projector: Projector = "auto",
        memory_limit: int = 2**30,
    ) -> None:
        height, width = image_size(size)
        self.angles = degrees_to_radians(angles)
        pixel = length_in_mm(pixel, "pixel size")
        self.pitch = length_in_mm(pixel if pitch is None else pitch, "detector pitch")
        if detectors is None:
            detectors = default_detectors((height, width), pixel / self.pitch, convention)
        if detectors < 1:
            raise InputError(f"{detectors} detectors")
        axis, middle, steps = _centres(convention, (height, width), detectors)
        self.axis_offset, self.convention = float(axis_offset), convention
        self.axis_detector = middle + axis_offset / self.pitch
        count = max(1, round(self.pitch / pixel)) if rays_per_detector is None else rays_per_detector
        if count < 1:
            raise InputError(f"{count} rays per detector")
        positions = (rays_over(detectors, count) - self.axis_detector) * self.pitch
        shape = (len(self.angles), detectors * count)
        super().__init__(
            (height, width),
            np.broadcast_to(positions, shape),
            np.broadcast_to(self.angles[:, None], shape),
            steps=steps,
            axis=axis,
            pixel=pixel,
            rays_per_detector=count,
            spacing=self.pitch / pixel / count,
            projector=projector,
            memory_limit=memory_limit,
        )

    @property
    def mbir_weight(self) -> float:
        """Factor on A^T A and A^T y that makes DiffusionMBIR's lambda and rho mean what they meant (see Notes)."""
        return math.pi / (2 * len(self.angles)) * self.pitch / self.pixel**3

    def fbp(
        self, sinogram: torch.Tensor, filter: FilterName | None = "ramp", weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Filtered back-projection: (B, 1, detectors, views) to (B, 1, H, W), in the unit of the slices.

        Parameters
        ----------
        sinogram : torch.Tensor
            Line integrals in mm times the unit of the slices.
        filter : str or None
            ramp, shepp-logan, cosine, hamming, hann; None back-projects without any.
        weights : torch.Tensor, optional
            (views,) radians that each view stands for; by default its share of the half turn, and in a limited range
            the distance of its neighbours (:func:`priorscope.inverse.fbp.angular_weights`).
        """
        self._real(self.check_measurement(sinogram, "sinogram"))
        if weights is None:
            weights = torch.from_numpy(angular_weights(self.angles, np.pi))
        return self._backproject_filtered(filter_sinogram(sinogram, filter, self.pitch), weights)

    def _backproject_filtered(self, filtered: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Sum over views of the filtered sinogram, interpolated linearly at each pixel's detector position."""
        if tuple(weights.shape) != self.angles.shape:
            raise InputError(f"weights of shape {tuple(weights.shape)} for {len(self.angles)} views")
        x, y = pixel_places(self.size, self.axis, self.pixel, filtered.device)

        def seen(view: int) -> tuple[torch.Tensor, None]:
            angle = float(self.angles[view])
            return (x * math.cos(angle) - y * math.sin(angle)) / self.pitch + self.axis_detector, None

        return backproject(filtered, seen, weights, self.size)


def default_detectors(size: tuple[int, int], pixels_per_pitch: float, convention: Convention) -> int:
    """Detectors that cover a slice's diagonal, of the parity that :class:`ParallelBeam` documents."""
    if convention == "centred":
        count = math.ceil(math.hypot(*size) * pixels_per_pitch)
        return count + (count - size[1]) % 2
    return math.ceil(math.sqrt(2) * max(size) * pixels_per_pitch)


def _centres(
    convention: Convention, size: tuple[int, int], detectors: int
) -> tuple[tuple[float, float], float, np.ndarray]:
    """Axis (row, column) in the slice, the detector it falls on, and sample positions along a ray, all in pixels."""
    height, width = size
    if convention == "centred":
        return ((height - 1) / 2, (width - 1) / 2), (detectors - 1) / 2, steps_across(size)
    if convention == "skimage":
        count = math.ceil(math.sqrt(2) * max(size))
        return (float(height // 2), float(width // 2)), float(detectors // 2), np.arange(count) - float(count // 2)
    if convention != "official":
        raise InputError(f"a convention named {convention!r}", remedy="Use centred, skimage or official.")
    if height != width:
        raise InputError(f"slices of {height} x {width}", remedy="The official convention needs square ones.")
    # The slice is padded to a square of the detectors' length, pad // 2 on one side by this rule, and turned about the
    # middle of that square; with circle=True nothing is padded.
    before = detectors // 2 - height // 2
    axis = (detectors - 1) / 2 - before
    return (axis, axis), (detectors - 1) / 2, np.arange(detectors) - (detectors - 1) / 2
