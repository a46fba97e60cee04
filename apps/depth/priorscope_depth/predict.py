"""Predict for images, folders and videos, and write the results."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from priorscope.data.files import refuse_existing
from priorscope.data.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, ImageFile, find_images, is_video, read_image
from priorscope.data.video import VideoFrame, VideoWriter, read_video, read_video_info
from priorscope.errors import InputError
from priorscope.evaluation.suite import Failure, conclude, run_items
from priorscope_depth.base import ImagePredictor, Result
from priorscope_depth.configs import ModelConfig, PredictConfig
from priorscope_depth.output import Meaning, result_names, to_colours, write_result
from priorscope_depth.point_cloud import DepthRange, intrinsics_from_fov
from priorscope_depth.predictor import DepthPredictor
from priorscope_depth.results import DepthResult


def load_predictor(settings: ModelConfig) -> ImagePredictor:
    """The predictor that the command line's model options describe."""
    from priorscope.predictors.geometry import Geometry

    geometry = None
    if settings.official_geometry:
        geometry = Geometry.lotus(768 if settings.resolution is None else settings.resolution)
    return DepthPredictor.from_pretrained(
        settings.model,
        family=settings.family,
        task=settings.task,
        space=settings.space,
        steps=settings.steps,
        posterior=settings.posterior,
        geometry=geometry,
        resolution=settings.resolution,
        device=settings.device,
        precision=settings.precision,
        tiled_vae=settings.tiled_vae,
        compile=settings.compile,
        revision=settings.revision,
    )


def meaning_of(result: Result) -> Meaning:
    """Space, scale and model of a result, as its side file states them."""
    if isinstance(result, DepthResult):
        return Meaning(result.space, scale=result.scale, model=result.model, notes=result.notes)
    return Meaning("normals", model=result.model)


def predict(config: PredictConfig) -> int:
    """Run ``priorscope depth predict``.

    Returns
    -------
    int
        0; 1 when some inputs failed, which are listed and do not stop the others.
    """
    if not config.inputs:
        raise InputError("no input", remedy="Give images, folders or videos: priorscope depth predict photo.jpg")
    for path in config.inputs:
        if not path.exists():
            raise InputError("no such file or folder", path=path)
    videos = [path for path in config.inputs if path.is_file() and is_video(path)]
    others = [path for path in config.inputs if path not in videos]
    found = find_images(others, suffixes=IMAGE_SUFFIXES | VIDEO_SUFFIXES) if others else []
    images = [file for file in found if not is_video(file.path)]
    # found again, for names that differ where the files' own do not
    clips = [file for file in found if is_video(file.path)] + (find_images(videos) if videos else [])
    predictor = load_predictor(config.settings)
    _check_request(predictor, config)
    if not config.overwrite:
        space = predictor.space if predictor.task == "depth" else "normals"
        refuse_existing([target for image in images for target in _image_targets(image, space, config)])
        refuse_existing([target for clip in clips for target in _video_targets(clip, space, config)])
    failures = _predict_images(predictor, images, config) if images else []
    for clip in clips:
        try:
            _predict_video(predictor, clip, config)
        except InputError as error:
            failures.append(Failure(str(clip.path), str(error)))
    return conclude(failures, len(images) + len(clips), config.out)


def _check_request(predictor: ImagePredictor, config: PredictConfig) -> None:
    """What would fail for every input alike fails once, before the first."""
    predictor.check_request(ensemble=config.settings.ensemble, tile=config.tile, batch_size=config.settings.batch_size)
    if not config.formats:
        raise InputError("no format was named", remedy="For example --formats png npy.")
    if predictor.task == "normals" and "ply" in config.formats:
        raise InputError("normals alone make no point cloud", remedy="Ask for ply with a model of depth or disparity.")
    DepthRange(config.near, config.far)
    intrinsics_from_fov(1, 1, config.fov)


def _intrinsics(config: PredictConfig) -> np.ndarray | None:
    if config.intrinsics is None:
        return None
    fx, fy, cx, cy = config.intrinsics
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _image_targets(image: ImageFile, space: str, config: PredictConfig) -> list[Path]:
    return [config.out / name for name in result_names(image.stem, space, config.formats).values()]


def _video_targets(clip: ImageFile, space: str, config: PredictConfig) -> list[Path]:
    """The colour video, and the folder of the frames' maps where other formats are asked for."""
    frames = [config.out / f"{clip.stem}_frames"] if set(config.formats) - {"colour"} else []
    return [config.out / f"{clip.stem}_{space}.mp4", *frames]


def _predict_images(predictor: ImagePredictor, images: list[ImageFile], config: PredictConfig) -> list[Failure]:
    settings = config.settings

    def evaluate(batch: list[ImageFile]) -> list[dict[str, Any]]:
        pictures = [read_image(image.path) for image in batch]
        results = predictor(
            pictures,
            seed=settings.seed,
            items=[image.stem for image in batch],
            ensemble=settings.ensemble,
            batch_size=settings.batch_size,
            tile=config.tile,
        )
        for image, picture, result in zip(batch, pictures, results, strict=True):
            _write(config.out / image.stem, result, picture, config)
        return [{} for _ in batch]

    outcome = run_items(
        images,
        evaluate,
        key=lambda image: str(image.path),
        batch_size=settings.batch_size,
        progress=True if len(images) > 1 else None,
    )
    return list(outcome.failures)


def _write(stem: Path, result: Result, picture: np.ndarray, config: PredictConfig) -> None:
    write_result(
        stem,
        result.values,
        meaning_of(result),
        formats=config.formats,
        uncertainty=result.uncertainty,
        rgb=picture,
        intrinsics=_intrinsics(config),
        fov=config.fov,
        depth_range=DepthRange(config.near, config.far),
        overwrite=True,  # what was there was checked for all inputs before the first was read
    )


def _predict_video(predictor: ImagePredictor, clip: ImageFile, config: PredictConfig) -> None:
    """Frame by frame: a colour video, and the frames' maps in the other formats asked for.

    All frames share one item's noise, so that a generative model does not flicker by itself.
    """
    settings = config.settings
    info = read_video_info(clip.path)
    formats = tuple(name for name in config.formats if name != "colour")
    target, *folders = _video_targets(clip, predictor.space if predictor.task == "depth" else "normals", config)
    target.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(target, info.fps or 25.0, overwrite=True) as writer:
        for batch in _batched(read_video(clip.path), settings.batch_size):
            results = predictor(
                [frame.image for frame in batch],
                seed=settings.seed,
                items=[clip.stem] * len(batch),
                ensemble=settings.ensemble,
                batch_size=settings.batch_size,
                tile=config.tile,
            )
            for frame, result in zip(batch, results, strict=True):
                writer.write(to_colours(result.values, meaning_of(result)))
                for folder in folders:
                    write_result(
                        folder / f"{frame.number:06d}",
                        result.values,
                        meaning_of(result),
                        formats=formats,
                        rgb=frame.image,
                        intrinsics=_intrinsics(config),
                        fov=config.fov,
                        depth_range=DepthRange(config.near, config.far),
                        overwrite=True,
                    )
    print(f"{clip.path.name}: {target}")


def _batched(frames: Iterator[VideoFrame], size: int) -> Iterator[list[VideoFrame]]:
    while batch := list(islice(frames, size)):
        yield batch
