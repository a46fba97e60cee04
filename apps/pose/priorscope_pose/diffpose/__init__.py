"""DiffPose for video: one pose from 2d + 1 frames, by diffusion of heatmaps in x0 form.

Feng et al., ICCV 2023, "DiffPose: SpatioTemporal Diffusion Model for Video-Based Human Pose Estimation". Neither code
nor weights were published: what the paper leaves open is decided here, and each docstring says so by "ours".
"""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "ClipPerson": "clips",
        "ClipSource": "clips",
        "DiffPoseModel": "model",
        "DiffPosePredictor": "predictor",
        "DiffPoseSpec": "spec",
        "DiffPoseTask": "task",
        "DiffPoseFeed": "feed",
        "HeatmapDiffusion": "heatmap_diffusion",
        "PRESETS": "spec",
        "Video": "clips",
        "VideoClips": "clips",
        "frame_window": "clips",
        "sample_heatmaps": "heatmap_diffusion",
    },
)
