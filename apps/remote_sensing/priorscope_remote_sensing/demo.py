"""The demo: a procedural landscape whose every pixel is known; a head learns from some blocks and maps the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorscope.data.images import write_png
from priorscope.errors import InputError
from priorscope.evaluation.demo_folder import demo_folder
from priorscope.evaluation.figures import Panel, figure_to_image, side_by_side
from priorscope.evaluation.report import Report
from priorscope.evaluation.run_folder import RunFolder
from priorscope.evaluation.tables import print_table
from priorscope.training.settings import LoopConfig
from priorscope_remote_sensing.configs import DataConfig, DemoConfig, TrainConfig
from priorscope_remote_sensing.data.bands import RECIPES, SENTINEL2
from priorscope_remote_sensing.data.legend import UNLABELLED, Legend
from priorscope_remote_sensing.data.rasters import geotiff_writer, open_raster, read_bands, write_geotiff
from priorscope_remote_sensing.data.terrain import SURFACES, terrain_patch
from priorscope_remote_sensing.mapping import map_scene
from priorscope_remote_sensing.metrics import SegmentationCounts
from priorscope_remote_sensing.pictures import as_picture, confusion_figure
from priorscope_remote_sensing.predictor import SatellitePredictor, load_backbone
from priorscope_remote_sensing.prior import TerrainPrior
from priorscope_remote_sensing.report import tables
from priorscope_remote_sensing.scores import summary
from priorscope_remote_sensing.train import train

#: Class of the map -> surfaces of the generator.
CLASSES = {
    "forest": ("conifer", "broadleaf"),
    "shrub and grass": ("shrub", "grass"),
    "crop": ("crop", "straw"),
    "bare soil": ("soil",),
    "water": ("water",),
    "artificial": ("asphalt", "roof", "bright roof"),
    "rock": ("rock",),
    "cloud": ("cloud",),
}
_BLOCK, _PATCH = 64, 32
#: Patches are enlarged, as SatDiFuser enlarges its images: the widest maps have half the network's resolution.
_ENLARGED = 64
_PIXEL = 10.0
#: Where the generator draws a landscape with fields, woods, water and houses.
_LANDSCAPE = 14
_FOREST_PIXELS = 20_000
_PLACE = {"crs": "EPSG:32633", "corner": (500_000.0, 5_200_000.0)}


@dataclass(frozen=True)
class _Scene:
    image: NDArray[np.float32]
    """[13, H, W] reflectance."""
    classes: NDArray[np.uint8]
    """[H, W]"""
    names: tuple[str, ...]
    learnt: NDArray[np.bool_]
    """[H, W], pixels whose label is shown to the methods."""
    path: Path
    labels: Path


def demo(config: DemoConfig) -> int:
    """Run ``priorscope remote-sensing demo``."""
    if config.size < 4 * _BLOCK:
        raise InputError(f"a scene of {config.size} pixels", remedy=f"Use --size {4 * _BLOCK} or more.")
    if config.steps < 1:
        raise InputError(f"--steps {config.steps}", remedy="Use 1 or more.")
    if config.seed < 0:
        raise InputError(f"--seed {config.seed}", remedy="Use 0 or more.")
    backbone = load_backbone(config.backbone, device=config.device)
    if not isinstance(backbone, TerrainPrior):
        raise InputError(f"{config.backbone} takes colours", remedy="The demo needs a backbone for Sentinel-2's bands.")
    out, begin = config.out, time.monotonic()
    run = demo_folder(out, config, "priorscope remote-sensing demo")
    scene = _draw(config, run)
    shown = 100 * scene.learnt.mean()
    print(
        f"A procedural landscape of {config.size} x {config.size} pixels, {len(scene.names)} classes; labels of "
        f"{shown:.0f} % of it are learnt from, the other blocks are judged.\n"
    )
    maps = _maps(config, scene, run, backbone)
    judged = {name: _judge(scene, classes) for name, classes in maps.items()}
    rows = [_row(name, counts) for name, counts in judged.items()]
    print("\nOn the blocks without shown labels:")
    print_table(rows)
    first = next(iter(judged))
    found = summary(judged[first])
    run.write_metrics({"methods": rows, "first": {"name": first, **found}, "seconds": time.monotonic() - begin})
    _report(run, config, scene, maps, judged, rows)
    print(f"\nmap: {out / 'map' / 'scene.tif'}\nreport: {run.report_path}  ({time.monotonic() - begin:.0f} s)")
    return 0


def _draw(config: DemoConfig, run: RunFolder) -> _Scene:
    """Draw the landscape, write it and its labels as GeoTIFFs, and choose the blocks whose labels are shown."""
    from rasterio.transform import from_origin

    terrain = terrain_patch(_LANDSCAPE + config.seed, 0, size=config.size)
    of_surface = [next(i for i, parts in enumerate(CLASSES.values()) if name in parts) for name in SURFACES]
    classes = np.array(of_surface, np.uint8)[terrain.surface]
    present = np.unique(classes)
    names = tuple(list(CLASSES)[index] for index in present)
    classes = np.searchsorted(present, classes).astype(np.uint8)
    place = {"crs": _PLACE["crs"], "transform": from_origin(*_PLACE["corner"], _PIXEL, _PIXEL)}
    stored = np.rint(terrain.image * 10_000).astype(np.uint16)
    write_geotiff(run.path / "scene.tif", stored, band_names=SENTINEL2, **place)
    learnt = _blocks(classes, config.seed)
    shape = {"count": 1, "height": config.size, "width": config.size, "dtype": "uint8"}
    for name, labels in (("truth", classes), ("labels", np.where(learnt, classes, UNLABELLED).astype(np.uint8))):
        with geotiff_writer(run.path / f"{name}.tif", shape, nodata=UNLABELLED, **place) as target:
            Legend.of(names).mark(target, name)
            target.write(labels, 1)
    image = RECIPES["sentinel2"].scale(stored)
    return _Scene(image, classes, names, learnt, run.path / "scene.tif", run.path / "labels.tif")


def _blocks(classes: NDArray[np.uint8], seed: int) -> NDArray[np.bool_]:
    """Half of the blocks, drawn until every class is among them with a fair share of its pixels."""
    grid = -(-classes.shape[0] // _BLOCK)
    rng = np.random.default_rng([seed, 7])
    counts = np.bincount(classes.ravel())
    for _ in range(1000):
        chosen = np.zeros(grid * grid, bool)
        chosen[rng.permutation(grid * grid)[: grid * grid // 2]] = True
        blocks = np.kron(chosen.reshape(grid, grid), np.ones((_BLOCK, _BLOCK), bool))
        learnt = blocks[: classes.shape[0], : classes.shape[1]].astype(bool)
        share = np.bincount(classes[learnt], minlength=len(counts)) / counts
        if ((share > 0.15) & (share < 0.85)).all():
            return learnt
    raise InputError("no choice of blocks shows every class", remedy="Use another --seed or a larger --size.")


def _maps(config: DemoConfig, scene: _Scene, run: RunFolder, prior: TerrainPrior) -> dict[str, NDArray[np.uint8]]:
    """Class of every pixel by each method."""
    maps = {f"head on {config.backbone}": _trained_map(config, scene, run, config.backbone, "map")}
    if config.control:
        unlearnt = run.path / "random-weights"
        TerrainPrior.new(prior.latents, seed=config.seed).save_pretrained(unlearnt, half=True)
        maps["the same, random weights"] = _trained_map(config, scene, run, str(unlearnt), "map-random-weights")
    bands = scene.image.reshape(len(scene.image), -1).T
    around = np.concatenate([bands, *(part.reshape(len(part), -1).T for part in _surroundings(scene.image))], axis=1)
    maps["random forest on bands"] = _forest(bands, scene, config.seed)
    maps["random forest on bands and 5 x 5"] = _forest(around, scene, config.seed)
    return maps


def _trained_map(config: DemoConfig, scene: _Scene, run: RunFolder, backbone: str, name: str) -> NDArray[np.uint8]:
    """Train a head on the shown labels, map the scene with it, read the map back."""
    source = DataConfig(str(scene.path), labels=scene.labels, patch=_PATCH, block=_BLOCK * _PIXEL, test_share=1e-6)
    steps = config.steps
    loop = LoopConfig(
        steps=steps, batch_size=8, lr=4e-3, lr_final=0.01, warmup=steps // 10, optimizer="adam", weight_decay=0.0,
        ema=0.0, log_every=max(1, steps // 3), validate_every=steps, checkpoint_every=steps, seed=config.seed,
        device=config.device, precision="float32",
    )  # fmt: skip
    trained = train(
        TrainConfig(
            source,
            run.path / "training" / name,
            backbone,
            fuser="gw",
            save_steps=(48, 47),
            image_size=_ENLARGED,
            projection=64,
            head_channels=64,
            keep="maps",
            held_out=0,
            augment=True,
            loop=loop,
        )
    )
    predictor = SatellitePredictor.from_pretrained(trained.model, device=config.device, batch_size=8)
    done = map_scene(
        scene.path,
        run.path / name / "scene.tif",
        predictor,
        Legend.of(scene.names),
        predictor.model.settings.bands,
        tile=_PATCH,
        overlap=_PATCH // 2,
        batch_size=8,
        confidence=True,
    )
    with open_raster(done.path) as dataset:
        return read_bands(dataset)[0][0].astype(np.uint8)


def _surroundings(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation over 5 x 5 pixels of each band, [C, H, W]."""
    from scipy.ndimage import uniform_filter

    mean = np.stack([uniform_filter(band, 5) for band in image])
    square = np.stack([uniform_filter(band**2, 5) for band in image])
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def _forest(values: NDArray[np.float32], scene: _Scene, seed: int) -> NDArray[np.uint8]:
    """Classes of all pixels by a random forest that learnt from shown ones."""
    from sklearn.ensemble import RandomForestClassifier

    shown = np.flatnonzero(scene.learnt.ravel())
    chosen = np.random.default_rng([seed, 3]).permutation(shown)[:_FOREST_PIXELS]
    forest = RandomForestClassifier(100, random_state=seed, n_jobs=1)
    forest.fit(values[chosen], scene.classes.ravel()[chosen])
    return forest.predict(values).reshape(scene.classes.shape).astype(np.uint8)


def _judge(scene: _Scene, classes: NDArray[np.uint8]) -> SegmentationCounts:
    counts = SegmentationCounts(len(scene.names), UNLABELLED)
    counts.update(classes[~scene.learnt], scene.classes[~scene.learnt])
    return counts


def _row(name: str, counts: SegmentationCounts) -> dict[str, Any]:
    found = counts.metrics()
    kept: dict[str, str] = {
        "mIoU": "miou",
        "balanced accuracy": "balanced_accuracy",
        "pixel accuracy": "pixel_accuracy",
    }
    return {"method": name, **{title: found[key] for title, key in kept.items()}}


def _report(
    run: RunFolder,
    config: DemoConfig,
    scene: _Scene,
    maps: dict[str, NDArray[np.uint8]],
    judged: dict[str, SegmentationCounts],
    rows: list[dict[str, Any]],
) -> None:
    legend = Legend.of(scene.names)
    recipe = RECIPES["sentinel2"]
    paint: Callable[[NDArray[Any]], NDArray[np.uint8]] = legend.paint
    first, *others = maps
    labels = np.where(scene.learnt, scene.classes, UNLABELLED)
    panels = [
        Panel(as_picture(scene.image, recipe), "the scene, bands B04 B03 B02"),
        Panel(paint(labels), "labels that are shown"),
        Panel(paint(scene.classes), "truth"),
        Panel(paint(maps[first]), first),
        *(Panel(paint(maps[name]), name) for name in others),
    ]
    picture = figure_to_image(side_by_side(panels, columns=3, width=13.0))
    write_png(run.figures / "maps.png", picture)
    report = Report(
        "Land cover of a procedural landscape",
        f"{config.backbone}: a head on its features learns from some blocks and maps the whole scene",
    )
    report.heading("Seen").figure(picture, "Grey: no label is shown there.")
    report.gallery([(legend.picture(), "classes; 5 x 5: mean and deviation of each band around a pixel")])
    report.heading("Measured").table(
        rows,
        "On the blocks whose labels were not shown. They lie in the same scene as the others, and all methods but the "
        "forest on bands alone see across the blocks' borders.",
        best=dict.fromkeys(list(rows[0])[1:], "greatest"),
    )
    report.heading("Classes").table(tables(summary(judged[first]), scene.names)[1], f"Of: {first}. Labels: pixels.")
    report.figure(
        figure_to_image(confusion_figure(judged[first].counts, scene.names)),
        "Of each class (row), the share that was taken for each (column), in per cent.",
    )
    report.paragraph(
        "The landscape is drawn by a generator; its spectra are made by hand, one for each surface, which makes single "
        "pixels easy to tell apart: the figures say that the pieces work together, not how well land cover is mapped. "
        "A bundled prior has been trained on other landscapes by the same generator. The map is map/scene.tif, with "
        "its legend beside it."
    )
    report.environment(run).write(run.report_path, overwrite=True)
