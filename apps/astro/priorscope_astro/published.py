"""The astro app's models: published and bundled. Needs no torch."""

from __future__ import annotations

from priorscope.backbones.table import PublishedModel

#: The astro app's rows of the model table.
MODELS: list[PublishedModel] = [
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
