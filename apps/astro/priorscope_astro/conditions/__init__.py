"""What a galaxy is asked to look like: answers of the Galaxy Zoo 2 decision tree, as shares, tags and vectors."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "ANSWERS": "tree",
        "CONDITION_SIZE": "condition",
        "ClassRule": "classes",
        "Condition": "condition",
        "Cuts": "cuts",
        "QUESTIONS": "tree",
        "VoteTable": "votes",
        "classify": "classes",
        "emphasis_runs": "emphasis",
        "galaxy10_condition": "galaxy10",
        "read_classes": "classes",
    },
)
