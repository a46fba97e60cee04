"""Predict for images, folders and videos, and write the results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from priorscope.backbones.loading import model_folder
from priorscope.backbones.table import find_published
from priorscope.data.files import refuse_existing
from priorscope.data.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, ImageFile, find_images, is_video, read_image
from priorscope.data.video import VideoFrame, VideoWriter, read_video, read_video_info
from priorscope.device import resolve_device
from priorscope.errors import InputError
from priorscope.evaluation.suite import Failure, conclude, run_items
from priorscope_depth.assemble import PARTS, official_geometry, on_patches, refuse_patches
from priorscope_depth.averaging import AveragedPredictor
from priorscope_depth.base import ImagePredictor, Result
from priorscope_depth.configs import ModelConfig, PredictConfig, refuse_idle
from priorscope_depth.families import MODELS, recognise
from priorscope_depth.known_points import KnownPoints, parse_distances, points_file, read_points
from priorscope_depth.metric_scale import to_metric, within
from priorscope_depth.output import Format, Meaning, result_names, write_result
from priorscope_depth.point_cloud import DepthRange, check_intrinsics, intrinsics_from_fov
from priorscope_depth.predictor import DepthPredictor
from priorscope_depth.primedepth.command import load_primedepth
from priorscope_depth.primedepth.source import is_primedepth
from priorscope_depth.results import DepthResult
from priorscope_depth.transformers_models import DepthPro, is_transformers_model, load_transformers_model
from priorscope_depth.video import FrameColours, FrameOptions, FramePredictor


def load_predictor(settings: ModelConfig) -> ImagePredictor:
    """The predictor that the command line's model options describe."""
    if settings.ensemble_with is not None:
        return _load_average(settings, settings.ensemble_with)
    if settings.ensemble_space is not None:
        raise InputError("--ensemble-space without a second model", remedy="Name it: --ensemble-with MODEL.")
    row = find_published(settings.model, MODELS)
    if row.bundled if row is not None else Path(settings.model).expanduser().exists():
        refuse_idle(settings, ("revision",), f"of {settings.model}, which is on this machine, not on the hub")
    if settings.caption != "blip2":
        refuse_idle(settings, ("caption_model",), "without --caption blip2, which asks it")
    if is_primedepth(settings.model):
        return load_primedepth(settings)
    if settings.caption or settings.caption_file or settings.deterministic:
        raise InputError("--caption, --caption-file and --deterministic are PrimeDepth's", remedy="Leave them out.")
    if is_transformers_model(settings.model):
        return _load_transformers(settings)
    geometry = None
    if settings.official_geometry:
        folder = model_folder(settings.model, PARTS, MODELS, revision=settings.revision)
        stated = {"family": settings.family, "task": settings.task, "space": settings.space}
        family = recognise(folder, name=settings.model, **stated).family
        geometry = official_geometry(family, 768 if settings.resolution is None else settings.resolution)
    predictor = DepthPredictor.from_pretrained(
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
    if settings.official_geometry:
        refuse_patches(settings.model, predictor.latent.latents)
    return predictor


def load_other(settings: ModelConfig, model: str, *, posterior: Literal["mode", "sample"] = "mode") -> ImagePredictor:
    """Another model by its own defaults; of what ``settings`` say about how networks run, it gets what can act on it.

    Raises
    ------
    InputError
        As :func:`load_predictor`.
    """
    other = replace(settings.of_another(model), posterior=posterior)
    if is_transformers_model(model):
        other = replace(other, tiled_vae=False, posterior="mode")
    elif is_primedepth(model):
        from priorscope_depth.primedepth.predictor import idle_options

        idle = idle_options(model, device=resolve_device(settings.device), tiled_vae=settings.tiled_vae)
        other = replace(
            other,
            tiled_vae=other.tiled_vae and "tiled_vae" not in idle,
            compile=other.compile and "compile" not in idle,
            posterior="mode" if "posterior" in idle else posterior,
        )
    elif posterior == "sample" and on_patches(model_folder(model, PARTS, MODELS)):
        other = replace(other, posterior="mode")
    return load_predictor(other)


def _load_average(settings: ModelConfig, other: str) -> ImagePredictor:
    """The first model as asked, the second by its own defaults."""
    first = load_predictor(replace(settings, ensemble_with=None, ensemble_space=None))
    return AveragedPredictor(first, load_other(settings, other), settings.ensemble_space)


def _load_transformers(settings: ModelConfig) -> ImagePredictor:
    senseless = ("family", "task", "space", "steps", "posterior", "official_geometry", "tiled_vae")
    refuse_idle(settings, senseless, f"means nothing to {settings.model}, which is no diffusion model of this app's")
    return load_transformers_model(
        settings.model,
        resolution=settings.resolution,
        device=settings.device,
        precision=settings.precision,
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
    points = _known_points(config, images, clips)
    predictor = load_predictor(config.settings)
    _check_request(predictor, config, videos=bool(clips))
    _check_points(predictor, config)
    for model in _depthpro(predictor):
        model.focal_length = None if config.intrinsics is None else config.intrinsics[0]
    predictor.check_items([file.stem for file in (*images, *clips)])
    if not config.overwrite:
        refuse_existing([target for image in images for target in _image_targets(image, predictor, config)])
        refuse_existing([target for clip in clips for target in _video_targets(clip, predictor, config)])
    failures = _predict_images(predictor, images, config, points) if images else []
    for clip in clips:
        try:
            _predict_video(predictor, clip, config)
        except InputError as error:
            failures.append(Failure(str(clip.path), str(error)))
    return conclude(failures, len(images) + len(clips), config.out)


def _known_points(config: PredictConfig, images: list[ImageFile], clips: list[ImageFile]) -> dict[str, KnownPoints]:
    """Points with a known distance for each picture, by its name; read before the model is loaded."""
    if config.lidar is None and not config.distances:
        return {}
    if config.lidar is not None and config.distances:
        raise InputError("--lidar and --distances are both given", remedy="Use one of them.")
    if clips:
        raise InputError("known distances belong to one picture, not to a video", remedy="Leave out the video.")
    if config.lidar is None:
        if len(images) > 1:
            raise InputError(f"--distances for {len(images)} pictures", remedy="Give one picture, or --lidar FOLDER.")
        return {images[0].stem: parse_distances(config.distances)}
    return {image.stem: read_points(points_file(config.lidar, image.stem, len(images))) for image in images}


def _frame_options(config: PredictConfig) -> FrameOptions:
    settings = config.settings
    return FrameOptions(
        config.frames, config.frame_level, config.align_frames, settings.ensemble, settings.batch_size, config.tile
    )


def _check_request(predictor: ImagePredictor, config: PredictConfig, *, videos: bool) -> None:
    """What would fail for every input alike fails once, before the first."""
    if videos:
        _frame_options(config).check(predictor)
    elif config.frames != "shared" or config.align_frames or config.frame_level is not None:
        raise InputError("--frames, --frame-level and --align-frames are for videos", remedy="Leave them out.")
    if not config.max_depth > 0:
        raise InputError(f"--max-depth {config.max_depth:g}", remedy="Give metres, above 0.")
    if config.lidar is not None or config.distances:
        if predictor.task != "depth":
            raise InputError(f"{predictor.name} predicts normals: there is no distance to fit")
        if predictor.scale == "metric":
            raise InputError(f"{predictor.name} predicts metres already", remedy="Leave out --lidar or --distances.")
    predictor.check_request(ensemble=config.settings.ensemble, tile=config.tile, batch_size=config.settings.batch_size)
    if not config.formats:
        raise InputError("no format was named", remedy="For example --formats png npy.")
    if predictor.task == "normals" and "ply" in config.formats:
        raise InputError("normals alone make no point cloud", remedy="Ask for ply with a model of depth or disparity.")


def _check_points(predictor: ImagePredictor, config: PredictConfig) -> None:
    """The options of point clouds and of metres: their values, and whether anything asks for them."""
    DepthRange(config.near, config.far)
    intrinsics_from_fov(1, 1, config.fov)
    intrinsics = _intrinsics(config)
    if intrinsics is not None:
        check_intrinsics(intrinsics)
    metric = _label(predictor, config)[0] == "_metric"
    if not metric:
        refuse_idle(config, ("max_depth",), f"of a prediction that is not in metres ({predictor.name}'s)")
    if "ply" not in config.formats:
        refuse_idle(config, ("near", "far", "fov"), "without a point cloud (--formats ply)")
        if not _depthpro(predictor):
            refuse_idle(config, ("intrinsics",), "without a point cloud (--formats ply)")
    if metric:
        refuse_idle(config, ("near", "far"), "of a prediction in metres")
    if config.intrinsics is not None:
        refuse_idle(config, ("fov",), "with --intrinsics, which tell it")
    elif metric and _depthpro(predictor):
        refuse_idle(config, ("fov",), f"of {predictor.name}, which estimates it; --intrinsics replace that")


def _depthpro(predictor: ImagePredictor) -> list[DepthPro]:
    """The models that take a focal length, of one or two."""
    models = (predictor.first, predictor.second) if isinstance(predictor, AveragedPredictor) else (predictor,)
    return [model for model in models if isinstance(model, DepthPro)]


def _intrinsics(config: PredictConfig) -> np.ndarray | None:
    if config.intrinsics is None:
        return None
    fx, fy, cx, cy = config.intrinsics
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _label(predictor: ImagePredictor, config: PredictConfig) -> tuple[str, str]:
    """What follows a picture's name in its results': "_metric" where they are in metres; and the space."""
    if predictor.task == "normals":
        return "", "normals"
    metric = predictor.scale == "metric" or config.lidar is not None or bool(config.distances)
    return ("_metric", "depth") if metric else ("", predictor.space)


def _image_targets(image: ImageFile, predictor: ImagePredictor, config: PredictConfig) -> list[Path]:
    suffix, space = _label(predictor, config)
    return [config.out / name for name in result_names(image.stem + suffix, space, config.formats).values()]


def _video_targets(clip: ImageFile, predictor: ImagePredictor, config: PredictConfig) -> list[Path]:
    """The colour video, and the folder of the frames' maps where other formats are asked for."""
    suffix, space = _label(predictor, config)
    frames = [config.out / f"{clip.stem}_frames"] if set(config.formats) - {"colour"} else []
    return [config.out / f"{clip.stem}{suffix}_{space}.mp4", *frames]


def _predict_images(
    predictor: ImagePredictor, images: list[ImageFile], config: PredictConfig, points: Mapping[str, KnownPoints]
) -> list[Failure]:
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
            if image.stem in points:
                result = to_metric(result, points[image.stem])
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


def _write(
    stem: Path,
    result: Result,
    picture: np.ndarray,
    config: PredictConfig,
    formats: Sequence[Format] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    meaning, valid, steps = meaning_of(result), None, 1000
    intrinsics = _intrinsics(config)
    if isinstance(result, DepthResult) and result.scale == "metric":
        stem = stem.with_name(f"{stem.name}_metric")
        valid = within(result, config.max_depth)
        if not valid.any():
            raise InputError(f"no pixel is nearer than {config.max_depth:g} m", remedy="Raise --max-depth.")
        meaning = replace(meaning, notes={**meaning.notes, "max_depth": config.max_depth})
        # millimetres where 16 bits hold them, else KITTI's 256 steps a metre
        greatest = float(result.values[valid].max())
        steps = 1000 if greatest <= 65 else max(int(65535 / greatest), 1) if greatest > 255 else 256
        focal = result.notes.get("focal_length_px")
        if intrinsics is None and focal is not None:
            height, width = result.values.shape
            intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    if notes:
        meaning = replace(meaning, notes={**meaning.notes, **notes})
    write_result(
        stem,
        result.values,
        meaning,
        formats=config.formats if formats is None else formats,
        valid=valid,
        uncertainty=result.uncertainty,
        rgb=picture,
        intrinsics=intrinsics,
        fov=config.fov,
        depth_range=DepthRange(config.near, config.far),
        steps_per_metre=steps,
        overwrite=True,  # what was there was checked for all inputs before the first was read
    )


def _predict_video(predictor: ImagePredictor, clip: ImageFile, config: PredictConfig) -> None:
    """Frame by frame: a colour video, and the frames' maps in the other formats asked for."""
    settings = config.settings
    info = read_video_info(clip.path)
    formats = tuple(name for name in config.formats if name != "colour")
    target, *folders = _video_targets(clip, predictor, config)
    target.parent.mkdir(parents=True, exist_ok=True)
    frames = FramePredictor(predictor, clip.stem, _frame_options(config), seed=settings.seed)
    colours = FrameColours(config.max_depth)
    with VideoWriter(target, info.fps or 25.0, overwrite=True) as writer:
        for batch in _batched(read_video(clip.path), settings.batch_size):
            results = frames([frame.image for frame in batch], batch[0].number)
            for frame, result in zip(batch, results, strict=True):
                writer.write(colours(result))
                for folder in folders:
                    _write(folder / f"{frame.number:06d}", result, frame.image, config, formats, frames.notes())
    print(f"{clip.path.name}: {target}")
    if frames.clipped > 1e-4 or frames.restarts:
        print(
            f"  {frames.clipped:.2%} of the fitted values were cut off at [0, 1]; {frames.restarts} frames began anew"
        )


def _batched(frames: Iterator[VideoFrame], size: int) -> Iterator[list[VideoFrame]]:
    while batch := list(islice(frames, size)):
        yield batch
