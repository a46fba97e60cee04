"""The suite runner, run folders, the HTML report, metrics of images and volumes, distances between sets of features."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "CostLog": "cost",
        "Failure": "suite",
        "Interval": "distributions",
        "Panel": "figures",
        "Report": "report",
        "RunFolder": "run_folder",
        "SuiteResult": "suite",
        "bootstrap": "distributions",
        "colourise": "figures",
        "conclude": "suite",
        "error_map": "figures",
        "fid": "distributions",
        "figure_to_image": "figures",
        "hfen": "image_metrics",
        "kid": "distributions",
        "load_config": "run_folder",
        "nrmse": "image_metrics",
        "over_slices": "image_metrics",
        "prdc": "distributions",
        "print_table": "tables",
        "psnr": "image_metrics",
        "run_items": "suite",
        "side_by_side": "figures",
        "ssim": "image_metrics",
        "wasserstein": "distributions",
    },
)
