"""Where a long reconstruction stands, on disk: whole or absent, in safetensors."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from priorscope.data.files import atomic_path, writing
from priorscope.data.weights_file import save_file
from priorscope.errors import InputError
from priorscope_medical.volume_state import VolumeState

_X = "x"


def save_state(path: Path, state: VolumeState) -> None:
    """Write a state, replacing an earlier one."""
    tensors = {_X: state.x, **{f"dual.{name}": value for name, value in state.duals.items()}}
    save_tensors(path, tensors, {"step": str(state.step)})


def load_state(path: Path) -> VolumeState | None:
    """The state that :func:`save_state` wrote; None where there is none."""
    if not path.is_file():
        return None
    tensors, about = load_tensors(path)
    try:
        step, x = int(about["step"]), tensors.pop(_X)
    except (KeyError, ValueError) as error:
        raise InputError("is no state of a reconstruction", path=path, remedy="Remove it to start anew.") from error
    duals = {name.removeprefix("dual."): value for name, value in tensors.items()}
    return VolumeState(step, x, duals)


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, str] | None = None) -> None:
    """Write tensors atomically, replacing an earlier file."""
    with atomic_path(path, overwrite=True) as temporary, writing(path):
        try:
            # a view of another tensor is not written: duals that have just begun share their memory
            save_file({name: value.detach().cpu().clone() for name, value in tensors.items()}, temporary, about)
        except SafetensorError as error:  # it wraps a full disk
            raise OSError(str(error)) from error


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and what is noted with them; InputError for a damaged file."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"is truncated or no checkpoint ({error})", path=path, remedy="Remove it to start anew."
        ) from error
