"""priorscope medical: volumes from few X-ray views or few k-space lines. For research use only."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "VolumeState": "volume_state",
        "diffusion_mbir": "mbir",
    },
)
