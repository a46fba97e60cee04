"""The medical app's models: published and bundled. Needs no torch."""

from __future__ import annotations

from priorscope.backbones.table import PublishedModel

MODELS: tuple[PublishedModel, ...] = ()
