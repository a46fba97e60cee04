"""Names of weights: LeRobot's and ours, both ways, to the last key."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from priorscope_robotics.normalizer import field_key
from priorscope_robotics.spec import PolicySpec

_UNET = "diffusion.unet."
_CAMERA = "diffusion.rgb_encoder."


def from_lerobot(spec: PolicySpec, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of ``model.safetensors`` under our names, without those of normalisers, which are read elsewhere.

    A name that fits nothing keeps its own, so that loading refuses it.
    """
    found = {}
    for key, value in tensors.items():
        if key.startswith(_UNET):
            found["network." + _unet_from(key.removeprefix(_UNET))] = value
        elif key.startswith(_CAMERA):
            name, rest = _camera_from(spec, key.removeprefix(_CAMERA))
            if rest == "pool.pos_grid":
                found[f"encoders.{name}.pool.pos_x"], found[f"encoders.{name}.pool.pos_y"] = value.T[:, None].unbind()
                found[f"encoders.{name}.pool.temperature"] = torch.ones(1)
            else:
                found[f"encoders.{name}.{rest}"] = value
        elif not key.startswith(("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")):
            found[key] = value
    return found


def to_lerobot(spec: PolicySpec, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our weights under LeRobot's names, without the normaliser."""
    found = {}
    for key, value in state.items():
        if key.startswith("network."):
            found[_UNET + _unet_to(key.removeprefix("network."))] = value
        elif key.startswith("encoders."):
            name, _, rest = key.removeprefix("encoders.").partition(".")
            start = _CAMERA + ("" if name == "shared" else f"{_camera_names(spec).index(name)}.")
            if rest == "pool.pos_x":
                both = [value, state[key.removesuffix("x") + "y"]]
                found[f"{start}pool.pos_grid"] = torch.cat(both).T.contiguous()
            elif rest not in ("pool.pos_y", "pool.temperature"):
                found[start + rest] = value
    return found


def _camera_names(spec: PolicySpec) -> list[str]:
    return [field_key(entry.name) for entry in spec.images]


def _camera_from(spec: PolicySpec, key: str) -> tuple[str, str]:
    if spec.image.shared:
        return "shared", key
    number, _, rest = key.partition(".")
    names = _camera_names(spec)
    return (names[int(number)], rest) if number.isdigit() and int(number) < len(names) else (number, rest)


def _unet_from(key: str) -> str:
    key = re.sub(r"\bconv([12])\.block\.", lambda found: f"blocks.{int(found[1]) - 1}.block.", key)
    return re.sub(r"^((?:down|up)_modules\.\d+\.2)\.(weight|bias)$", r"\1.conv.\2", key)


def _unet_to(key: str) -> str:
    key = re.sub(r"\bblocks\.([01])\.block\.", lambda found: f"conv{int(found[1]) + 1}.block.", key)
    return re.sub(r"^((?:down|up)_modules\.\d+\.2)\.conv\.", r"\1.", key)
