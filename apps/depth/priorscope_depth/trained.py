"""The model folders of `train-edges` and `train-sensor`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from priorscope.backbones.loading import read_config
from priorscope.errors import InputError


def read_trained(folder: Path, kind: str, *, what: str, command: str, unread: str = "") -> tuple[dict[str, Any], str]:
    """What ``priorscope.json`` says of a trained model, and the name that results bear.

    Parameters
    ----------
    folder : Path
    kind : str
        That the file has to state.
    what, command : str
        For messages: "an edge model", and what trains one.
    unread : str
        Also for messages: which published weights are not read.

    Raises
    ------
    InputError
        No such folder, one of another kind, or the run folder around it.
    """
    if not folder.is_dir():
        raise InputError(
            "is a file, not a model folder" if folder.exists() else "no such model folder",
            path=folder,
            remedy=" ".join(filter(None, (f"Train one: priorscope depth {command}.", unread))),
        )
    for part in ("diffusion/model", "model"):
        if not (folder / "priorscope.json").is_file() and (folder / part / "priorscope.json").is_file():
            raise InputError("is the run folder of a training", path=folder, remedy=f"Give --model {folder / part}.")
    about = read_config(folder, "priorscope.json")
    if about.get("kind") != kind:
        raise InputError(f"is not {what}", path=folder, remedy=f"Give the model folder of {command}.")
    # trainings call the folder OUT/model; a relative path may lack OUT
    place = folder.absolute()
    return about, place.name if place.name != "model" else place.parent.name
