"""How agents are brought together, and their maps into the ego vehicle's frame."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "V2XFusion": "v2x",
        "attention_fusion": "plain",
        "coverage": "warp",
        "max_fusion": "plain",
        "merge_points": "early",
        "warp_to_ego": "warp",
    },
)
