"""What the models of `train-edges` and `train-sensor` have in common: their U-Net, and their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from priorscope.backbones.loading import read_config
from priorscope.errors import InputError

#: The U-Net. DiffusionEdge's is 128 wide and sees the image through a Swin encoder; Stable-Sim2Real's is Stable
#: Diffusion 2.1 with a ControlNet for the exact depth.
SMALL_UNET: dict[str, Any] = {
    "block_out_channels": (48, 64, 96),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "attention_head_dim": 16,
}


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
