"""CoDiff: the fused feature by diffusion in a small latent, conditioned on what each agent sees alone.

Huang et al. 2025, "CoDiff: Conditional Diffusion Model for Collaborative 3D Object Detection". The released code cannot
run, and trains with its own target as the condition; :mod:`~priorscope_detection.codiff.released` reproduces what of it
can be run. The rest is what the paper means, in our own form: each docstring says so by "ours".
"""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "CoDiff": "model",
        "FeatureCodec": "codec",
        "NaiveCompressor": "codec",
        "ReleasedUnet": "released_unet",
        "SetDenoiser": "denoiser",
        "released_diffusion": "released",
        "released_sample": "released",
    },
)
