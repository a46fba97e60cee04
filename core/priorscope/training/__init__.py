"""The training loop on accelerate, and what it is made of."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Feed": "feed",
        "FitResult": "loop",
        "LoopConfig": "settings",
        "MAY_DIFFER": "settings",
        "Order": "order",
        "Place": "order",
        "Task": "task",
        "WeightAverage": "average",
        "add_lora": "lora",
        "fit": "loop",
        "make_accelerator": "loop",
        "rate_factor": "learning_rate",
    },
)
