"""Miniature data sets in their true layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def box_surface() -> Callable[..., np.ndarray]:
    """``box_surface(box, count)``: points (count, 4) inside a box of seven numbers, the same every time."""

    def make(box: Any, count: int = 40) -> np.ndarray:
        x, y, z, length, w, h, yaw = box
        inner = np.random.default_rng(1).uniform(-0.49, 0.49, (count, 3)) * [length, w, h]
        c, s = np.cos(yaw), np.sin(yaw)
        out = np.ones((count, 4), np.float32)
        out[:, 0] = x + c * inner[:, 0] - s * inner[:, 1]
        out[:, 1] = y + s * inner[:, 0] + c * inner[:, 1]
        out[:, 2] = z + inner[:, 2]
        return out

    return make


@pytest.fixture
def write_json() -> Callable[[Path, Any], Path]:
    def write(path: Path, content: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture
def write_opv2v(tmp_path: Path) -> Callable[..., Path]:
    """``write_opv2v(agents, split=..., scenario=...)``: a scenario; ``agents`` is {agent: {stamp: (yaml, points)}}."""
    import yaml

    from priorscope_detection.data.pcd import write_pcd

    def write(
        agents: dict[str, dict[str, tuple[Any, np.ndarray]]],
        *,
        split: str = "train",
        scenario: str = "2021_08_22_21_41_24",
    ) -> Path:
        folder = tmp_path / split / scenario
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data_protocol.yaml").write_text("world: {}\n")
        for agent, frames in agents.items():
            (folder / agent).mkdir(exist_ok=True)
            for stamp, (content, points) in frames.items():
                (folder / agent / f"{stamp}.yaml").write_text(yaml.safe_dump(content))
                write_pcd(folder / agent / f"{stamp}.pcd", points, overwrite=True)
        return tmp_path / split

    return write
