"""Checkpoints that are whole or absent."""

from __future__ import annotations

import os
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from priorscope.errors import InputError


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


def save_checkpoint(path: Path, parts: Mapping[str, Stateful], step: int) -> None:
    """Write the states of ``parts`` aside, flush, and rename: a kill or a full disk leaves the earlier file.

    Raises
    ------
    InputError
        If it cannot be written; the earlier checkpoint, if any, is as it was.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    state = {name: part.state_dict() for name, part in parts.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{path.name}.*.part"):
            left.unlink()  # of a run that was killed while it wrote
        with open(aside, "wb") as file:
            torch.save({"step": step, "parts": state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except (OSError, RuntimeError) as error:  # torch turns a short write into a RuntimeError
        kept = (
            f"The checkpoint before it is whole: --resume goes on from step {checkpoint_step(path)}. "
            if path.is_file()
            else ""
        )
        raise InputError(
            f"the checkpoint of step {step} cannot be written: {_reason(error)}",
            path=path,
            remedy=f"{kept}Free some space, or check that the folder can be written.",
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def load_checkpoint(path: Path, parts: Mapping[str, Stateful], *, optional: Collection[str] = ()) -> int:
    """Restore ``parts`` and return the step; 0, with nothing restored, where there is no checkpoint.

    Parts named in ``optional`` may be missing on either side.

    Raises
    ------
    InputError
        For a file that is no checkpoint of these parts.
    """
    if not path.is_file():
        return 0
    stored = _read(path)
    if set(stored["parts"]) - set(optional) != set(parts) - set(optional):
        raise InputError(
            f"holds {sorted(stored['parts'])}, wanted {sorted(parts)}",
            path=path,
            remedy="Resume with the same options.",
        )
    for name, part in parts.items():
        if name not in stored["parts"]:
            continue
        try:
            part.load_state_dict(stored["parts"][name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise InputError(f"its {name} does not fit this run ({error})", path=path) from error
    return int(stored["step"])


def checkpoint_step(path: Path) -> int:
    """The step that a checkpoint was written after, read without its weights; 0 where there is none."""
    return int(_read(path, mmap=True)["step"]) if path.is_file() else 0


def _read(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(
            f"is not a checkpoint that can be read ({_reason(error)})",
            path=path,
            remedy="Remove it to start from the first step.",
        ) from error
    if not isinstance(stored, dict) or set(stored) != {"step", "parts"}:
        raise InputError("is not a checkpoint of a training", path=path)
    return stored


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).partition("\n")[0]
