"""Shapes of galaxies, measured many at a time."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "QUANTITIES": "measuring",
        "measure": "measuring",
        "middle_source": "segmenting",
        "segment": "segmenting",
    },
)
