"""Where a model is that was named: a folder, a row of the model table, a hub id."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from priorscope.backbones.loading import locate
from priorscope.backbones.table import find_published, published_models, unknown_model

_PARTS = [
    "model_index.json",
    "empty_prompt.safetensors",
    "unet",
    "vae",
    "scheduler",
    "text_encoder",
    "tokenizer",
]


def _bundled() -> Iterator[tuple[Any, Path]]:
    """Rows of the apps' models, each with the folder of its app."""
    for entry in entry_points(group="priorscope.apps"):
        module = entry.load()
        for row in getattr(module, "MODELS", []):
            yield row, Path(module.__file__ or ".").parent


def find_model(source: str | Path, revision: str | None) -> Path:
    """The local folder of a model by its path, its name in the model table, or its hub id."""
    if Path(source).expanduser().exists():
        return locate(source, _PARTS, revision=revision)
    for row, app in _bundled():
        if row.bundled and str(source) in (row.name, row.source):
            return app / row.source
    rows = published_models()
    published = find_published(str(source), rows)
    if published is None and "/" not in str(source):
        raise unknown_model(str(source), rows)
    return locate(published.source if published is not None else source, _PARTS, revision=revision)
