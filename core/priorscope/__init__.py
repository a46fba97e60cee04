"""priorscope: pretrained diffusion models as instruments for domain scientists.

Importing it loads neither torch nor diffusers; names arrive when they are first used.
"""

from priorscope.lazy import lazy_names

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "InputError": "errors",
        "Condition": "diffusion.condition",
        "Denoiser": "diffusion.denoiser",
        "Noise": "diffusion.noise",
        "VPSchedule": "diffusion.schedule",
        "VESchedule": "diffusion.schedule",
        "EDMSchedule": "diffusion.schedule",
        "FlowSchedule": "diffusion.schedule",
        "sample": "diffusion.sampling",
        "spaced_times": "diffusion.spacing",
        "read_image": "data.images",
    },
)
