"""priorscope detection: what several cars see together, as oriented boxes in 3D (CoDiff)."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, {})
