"""priorscope depth: photographs in, depth, disparity or normals out."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "DepthPredictor": "predictor",
        "DepthResult": "results",
        "NormalsResult": "results",
        "evaluate_depth": "evaluate",
        "depth_protocol": "protocols",
        "DepthArchive": "archives",
        "NormalsArchive": "normals_data",
        "render_scene": "scenes",
    },
)
