"""Between keypoints and heatmaps: training targets one way, sub-pixel keypoints the other. Batched, in torch.

Every codec has ``encode(keypoints [N, K, 2], visible [N, K]) -> (targets, weights [N, K])`` and
``decode(heatmaps) -> (keypoints [N, K, 2], scores [N, K])``, with keypoints in pixels of the network's input, on the
device of what it is given. :meth:`priorscope_pose.geometry.crop.Crops.to_image` takes decoded keypoints to the image.
"""

from priorscope_pose.codecs.combined import CombinedHeatmap
from priorscope_pose.codecs.msra import MsraHeatmap
from priorscope_pose.codecs.udp import UdpHeatmap
from priorscope_pose.codecs.vitpose import VitPoseHeatmap

__all__ = ["CombinedHeatmap", "MsraHeatmap", "UdpHeatmap", "VitPoseHeatmap"]
