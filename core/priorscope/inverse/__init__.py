"""Inverse problems: what a measurement is (linear operators), and how an image is found that fits it."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Identity": "operator",
        "LinearOperator": "operator",
        "OfficialParallelBeam": "mbir_ct",
        "ParallelBeam": "parallel_beam",
    },
)
