"""The detection app's models: published and bundled. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from priorscope.backbones.table import PublishedModel


def _bundled(name: str, size: str, note: str) -> PublishedModel:
    source = str(Path(__file__).parent / "models" / name)
    return PublishedModel(
        name, "detection", "vehicles", "detector", source, "Apache-2.0", size, note=note, bundled=True
    )


_SHIPPED = [
    _bundled(
        "tiny-detection",
        "1 MB",
        "ours; attention and CoDiff on a square of 51 m, learnt from simulated streets only: for demos and tests",
    ),
    _bundled("tiny-detection-attention", "0.2 MB", "the same without diffusion, to compare with"),
    _bundled("tiny-detection-alone", "0.2 MB", "the same for the ego alone, to compare with"),
]

#: The detection app's rows of the model table: what is in this installation.
MODELS: list[PublishedModel] = [row for row in _SHIPPED if Path(row.source).is_dir()]
