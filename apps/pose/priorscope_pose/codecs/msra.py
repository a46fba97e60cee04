"""Classic heatmaps: simple baselines, HRNet, DCPose, FAMI-Pose, and with them DiffPose.

A heatmap pixel stands for ``input size / heatmap size`` pixels of the input. Equals mmpose's ``MSRAHeatmap`` and
DCPose's own targets and decoder, batched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch

from priorscope_pose.codecs.dark import Smoothing, opencv_gaussian, wide_newton_step
from priorscope_pose.codecs.gaussians import windowed_gaussians
from priorscope_pose.codecs.peaks import (
    Peaks,
    WithoutPeak,
    check_heatmaps,
    check_keypoints,
    check_sizes,
    check_without_peak,
    find_peaks,
)


@dataclass(frozen=True)
class MsraHeatmap:
    """Codec of classic heatmaps.

    Parameters
    ----------
    input_size, heatmap_size : (width, height)
        In pixels. FAMI-Pose: (288, 384) and (72, 96).
    sigma : float
        Deviation of the target Gaussians, in heatmap pixels. FAMI-Pose: 3.
    unbiased : bool
        False: Gaussians about the nearest whole pixel, cut off at 3 sigma, and a quarter of a pixel towards the larger
        neighbour when decoding. True (DARK): sub-pixel centres, not cut off, and a Newton step when decoding.
    blur_kernel : int
        Pixels of the Gaussian window that smooths heatmaps before that step.
    without_peak : {"maximum", "outside", "origin"}
        Where a keypoint lies whose heatmap is nowhere positive: see :data:`~priorscope_pose.codecs.peaks.WithoutPeak`.
    official : bool
        Parity: believe every Newton step; by default a keypoint stays at its maximum where noise would lead it away.
    """

    input_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    sigma: float = 2.0
    unbiased: bool = field(default=False, kw_only=True)
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
        return Smoothing(opencv_gaussian(self.blur_kernel), floor=1e-10, ceiling=float("inf"), official=self.official)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the input a heatmap pixel, in x and y."""
        return self.input_size[0] / self.heatmap_size[0], self.input_size[1] / self.heatmap_size[1]

    def encode(self, keypoints: torch.Tensor, visible: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Training targets: see :meth:`priorscope_pose.codecs.udp.UdpHeatmap.encode`.

        ``keypoints`` are what the classic matrix gives. Peaks are 1 exactly unless ``unbiased``.
        """
        points, visible, drawn = check_keypoints(keypoints, visible)
        points = points / points.new_tensor(self.scale)
        if not self.unbiased:
            nearest = (points + 0.5).trunc().double()
            return windowed_gaussians(nearest, nearest, visible, drawn, self.heatmap_size, self.sigma)
        points = points.double()
        width, height = self.heatmap_size
        reach = 3 * self.sigma
        outside = (points - reach >= points.new_tensor(self.heatmap_size)).any(-1) | (points + reach + 1 < 0).any(-1)
        x = torch.arange(width, dtype=points.dtype, device=points.device) - points[..., :1]
        y = torch.arange(height, dtype=points.dtype, device=points.device) - points[..., 1:]
        columns, rows = (torch.exp(-0.5 * (offset / self.sigma) ** 2) for offset in (x, y))
        rows = rows * (drawn & ~outside)[..., None]
        heatmaps = rows.float()[..., :, None] * columns.float()[..., None, :]
        return heatmaps, torch.where(drawn & outside, 0, visible)

    def decode(self, heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keypoints of predicted heatmaps [N, K, H, W].

        Returns
        -------
        keypoints : Tensor, float32, [N, K, 2]
            In pixels of the input; :meth:`~priorscope_pose.geometry.crop.Crops.to_image` takes those of a classic
            crop back exactly.
        scores : Tensor, float32, [N, K]
            Maximum of each heatmap.

        Raises
        ------
        InputError
            Wrong shape, or NaN in a heatmap.
        """
        check_heatmaps(heatmaps, self.heatmap_size)
        peaks = find_peaks(heatmaps)
        if self.unbiased:
            step = wide_newton_step(heatmaps, peaks, self.smoothing)
        else:
            step = quarter_step(heatmaps, peaks)
        points = peaks.place(step, self.without_peak)
        return (points * points.new_tensor(self.scale)).float(), peaks.scores


def quarter_step(heatmaps: torch.Tensor, peaks: Peaks) -> torch.Tensor:
    """A quarter of a pixel towards the larger neighbour in x and in y, [N, K, 2]; none within a pixel of a border."""
    height, width = heatmaps.shape[-2:]
    inside = (peaks.x > 1) & (peaks.x < width - 1) & (peaks.y > 1) & (peaks.y < height - 1)
    flat, place = heatmaps.flatten(2), torch.where(inside, peaks.y * width + peaks.x, width + 1)
    signs = []
    for stride in (1, width):
        ahead, behind = (flat.gather(-1, (place + shift)[..., None])[..., 0] for shift in (stride, -stride))
        signs.append((ahead - behind).sign())
    return torch.where(inside[..., None], torch.stack(signs, -1).double() * 0.25, 0)
