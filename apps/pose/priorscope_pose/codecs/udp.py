"""Unbiased heatmaps with sub-pixel centres (UDP, Huang et al., CVPR 2020): SDPose, ViTPose, today's mmpose models.

The first and last heatmap pixels stand for the first and last of the input: ``heatmap = input / scale`` with
``scale = (input size - 1) / (heatmap size - 1)``. Equals mmpose's ``UDPHeatmap`` (1.0 and 1.3.2), batched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch

from priorscope_pose.codecs.dark import Smoothing, newton_step, opencv_gaussian
from priorscope_pose.codecs.gaussians import windowed_gaussians
from priorscope_pose.codecs.peaks import (
    WithoutPeak,
    check_heatmaps,
    check_keypoints,
    check_sizes,
    check_without_peak,
    find_peaks,
)


@dataclass(frozen=True)
class UdpHeatmap:
    """Codec of unbiased heatmaps.

    Parameters
    ----------
    input_size, heatmap_size : (width, height)
        In pixels. SDPose: (768, 1024) and (192, 256).
    sigma : float
        Deviation of the target Gaussians, in heatmap pixels. SDPose: 6.
    blur_kernel : int
        Pixels of the Gaussian window that smooths heatmaps before they are refined. The published models keep 11
        whatever their sigma.
    without_peak : {"maximum", "outside", "origin"}
        Where a keypoint lies whose heatmap is nowhere positive, see :data:`~priorscope_pose.codecs.peaks.WithoutPeak`.
        Its score is the maximum, so 0 or less. mmpose's decoder begins "outside" and then adds a step that it reads
        from other channels, or NaN; that step is not reproduced.
    official : bool
        Parity: believe every refinement, as mmpose does. By default a keypoint stays at its maximum where noise would
        lead it away: see :class:`~priorscope_pose.codecs.dark.Smoothing`.
    """

    input_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    sigma: float = 2.0
    blur_kernel: int = field(default=11, kw_only=True)
    without_peak: WithoutPeak = field(default="maximum", kw_only=True)
    official: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        check_sizes(self.input_size, self.heatmap_size, self.sigma)
        check_without_peak(self.without_peak)
        self.smoothing  # noqa: B018  (says at once if there is no such kernel)

    @cached_property
    def smoothing(self) -> Smoothing:
        """What happens to a heatmap before the Newton step."""
        return Smoothing(opencv_gaussian(self.blur_kernel), official=self.official)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the input a heatmap pixel, in x and y."""
        (w, h), (v, u) = self.input_size, self.heatmap_size
        return (w - 1) / (v - 1), (h - 1) / (u - 1)

    def encode(self, keypoints: torch.Tensor, visible: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Training targets.

        Parameters
        ----------
        keypoints : Tensor, [N, K, 2]
            x, y in pixels of the input: what the UDP matrix gives. May lie outside of it.
        visible : Tensor, [N, K], optional
            0 to 1; below 0.5 nothing is drawn. All 1 by default. A keypoint that is not finite counts as invisible.

        Returns
        -------
        heatmaps : Tensor, float32, [N, K, H, W]
            A Gaussian of peak at most 1 about each keypoint, cut off at 3 sigma from the nearest pixel.
        weights : Tensor, float32, [N, K]
            The visibility; 0 where all of the Gaussian lies outside.
        """
        points, visible, drawn = check_keypoints(keypoints, visible)
        # Both in float32, and cut towards zero left of and above the heatmap too: as published, to hit the same pixel.
        points = points / points.new_tensor(self.scale)
        nearest = (points + 0.5).trunc()
        return windowed_gaussians(points.double(), nearest.double(), visible, drawn, self.heatmap_size, self.sigma)

    def decode(self, heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keypoints of predicted heatmaps.

        Parameters
        ----------
        heatmaps : Tensor, [N, K, H, W]
            Floats of any kind, unbounded.

        Returns
        -------
        keypoints : Tensor, float32, [N, K, 2]
            In mmpose's units, ``heatmap pixel / (heatmap size - 1) * input size``, for which
            :meth:`~priorscope_pose.geometry.crop.Crops.to_image` is exact. Pixels of the crop, to draw on it, are
            smaller by a factor: :meth:`crop_pixels`.
        scores : Tensor, float32, [N, K]
            Maximum of each heatmap.

        Raises
        ------
        InputError
            Wrong shape, or NaN in a heatmap.
        """
        check_heatmaps(heatmaps, self.heatmap_size)
        peaks = find_peaks(heatmaps)
        points = peaks.place(newton_step(heatmaps, peaks, self.smoothing), self.without_peak)
        unit = points.new_tensor(self.input_size) / (points.new_tensor(self.heatmap_size) - 1)
        return (points * unit).float(), peaks.scores

    def crop_pixels(self, keypoints: torch.Tensor) -> torch.Tensor:
        """Decoded keypoints [N, K, 2] in pixels of the crop: what :meth:`encode` takes."""
        size = keypoints.new_tensor(self.input_size)
        return keypoints * (size - 1) / size
