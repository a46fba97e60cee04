"""The kinds of models, asked alike: SDPose and the plain network, picture by picture, and DiffPose, clip by clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from priorscope.backbones.table import find_published
from priorscope.device import resolve_device
from priorscope.errors import InputError
from priorscope_pose.configs import ModelConfig
from priorscope_pose.data.boxes import ImageBoxes
from priorscope_pose.poses import Poses
from priorscope_pose.published import MODELS
from priorscope_pose.skeletons import Skeleton

Picture = NDArray[np.uint8]


class Estimator(Protocol):
    """Finds the keypoints of people whose boxes are known."""

    reach: int
    """Frames before and after one that it looks at."""

    @property
    def name(self) -> str: ...

    @property
    def skeleton(self) -> Skeleton: ...

    def about(self) -> dict[str, Any]:
        """How the model is asked, for results."""
        ...

    def pictures(self, pictures: Sequence[Picture], boxes: Sequence[ImageBoxes], items: Sequence[str]) -> list[Poses]:
        """Poses in pictures that have nothing to do with each other; ``items`` names them for noise."""
        ...

    def clip(
        self,
        frames: Sequence[Picture],
        boxes: Sequence[ImageBoxes],
        item: str,
        *,
        numbers: Sequence[int | None] | None = None,
    ) -> list[Poses]:
        """Poses in frames that follow each other; a frame without boxes is only looked at for its neighbours.

        ``numbers`` are the frames' in their video, where some may not be there.
        """
        ...


def load_estimator(settings: ModelConfig) -> Estimator:
    """The model that the command line's options describe.

    Raises
    ------
    InputError
        Unknown names, incomplete folders, options out of range.
    """
    if settings.batch_size < 1:
        raise InputError(f"a batch size of {settings.batch_size}", remedy="Use --batch-size 1 or more.")
    if _is_diffpose(settings.model):
        return DiffPoseEstimator(settings)
    from priorscope_pose.conv.network import is_conv_folder

    if is_conv_folder(settings.model):
        return ConvEstimator(settings)
    return SDPoseEstimator(settings)


def _is_diffpose(source: str) -> bool:
    from priorscope.backbones.loading import read_config

    row = find_published(source, MODELS)
    if row is not None:
        return row.loader.startswith("diffpose")
    folder = Path(source).expanduser()
    return (folder / "config.json").is_file() and read_config(folder).get("_class_name") == "DiffPoseModel"


class SDPoseEstimator:
    """SDPose."""

    reach = 0

    def __init__(self, settings: ModelConfig) -> None:
        from priorscope_pose.sdpose.predictor import SDPosePredictor

        self.settings = settings
        self.predictor = SDPosePredictor.from_pretrained(
            settings.model,
            device=settings.device,
            precision=settings.precision,
            compile=settings.compile,
            revision=settings.revision,
        )

    @property
    def name(self) -> str:
        return self.predictor.name

    @property
    def skeleton(self) -> Skeleton:
        return self.predictor.skeleton

    def about(self) -> dict[str, Any]:
        settings = self.settings
        return {"crop": settings.crop, "flip_test": settings.flip_test, "posterior": settings.posterior}

    def pictures(self, pictures: Sequence[Picture], boxes: Sequence[ImageBoxes], items: Sequence[str]) -> list[Poses]:
        settings = self.settings
        return self.predictor(
            pictures,
            [its.boxes for its in boxes],
            box_scores=[its.scores for its in boxes],
            flip_test=settings.flip_test,
            crop=settings.crop,
            batch_size=settings.batch_size,
            posterior=settings.posterior,
            seed=settings.seed,
            items=list(items),
        )

    def clip(
        self,
        frames: Sequence[Picture],
        boxes: Sequence[ImageBoxes],
        item: str,
        *,
        numbers: Sequence[int | None] | None = None,
    ) -> list[Poses]:
        # one noise for all frames, so that a sampled posterior does not flicker by itself
        return self.pictures(frames, boxes, [item] * len(frames))


class ConvEstimator(SDPoseEstimator):
    """The plain convolutional network that SDPose is compared with: asked as SDPose is."""

    def __init__(self, settings: ModelConfig) -> None:
        from priorscope_pose.conv.network import ConvPoseNetwork
        from priorscope_pose.sdpose.predictor import SDPosePredictor

        self.settings = settings
        device = resolve_device(settings.device)
        network: Any = ConvPoseNetwork.load(Path(settings.model).expanduser()).to(device)
        self.predictor = SDPosePredictor(network, name=settings.model, device=device)


class DiffPoseEstimator:
    """DiffPose."""

    def __init__(self, settings: ModelConfig) -> None:
        from priorscope_pose.diffpose.predictor import DiffPosePredictor

        if settings.steps < 1 or settings.ensemble < 1:
            raise InputError(f"{settings.steps} steps, {settings.ensemble} draws", remedy="Give 1 or more of each.")
        self.settings = settings
        self.predictor = DiffPosePredictor.from_pretrained(
            settings.model, device=settings.device, precision=settings.precision
        )
        self.reach = self.predictor.model.spec.distance

    @property
    def name(self) -> str:
        return self.predictor.name

    @property
    def skeleton(self) -> Skeleton:
        return self.predictor.skeleton

    def about(self) -> dict[str, Any]:
        from priorscope_pose.diffpose.codec import policy_of

        settings = self.settings
        return {
            "crop": policy_of(self.predictor.model.spec),
            "flip_test": False,
            "steps": settings.steps,
            "ensemble": settings.ensemble,
            "seed": settings.seed,
        }

    def pictures(self, pictures: Sequence[Picture], boxes: Sequence[ImageBoxes], items: Sequence[str]) -> list[Poses]:
        return [self.clip([picture], [its], item)[0] for picture, its, item in zip(pictures, boxes, items, strict=True)]

    def clip(
        self,
        frames: Sequence[Picture],
        boxes: Sequence[ImageBoxes],
        item: str,
        *,
        numbers: Sequence[int | None] | None = None,
    ) -> list[Poses]:
        settings = self.settings
        return self.predictor(
            frames,
            [its.boxes for its in boxes],
            box_scores=[its.scores for its in boxes],
            numbers=numbers,
            steps=settings.steps,
            ensemble=settings.ensemble,
            seed=settings.seed,
            item=item,
            batch_size=settings.batch_size,
        )
