"""priorscope pose: keypoints of people, in images (SDPose) and videos (DiffPose)."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Poses": "poses",
        "Skeleton": "skeletons",
        "skeleton": "skeletons",
        "SDPosePredictor": "sdpose.predictor",
        "DiffPosePredictor": "diffpose.predictor",
        "UdpHeatmap": "codecs.udp",
        "crop_people": "geometry.crop",
        "Predictions": "evaluation.predictions",
        "evaluate_poses": "evaluation.suite",
        "draw_people": "people.draw",
        "draw_clip": "people.draw",
    },
)
