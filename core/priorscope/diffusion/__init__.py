"""The mathematics of diffusion: schedules, denoisers, solvers and the loop. Needs torch and nothing else."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Schedule": "schedule",
        "VPSchedule": "schedule",
        "VESchedule": "schedule",
        "EDMSchedule": "schedule",
        "FlowSchedule": "schedule",
        "FunctionSchedule": "schedule",
        "spaced_times": "spacing",
        "Condition": "condition",
        "Noise": "noise",
        "item_seed": "noise",
        "Denoiser": "denoiser",
        "Prediction": "denoiser",
        "StepInfo": "denoiser",
        "ClassifierFreeGuidance": "guidance",
        "Constrained": "sampling",
        "InBatches": "batched",
        "sample": "sampling",
        "ddim": "solvers",
        "ddpm_ancestral": "solvers",
        "euler": "solvers",
        "euler_ancestral": "solvers",
        "heun": "solvers",
        "langevin": "predictor_corrector",
        "denoising_loss": "losses",
        "dpmpp_2m": "solvers",
        "masked_mean": "losses",
        "reverse_diffusion": "predictor_corrector",
        "score_matching_loss": "score_matching",
        "ve_times": "predictor_corrector",
        "SOLVERS": "solvers",
    },
)
