"""The astro app's models: published and bundled. Needs no torch."""

from __future__ import annotations

from priorscope.backbones.table import PublishedModel
from priorscope_astro.demo_config import BUNDLED, BUNDLED_FOLDER

#: The astro app's rows of the model table.
MODELS: list[PublishedModel] = [
    PublishedModel(
        BUNDLED,
        "astro",
        "galaxies",
        "galaxy-diffusion",
        str(BUNDLED_FOLDER),
        "Apache-2.0",
        "3 MB",
        note="ours; flux of 48 pixels in g, r, i, trained on simulated galaxies only: for demos, tests and first looks",
        bundled=True,
    ),
    PublishedModel(
        "galaxysd",
        "astro",
        "galaxies",
        "galaxysd",
        "CosmosDream/GalaxySD",
        "not stated",
        "4 GB",
        note="display images (RGB of 424 x 424); the repository's files could not be listed here",
    ),
]
