"""The files that a prediction leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import write_text
from priorscope.data.images import ImageFile, write_png
from priorscope.data.video import VideoWriter
from priorscope_pose.configs import Format
from priorscope_pose.data.annotations import ImageId
from priorscope_pose.estimators import Estimator
from priorscope_pose.formats import controlnet_image, write_coco_results, write_openpose, write_poses
from priorscope_pose.formats.openpose import Body
from priorscope_pose.overlay import draw_poses
from priorscope_pose.poses import Poses


class Wanted(Protocol):
    """What a writer needs of a command's configuration."""

    @property
    def out(self) -> Path: ...

    @property
    def formats(self) -> tuple[Format, ...]: ...

    @property
    def keypoint_threshold(self) -> float: ...

    @property
    def openpose_body(self) -> Body: ...


@dataclass(frozen=True)
class Writer:
    """Writes what a run was asked for.

    Parameters
    ----------
    config : Wanted
    about : dict
        Model, skeleton and settings, for ``about.json``.
    """

    config: Wanted
    about: Mapping[str, Any]

    def image_files(self, image: ImageFile) -> dict[str, Path]:
        """Format -> file of a picture; ``coco`` is one file for all."""
        out, stem = self.config.out, image.stem
        files = {
            "overlay": out / f"{stem}_pose.png",
            "openpose": out / f"{stem}_keypoints.json",
            "controlnet": out / f"{stem}_controlnet.png",
            "npz": out / f"{stem}_poses.npz",
        }
        return {name: path for name, path in files.items() if name in self.config.formats}

    def clip_files(self, clip: ImageFile) -> dict[str, Path]:
        """Format -> file, or folder (``openpose``), of a video."""
        out, stem = self.config.out, clip.stem
        files = {
            "overlay": out / f"{stem}_pose.mp4",
            "coco": out / f"{stem}_results.json",
            "openpose": out / f"{stem}_openpose",
            "controlnet": out / f"{stem}_controlnet.mp4",
            "npz": out / f"{stem}_poses.npz",
        }
        return {name: path for name, path in files.items() if name in self.config.formats}

    def shared_file(self, name: str, inputs: Sequence[ImageFile]) -> Path:
        """The file that several inputs share: ``results.json``, of pictures in COCO's layout, or ``about.json``.

        That of a single input bears its name, so that pictures can be predicted one after the other into one folder.
        """
        return self.config.out / (f"{inputs[0].stem}_{name}.json" if len(inputs) == 1 else f"{name}.json")

    def targets(self, images: Sequence[ImageFile], clips: Sequence[ImageFile]) -> Iterator[Path]:
        """All that will be written."""
        for image in images:
            yield from self.image_files(image).values()
        for clip in clips:
            yield from self.clip_files(clip).values()
        if images and "coco" in self.config.formats:
            yield self.shared_file("results", images)
        yield self.shared_file("about", [*images, *clips])

    # What was there was checked for all inputs before the first was read, hence overwrite=True below.

    def picture(self, image: ImageFile, pixels: NDArray[np.uint8], poses: Poses) -> None:
        """Write the results of one picture, all but COCO's."""
        height, width = pixels.shape[:2]
        threshold = self.config.keypoint_threshold
        for name, path in self.image_files(image).items():
            if name == "overlay":
                write_png(path, draw_poses(pixels, poses, threshold=threshold), overwrite=True)
            elif name == "controlnet":
                write_png(path, controlnet_image(poses, width, height, threshold=threshold), overwrite=True)
            elif name == "openpose":
                self._openpose(path, poses, width, height)
            else:
                write_poses(path, [poses], (width, height), overwrite=True)

    def _openpose(self, path: Path, poses: Poses, width: int, height: int) -> None:
        config = self.config
        write_openpose(
            path,
            poses,
            width,
            height,
            body=config.openpose_body,
            threshold=config.keypoint_threshold,
            overwrite=True,
        )

    def coco(self, path: Path, poses: Sequence[tuple[ImageId, Poses]], estimator: Estimator) -> None:
        """Write COCO's results list where it was asked for."""
        if "coco" in self.config.formats:
            write_coco_results(path, poses, estimator.skeleton, overwrite=True)

    def finish(self, path: Path, records: Sequence[dict[str, Any]]) -> None:
        """Write what the numbers of a run mean, and what was found in each input."""
        content = {**self.about, "inputs": list(records)}
        write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n", overwrite=True)


class ClipWriter:
    """Writes a video's results frame by frame; a context manager, whose mp4 files appear when it ends well.

    Parameters
    ----------
    writer : Writer
    clip : ImageFile
    fps : float
    """

    def __init__(self, writer: Writer, clip: ImageFile, fps: float) -> None:
        self.writer, self.clip = writer, clip
        self.files = writer.clip_files(clip)
        self.poses: list[Poses] = []
        self.frames: list[int] = []
        self._size = (0, 0)
        self._stack = ExitStack()
        self._videos = {
            name: VideoWriter(self.files[name], fps, overwrite=True)
            for name in ("overlay", "controlnet")
            if name in self.files
        }

    def __enter__(self) -> ClipWriter:
        for path in self.files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        for video in self._videos.values():
            self._stack.enter_context(video)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, number: int, pixels: NDArray[np.uint8], poses: Poses) -> None:
        """Append a frame."""
        height, width = pixels.shape[:2]
        threshold = self.writer.config.keypoint_threshold
        if "overlay" in self._videos:
            self._videos["overlay"].write(draw_poses(pixels, poses, threshold=threshold))
        if "controlnet" in self._videos:
            self._videos["controlnet"].write(controlnet_image(poses, width, height, threshold=threshold))
        if "openpose" in self.files:
            name = f"{Path(self.clip.stem).name}_{number:012d}_keypoints.json"
            self.writer._openpose(self.files["openpose"] / name, poses, width, height)
        self._size = (width, height)
        self.poses.append(poses)
        self.frames.append(number)

    def finish(self, estimator: Estimator) -> None:
        """Write what covers the whole video: COCO's list, where ``image_id`` is the frame's number, and the arrays."""
        if "coco" in self.files:
            self.writer.coco(self.files["coco"], list(zip(self.frames, self.poses, strict=True)), estimator)
        if "npz" in self.files:
            write_poses(self.files["npz"], self.poses, self._size, frames=self.frames, overwrite=True)
