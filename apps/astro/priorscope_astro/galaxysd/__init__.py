"""GalaxySD: Stable Diffusion 1.5 fine-tuned on Galaxy Zoo 2 (Ma et al. 2026), as published."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "GalaxySD": "model",
        "PromptEncoder": "text",
        "ReferencePool": "pool",
        "load_galaxysd": "loading",
        "noise_levels": "levels",
        "token_weights": "text",
        "weighted_states": "text",
    },
)
