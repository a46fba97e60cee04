"""priorscope remote-sensing: satellite images in, classes and land-cover maps out."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "SatellitePredictor": "predictor",
        "SatDiFuserModel": "satdifuser",
        "DiffusionSat": "backbone",
        "TerrainPrior": "prior",
        "Metadata": "metadata",
        "Legend": "data.legend",
        "map_scene": "mapping",
    },
)
