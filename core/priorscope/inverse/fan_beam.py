"""Fan-beam computed tomography: a source and a detector that turn around the slice."""

from __future__ import annotations

import math
import warnings
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

Shape = Literal["flat", "arc"]


class FanBeam(RayTransform):
    """Sinograms (B, 1, detectors, views) of slices (B, 1, H, W) under a fan of rays, with the exact adjoint and FBP.

    At angle 0 the source is above the slice and detectors count to the right; angles turn as in
    :class:`priorscope.inverse.parallel_beam.ParallelBeam`, whose sinogram this becomes with a source far away.

    Parameters
    ----------
    size : int or (int, int)
        Height and width of a slice in pixels.
    angles : array of float
        (views,) in degrees; a full turn, a short scan or less.
    source_distance : float
        From the source to the rotation axis, in mm; the slice must not reach the source.
    detector_distance : float, optional
        From the source to the detector, in mm; by default as far as the axis (a virtual detector through it).
    detectors : int, optional
        How many; by default they cover the circle around the slice.
    pixel : float
        Side of a pixel in mm.
    pitch : float, optional
        Distance of neighbouring detectors in mm, on the detector; by default one that is a pixel at the axis.
    axis_offset : float
        Where the ray through the axis meets the detector, in mm from its middle towards higher detectors.
    shape : {"flat", "arc"}
        A straight detector, or one on an arc around the source with equal angles.
    rays_per_detector : int, optional
        Rays averaged over a detector's width; by default as many as pixels fit into it at the axis, one at least.
    projector, memory_limit
        See :class:`priorscope.inverse.rays.RayTransform`.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        angles: object,
        *,
        source_distance: float,
        detector_distance: float | None = None,
        detectors: int | None = None,
        pixel: float = 1.0,
        pitch: float | None = None,
        axis_offset: float = 0.0,
        shape: Shape = "flat",
        rays_per_detector: int | None = None,
        projector: Projector = "auto",
        memory_limit: int = 2**30,
    ) -> None:
        height, width = image_size(size)
        self.angles = degrees_to_radians(angles)
        pixel = length_in_mm(pixel, "pixel size")
        radius = math.hypot(height, width) / 2 * pixel
        distance = source_distance if detector_distance is None else detector_distance
        if not radius < source_distance < math.inf:
            raise InputError(
                f"a source {source_distance:g} mm from the axis, within the circle of {radius:g} mm around the slice",
                remedy="Distances are in mm, as the pixel size is.",
            )
        if not 0 < distance < math.inf or shape not in ("flat", "arc"):
            raise InputError(f"a detector of shape {shape!r}, {distance} mm from the source", remedy="Use flat or arc.")
        self.source_distance, self.detector_distance, self.shape = float(source_distance), float(distance), shape
        magnification = distance / source_distance
        self.pitch = length_in_mm(pixel * magnification if pitch is None else pitch, "detector pitch")
        if detectors is None:
            opening = math.asin(radius / source_distance)
            half = distance * (math.tan(opening) if shape == "flat" else opening)
            detectors = math.ceil(2 * half / self.pitch)
            detectors += (detectors - width) % 2
        count = max(1, round(self.pitch / magnification / pixel)) if rays_per_detector is None else rays_per_detector
        if detectors < 1 or count < 1:
            raise InputError(f"{detectors} detectors of {count} rays")
        self.axis_offset, self.axis_detector = float(axis_offset), (detectors - 1) / 2 + axis_offset / self.pitch
        fan = self._fan_angles(rays_over(detectors, count))
        super().__init__(
            (height, width),
            np.broadcast_to(source_distance * np.sin(fan), (len(self.angles), len(fan))),
            self.angles[:, None] + fan,
            steps=steps_across((height, width)),
            axis=((height - 1) / 2, (width - 1) / 2),
            pixel=pixel,
            rays_per_detector=count,
            spacing=self.pitch / magnification / pixel / count,
            projector=projector,
            memory_limit=memory_limit,
        )

    def _fan_angles(self, detector: np.ndarray) -> np.ndarray:
        """Angle in radians between the ray to a place on the detector and the ray through the axis."""
        place = (detector - self.axis_detector) * self.pitch / self.detector_distance
        return np.arctan(place) if self.shape == "flat" else place

    def fbp(
        self, sinogram: torch.Tensor, filter: FilterName | None = "ramp", weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Filtered back-projection: (B, 1, detectors, views) to (B, 1, H, W), in the unit of the slices.

        Rays measured twice share their weight: one half each in a full turn, Parker's smooth weights in a short scan of
        180 degrees and the fan or more. With less a warning is given and whatever was measured is used.

        Parameters
        ----------
        sinogram : torch.Tensor
            Line integrals in mm times the unit of the slices.
        filter : str or None
            ramp, shepp-logan, cosine, hamming, hann, or None.
        weights : torch.Tensor, optional
            (detectors, views): arc in radians times redundancy, in place of the above.

        References
        ----------
        Kak and Slaney, Principles of Computerized Tomographic Imaging, section 3.4; Parker, Medical Physics 9, 1982.
        """
        self._real(self.check_measurement(sinogram, "sinogram"))
        fan = self._fan_angles(np.arange(self.range[1], dtype=np.float64))
        if weights is None:
            arcs = angular_weights(self.angles, 2 * np.pi)
            weights = torch.from_numpy(arcs * redundancy(self.angles, fan))
        elif tuple(weights.shape) != self.range[1:]:
            raise InputError(f"weights of shape {tuple(weights.shape)} for sinograms of {self.range[1:]}")
        source, reach = self.source_distance, self.detector_distance
        factors = torch.from_numpy(np.cos(fan))[:, None] * weights.cpu()
        weighted = sinogram * factors.to(sinogram.device, sinogram.dtype)
        if self.shape == "flat":
            filtered = filter_sinogram(weighted, filter, self.pitch * source / reach)
        else:
            filtered = filter_sinogram(weighted, filter, self.pitch / reach, arc=True) * source
        x, y = pixel_places(self.size, self.axis, self.pixel, sinogram.device)

        def seen(view: int) -> tuple[torch.Tensor, torch.Tensor]:
            angle = float(self.angles[view])
            across, along = (
                x * math.cos(angle) - y * math.sin(angle),
                source + x * math.sin(angle) + y * math.cos(angle),
            )
            if self.shape == "flat":
                return across / along * reach / self.pitch + self.axis_detector, (source / along) ** 2
            place = torch.atan2(across, along) * reach / self.pitch + self.axis_detector
            return place, 1 / (across**2 + along**2)

        return backproject(filtered, seen, torch.ones(len(self.angles)), self.size)


def redundancy(angles: np.ndarray, fan: np.ndarray) -> np.ndarray:
    """Weight of every ray (detectors, views) such that those of one line add up to 1.

    The ray (beta, gamma) comes back as (beta + pi + 2 gamma, -gamma).

    Parameters
    ----------
    angles : numpy.ndarray
        beta, (views,) in radians.
    fan : numpy.ndarray
        gamma, (detectors,) in radians.
    """
    order = np.sort(angles % (2 * np.pi))
    gaps = np.diff(order, append=order[0] + 2 * np.pi)
    apart = gaps[gaps > 1e-6]
    if gaps.max() <= 1.5 * np.median(apart):
        return np.full((len(fan), len(angles)), 0.5)
    first = order[(int(gaps.argmax()) + 1) % len(order)]
    span = 2 * np.pi - gaps.max()
    beta, gamma = ((angles - first + 1e-9) % (2 * np.pi) - 1e-9)[None], fan[:, None]
    half = (span - np.pi) / 2
    if half < np.abs(fan).max() - 1e-9:
        warnings.warn(
            f"views span {np.rad2deg(span):.4g} degrees, a short scan {180 + 2 * np.rad2deg(np.abs(fan).max()):.4g}: "
            "some lines were not measured",
            stacklevel=3,
        )
        again = (beta + np.pi + 2 * gamma + 1e-9) % (2 * np.pi) <= span + 2e-9
        return np.where(again, 0.5, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rising = np.sin(np.pi / 4 * beta / (half - gamma)) ** 2
        falling = np.sin(np.pi / 4 * (np.pi + 2 * half - beta) / (half + gamma)) ** 2
    weights = np.where(beta < 2 * (half - gamma), rising, 1.0)
    return np.where(beta > np.pi - 2 * gamma, falling, weights)
