"""Inverse problems: what a measurement is (linear operators), and how an image is found that fits it."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "AsComplex": "mri",
        "BlockMean": "resampling",
        "Blur": "blur",
        "CartesianMRI": "mri",
        "ChannelsAsComplex": "mri",
        "FanBeam": "fan_beam",
        "Identity": "operator",
        "LinearOperator": "operator",
        "Mask": "masking",
        "OfficialMRI": "mri",
        "OfficialParallelBeam": "mbir_ct",
        "ParallelBeam": "parallel_beam",
        "Resize": "resampling",
        "equispaced_lines": "kspace_masks",
        "espirit": "sensitivities",
        "estimate_sensitivities": "sensitivities",
        "from_kspace": "mri",
        "gaussian_kernel": "blur",
        "gaussian_lines": "kspace_masks",
        "mbir_lines": "kspace_masks",
        "measured_acceleration": "kspace_masks",
        "motion_kernel": "blur",
        "to_kspace": "mri",
        "uniform_lines": "kspace_masks",
        "variable_density": "kspace_masks",
    },
)
