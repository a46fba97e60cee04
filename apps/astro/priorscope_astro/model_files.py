"""The files of a model folder that act on what it draws, and their common hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path


def part_files(folder: Path, part: str, prefix: str = "") -> dict[str, Path]:
    """Name -> file of a sub-folder in diffusers' layout: its config.json, and the weights that are loaded from it.

    Of several copies those are safetensors before torch files, and float16 only where there is no other.

    Parameters
    ----------
    folder : Path
    part : str
        ``unet``, ``vae``, ``text_encoder``, ...
    prefix : str
        Before the names, which are relative to ``folder``.
    """
    there = sorted(path for path in (folder / part).iterdir() if path.is_file())
    copies = [
        [path for path in there if path.suffix == suffix and (".fp16." in path.name) == half]
        for half in (False, True)
        for suffix in (".safetensors", ".bin")
    ]
    weights = next(filter(None, ([path for path in some if "non_ema" not in path.name] for some in copies)), [])
    acting = [path for path in there if path.name == "config.json"] + weights
    return {f"{prefix}{part}/{path.name}": path for path in acting}


def all_files(folder: Path, part: str, prefix: str = "") -> dict[str, Path]:
    """Name -> file of a sub-folder such as a tokenizer's, of which every file acts."""
    return {f"{prefix}{part}/{path.name}": path for path in sorted((folder / part).iterdir()) if path.is_file()}


def sha256_of(path: Path) -> str:
    """Of a file's content: 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(files: Mapping[str, Path]) -> str:
    """One hash of several files: that of what ``sha256sum`` prints for them, sorted by name.

    In a model folder it is made again by ``LC_ALL=C; sha256sum $(ls -d FILES) | sha256sum``.

    Parameters
    ----------
    files : mapping
        Name, relative to the model folder, -> file.
    """
    lines = (f"{sha256_of(path)}  {name}\n" for name, path in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
