"""A map of a whole scene: tile by tile, blended without seams, in bounded memory, as a GeoTIFF with a legend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import refuse_overwrite
from priorscope.errors import InputError
from priorscope_remote_sensing.data.bands import BandRecipe
from priorscope_remote_sensing.data.legend import UNLABELLED, Legend
from priorscope_remote_sensing.data.rasters import (
    band_names as names_in_file,
)
from priorscope_remote_sensing.data.rasters import (
    data_bands,
    fill_missing,
    geotiff_writer,
    open_raster,
    read_bands,
)

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SceneMap:
    """What :func:`map_scene` wrote.

    Attributes
    ----------
    path : Path
        The map: uint8 class indices, 255 where the scene has no data.
    confidence : Path or None
        Probability of the chosen class in per cent, uint8, 255 where there is no data.
    legend, picture : Path
        ``_legend.json`` and ``_legend.png``.
    pixels : dict
        Class name -> number of pixels.
    missing : int
        Pixels without data.
    """

    path: Path
    confidence: Path | None
    legend: Path
    picture: Path
    pixels: dict[str, int]
    missing: int


def map_scene(
    scene: str | PathLike[str],
    out: str | PathLike[str],
    predict: Callable[[torch.Tensor], torch.Tensor],
    legend: Legend,
    recipe: BandRecipe,
    *,
    band_names: Sequence[str] | None = None,
    crs: str | None = None,
    tile: int = 256,
    overlap: int = 64,
    batch_size: int = 4,
    confidence: bool = False,
    description: str = "land cover",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SceneMap:
    """Predict the class of every pixel of a scene and write the map.

    Parameters
    ----------
    scene : path-like
        A raster of any size, with at least the bands of the recipe.
    out : path-like
        The map to write, ``NAME.tif``; beside it ``NAME.tif.aux.xml`` (class names for GDAL and QGIS),
        ``NAME_legend.json`` and ``NAME_legend.png``, and ``NAME_confidence.tif`` if asked for.
    predict : callable
        Patches (B, C, tile, tile), float32, scaled by the recipe -> class probabilities (B, K, tile, tile).
        Always whole tiles: a scene smaller than one is mirrored at its border.
    legend : Legend
        The K classes.
    recipe : BandRecipe
        Bands and scale that `predict` wants.
    band_names : sequence of str, optional
        Names of the scene's bands in its order, where the file tells none or wrong ones.
    crs : str, optional
        Write the map in this projection; by default in the scene's own.
    tile, overlap : int
        Side of a tile and least overlap of neighbours, in pixels. Overlaps are blended by a raised cosine.
    batch_size : int
        Tiles a call.
    confidence : bool
        Write the probability of the chosen class too.
    description : str
        Description of the map's band.
    overwrite : bool
    progress : callable, optional
        Called with (tiles done, all tiles).

    Returns
    -------
    SceneMap

    Raises
    ------
    InputError
        The scene cannot be read, its bands are not those of the recipe, a result exists already, or `predict`
        returns something else than finite probabilities of K classes.

    Notes
    -----
    Pixels where a band of the recipe is missing get no class; the model sees the mean of the tile there. Tiles
    without any data are not predicted. Memory: 4 (C + 2 K) bytes times `tile` rows of the scene's width.
    """
    out = Path(out)
    paths = _results(out, confidence)
    if not overwrite:
        for path in paths.values():
            refuse_overwrite(path)
    if Path(scene).exists() and any(path.exists() and path.samefile(scene) for path in paths.values()):
        raise InputError("the map would replace its own scene", path=out, remedy="Choose another name.")
    if tile < 1 or batch_size < 1:
        raise InputError(f"tile is {tile} and batch_size {batch_size}; both are at least 1")
    with ExitStack() as stack:
        dataset = stack.enter_context(open_raster(scene, crs=crs))
        names = band_names if band_names is not None else names_in_file(dataset)
        indices = recipe.indices(names, data_bands(dataset), path=scene)
        shape = {"count": 1, "height": dataset.height, "width": dataset.width, "dtype": "uint8"}
        place: dict[str, Any] = {"crs": dataset.crs, "transform": dataset.transform, "nodata": UNLABELLED}
        target = stack.enter_context(geotiff_writer(out, shape, **place, overwrite=overwrite))
        legend.mark(target, description)
        sure = None
        if confidence:
            sure = stack.enter_context(geotiff_writer(paths["confidence"], shape, **place, overwrite=overwrite))
            sure.set_band_description(1, f"probability of the class of {out.name}, per cent")
        counts = np.zeros(256, np.int64)
        strips = _probability_rows(
            dataset, indices, recipe, predict, len(legend.names), tile, overlap, batch_size, progress
        )
        for top, probabilities, valid in strips:
            classes = np.where(valid, probabilities.argmax(axis=0), UNLABELLED).astype(np.uint8)
            counts += np.bincount(classes.ravel(), minlength=256)
            place_in_map = ((top, top + len(classes)), (0, dataset.width))
            target.write(classes, 1, window=place_in_map)
            if sure is not None:
                percent = np.rint(100 * np.clip(probabilities.max(axis=0), 0, 1))
                sure.write(np.where(valid, percent, UNLABELLED).astype(np.uint8), 1, window=place_in_map)
    legend.write_category_names(out, overwrite=overwrite)
    pixels = {name: int(counts[index]) for index, name in enumerate(legend.names)}
    more = {
        "map": out.name,
        "scene": Path(scene).name,
        "pixels": pixels,
        "pixels_without_data": int(counts[UNLABELLED]),
    }
    table, picture = legend.write(out.with_suffix(""), more=more, overwrite=overwrite)
    return SceneMap(out, paths.get("confidence"), table, picture, pixels, int(counts[UNLABELLED]))


def _results(out: Path, confidence: bool) -> dict[str, Path]:
    stem = out.with_suffix("")
    paths = {
        "map": out,
        "names": out.with_name(f"{out.name}.aux.xml"),
        "legend": stem.with_name(f"{stem.name}_legend.json"),
        "picture": stem.with_name(f"{stem.name}_legend.png"),
    }
    return paths | ({"confidence": stem.with_name(f"{stem.name}_confidence.tif")} if confidence else {})


def _probability_rows(
    dataset: Any,
    indices: Sequence[int],
    recipe: BandRecipe,
    predict: Callable[[torch.Tensor], torch.Tensor],
    classes: int,
    tile: int,
    overlap: int,
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.bool_]]]:
    """Blended probabilities [K, rows, W] and valid pixels [rows, W] from top to bottom, with their first row.

    The weights of a tile are a product of one along each side, both summing to 1 over the tiles, so a sum of
    weighted tiles is final as soon as the next row of tiles begins below it.
    """
    from priorscope.predictors.tiling import tile_starts

    height, width = dataset.shape
    rows, columns = tile_starts(height, tile, overlap), tile_starts(width, tile, overlap)
    row_weights, column_weights = _weights(rows, tile, height), _weights(columns, tile, width)
    inner = (min(tile, height), min(tile, width))
    total = np.zeros((classes, inner[0], width), np.float32)
    for number, top in enumerate(rows):
        values, valid = read_bands(dataset, indices, (top, 0, inner[0], width))
        values = recipe.scale(values)
        wanted = [n for n, left in enumerate(columns) if valid[:, left : left + inner[1]].any()]
        for begin in range(0, len(wanted), batch_size):
            chosen = wanted[begin : begin + batch_size]
            crops = [np.s_[:, columns[n] : columns[n] + inner[1]] for n in chosen]
            patches = [_whole_tile(fill_missing(values[(slice(None), *crop)], valid[crop]), tile) for crop in crops]
            answers = _checked(predict, np.stack(patches), classes)
            for n, crop, answer in zip(chosen, crops, answers, strict=True):
                weight = row_weights[number][:, None] * column_weights[n]
                total[(slice(None), *crop)] += weight * answer[:, : inner[0], : inner[1]]
            if progress is not None:
                progress(number * len(columns) + chosen[-1] + 1, len(rows) * len(columns))
        if progress is not None and (not wanted or wanted[-1] + 1 < len(columns)):
            progress((number + 1) * len(columns), len(rows) * len(columns))
        done = (rows[number + 1] if number + 1 < len(rows) else height) - top
        yield top, total[:, :done], valid[:done]
        total[:, : inner[0] - done] = total[:, done:].copy()
        total[:, inner[0] - done :] = 0


def _weights(starts: Sequence[int], tile: int, length: int) -> list[NDArray[np.float32]]:
    """Weights of the tiles along one side: raised cosines where they overlap, summing to 1 at every pixel."""
    from priorscope.predictors.tiling import feather

    size = min(tile, length)
    weights = []
    for index, start in enumerate(starts):
        weight = np.ones(size, np.float64)
        if index > 0:
            weight *= feather(size, starts[index - 1] + size - start, first=False, last=True).numpy()
        if index + 1 < len(starts):
            weight *= feather(size, start + size - starts[index + 1], first=True, last=False).numpy()
        weights.append(weight)
    total = np.zeros(length)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + size] += weight
    return [
        (weight / total[start : start + size]).astype(np.float32) for start, weight in zip(starts, weights, strict=True)
    ]


def _whole_tile(values: NDArray[np.float32], tile: int) -> NDArray[np.float32]:
    missing = [(0, tile - side) for side in values.shape[1:]]
    return np.pad(values, [(0, 0), *missing], mode="symmetric") if any(end for _, end in missing) else values


def _checked(
    predict: Callable[[torch.Tensor], torch.Tensor], patches: NDArray[np.float32], classes: int
) -> NDArray[np.float32]:
    import torch

    with torch.no_grad():
        answer = predict(torch.from_numpy(patches))
    wanted = (len(patches), classes, *patches.shape[2:])
    if tuple(answer.shape) != wanted:
        raise InputError(
            f"the model gave {tuple(answer.shape)} for patches {patches.shape}; {wanted} was expected",
            remedy=f"It must have the {classes} classes of the legend and keep the size.",
        )
    values = answer.float().cpu().numpy()
    if not np.isfinite(values).all():
        raise InputError("the model gave NaN or infinite probabilities", remedy="Look at the scale of its input.")
    return values
