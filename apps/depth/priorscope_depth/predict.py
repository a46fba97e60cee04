"""Predict for images, folders and videos, and write the results."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from priorscope.data.images import ImageFile, find_images, is_video, read_image
from priorscope.data.video import VideoFrame, VideoWriter, read_video, read_video_info
from priorscope.errors import InputError
from priorscope.evaluation.suite import Failure, run_items
from priorscope_depth.configs import ModelConfig, PredictConfig
from priorscope_depth.output import Meaning, to_colours, write_result
from priorscope_depth.point_cloud import DepthRange
from priorscope_depth.predictor import DepthPredictor, Result
from priorscope_depth.results import DepthResult


def load_predictor(settings: ModelConfig) -> DepthPredictor:
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
        revision=settings.revision,
    )


def meaning_of(result: Result) -> Meaning:
    """Space, scale and model of a result, as its side file states them."""
    if isinstance(result, DepthResult):
        return Meaning(result.space, scale=result.scale, model=result.model)
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
    images = find_images(others) if others else []
    if not images and not videos:
        raise InputError("no images found", path=", ".join(str(path) for path in config.inputs))
    if not config.overwrite:
        _refuse_existing(config.out, [image.stem for image in images] + [video.stem for video in videos])
    predictor = load_predictor(config.settings)
    failures = _predict_images(predictor, images, config) if images else []
    for video in videos:
        try:
            _predict_video(predictor, video, config)
        except InputError as error:
            failures.append(Failure(str(video), str(error)))
    total = len(images) + len(videos)
    if failures and total == 1:
        raise InputError(failures[0].error)
    print(f"{total - len(failures)} of {total} inputs done, results in {config.out}")
    for failure in failures:
        print(f"failed: {failure.key}: {failure.error}")
    return 1 if failures else 0


def _refuse_existing(out: Path, stems: list[str]) -> None:
    existing = [stem for stem in stems for _ in (out / stem).parent.glob(f"{Path(stem).name}_*.json")]
    if existing:
        raise InputError(
            f"holds results of {len(set(existing))} of these inputs already ({existing[0]})",
            path=out,
            remedy="Use --overwrite or another --out.",
        )


def _predict_images(predictor: DepthPredictor, images: list[ImageFile], config: PredictConfig) -> list[Failure]:
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
    intrinsics = None
    if config.intrinsics is not None:
        fx, fy, cx, cy = config.intrinsics
        intrinsics = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    write_result(
        stem,
        result.values,
        meaning_of(result),
        formats=config.formats,
        rgb=picture,
        intrinsics=intrinsics,
        fov=config.fov,
        depth_range=DepthRange(config.near, config.far),
        overwrite=True,  # what was there was checked for all inputs before the first was read
    )


def _predict_video(predictor: DepthPredictor, path: Path, config: PredictConfig) -> None:
    """Frame by frame: a colour video, and the frames' maps in the other formats asked for.

    All frames share one item's noise, so that a generative model does not flicker by itself.
    """
    settings = config.settings
    info = read_video_info(path)
    frames_folder = config.out / f"{path.stem}_frames"
    formats = tuple(name for name in config.formats if name != "colour")
    target = config.out / f"{path.stem}_{predictor.space if predictor.task == 'depth' else 'normals'}.mp4"
    target.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(target, info.fps or 25.0, overwrite=True) as writer:
        for batch in _batched(read_video(path), settings.batch_size):
            results = predictor(
                [frame.image for frame in batch],
                seed=settings.seed,
                items=[path.stem] * len(batch),
                ensemble=settings.ensemble,
                batch_size=settings.batch_size,
                tile=config.tile,
            )
            for frame, result in zip(batch, results, strict=True):
                writer.write(to_colours(result.values, meaning_of(result)))
                if formats:
                    write_result(
                        frames_folder / f"{frame.number:06d}",
                        result.values,
                        meaning_of(result),
                        formats=formats,
                        rgb=frame.image,
                        fov=config.fov,
                        depth_range=DepthRange(config.near, config.far),
                        overwrite=True,
                    )
    print(f"{path.name}: {target}")


def _batched(frames: Iterator[VideoFrame], size: int) -> Iterator[list[VideoFrame]]:
    while batch := list(islice(frames, size)):
        yield batch
