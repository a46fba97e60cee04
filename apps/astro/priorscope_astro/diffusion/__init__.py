"""Our own small diffusion models of galaxies: pixels, told the answers of the Galaxy Zoo 2 tree."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "GalaxyFeed": "feed",
        "GalaxyModel": "model",
        "GalaxyTask": "task",
        "ModelSpec": "spec",
        "SIZES": "network",
        "drop_questions": "dropout",
        "load_galaxy_model": "model",
        "new_model": "model",
    },
)
