"""What an SDPose model is besides its weights. Needs no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from priorscope.errors import InputError

FILE = "priorscope.json"
_FAMILY = "sdpose"


@dataclass(frozen=True)
class PoseSettings:
    """How a model is asked and how its answer is read.

    Parameters
    ----------
    skeleton : str
        Name of the skeleton (:mod:`priorscope_pose.skeletons`): order, names and mirror pairs of the keypoints.
    tap : str
        Module of the U-Net whose output is the head's feature map; the forward pass ends there.
    input_size, heatmap_size : tuple of int
        (width, height) of the crop and of its heatmaps, in pixels.
    sigma : float
        Standard deviation of the training targets, in heatmap pixels; decoding does not depend on it.
    label : float
        What the U-Net is told about the noise level. No noise is ever added.
    task : tuple of float
        Task vector of the pose task; the U-Net sees its sines, then its cosines.
    reconstruction_task : tuple of float
        That of the auxiliary task of training. No released code uses it; (0, 1) is by analogy with Lotus.
    """

    skeleton: str
    tap: str
    input_size: tuple[int, int] = (768, 1024)
    heatmap_size: tuple[int, int] = (192, 256)
    sigma: float = 6.0
    label: float = 999.0
    task: tuple[float, ...] = (1.0, 0.0)
    reconstruction_task: tuple[float, ...] = (0.0, 1.0)

    def save(self, folder: Path) -> None:
        """Write ``priorscope.json``, by which :meth:`load` knows our own models."""
        content = {"family": _FAMILY, **asdict(self)}
        (folder / FILE).write_text(json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> PoseSettings:
        """Read what :meth:`save` wrote; InputError where it says something else."""
        from priorscope.backbones.loading import read_config

        content = read_config(folder, FILE)
        if content.pop("family", None) != _FAMILY:
            raise InputError("does not describe an SDPose model", path=folder / FILE)
        try:
            return cls(**{key: _plain(value) for key, value in content.items()})
        except (TypeError, ValueError) as error:
            raise InputError(f"has settings that are not understood ({error})", path=folder / FILE) from None

    def __post_init__(self) -> None:
        for name in ("input_size", "heatmap_size"):
            size = getattr(self, name)
            if len(size) != 2 or any(not isinstance(side, int) or side < 1 for side in size):
                raise InputError(f"{name} {size!r}", remedy="Give (width, height) in pixels.")
        if len(self.task) != len(self.reconstruction_task):
            raise InputError(f"task vectors {self.task} and {self.reconstruction_task} differ in length")


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


#: The published models, by their number of keypoints. The taps are those of the core's sets of the same names.
PUBLISHED: dict[int, PoseSettings] = {
    17: PoseSettings("coco", "up_blocks.3"),
    133: PoseSettings("coco_wholebody", "up_blocks.2"),
}
