"""Helpers of the robotics tests: golden cases with their tolerances, and small policies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from priorscope_robotics.spec import Observation, PolicySpec


@pytest.fixture(scope="session")
def golden_cases(golden_files, read_json) -> Callable[[str], list[tuple[str, dict[str, Any], dict[str, torch.Tensor]]]]:
    """``golden_cases(pattern)``: (name, JSON, tensors) of each case."""

    def find(pattern: str) -> list[tuple[str, dict[str, Any], dict[str, torch.Tensor]]]:
        paths = [path for path in golden_files("robotics_detection", f"{pattern}.*") if path.suffix == ".safetensors"]
        return [(path.stem, read_json(path.with_suffix(".json")), load_file(path)) for path in paths]

    return find


@pytest.fixture(scope="session")
def weights_of() -> Callable[..., dict[str, torch.Tensor]]:
    """``weights_of(tensors, prefix)``: the entries below ``w.`` and the prefix, without both."""

    def pick(tensors: dict[str, torch.Tensor], prefix: str = "") -> dict[str, torch.Tensor]:
        start = f"w.{prefix}"
        return {key[len(start) :]: value for key, value in tensors.items() if key.startswith(start)}

    return pick


@pytest.fixture(scope="session")
def robotics_golden(golden_files) -> Path:
    """The folder of the golden cases."""
    return golden_files("robotics_detection", "rti_*.json")[0].parent


@pytest.fixture(scope="session")
def golden_unet() -> dict[str, Any]:
    """Settings of the network of most golden policies."""
    return {
        "diffusion_step_embed_dim": 16,
        "down_dims": [16, 32],
        "kernel_size": 5,
        "n_groups": 8,
        "cond_predict_scale": True,
    }


@pytest.fixture(scope="session")
def golden_spec(golden_unet) -> Callable[..., PolicySpec]:
    """``golden_spec(config, **changes)``: the policy that a golden case's config describes."""

    def make(config: dict[str, Any], **changes: Any) -> PolicySpec:
        return PolicySpec(
            observations=(Observation("obs", (config["Do"],)),),
            action_dim=config["Da"],
            horizon=config["T"],
            n_obs_steps=config["To"],
            n_action_steps=config["n_act"],
            first_action=config["To"] - 1,
            conditioning="global" if config["glob"] else "inpaint",
            network_settings=golden_unet,
            **changes,
        )

    return make
