"""priorscope astro: galaxies on demand, with provenance."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, {})
