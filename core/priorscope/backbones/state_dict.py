"""Weights into a module, to the last key, without loading them twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from priorscope.backbones.pages import give_back
from priorscope.errors import InputError

ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """A safetensors file, on the CPU, floating point in float32.

    Raises
    ------
    InputError
        It is missing or damaged.
    """
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise InputError("is missing", path=path, remedy="Was the download complete?") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot be read: {error}", path=path, remedy="Download it again.") from None
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def cast(state: Mapping[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Weights in ``dtype``; where that takes a copy, the file's own pages are given back to the system."""
    converted = {}
    for key, value in state.items():
        converted[key] = value.to(dtype)
        if converted[key] is not value:
            give_back([value])  # else the whole file stays in memory beside the network
    return converted


def check_weights(
    module: torch.nn.Module,
    state: Mapping[str, torch.Tensor],
    path: Path,
    *,
    remedy: str = "Was the download complete?",
) -> None:
    """Refuse weights that do not fit a module to the last key.

    Parameters
    ----------
    module : Module
        It may be on the meta device.
    state : mapping of str to Tensor
    path : Path
        Named in errors.
    remedy : str
        What to do where they do not fit.

    Raises
    ------
    InputError
        A key is missing, unexpected or of another shape; numbers that are not finite.
    """
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    common = [key for key in wanted if key in state]
    learnt = {name for name, _ in module.named_parameters()}
    kinds = {
        "missing": [key for key in wanted if key not in state],
        "unexpected": [key for key in state if key not in wanted],
        "wrongly shaped": [
            f"{key} {tuple(state[key].shape)} instead of {wanted[key]}"
            for key in common
            if tuple(state[key].shape) != wanted[key]
        ],
        # a buffer may hold infinity, as masks of attention do
        "not finite": [
            key
            for key in common
            if bool((~torch.isfinite(state[key]) if key in learnt else torch.isnan(state[key])).any())
        ],
    }
    facts = [
        f"{len(keys)} {kind} ({', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''})"
        for kind, keys in kinds.items()
        if keys
    ]
    if facts:
        name = type(module).__name__
        raise InputError(f"the weights do not fit {name}: {'; '.join(facts)}", path=path, remedy=remedy)


def filled(
    module: ModuleT,
    state: Mapping[str, torch.Tensor],
    path: Path,
    *,
    remedy: str = "Was the download complete?",
) -> ModuleT:
    """A module with these weights, in evaluation mode, without gradients; arguments and errors: :func:`check_weights`.

    It is best made on the meta device: it takes the tensors themselves.
    """
    check_weights(module, state, path, remedy=remedy)
    module.load_state_dict(dict(state), assign=True)
    return module.eval().requires_grad_(False)
