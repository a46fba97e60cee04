"""Passes of a network made cheaper: features of one sampling step serve the next ones.

``with DeepCache(3).on(denoiser): sample(denoiser, ...)``. :class:`DeepCache` reuses the deep part of a U-Net,
:class:`EncoderPropagation` its encoder half, :class:`FirstBlockCache` all but the first blocks of a transformer, and
:class:`TaylorSeer` forecasts the outputs of any modules. *When* a pass is computed in full is a policy's matter
(:class:`Every`, :class:`KeySteps`, :class:`Threshold`), *what* is given instead a forecaster's.
"""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "FeatureCache": "memory",
        "TaylorMemory": "memory",
        "Policy": "policies",
        "Every": "policies",
        "KeySteps": "policies",
        "Threshold": "policies",
        "KEY_SETS": "policies",
        "CachedRun": "session",
        "DeepCache": "branch",
        "EncoderPropagation": "encoder",
        "PriorNoise": "prior_noise",
        "FirstBlockCache": "first_block",
        "TaylorSeer": "taylorseer",
    },
)
