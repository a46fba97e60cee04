"""Maps on disk, memory-mapped, under a name that says what they were made from."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from priorscope.data.files import atomic_path
from priorscope.errors import InputError

_FORMAT = "priorscope-features-1"
#: Values of each weight tensor that enter a network's fingerprint.
_SAMPLES = 256


class TensorFolder:
    """Named tensors of many items in a folder, one safetensors file an item.

    A file's name is the hash of the item's content and of all settings, so other settings never meet these files.
    Files appear whole (written aside, then renamed) and several processes may write at once. What is read is mapped,
    not loaded. A file that is truncated or altered is noticed at its first reading (checksum), reported by a warning,
    and counts as absent, so it is made again.

    Parameters
    ----------
    folder : path-like
        Made where it is missing.
    settings : mapping
        Everything besides the item that the tensors depend on; JSON values.
    dtype : torch.dtype, optional
        What floating tensors are stored as; float16 halves the size and rounds to 3 digits. Default: as they are.
    """

    def __init__(
        self, folder: str | os.PathLike[str], settings: Mapping[str, Any], *, dtype: torch.dtype | None = None
    ) -> None:
        self.folder = Path(folder).expanduser()
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError("is a file, a folder for the cache was expected", path=self.folder)
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise InputError(f"a cache of {dtype}", remedy="Use torch.float16, torch.bfloat16 or torch.float32.")
        self.settings = json.dumps({**settings, "format": _FORMAT, "stored": str(dtype)}, sort_keys=True)
        self.dtype = dtype
        self._verified: set[tuple[str, int, int]] = set()

    def path(self, key: str) -> Path:
        """The file of the item ``key``, whether it exists or not."""
        name = hashlib.sha256(f"{self.settings}\n{key}".encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def get(self, key: str) -> dict[str, torch.Tensor] | None:
        """The tensors of an item, mapped from disk; None where there are none, or none that are whole."""
        path = self.path(key)
        try:
            state = path.stat()
        except OSError:
            return None
        try:
            tensors, checksum = _map_file(path)
            identity = (str(path), state.st_size, state.st_mtime_ns)
            if identity not in self._verified:
                if _checksum(tensors) != checksum:
                    raise ValueError("its checksum does not fit")
                self._verified.add(identity)
            return tensors
        except FileNotFoundError:
            return None
        except Exception as error:  # what a broken file raises depends on where it is broken
            reason = " ".join(str(error).split())[:150]
            warnings.warn(f"{path}: is damaged ({reason}); it is made again", RuntimeWarning, stacklevel=2)
            return None

    def put(self, key: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Store the tensors of an item and return them as they are stored (on the CPU).

        Raises
        ------
        InputError
            If values are too large for the cache's dtype, or the file cannot be written.
        """
        from safetensors import SafetensorError

        from priorscope.data.weights_file import save_file

        stored = {
            name: value.detach().to("cpu", self.dtype if value.is_floating_point() else None).contiguous()
            for name, value in tensors.items()
        }
        for name, value in stored.items():
            if value.dtype != tensors[name].dtype and bool((value.isinf() & ~tensors[name].cpu().isinf()).any()):
                raise InputError(
                    f"{name} holds values too large for {value.dtype}", remedy="Use torch.bfloat16 or torch.float32."
                )
        path = self.path(key)
        metadata = {"order": json.dumps(list(stored)), "checksum": str(_checksum(stored)), "format": _FORMAT}
        with atomic_path(path, overwrite=True) as temporary:
            try:
                save_file(stored, temporary, metadata=metadata)
            except SafetensorError as error:
                raise InputError(f"cannot be written: {error}", path=path, remedy="Make room on the disk.") from error
        return stored


def _map_file(path: Path) -> tuple[dict[str, torch.Tensor], int]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in json.loads(metadata["order"])}
    return tensors, int(metadata["checksum"])


def _checksum(tensors: Mapping[str, torch.Tensor]) -> int:
    total = 0
    for name, value in tensors.items():
        total = zlib.crc32(f"{name}{tuple(value.shape)}{value.dtype}".encode(), total)
        total = zlib.crc32(value.contiguous().view(-1).view(torch.uint8).numpy().data, total)
    return total


def content_hash(array: np.ndarray | torch.Tensor) -> str:
    """Hash of an array's values, shape and dtype."""
    values = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array
    digest = hashlib.sha256(f"{values.shape}{values.dtype}".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def fingerprint(modules: Iterable[nn.Module]) -> str:
    """Identity of networks: names, shapes and a sample of the values of all their tensors, and their configuration.

    Milliseconds for a gigabyte. A training step, which moves all weights, changes it; an edit of a few single values
    of a large tensor may fall between the samples and go unseen.
    """
    digest = hashlib.sha256()
    for module in modules:
        config = getattr(module, "config", None)
        # names with an underscore say where a model was loaded from, and by which version
        kept = {k: v for k, v in config.items() if k[:1] != "_"} if isinstance(config, Mapping) else str(config)
        digest.update(f"{type(module).__name__} {kept}".encode())
        for name, value in module.state_dict().items():
            flat = value.detach().reshape(-1)
            some = flat[:: max(1, flat.numel() // _SAMPLES)].cpu().contiguous()
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(some.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
