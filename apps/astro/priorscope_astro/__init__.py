"""priorscope astro: galaxies on demand, with provenance."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Condition": "conditions.condition",
        "GalaxyModel": "diffusion.model",
        "GalaxySD": "galaxysd.model",
        "GalaxySet": "data.galaxies",
        "Plan": "plan",
        "ReferencePool": "galaxysd.pool",
        "Splits": "data.splits",
        "load_galaxy_model": "diffusion.model",
        "nearest_training_image": "memorisation",
        "read_galaxies": "data.anything",
        "read_stamps": "data.stamps",
    },
)
