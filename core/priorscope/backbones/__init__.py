"""Networks and latent spaces: Stable-Diffusion-shaped backbones, NCSN++, and strict loading."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "LatentDistribution": "latents",
        "LatentSpace": "latents",
        "NCSNpp": "ncsnpp",
        "PixelSpace": "latents",
        "PatchSpace": "latents",
        "AutoencoderSpace": "latents",
        "load_latent_space": "latents",
        "load_component": "loading",
        "locate": "loading",
        "model_folder": "loading",
        "read_config": "loading",
        "save_component": "loading",
        "PublishedModel": "table",
        "published_models": "table",
        "find_published": "table",
        "prompt_state": "prompt",
        "UNetNetwork": "stable_diffusion",
        "SD2_UNET": "stable_diffusion",
        "SD_VAE": "stable_diffusion",
        "load_ncsnpp": "ncsnpp_checkpoint",
        "ncsnpp_denoiser": "ncsnpp",
        "expand_conv_in": "stable_diffusion",
        "sincos_embedding": "stable_diffusion",
        "load_schedule": "stable_diffusion",
        "load_unet": "stable_diffusion",
        "fold_constants": "folding",
        "stream": "streaming",
    },
)
