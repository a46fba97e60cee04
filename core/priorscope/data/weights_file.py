"""Weights as safetensors files that others may read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from safetensors import torch as _safetensors


def save_file(
    tensors: Mapping[str, torch.Tensor], path: str | PathLike[str], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors as ``safetensors.torch.save_file`` does, with the permissions that any new file has.

    safetensors (0.8) makes files that only their owner can read, whatever the umask: a model in a group's folder would
    be of no use to the group.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Contiguous, on any device.
    path : path-like
        An existing file is replaced.
    metadata : dict of str to str, optional

    Raises
    ------
    OSError, safetensors.SafetensorError
        It cannot be written there.
    """
    _safetensors.save_file(dict(tensors), path, metadata)
    share(path)


def share(path: str | PathLike[str]) -> None:
    """Give a safetensors file, or those in a folder that another library wrote, the permissions of any new file."""
    mask = os.umask(0o077)
    os.umask(mask)
    path = Path(path)
    for file in path.rglob("*.safetensors") if path.is_dir() else [path]:
        file.chmod(0o666 & ~mask)
