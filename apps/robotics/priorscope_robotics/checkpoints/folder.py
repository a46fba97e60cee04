"""Our model folder: config.json and model.safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from priorscope.backbones.loading import read_config
from priorscope.backbones.state_dict import filled as fill
from priorscope.backbones.state_dict import read_safetensors
from priorscope.data.files import writing
from priorscope.data.weights_file import save_file
from priorscope.errors import InputError
from priorscope.evaluation.config import config_from_plain, plain
from priorscope_robotics.model import PolicyModel
from priorscope_robotics.spec import PolicySpec

WEIGHTS = "model.safetensors"
#: What tells our folder from LeRobot's.
KIND = "priorscope-robotics-policy"


def save_model(model: PolicyModel, folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Write a model folder; ``dtype`` is what weights are stored in (the normaliser stays in float32)."""
    state = {
        key: value.detach().cpu().to(torch.float32 if key.startswith("normalizer.") else dtype).contiguous()
        for key, value in model.state_dict().items()
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / WEIGHTS, {"format": "pt"})
        text = json.dumps({"kind": KIND, **plain(model.spec)}, indent=2)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    return folder


def load_folder(folder: Path) -> PolicyModel:
    """Read a model folder.

    Raises
    ------
    InputError
        Files are missing or damaged, or the weights do not fit to the last key.
    """
    config = read_config(folder)
    if config.pop("kind", None) != KIND:
        raise InputError("is no policy of priorscope", path=folder / "config.json")
    spec = config_from_plain(PolicySpec, config, path=folder / "config.json")
    return filled(spec, read_safetensors(folder / WEIGHTS), folder)


def filled(spec: PolicySpec, state: Mapping[str, torch.Tensor], path: Path) -> PolicyModel:
    """A model of ``spec`` with these weights, in evaluation mode, without gradients.

    Raises
    ------
    InputError
        A key is missing, unexpected or of another shape, or a number is not finite.
    """
    try:
        with torch.device("meta"):
            model = PolicyModel(spec)
    except InputError as error:
        raise InputError(error.fact, path=path, remedy=error.remedy) from None
    return fill(model, state, path)
