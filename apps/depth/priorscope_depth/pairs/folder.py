"""A folder of one's own images with their depth."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from priorscope.data.images import IMAGE_SUFFIXES, read_image
from priorscope.errors import InputError
from priorscope_depth.pairs.maps import MAP_SUFFIXES, read_depth, read_normals
from priorscope_depth.pairs.pair import TrainingPair

_IMAGE_FOLDERS = ("images", "rgb")
_KINDS = ("depth", "disparity", "normals")
_REMEDY = (
    "Name them images/NAME.jpg and depth/NAME.png, or NAME.jpg and NAME_depth.png beside it (also .npy, .exr ...)."
)


class FolderPairs:
    """Images with depth, in one of two layouts.

    ============================  =====================================  ======================================
    .                             in sub-folders                         side by side
    ============================  =====================================  ======================================
    image                         ``images/NAME.jpg`` (or ``rgb/``)      ``NAME.jpg``
    depth                         ``depth/NAME.png``                     ``NAME_depth.png``
    or disparity                  ``disparity/NAME.npy``                 ``NAME_disparity.npy``
    normals (all or none)         ``normals/NAME.png``                   ``NAME_normals.png``
    ============================  =====================================  ======================================

    NAME may contain further folders. Maps are ``.npy``, ``.npz``, ``.exr``, ``.tiff`` or ``.png``; see
    :func:`~priorscope_depth.pairs.maps.read_depth` for their units. Where one is there in several formats, the most
    exact is read. What ``priorscope depth predict`` writes is understood by its side file.

    Parameters
    ----------
    folder : Path
    depth_scale : float
        Metres a unit of integer depth.
    disparity : bool
        The depth files hold 1 / depth, up to a factor.
    normals_x : {"right", "left"}
        Where the first axis of the normals points (y up, z towards the viewer).

    Raises
    ------
    InputError
        If there is nothing, or an image without depth, or depth without an image; in :meth:`read`, if a file is
        damaged or has no valid pixel, or depth and image have not the same shape.
    """

    def __init__(
        self,
        folder: Path,
        *,
        depth_scale: float = 0.001,
        disparity: bool = False,
        normals_x: Literal["right", "left"] = "right",
    ) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError("no such folder", path=folder, remedy=_REMEDY)
        if not 0 < depth_scale < float("inf"):
            raise InputError(f"depth_scale is {depth_scale}", remedy="Give metres a unit, for example 0.001.")
        self.name = f"pairs {self.folder.resolve().name}"
        self.depth_scale = depth_scale
        self.normals_x = normals_x
        images, maps = _listed(self.folder)
        self.keys = sorted(images)
        self.images = [images[key] for key in self.keys]
        depths = {**maps["disparity"], **maps["depth"]}
        self._check_partners(images, depths, "depth")
        self.depths = [depths[key] for key in self.keys]
        self.inverse = [disparity or key not in maps["depth"] for key in self.keys]
        self.normals: list[Path] | None = None
        if maps["normals"]:
            self._check_partners(images, maps["normals"], "normals")
            self.normals = [maps["normals"][key] for key in self.keys]

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> TrainingPair:
        image, path = self.images[index], self.depths[index]
        _refuse_turned(image)
        rgb = read_image(image)
        depth = read_depth(path, scale=self.depth_scale, disparity=self.inverse[index])
        depth = _onto_image(depth, rgb.shape[:2], path)
        normals = None
        if self.normals is not None:
            normals = read_normals(self.normals[index], x=self.normals_x)
            normals = _onto_image(normals, rgb.shape[:2], self.normals[index])
        valid = depth > 0
        # what is missing may be sky, or a reflection, or out of the sensor's reach
        return TrainingPair(rgb, depth, valid, np.zeros_like(valid), normals, self.keys[index])

    def _check_partners(self, images: dict[str, Path], others: dict[str, Path], kind: str) -> None:
        if not images:
            raise InputError("holds no image", path=self.folder, remedy=_REMEDY)
        alone = sorted(images.keys() - others.keys())
        if alone:
            raise InputError(
                f"{len(alone)} of {len(images)} images have no {kind}: {_some(alone)}", path=self.folder, remedy=_REMEDY
            )
        alone = sorted(others.keys() - images.keys())
        if alone:
            raise InputError(
                f"{len(alone)} files of {kind} have no image: {_some(alone)}", path=self.folder, remedy=_REMEDY
            )


def _listed(folder: Path) -> tuple[dict[str, Path], dict[str, dict[str, Path]]]:
    """Images by name, and for each kind of map the files by name."""
    inner = next((folder / name for name in _IMAGE_FOLDERS if (folder / name).is_dir()), None)
    images: dict[str, Path] = {}
    maps: dict[str, dict[str, Path]] = {kind: {} for kind in _KINDS}
    for path in _files(folder if inner is None else inner):
        suffix = path.suffix.lower()
        name, kind = _kind(path.relative_to(folder if inner is None else inner))
        if inner is None and kind == "colour":
            continue
        if inner is None and kind in maps:
            _keep_exact(maps[kind], name, path)
        elif suffix in IMAGE_SUFFIXES:
            if inner is not None:
                name = path.relative_to(inner).with_suffix("").as_posix()
            if name in images:
                raise InputError(f"{images[name].name} and {path.name} have one name", path=folder)
            images[name] = path
    if inner is not None:
        for kind in _KINDS:
            for path in _files(folder / kind):
                relative = path.relative_to(folder / kind)
                name, said = _kind(relative)
                equal = relative.with_suffix("").as_posix()
                if said != "colour" or equal in images:
                    _keep_exact(maps[kind], equal if equal in images else name, path)
    return images, maps


def _files(folder: Path) -> Iterable[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file():
            yield path


def _kind(relative: Path) -> tuple[str, str]:
    """Name without the ending that says what a file holds, and that: "a/b_depth.png" is ("a/b", "depth")."""
    name = relative.with_suffix("").as_posix()
    if name.endswith(("_depth_colour", "_disparity_colour")):
        return name, "colour"
    for kind in _KINDS:
        if name.endswith(f"_{kind}"):
            return name.removesuffix(f"_{kind}"), kind
    return name, ""


def _keep_exact(found: dict[str, Path], name: str, path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix not in MAP_SUFFIXES:
        return
    before = found.get(name)
    if before is None or MAP_SUFFIXES.index(suffix) < MAP_SUFFIXES.index(before.suffix.lower()):
        found[name] = path


def _refuse_turned(path: Path) -> None:
    """A picture stored lying: whether its depth lies too cannot be told."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(0x0112, 1)
    except Exception:  # reading it says what is wrong
        return
    if orientation not in (0, 1):
        raise InputError(
            f"is stored turned (EXIF orientation {orientation}); whether its depth is, too, cannot be told",
            path=path,
            remedy="Save it upright, with turned pixels, on the grid of its depth.",
        )


def _onto_image(values: NDArray[np.float32], shape: tuple[int, ...], path: Path) -> NDArray[np.float32]:
    """A map of the same field of view brought to the image's pixels: the nearest value, never a mean."""
    height, width = values.shape[:2]
    if (height, width) == shape:
        return values
    if height * shape[1] != width * shape[0]:
        raise InputError(
            f"is {height} x {width}, its image {shape[0]} x {shape[1]}: not the same field of view",
            path=path,
            remedy="Crop or pad one like the other; the sides must have the same ratio.",
        )
    rows = ((np.arange(shape[0]) + 0.5) * height / shape[0]).astype(np.int64)
    columns = ((np.arange(shape[1]) + 0.5) * width / shape[1]).astype(np.int64)
    return values[np.ix_(rows, columns)]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
