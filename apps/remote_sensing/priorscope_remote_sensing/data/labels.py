"""Labels of rasters: from other rasters, or from polygons and points of a GeoPackage, GeoJSON or Shapefile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_remote_sensing.data.legend import MAX_CLASSES, UNLABELLED
from priorscope_remote_sensing.data.rasters import (
    find_rasters,
    open_raster,
    parse_crs,
    read_bands,
    source_path,
    window_corners,
)

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

Window = tuple[int, int, int, int]
"""(top, left, height, width) in pixels."""


class Labels(Protocol):
    """Something that knows the class of the pixels of a raster."""

    names: tuple[str, ...]

    def read(self, dataset: DatasetReader, window: Window | None = None) -> NDArray[np.uint8]:
        """Class indices [h, w] on the grid of `dataset`, :data:`UNLABELLED` (255) where there is none."""
        ...


class RasterLabels:
    """Class rasters beside the images: one for each image, of the same name, or one that covers them all.

    Parameters
    ----------
    source : path-like
        A raster, or a folder of rasters named like the images (``tile_7.tif`` for ``tile_7.tif``).
    classes : mapping of int to str
        Stored value -> name, in the order of the indices wanted. Other values, and the raster's nodata, are
        unlabelled.

    Notes
    -----
    A raster on another grid or in another projection is resampled to the image's, nearest pixel.
    """

    def __init__(self, source: str | PathLike[str], classes: Mapping[int, str]) -> None:
        self.source = Path(source)
        self.values = tuple(classes)
        self.names = _checked_names(list(classes.values()), self.source)
        if not all(isinstance(value, int | np.integer) for value in self.values):
            raise InputError("the classes of a label raster are given as {stored whole number: name}", path=source)
        if any(abs(int(value)) >= 2**24 for value in self.values):  # rasters are read as float32
            raise InputError("class numbers of a label raster lie below 2^24 = 16777216", path=source)
        self._by_stem = _by_stem(self.source)

    def read(self, dataset: DatasetReader, window: Window | None = None) -> NDArray[np.uint8]:
        """Class indices [h, w] on the grid of `dataset`.

        Raises
        ------
        InputError
            There is no label raster for this image, or it holds other than whole numbers.
        """
        path = self._path(source_path(dataset))
        with open_raster(path, like=dataset, resampling="nearest") as labels:
            stored, valid = read_bands(labels, [0], window)
        if not np.array_equal(stored, np.rint(stored)):
            raise InputError("is no class raster: it holds fractions", path=path)
        classes = np.full(stored.shape[1:], UNLABELLED, np.uint8)
        for index, value in enumerate(self.values):
            classes[valid & (stored[0] == value)] = index
        return classes

    def _path(self, image: Path) -> Path:
        if self._by_stem is None:
            return self.source
        found = self._by_stem.get(image.stem)
        if found is None:
            raise InputError(f"has no labels for {image.name}", path=self.source, remedy=f"Add {image.stem}.tif.")
        return found


def _by_stem(source: Path) -> dict[str, Path] | None:
    if not source.is_dir():
        return None
    found: dict[str, Path] = {}
    for path in find_rasters(source):
        if path.stem in found:
            raise InputError(f"{path.stem} is there twice: {found[path.stem].name}, {path.name}", path=source)
        found[path.stem] = path
    return found


class VectorLabels:
    """Polygons, lines or points with a class column.

    Parameters
    ----------
    source : path-like
        GeoPackage, GeoJSON, Shapefile, or whatever GDAL reads.
    column : str
        Attribute with the class: text or numbers. Features where it is empty are left out.
    classes : sequence of str, optional
        Values of the column that count, in the order of the indices wanted; the others are unlabelled. All
        values, sorted, by default.
    layer : str, optional
        Layer of a file with several.
    crs : str, optional
        Projection of a file that does not tell it.
    all_touched : bool
        Label every pixel that a geometry touches, not only those whose centre lies inside.

    Notes
    -----
    Vertices are reprojected to the raster they are laid on, and joined by straight lines there. Where geometries
    overlap, the later feature of the file wins. A point labels the pixel it lies in.
    """

    def __init__(
        self,
        source: str | PathLike[str],
        column: str,
        *,
        classes: Sequence[str] | None = None,
        layer: str | None = None,
        crs: str | None = None,
        all_touched: bool = False,
    ) -> None:
        self.source = Path(source)
        self.all_touched = all_touched
        self._geometries, values, found_crs = _read_vectors(self.source, column, layer)
        self.crs = parse_crs(crs) if crs is not None else None if found_crs is None else parse_crs(found_crs)
        if self.crs is None:
            raise InputError(
                "says no coordinate reference system", path=source, remedy="Say which one it is: crs='EPSG:...'."
            )
        present = sorted(set(values) - {None}, key=_natural)
        self.names = _checked_names([str(name) for name in (present if classes is None else classes)], self.source)
        strange = [name for name in self.names if name not in present]
        if strange:
            raise InputError(
                f"column {column} has no value {strange[0]!r}; it has {', '.join(map(str, present[:20]))}", path=source
            )
        index = {name: number for number, name in enumerate(self.names)}
        self._classes = np.array([UNLABELLED if v is None else index.get(v, UNLABELLED) for v in values], np.uint8)
        self._moved: dict[str, tuple[NDArray[Any], Any]] = {}

    def __len__(self) -> int:
        """Number of features with a class."""
        return int((self._classes != UNLABELLED).sum())

    def geometries(self, crs: Any) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """The features with a class, in a projection: shapely geometries [N] and class indices [N]."""
        return self._in(crs)[0], self._classes[self._classes != UNLABELLED]

    def _in(self, crs: Any) -> tuple[NDArray[Any], Any]:
        """Geometries and a search tree over them; kept, since every window of every raster asks."""
        import shapely

        key = crs.to_wkt()
        if key not in self._moved:
            moved = _reprojected(self._geometries[self._classes != UNLABELLED], self.crs, crs, self.source)
            self._moved[key] = moved, shapely.STRtree(moved)
        return self._moved[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_moved": {}}  # a worker builds its own tree

    def read(self, dataset: DatasetReader, window: Window | None = None) -> NDArray[np.uint8]:
        """Class indices [h, w] on the grid of `dataset`.

        Raises
        ------
        InputError
            The raster says no projection.
        """
        import shapely
        from rasterio.features import rasterize
        from rasterio.windows import Window as Place
        from rasterio.windows import transform as window_transform

        if dataset.crs is None:
            raise InputError(
                "says no coordinate reference system, so no features can be laid on it",
                path=source_path(dataset),
                remedy="Write it into the file: rio edit-info --crs EPSG:CODE.",
            )
        top, left, height, width = window or (0, 0, dataset.height, dataset.width)
        transform = window_transform(Place(left, top, width, height), dataset.transform)
        corners = window_corners(dataset, (top, left, height, width))
        geometries, tree = self._in(dataset.crs)
        near = np.sort(tree.query(shapely.polygons(corners), predicate="intersects"))  # in the file's order
        if not len(near):
            return np.full((height, width), UNLABELLED, np.uint8)
        classes = self._classes[self._classes != UNLABELLED][near].tolist()
        return rasterize(
            zip(geometries[near], classes, strict=True),
            out_shape=(height, width),
            fill=UNLABELLED,
            transform=transform,
            all_touched=self.all_touched,
            dtype="uint8",
        )


def _read_vectors(path: Path, column: str, layer: str | None) -> tuple[NDArray[Any], list[str | None], str | None]:
    try:
        import pyogrio
        import shapely
    except ImportError as error:
        raise InputError(
            "reading vectors needs pyogrio and shapely", remedy="pip install 'priorscope[remote-sensing]'"
        ) from error
    if not path.exists():
        raise InputError("no such file", path=path, remedy="Check the path.")
    try:
        layers = [str(name) for name, _ in pyogrio.list_layers(path)]
        if layer is None and len(layers) > 1:
            raise InputError(f"holds the layers {', '.join(layers)}", path=path, remedy="Say which: layer='...'.")
        if layer is not None and layer not in layers:
            raise InputError(f"has no layer {layer!r}; it holds {', '.join(layers)}", path=path)
        columns = pyogrio.read_info(path, layer=layer)["fields"].tolist()
        if column not in columns:
            raise InputError(f"has no column {column!r}; it has {', '.join(columns) or 'none'}", path=path)
        meta, _, shapes, fields = pyogrio.raw.read(path, layer=layer, columns=[column], force_2d=True)
    except pyogrio.errors.DataSourceError as error:
        raise InputError(
            f"is not a vector file that can be read ({' '.join(str(error).split())[:150]})", path=path
        ) from error
    shapes = [] if shapes is None else shapes
    geometries = np.array(shapely.from_wkb(shapes, on_invalid="fix") if len(shapes) else [], dtype=object)
    kept = np.array([shape is not None and not shape.is_empty for shape in geometries], bool)
    if not kept.any():
        raise InputError("holds no feature with a geometry", path=path)
    values = [_text(value) for value, keep in zip(fields[0].tolist(), kept, strict=True) if keep]
    return geometries[kept], values, meta["crs"]


def _text(value: Any) -> str | None:
    """A class as text: 3 and 3.0 are "3", an empty cell is None."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def _natural(name: Any) -> tuple[int, float, str]:
    """Numbers in the order of their value, then text."""
    try:
        return 0, float(name), ""
    except ValueError:
        return 1, 0.0, str(name)


def _checked_names(names: list[str], path: Path) -> tuple[str, ...]:
    if not 1 <= len(names) <= MAX_CLASSES:
        raise InputError(
            f"has {len(names)} classes; 1 to {MAX_CLASSES} are possible",
            path=path,
            remedy="Choose the column that holds the class, or name the classes that count.",
        )
    if len(set(names)) != len(names):
        raise InputError("a class is named twice", path=path)
    return tuple(names)


def _reprojected(geometries: NDArray[Any], source: Any, target: Any, path: Path) -> NDArray[Any]:
    if source == target:
        return geometries
    import shapely
    from rasterio.warp import transform

    def move(points: NDArray[Any]) -> NDArray[Any]:
        return np.column_stack(transform(source, target, points[:, 0], points[:, 1]))

    moved = shapely.transform(geometries, move)
    inside = np.isfinite(shapely.bounds(moved)).all(axis=1)
    if not inside.any():
        raise InputError(
            f"its features cannot be brought to {target.to_string()}; they are given in {source.to_string()}",
            path=path,
            remedy="Check the projection the file says; crs='EPSG:...' sets it right.",
        )
    moved[~inside] = shapely.Point()  # outside the area of the projection: on no raster of it
    return moved
