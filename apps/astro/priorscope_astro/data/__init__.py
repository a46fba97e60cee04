"""Catalogues, votes and pictures of galaxies in the layouts they are published in; splits that do not leak."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "GalaxySet": "galaxies",
        "Splits": "splits",
        "Stamps": "stamps",
        "read_catalogue": "catalogue",
        "read_fits_stamps": "fits_stamps",
        "read_galaxies": "anything",
        "read_galaxy10": "galaxy10",
        "read_galaxy_datasets": "galaxy_datasets",
        "read_gz2": "gz2",
        "read_pairs": "pairs",
        "read_stamps": "stamps",
        "write_catalogue": "catalogue",
        "write_pairs": "pairs",
        "write_stamps": "stamps",
    },
)
