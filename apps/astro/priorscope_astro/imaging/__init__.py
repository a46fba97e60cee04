"""Flux as images: stretches, pictures, FITS, world coordinates, noise."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "AsinhStretch": "stretch",
        "Provenance": "fits",
        "StampFile": "fits",
        "lupton_rgb": "lupton",
        "power_spectrum": "noise",
        "read_stamp_fits": "fits",
        "rows_down": "lupton",
        "sky_sigma": "noise",
        "stamp_wcs": "wcs",
        "write_stamp_fits": "fits",
    },
)
