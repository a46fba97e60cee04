"""The suite runner, run folders and the HTML report."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Failure": "suite",
        "RunFolder": "run_folder",
        "SuiteResult": "suite",
        "load_config": "run_folder",
        "run_items": "suite",
    },
)
