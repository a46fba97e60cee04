"""The heatmaps of transformers' VitPose: UDP with another smoothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from priorscope_pose.codecs.dark import Smoothing, gaussian
from priorscope_pose.codecs.udp import UdpHeatmap


@dataclass(frozen=True)
class VitPoseHeatmap(UdpHeatmap):
    """Decodes as ``VitPoseImageProcessor.post_process_pose_estimation`` does.

    The window has a deviation of 0.8 pixels whatever its size, the heatmap goes on as its mirror image outside, and the
    maximum is not restored. On clean heatmaps this and :class:`UdpHeatmap` agree; on noisy ones they differ by about a
    heatmap pixel. Targets are the same.
    """

    @cached_property
    def smoothing(self) -> Smoothing:
        """What happens to a heatmap before the Newton step."""
        return Smoothing(gaussian(0.8, self.blur_kernel // 2), border="reflect", restore=False, official=self.official)
