"""The suite runner, run folders and the HTML report."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Failure": "suite",
        "Panel": "figures",
        "Report": "report",
        "RunFolder": "run_folder",
        "SuiteResult": "suite",
        "colourise": "figures",
        "conclude": "suite",
        "error_map": "figures",
        "figure_to_image": "figures",
        "load_config": "run_folder",
        "print_table": "tables",
        "run_items": "suite",
        "side_by_side": "figures",
    },
)
