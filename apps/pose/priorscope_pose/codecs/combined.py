"""Combined targets of UDP: a disc that says roughly where, and two maps of offsets that say exactly."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from priorscope_pose.codecs.dark import blur, opencv_gaussian
from priorscope_pose.codecs.peaks import (
    WithoutPeak,
    check_heatmaps,
    check_keypoints,
    check_sizes,
    check_without_peak,
    find_peaks,
)


@dataclass(frozen=True)
class CombinedHeatmap:
    """Codec of the combined targets: mmpose's ``UDPHeatmap(heatmap_type="combined")``, batched.

    Parameters
    ----------
    input_size, heatmap_size : (width, height)
        In pixels.
    radius_factor : float
        Radius of the disc as a share of the heatmap's longer side.
    blur_kernel : int
        The disc is smoothed by a window of ``2 blur_kernel + 1`` pixels before its maximum is looked for.
    without_peak : {"maximum", "outside", "origin"}
        Where a keypoint lies whose disc is nowhere positive: see :data:`~priorscope_pose.codecs.peaks.WithoutPeak`.
    """

    input_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    radius_factor: float = 0.0546875
    blur_kernel: int = field(default=11, kw_only=True)
    without_peak: WithoutPeak = field(default="maximum", kw_only=True)

    def __post_init__(self) -> None:
        check_sizes(self.input_size, self.heatmap_size, self.radius_factor)
        check_without_peak(self.without_peak)

    @property
    def radius(self) -> float:
        """Of the disc, in heatmap pixels; also the unit of the offsets."""
        return self.radius_factor * max(self.heatmap_size)

    def encode(self, keypoints: torch.Tensor, visible: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Targets [N, 3 K, H, W] and weights [N, K] of keypoints [N, K, 2] in pixels of the input.

        Three maps a joint: 1 inside the disc, else 0; the way to the keypoint in x and in y, in radii, everywhere.
        All zero where ``visible`` is below 0.5. The weight is the visibility.
        """
        points, visible, drawn = check_keypoints(keypoints, visible)
        scale = [(self.input_size[axis] - 1) / (self.heatmap_size[axis] - 1) for axis in (0, 1)]
        points = (points / points.new_tensor(scale)).double()
        width, height = self.heatmap_size
        x = (points[..., 0, None] - torch.arange(width, device=points.device)) / self.radius
        y = (points[..., 1, None] - torch.arange(height, device=points.device)) / self.radius
        disc = (x[..., None, :] ** 2 + y[..., :, None] ** 2 <= 1).float()
        x, y = x.float()[..., None, :].expand_as(disc), y.float()[..., :, None].expand_as(disc)
        maps = torch.stack([disc, x, y], 2) * drawn[..., None, None, None]
        return maps.flatten(1, 2), visible

    def decode(self, heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keypoints [N, K, 2] (units of :meth:`UdpHeatmap.decode`) and scores [N, K] of maps [N, 3 K, H, W].

        The score is the maximum of the smoothed disc.
        """
        check_heatmaps(heatmaps, self.heatmap_size, 3)
        discs, offsets = heatmaps[:, ::3], torch.stack([heatmaps[:, 1::3], heatmaps[:, 2::3]], -1)
        smooth = blur(discs.flatten(0, 1).float(), opencv_gaussian(2 * self.blur_kernel + 1), "reflect")
        peaks = find_peaks(smooth.view(discs.shape))
        place = (peaks.y * discs.shape[-1] + peaks.x)[..., None, None].expand(-1, -1, 1, 2)
        step = offsets.flatten(2, 3).gather(2, place)[:, :, 0].double() * self.radius
        points = peaks.place(step, self.without_peak)
        unit = points.new_tensor(self.input_size) / (points.new_tensor(self.heatmap_size) - 1)
        return (points * unit).float(), peaks.scores
