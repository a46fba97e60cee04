"""The training loop on accelerate, and what it is made of."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Alignment": "alignment",
        "AlignmentConfig": "aids",
        "CurriculumConfig": "aids",
        "DifficultyCurriculum": "curriculum",
        "Feed": "feed",
        "FitResult": "loop",
        "LoopConfig": "settings",
        "MAY_DIFFER": "settings",
        "Order": "order",
        "Perturbation": "perturbation",
        "PerturbationConfig": "aids",
        "Place": "order",
        "RoutingConfig": "aids",
        "Task": "task",
        "WeightAverage": "average",
        "add_lora": "lora",
        "add_routing": "task_routing",
        "fit": "loop",
        "make_accelerator": "loop",
        "rate_factor": "learning_rate",
    },
)
