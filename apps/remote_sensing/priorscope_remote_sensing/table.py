"""Rows of the model table, and where a backbone is that was named. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from priorscope.backbones.table import PublishedModel, find_published
from priorscope.errors import InputError

#: Zenodo records of DiffusionSat's weights, by the side of the images they were trained on.
ZENODO = {512: "13751498", 256: "13756199"}


def _diffusionsat(side: int) -> PublishedModel:
    return PublishedModel(
        name=f"diffusionsat-{side}",
        app="remote-sensing",
        task="features",
        loader="diffusionsat",
        source=f"zenodo.org/records/{ZENODO[side]}",
        licence="not stated",
        size="not stated",
        note=f"a zip: unpack it as FOLDER/resolution{side}/ and give FOLDER; RGB, {side} px",
        by_hand=True,
    )


MODELS = [
    PublishedModel(
        name="tiny-terrain",
        app="remote-sensing",
        task="features",
        loader="terrain-prior",
        source=str(Path(__file__).parent / "models/tiny-terrain"),
        licence="Apache-2.0",
        size="3 MB",
        note="ours, bundled: the 13 bands of Sentinel-2 as reflectance; for demos, tests and first looks",
        bundled=True,
    ),
    _diffusionsat(512),
    _diffusionsat(256),
]


def find_backbone(source: str) -> Path:
    """The local folder of a backbone, by its path or its name in the model table.

    Raises
    ------
    InputError
        An unknown name, or one whose files have to be fetched by hand.
    """
    from priorscope.backbones.loading import model_folder

    row = find_published(source, MODELS)
    if row is None and "/" in source and not Path(source).expanduser().is_dir():
        raise InputError("no such folder of a backbone", path=source)
    return model_folder(source, [], MODELS)
