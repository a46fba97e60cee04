"""Figures of merit for poses: OKS AP of the COCO family, PoseTrack's AP, PCK and its kin."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Predictions": "predictions",
        "read_results": "results_file",
        "write_results": "results_file",
        "write_posetrack_results": "posetrack_file",
        "postprocess": "nms",
        "oks_nms": "nms",
        "soft_oks_nms": "nms",
        "object_keypoint_similarity": "oks",
        "coco_figures": "coco",
        "crowdpose_figures": "coco",
        "wholebody_figures": "wholebody",
        "posetrack_figures": "posetrack",
        "pck_figures": "people",
        "evaluate_poses": "suite",
        "METRICS": "suite",
    },
)
