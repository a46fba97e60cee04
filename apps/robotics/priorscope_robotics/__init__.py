"""priorscope robotics: observations in, actions out, in time."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "PolicyModel": "model",
        "PolicySpec": "spec",
        "load_policy": "checkpoints.load",
    },
)
