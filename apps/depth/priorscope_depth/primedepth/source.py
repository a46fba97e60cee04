"""Where a PrimeDepth checkpoint is: by name, hub id, folder or file. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from priorscope.backbones.table import PublishedModel, find_published
from priorscope.errors import InputError

#: Suffixes of checkpoint files.
SUFFIXES = (".ckpt", ".safetensors")
#: Beside a checkpoint of other sizes than the published ones.
SIZES = "primedepth.json"

PRIMEDEPTH = PublishedModel(
    "primedepth",
    app="depth",
    task="disparity",
    loader="primedepth",
    source="CVL-Heidelberg/PrimeDepth",
    licence="see its page",
    size="7 GB",
    note="the name of its .ckpt on the hub is not verified here; a file works: --model FILE.ckpt",
)


def is_primedepth(source: str | Path) -> bool:
    """Whether ``source`` names a PrimeDepth checkpoint: the row of the table, a file, or a folder of ours."""
    if find_published(str(source), [PRIMEDEPTH]) is not None:
        return True
    path = Path(source).expanduser()
    if path.suffix in SUFFIXES or (path / SIZES).is_file():
        return True
    # Stable Diffusion's own folders hold a .ckpt beside diffusers' layout
    return path.is_dir() and any(path.glob("*.ckpt")) and not (path / "unet").is_dir()


def find_checkpoint(source: str | Path, *, revision: str | None = None) -> Path:
    """The checkpoint file of a name, hub id, folder or file.

    Raises
    ------
    InputError
        No such file; a folder with none or several.
    """
    path = Path(source).expanduser()
    if path.suffix in SUFFIXES:
        if not path.is_file():
            raise InputError("no such checkpoint file", path=path)
        return path
    row = find_published(str(source), [PRIMEDEPTH])
    if row is not None:
        from priorscope.backbones.loading import locate

        # whatever the file is called there
        path = locate(row.source, [f"*{suffix}" for suffix in SUFFIXES], revision=revision)
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES) if path.is_dir() else []
    if len(found) != 1:
        listed = ", ".join(file.name for file in found) or "none"
        raise InputError(
            f"holds {len(found)} checkpoint files ({listed})", path=path, remedy="Give the file: --model FILE.ckpt."
        )
    return found[0]
