"""Reading photographs whatever their colour mode, finding them in folders, writing PNG files."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import atomic_path
from priorscope.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = frozenset(
    (
        ".png",
        ".jpg",
        ".jpeg",
        ".jfif",
        ".webp",
        ".avif",
        ".tif",
        ".tiff",
        ".bmp",
        ".gif",
        ".jp2",
        ".ppm",
        ".pgm",
    )
)
VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".wmv"))
MAX_MEGAPIXELS = 178.0
"""Pillow itself refuses more (a decompression bomb: a small file that fills the memory)."""

_EXPECTED = "A PNG, JPEG, TIFF, WebP or BMP picture is expected."


def read_image(
    source: str | PathLike[str] | IO[bytes] | Image.Image | NDArray[Any],
    *,
    background: tuple[int, int, int] | None = (255, 255, 255),
    max_megapixels: float = MAX_MEGAPIXELS,
) -> NDArray[np.uint8]:
    """Read a picture as 8-bit RGB, upright.

    The EXIF orientation is applied; grey, palette and CMYK pictures become RGB; 16-bit values are divided
    by 257 and rounded (65535 -> 255); of an animation the first frame is taken. Colour profiles are not
    applied: values are taken as sRGB.

    Parameters
    ----------
    source : path, binary file object, PIL image or array
        An array is [H, W], [H, W, 1], [H, W, 2] (grey, alpha), [H, W, 3] or [H, W, 4] (RGB, alpha), of
        dtype uint8, uint16 or floating point in [0, 1].
    background : tuple of int or None
        Transparent pixels are laid over this colour (default white, as most viewers show them). None drops
        the alpha channel and keeps the colours that lie under it, as Pillow's ``convert("RGB")`` and the
        official inference scripts do.
    max_megapixels : float
        Larger pictures are refused before they are decoded.

    Returns
    -------
    ndarray of uint8, [H, W, 3]
        RGB in 0..255.

    Raises
    ------
    InputError
        If there is no such file, it is empty, truncated, not a picture, or too large; if an array has
        another shape or dtype, or values outside its range.
    """
    from PIL import Image

    if isinstance(source, Image.Image):
        return _decoded(source, None, background, max_megapixels)
    if isinstance(source, str | PathLike):
        _check_file(Path(source))
        with _opened(source, Path(source)) as image:
            return _decoded(image, Path(source), background, max_megapixels)
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        path = Path(name) if isinstance(name, str) else None
        with _opened(source, path) as image:  # type: ignore[arg-type]
            return _decoded(image, path, background, max_megapixels)
    array = np.asarray(source)
    if array.ndim < 2 or array.ndim > 3 or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        raise InputError(
            f"an image array has shape [H, W] or [H, W, 1 to 4]; this one has {list(array.shape)}",
            remedy="Move the channels last and pass one image at a time.",
        )
    _check_size(array.shape[1], array.shape[0], None, max_megapixels)
    return _flattened(_to_uint8(array), background)


def check_rgb(image: Any) -> None:
    """Raise an :class:`InputError` for what is not a picture as :func:`read_image` gives it: uint8, [H, W, 3]."""
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        what = f"{image.dtype} array {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(
            f"an image must be a uint8 array (H, W, 3), got {what}", remedy="priorscope.data.read_image gives one."
        )
    if 0 in image.shape:
        raise InputError(f"the image is empty: {image.shape}")


def _check_file(path: Path) -> None:
    if not path.exists():
        raise InputError("no such file", path=path, remedy="Check the path.")
    if path.is_dir():
        raise InputError("is a folder, a picture was expected", path=path)
    if path.is_file() and path.stat().st_size == 0:
        raise InputError("is empty (0 bytes)", path=path, remedy="Copy or download it again.")


def _opened(source: str | PathLike[str] | IO[bytes], path: Path | None) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit speaks
            return Image.open(source)
    except Image.DecompressionBombError as error:
        raise InputError(
            f"has more than {MAX_MEGAPIXELS:.0f} megapixels", path=path, remedy="Scale or crop it first."
        ) from error
    except UnidentifiedImageError as error:
        raise InputError("is not a picture that can be read", path=path, remedy=_EXPECTED) from error
    except PermissionError as error:
        raise InputError("may not be read (permission denied)", path=path) from error
    except Exception as error:  # a decoder given broken bytes raises whatever it likes
        raise InputError(f"is a broken picture ({_one_line(error)})", path=path, remedy=_EXPECTED) from error


def _decoded(
    image: Image.Image, path: Path | None, background: tuple[int, int, int] | None, max_megapixels: float
) -> NDArray[np.uint8]:
    from PIL import ImageOps

    _check_size(image.width, image.height, path, max_megapixels)
    try:
        image.load()
    except Exception as error:  # as above: OSError, SyntaxError, struct.error, zlib.error, ...
        raise InputError(
            f"is truncated or broken ({_one_line(error)})", path=path, remedy="Copy or download it again."
        ) from error
    with contextlib.suppress(Exception):  # a broken EXIF block is no reason to refuse a whole picture
        image = ImageOps.exif_transpose(image)
    if image.mode in ("F", "I", "I;16", "I;16L", "I;16B", "I;16N"):
        return _flattened(_to_uint8(_wide_values(image, path)), background)
    has_alpha = image.has_transparency_data or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    return _flattened(np.asarray(image.convert("RGBA" if has_alpha else "RGB")), background)


def _wide_values(image: Image.Image, path: Path | None) -> NDArray[Any]:
    """16-bit grey values of a picture with wide pixels; Pillow shows some 16-bit files as 32-bit ones."""
    values = np.asarray(image)
    if image.mode == "F" or (values.size and (values.min() < 0 or values.max() > 65535)):
        raise InputError(
            f"has {'floating-point' if image.mode == 'F' else '32-bit'} pixels, not those of a photograph",
            path=path,
            remedy="Convert it to 8 or 16 bits, or read it as an array and scale it to [0, 1].",
        )
    return values.astype(np.uint16)


def _check_size(width: int, height: int, path: Path | None, max_megapixels: float) -> None:
    if width < 1 or height < 1:
        raise InputError(f"has no pixels ({width} x {height})", path=path)
    if width * height > max_megapixels * 1e6:
        raise InputError(
            f"has {width} x {height} = {width * height / 1e6:.0f} megapixels; at most {max_megapixels:g} are accepted",
            path=path,
            remedy="Scale or crop it first.",
        )


def _to_uint8(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise InputError("an image array holds NaN or infinite values")
        if array.min() < 0 or array.max() > 1:
            raise InputError(
                f"a floating-point image lies in [0, 1]; this one in [{array.min():g}, {array.max():g}]",
                remedy="Divide it by its white value.",
            )
        return np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    raise InputError(
        f"an image array has dtype uint8, uint16 or a floating-point one in [0, 1]; this one {array.dtype}"
    )


def _flattened(array: NDArray[np.uint8], background: tuple[int, int, int] | None) -> NDArray[np.uint8]:
    """[H, W] or [H, W, 1..4] uint8 -> [H, W, 3], alpha laid over the background. Always a fresh array."""
    if array.ndim == 2:
        array = array[..., None]
    channels = array.shape[2]
    colour = array[..., : 1 if channels < 3 else 3]
    colour = np.repeat(colour, 3, axis=2) if channels < 3 else colour
    if channels in (2, 4) and background is not None:
        alpha = array[..., -1:]
        if alpha.min() < 255:  # rarely true: most pictures with an alpha channel are opaque
            part = alpha.astype(np.float32) / 255
            mixed = colour * part + np.asarray(background, np.float32) * (1 - part)
            return np.rint(mixed).astype(np.uint8)
    return np.array(colour, np.uint8, order="C")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{error}".split())[:200] or type(error).__name__


class ImageFile(NamedTuple):
    """A picture found on disk."""

    path: Path
    stem: str
    """Name for its results: relative, with "/" between sub-folders, without suffix, unique in the list."""


def find_images(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    recursive: bool = True,
    suffixes: frozenset[str] = IMAGE_SUFFIXES,
) -> list[ImageFile]:
    """List pictures in files and folders, with a name for the results of each.

    Sub-folders are kept in the name ("b/x" for FOLDER/b/x.png). Where two pictures would share a name, both
    keep their suffix ("x.jpeg", "x.png"), then also the name of the folder they were found under. Names
    that differ only in case count as equal, since some file systems think so. Hidden files are passed over.

    Parameters
    ----------
    paths : path or iterable of paths
        A file that is named is taken whatever its suffix; in folders, `suffixes` decide.
    recursive : bool
        Whether sub-folders are searched.
    suffixes : set of str
        Lower case, with the dot.

    Returns
    -------
    list of ImageFile
        In the order given, sorted within each folder; each file once.

    Raises
    ------
    InputError
        If a path does not exist, or no picture is found.
    """
    given = [Path(paths)] if isinstance(paths, str | PathLike) else [Path(path) for path in paths]
    found: dict[str, tuple[Path, Path]] = {}  # real path -> (path, path relative to what was given)
    for root in given:
        if root.is_dir():
            for path in _files_below(root, recursive):
                if path.suffix.lower() in suffixes:
                    found.setdefault(os.path.realpath(path), (path, path.relative_to(root)))
        elif root.exists():
            found.setdefault(os.path.realpath(root), (root, Path(root.name)))
        else:
            raise InputError("no such file or folder", path=root, remedy="Check the path.")
    if not found:
        raise InputError(
            "no picture found" if given else "no picture was named",
            path=", ".join(map(str, given)) or None,
            remedy=f"Looked for {' '.join(sorted(suffixes))}.",
        )
    files = list(found.values())
    return [ImageFile(path, stem) for (path, _), stem in zip(files, _unique_stems(files), strict=True)]


def _files_below(root: Path, recursive: bool) -> Iterable[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _unique_stems(files: Sequence[tuple[Path, Path]]) -> list[str]:
    def candidates(path: Path, relative: Path) -> list[str]:
        absolute = Path(os.path.abspath(path))
        above = absolute.parts[1 : len(absolute.parts) - len(relative.parts)]  # without the file system's root
        plain = [relative.with_suffix("").as_posix(), relative.as_posix()]
        return plain + [Path(*above[-depth:], relative).as_posix() for depth in range(1, len(above) + 1)]

    choices = [candidates(*file) for file in files]
    detail = [0] * len(files)
    while True:
        stems = [names[min(level, len(names) - 1)] for names, level in zip(choices, detail, strict=True)]
        groups: dict[str, list[int]] = {}
        for index, stem in enumerate(stems):
            groups.setdefault(stem.lower(), []).append(index)
        colliding = [index for group in groups.values() if len(group) > 1 for index in group]
        if not any(detail[index] < len(choices[index]) - 1 for index in colliding):
            break
        for index in colliding:
            detail[index] += 1
    for group in groups.values():  # left over: names that differ only in case
        for count, index in enumerate(group[1:], start=2):
            stems[index] += f"-{count}"
    return stems


def is_video(path: str | PathLike[str]) -> bool:
    """Whether a file's suffix is that of a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def write_png(path: str | PathLike[str], image: NDArray[Any], *, overwrite: bool = False) -> Path:
    """Write a PNG file atomically.

    Parameters
    ----------
    path : path-like
        Ends in ``.png``; missing folders are made.
    image : ndarray
        uint8 [H, W], [H, W, 3] or [H, W, 4]; or uint16 [H, W], written with 16 bits.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    InputError
        If the array cannot be stored as PNG without loss, or the file exists.
    """
    from PIL import Image

    path = Path(path)
    image = np.asarray(image)
    colour = image.ndim == 3 and image.shape[2] in (3, 4)
    eight, sixteen = image.dtype == np.uint8, image.dtype == np.uint16
    if not image.size or not ((eight and (image.ndim == 2 or colour)) or (sixteen and image.ndim == 2)):
        raise InputError(
            f"a PNG holds uint8 [H, W], [H, W, 3 or 4] or uint16 [H, W], not {image.dtype} {list(image.shape)}",
            path=path,
        )
    if path.suffix.lower() != ".png":
        raise InputError("a PNG file's name ends in .png", path=path)
    with atomic_path(path, overwrite=overwrite) as temporary:
        Image.fromarray(np.ascontiguousarray(image)).save(temporary, format="PNG")
    return path
