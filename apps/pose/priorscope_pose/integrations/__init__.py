"""mmpose and mmdet, for those who have them; nothing here is imported unless it is asked for.

``modules`` registers our backbone, head and codec in mmpose (name it in a config's ``custom_imports``); ``config``
reads mmpose's configs. Boxes that mmdet found are taken by :func:`priorscope_pose.detectors.boxes_from_mmdet`.
``scripts/install_openmmlab.sh`` installs what these need.
"""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "MmposeConfig": "config",
        "read_config": "config",
        "model_config": "config",
        "build_estimator": "modules",
        "BatchedUDPHeatmap": "modules",
        "SDPoseBackbone": "modules",
        "SDPoseHead": "modules",
    },
)
