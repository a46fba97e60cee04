"""The suite runner, run folders, the HTML report, and metrics of images and volumes."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "CostLog": "cost",
        "Failure": "suite",
        "Panel": "figures",
        "Report": "report",
        "RunFolder": "run_folder",
        "SuiteResult": "suite",
        "colourise": "figures",
        "conclude": "suite",
        "error_map": "figures",
        "figure_to_image": "figures",
        "hfen": "image_metrics",
        "load_config": "run_folder",
        "nrmse": "image_metrics",
        "over_slices": "image_metrics",
        "print_table": "tables",
        "psnr": "image_metrics",
        "run_items": "suite",
        "side_by_side": "figures",
        "ssim": "image_metrics",
    },
)
