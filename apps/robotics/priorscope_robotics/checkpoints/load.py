"""Any policy by its name, folder or file."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from pathlib import Path

import torch

from priorscope.backbones.loading import model_folder, read_config
from priorscope.backbones.prompt import cache_folder
from priorscope.backbones.table import find_published
from priorscope.data.files import writing
from priorscope.device import resolve_device
from priorscope.errors import InputError
from priorscope_robotics.checkpoints.diffusion_policy import load_diffusion_policy
from priorscope_robotics.checkpoints.folder import KIND, load_folder, save_model
from priorscope_robotics.checkpoints.lerobot import load_lerobot
from priorscope_robotics.model import PolicyModel
from priorscope_robotics.table import MODELS


def load_policy(source: str | Path, *, device: str | torch.device = "cpu") -> PolicyModel:
    """A policy's model, in evaluation mode.

    Parameters
    ----------
    source : str or Path
        A name of the model table, a hub id, a model folder (ours or LeRobot's), a run folder of ``train``, or a .ckpt
        file of Diffusion Policy or RTI-DP. Such a file is converted once, into the cache.
    device : str or torch.device

    Raises
    ------
    InputError
        Nothing of that kind, or what its reader refuses.
    """
    path = Path(source).expanduser()
    if path.is_file():
        model = _converted(path)
    elif path.suffix == ".ckpt" and find_published(str(source), MODELS) is None:
        raise InputError("no such file", path=path)
    else:
        folder = model_folder(source, ["config.json", "*.safetensors", "policy_*processor*"], MODELS)
        if not (folder / "config.json").is_file() and (folder / "model/config.json").is_file():
            folder = folder / "model"
        model = load_folder(folder) if read_config(folder).get("kind") == KIND else load_lerobot(folder)
    return model.to(resolve_device(str(device)))


def _converted(path: Path) -> PolicyModel:
    """The checkpoint from its copy in the cache, which is made where there is none."""
    if path.suffix != ".ckpt":
        raise InputError("is no policy", path=path, remedy="Give a .ckpt file of Diffusion Policy, or a model folder.")
    status = path.stat()
    mark = hashlib.sha256(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = cache_folder() / "robotics" / f"{path.stem[:60]}-{mark}"
    if folder.is_dir():
        return load_folder(folder)
    model = load_diffusion_policy(path)
    # a name of its own: several processes may convert the same file, and the first to end wins
    aside = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.part")
    try:
        with writing(aside, remedy="Set PRIORSCOPE_CACHE to a folder you may write to."):
            save_model(model, aside)
            try:
                aside.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return model
