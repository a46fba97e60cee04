"""The detection app's models: published and bundled. Needs no torch."""

from __future__ import annotations

from priorscope.backbones.table import PublishedModel

#: The detection app's rows of the model table.
MODELS: list[PublishedModel] = []
