"""The detector's network: pillars to features, the bird's-eye-view backbone, the heads."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "AgentBatch": "batch",
        "CoDiffSpec": "spec",
        "CollaborativeDetector": "detector",
        "DetectorSpec": "spec",
        "HeadMaps": "heads",
        "PillarVFE": "pillar_vfe",
        "ResNetBEVBackbone": "resnet_bev",
        "SIZES": "spec",
    },
)
