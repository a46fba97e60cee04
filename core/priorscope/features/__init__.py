"""What a diffusion model sees: taps in its network, at one or a few noise levels, and what can be done with them."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Tap": "tap",
        "TapSet": "tap",
        "PUBLISHED": "published",
        "find_taps": "published",
        "Tapped": "forward",
        "tapped": "forward",
        "by_scale": "forward",
        "Viewer": "modes",
        "AtLevels": "modes",
        "Inversion": "modes",
        "Generation": "modes",
        "PUBLISHED_MODES": "modes",
        "shared_noise": "modes",
        "pooling_matrix": "attention",
        "pooled_attention": "attention",
        "attention_map": "attention",
        "FeatureExtractor": "extractor",
        "LatentDistribution": "encoding",
        "FeatureTransformer": "transformer",
        "FeatureCache": "cache",
        "DDAEUNet": "ddae",
        "ddae_denoiser": "ddae",
    },
)
