"""Map scenes, or name the class of images, and write the results."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from priorscope.data.files import refuse_existing, write_text
from priorscope.data.images import IMAGE_SUFFIXES, ImageFile, find_images
from priorscope.errors import InputError
from priorscope.evaluation.suite import Failure, conclude, run_items
from priorscope_remote_sensing.configs import ModelConfig, PredictConfig
from priorscope_remote_sensing.data.bands import BandRecipe
from priorscope_remote_sensing.data.legend import Legend
from priorscope_remote_sensing.data.rasters import (
    RASTER_SUFFIXES,
    band_names,
    data_bands,
    fill_missing,
    open_raster,
    parse_crs,
    read_bands,
)
from priorscope_remote_sensing.mapping import SceneMap, map_scene
from priorscope_remote_sensing.metadata import Metadata
from priorscope_remote_sensing.predictor import SatellitePredictor
from priorscope_remote_sensing.scene_metadata import given_metadata, scene_metadata

#: Most numbers an image to be classified may hold; it is read whole, as float32 (1 GiB).
MOST_VALUES = 2**28
#: A class of multi-label classification is named where its probability is above.
THRESHOLD = 0.5
#: Endings of the files that belong to a map.
_MAP = (".tif", ".tif.aux.xml", "_legend.json", "_legend.png")
_TABLES = ("predictions.csv", "predictions.json")


def predict(config: PredictConfig) -> int:
    """Run ``priorscope remote-sensing predict``.

    Returns
    -------
    int
        0; 1 when some inputs failed, which are listed and do not stop the others.
    """
    _check(config)
    files = find_images(list(config.inputs), suffixes=frozenset({*RASTER_SUFFIXES, *IMAGE_SUFFIXES}))
    predictor = load_predictor(config.settings)
    told = config.date is not None or config.cloud_cover is not None
    if told and not predictor.model.settings.use_metadata:
        raise InputError("the model is told no metadata", remedy="Leave out --date and --cloud-cover.")
    if predictor.model.settings.task == "segmentation":
        failures = _map_scenes(predictor, files, config)
    elif config.tile or config.overlap >= 0 or config.confidence:
        raise InputError(
            f"the model is one for {predictor.model.settings.task}, not for maps",
            remedy="Leave out --tile, --overlap and --confidence.",
        )
    else:
        failures = _classify(predictor, files, config)
    return conclude(failures, len(files), config.out)


def _check(config: PredictConfig) -> None:
    """What would fail for every input alike fails once, before the model is loaded."""
    if not config.inputs:
        raise InputError("no input", remedy="Give rasters or folders: priorscope remote-sensing predict scene.tif")
    if config.tile < 0 or config.overlap < -1:
        raise InputError(f"--tile {config.tile} --overlap {config.overlap}", remedy="Use positive numbers of pixels.")
    if config.crs is not None:
        parse_crs(config.crs)
    given_metadata(config.date, config.cloud_cover)


def load_predictor(settings: ModelConfig) -> SatellitePredictor:
    """The predictor that the command line's model options describe."""
    if settings.batch_size < 1:
        raise InputError(f"--batch-size {settings.batch_size}", remedy="Use 1 or more.")
    return SatellitePredictor.from_pretrained(
        settings.model,
        backbone=settings.backbone,
        device=settings.device,
        precision=settings.precision,
        seed=settings.seed,
        batch_size=settings.batch_size,
    )


def _map_scenes(predictor: SatellitePredictor, files: list[ImageFile], config: PredictConfig) -> list[Failure]:
    tile = config.tile or predictor.side
    overlap = tile // 4 if config.overlap < 0 else config.overlap
    if not 0 <= overlap < tile:
        raise InputError(f"--overlap {overlap} of tiles of {tile}", remedy="Use less than a tile.")
    endings = (*_MAP, "_confidence.tif") if config.confidence else _MAP
    targets = [config.out / f"{file.stem}{ending}" for file in files for ending in endings]
    if len(set(targets)) < len(targets):
        twice = next(target for target in targets if targets.count(target) > 1)
        raise InputError("two inputs would write this file", path=twice, remedy="Map them into folders of their own.")
    if not config.overwrite:
        refuse_existing(targets)
    legend = Legend.of(predictor.model.settings.classes)
    scaled = predictor.at_side(tile)

    def evaluate(batch: list[ImageFile]) -> list[dict[str, Any]]:
        for file in batch:
            with open_raster(file.path, crs=config.crs) as dataset:
                told = scene_metadata(dataset, date=config.date, cloud_cover=config.cloud_cover)
            with _progress(file.path.name) as progress:
                done = map_scene(
                    file.path,
                    config.out / f"{file.stem}.tif",
                    partial(scaled, metadata=told),
                    legend,
                    predictor.model.settings.bands,
                    band_names=config.band_names or None,
                    crs=config.crs,
                    tile=tile,
                    overlap=overlap,
                    batch_size=config.settings.batch_size,
                    confidence=config.confidence,
                    overwrite=True,  # what was there was checked for all scenes before the first was read
                    progress=progress,
                )
            print(f"{file.path.name}: {_summary(done)}")
        return [{} for _ in batch]

    return list(run_items(files, evaluate, key=lambda file: str(file.path), progress=False).failures)


def _summary(done: SceneMap) -> str:
    total = sum(done.pixels.values())
    if not total:
        return "no pixel with data, nothing mapped"
    shares = sorted(done.pixels.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{name} {100 * pixels / total:.1f} %" for name, pixels in shares if pixels)
    return listed + (f"; {done.missing} pixels without data" if done.missing else "")


def _classify(predictor: SatellitePredictor, files: list[ImageFile], config: PredictConfig) -> list[Failure]:
    tables = [config.out / name for name in _TABLES]
    if not config.overwrite:
        refuse_existing(tables)
    settings = predictor.model.settings

    def evaluate(batch: list[ImageFile]) -> list[dict[str, Any]]:
        found = [_read(file.path, settings.bands, config) for file in batch]
        rows: list[dict[str, Any]] = [{} for _ in batch]
        by_size: dict[tuple[int, ...], list[int]] = {}
        for place, (image, _) in enumerate(found):
            by_size.setdefault(image.shape, []).append(place)
        for places in by_size.values():
            images = torch.from_numpy(np.stack([found[place][0] for place in places]))
            probabilities = predictor(images, [found[place][1] for place in places])
            for place, row in zip(places, probabilities.tolist(), strict=True):
                rows[place] = _row(batch[place], row, settings.classes, settings.task == "multi-label")
        return rows

    outcome = run_items(
        files, evaluate, key=lambda file: str(file.path), batch_size=config.settings.batch_size, progress=None
    )
    if outcome.rows:
        write_rows(outcome.rows, tables)
    return list(outcome.failures)


def _read(path: Path, recipe: BandRecipe, config: PredictConfig) -> tuple[np.ndarray, Metadata | None]:
    with open_raster(path, crs=config.crs) as dataset:
        names = config.band_names or band_names(dataset)
        indices = recipe.indices(names, data_bands(dataset), path=path)
        if len(indices) * dataset.height * dataset.width > MOST_VALUES:
            raise InputError(
                f"has {dataset.height} x {dataset.width} pixels, too many for one image with one answer",
                path=path,
                remedy="Cut it into images like those that the model was trained on.",
            )
        values, valid = read_bands(dataset, indices)
        told = scene_metadata(dataset, date=config.date, cloud_cover=config.cloud_cover)
    if not valid.any():
        raise InputError("holds no pixel with data", path=path)
    return fill_missing(recipe.scale(values), valid), told


def _row(file: ImageFile, probabilities: list[float], classes: Sequence[str], multi: bool) -> dict[str, Any]:
    best = int(np.argmax(probabilities))
    shown: dict[str, Any] = {"image": str(file.path)}
    if multi:
        shown["classes"] = [name for name, p in zip(classes, probabilities, strict=True) if p > THRESHOLD]
    else:
        shown |= {"class": classes[best], "probability": probabilities[best]}
    return shown | {"probabilities": dict(zip(classes, probabilities, strict=True))}


def write_rows(rows: Sequence[dict[str, Any]], tables: Sequence[Path]) -> None:
    """Write predictions as CSV (a column a class, rounded to 6 decimals) and JSON."""
    rows = [{name: value for name, value in row.items() if name != "key"} for row in rows]
    text = io.StringIO()
    names = [name for name in rows[0] if name != "probabilities"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *(f"p({name})" for name in rows[0]["probabilities"])])
    for row in rows:
        cells = [";".join(row[name]) if isinstance(row[name], list) else row[name] for name in names]
        writer.writerow(
            [f"{cell:.6f}" if isinstance(cell, float) else cell for cell in (*cells, *row["probabilities"].values())]
        )
    write_text(tables[0], text.getvalue(), overwrite=True)
    write_text(tables[1], json.dumps(rows, indent=1, ensure_ascii=False) + "\n", overwrite=True)


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of the tiles on a terminal, nothing elsewhere; the callback that ``map_scene`` takes."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
