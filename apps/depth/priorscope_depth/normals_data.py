"""Readers of the surface-normal benchmarks of DSINE (dsine_eval.zip), and the padding their evaluation uses.

Normals are [3, H, W] in DSINE's frame: x to the LEFT, y up, z towards the camera. What the inside of
dsine_eval.zip looks like could not be verified: the reader takes any layout in which an image ``NAME_img.png`` (or
_rgb, _image, or no suffix; .jpg too) lies beside ``NAME_normal.png``, ``NAME_normal.exr`` or ``NAME.pkl``, below a
folder named after the data set.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from numpy.typing import NDArray

from priorscope.data.members import Members
from priorscope.data.safe_pickle import safe_loads
from priorscope.errors import InputError
from priorscope_depth.archives import decode_rgb

if TYPE_CHECKING:
    import torch

NormalsName = Literal["nyuv2", "scannet", "ibims", "sintel", "oasis"]

#: Data set -> number of images of the full set.
NORMALS_SETS: dict[str, int] = {"nyuv2": 654, "scannet": 300, "ibims": 100, "sintel": 1064, "oasis": 10000}

#: What the official evaluation pads an image in [-1, 1] with: black as ImageNet statistics would normalise it.
OFFICIAL_PAD = tuple(-mean / std for mean, std in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225)))

_IMAGE = re.compile(r"^(?P<stem>.+?)(_img|_image|_rgb)?\.(png|jpe?g)$", re.IGNORECASE)
_TRUTH = re.compile(r"^(?P<stem>.+?)(_normals?)\.(png|exr)$|^(?P<pickle>.+?)(_normals?)?\.(pkl|pickle)$", re.IGNORECASE)


@dataclass(frozen=True)
class NormalsSample:
    """One image with true surface normals.

    Attributes
    ----------
    key : str
    rgb : uint8 array, [H, W, 3]
    normals : float32 array, [3, H, W]
        x left, y up, z towards the camera; unit length where valid up to the file's precision.
    valid : bool array, [H, W]
    """

    key: str
    rgb: NDArray[np.uint8]
    normals: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def __post_init__(self) -> None:
        height, width = self.valid.shape
        if self.rgb.shape != (height, width, 3) or self.normals.shape != (3, height, width):
            raise InputError(
                f"{self.key}: rgb {list(self.rgb.shape)}, normals {list(self.normals.shape)} and valid "
                f"{list(self.valid.shape)} must be [H, W, 3], [3, H, W] and [H, W]"
            )

    def load(self) -> NormalsSample:
        """Return itself, so that samples in memory and in archives are used alike."""
        return self


@dataclass(frozen=True)
class NormalsItem:
    """Where image and normals of a sample lie; nothing is read until :meth:`load`."""

    key: str
    rgb: str
    truth: str
    members: Members = field(repr=False)

    def load(self) -> NormalsSample:
        """Read and decode the sample.

        Raises
        ------
        InputError
            A file is cut short, of another format, or of another size than its image.
        """
        rgb = decode_rgb(self.members.read(self.rgb), f"{self.members.path}: {self.rgb}")
        where, data = f"{self.members.path}: {self.truth}", self.members.read(self.truth)
        suffix = PurePosixPath(self.truth).suffix.lower()
        if suffix == ".png":
            normals, valid = decode_normals_png(data, where)
        elif suffix == ".exr":
            normals, valid = decode_normals_exr(data, where)
        else:
            normals, valid = decode_normals_pickle(data, (rgb.shape[0], rgb.shape[1]), where)
        if valid.shape != rgb.shape[:2]:
            raise InputError(f"the normals are {list(valid.shape)} but the image {list(rgb.shape[:2])}", path=where)
        return NormalsSample(self.key, rgb, normals, valid)


class NormalsArchive(Sequence[NormalsItem]):
    """The samples of a normals data set, sorted by name.

    Parameters
    ----------
    root : path-like
        dsine_eval.zip, the folder it was extracted to, or a folder that holds one of them.
    name : {"nyuv2", "scannet", "ibims", "sintel", "oasis"}

    Raises
    ------
    InputError
        Unknown data set, nothing there, or no pair of image and normals in it.
    """

    def __init__(self, root: str | PathLike[str], name: NormalsName) -> None:
        if name not in NORMALS_SETS:
            raise InputError(f"unknown normals data set {name!r}", remedy=f"Use one of {', '.join(NORMALS_SETS)}.")
        path = Path(root)
        if (path / "dsine_eval.zip").is_file() and not (path / "dsine_eval").is_dir():
            path = path / "dsine_eval.zip"
        self.name = name
        self.members = Members(path)
        self._items = list(_pairs(self.members, name))
        if not self._items:
            raise InputError(
                f"no pair of image and normals in a folder {name!r}",
                path=path,
                remedy="Give dsine_eval.zip or the folder it was extracted to; expected are files such as "
                f"{name}/.../NAME_img.png with NAME_normal.png, NAME_normal.exr or NAME.pkl beside it.",
            )

    @property
    def complete(self) -> bool:
        """Whether it holds as many images as the published set."""
        return len(self) == NORMALS_SETS[self.name]

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> NormalsItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[NormalsItem]: ...
    def __getitem__(self, index: int | slice) -> NormalsItem | list[NormalsItem]:
        return self._items[index]


def _pairs(members: Members, name: str) -> Iterator[NormalsItem]:
    images: dict[str, str] = {}
    truths: dict[str, str] = {}
    names = [n for n in members.names() if not n.startswith("__MACOSX/")]
    inside = [n for n in names if name in PurePosixPath(n).parts[:-1]]
    # the data set's own folder may have been given
    for path in inside if inside or members.path.name != name else names:
        folder, file = str(PurePosixPath(path).parent), PurePosixPath(path).name
        if found := _TRUTH.match(file):
            truths[f"{folder}/{found['stem'] or found['pickle']}"] = path
        elif found := _IMAGE.match(file):
            images.setdefault(f"{folder}/{found['stem']}", path)
    for stem in sorted(truths):
        if stem in images:
            yield NormalsItem(images[stem], images[stem], truths[stem], members)


def decode_normals_png(data: bytes, where: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Decode ``(n + 1) / 2 * 255``: normals float32 [3, H, W] and valid [H, W], where the pixel is not black."""
    stored = decode_rgb(data, where)
    normals = (stored.astype(np.float32) / 255 * 2 - 1).transpose(2, 0, 1)
    return np.ascontiguousarray(normals), stored.sum(axis=2, dtype=np.int64) > 0


def decode_normals_exr(data: bytes, where: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Decode an OpenEXR file: normals float32 [3, H, W] and valid [H, W], where the vector is longer than 0.5."""
    try:
        import OpenEXR
    except ImportError as error:
        raise InputError(
            "reading .exr needs OpenEXR", path=where, remedy="Run: pip install 'priorscope[depth]'."
        ) from error
    with tempfile.NamedTemporaryFile(suffix=".exr") as file:  # OpenEXR reads files only
        file.write(data)
        file.flush()
        try:
            channels = OpenEXR.File(file.name, separate_channels=True).channels()
            stacked = np.stack([np.asarray(channels[name].pixels, dtype=np.float32) for name in "RGB"])
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise InputError(f"is not an OpenEXR file with channels R, G, B ({error})", path=where) from error
    return stacked, np.linalg.norm(stacked, axis=0) > 0.5


def decode_normals_pickle(
    data: bytes, size: tuple[int, int], where: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Decode OASIS's pickle: normals of a region, placed in an image of ``size``; x and y are negated.

    The pickle holds a dict with ``min_x``, ``min_y`` (corner of the region) and ``normal`` [h, w, 3]. Nothing but
    numpy arrays and plain Python values is unpickled.
    """
    found = safe_loads(data, encoding="latin1", path=where)
    try:
        region = np.asarray(found["normal"], dtype=np.float32)
        top, left = int(found["min_y"]), int(found["min_x"])
    except (TypeError, KeyError, ValueError, IndexError, OverflowError) as error:
        raise InputError(f"has no min_x, min_y and normal ({error})", path=where) from error
    if region.ndim != 3 or region.shape[2] != 3:
        raise InputError(f"normal is {list(region.shape)}; [h, w, 3] is expected", path=where)
    bottom, right = top + region.shape[0], left + region.shape[1]
    if top < 0 or left < 0 or bottom > size[0] or right > size[1]:
        raise InputError(
            f"the region {top}:{bottom}, {left}:{right} does not fit the image {size[0]} x {size[1]}", path=where
        )
    normals = np.zeros((3, *size), dtype=np.float32)
    normals[:, top:bottom, left:right] = region.transpose(2, 0, 1) * np.array([-1, -1, 1], np.float32)[:, None, None]
    return normals, np.linalg.norm(normals, axis=0) > 0.5


def centred_padding(height: int, width: int, multiple: int = 32) -> tuple[int, int, int, int]:
    """Return (left, right, top, bottom) that bring an image to the next multiple; the smaller half comes first."""
    across, down = -width % multiple, -height % multiple
    return across // 2, across - across // 2, down // 2, down - down // 2


def pad_centred(rgb: torch.Tensor, multiple: int = 32, *, official: bool = False) -> torch.Tensor:
    """Pad images [B, 3, H, W] in [0, 1] on all sides to a multiple, by repeating the border.

    ``official`` pads with :data:`OFFICIAL_PAD` instead, brought from [-1, 1] to [0, 1]: values about -0.56, -0.52
    and -0.40, outside the range, which a predictor that maps to [-1, 1] turns into the official ones.
    """
    import torch
    import torch.nn.functional as F

    sides = centred_padding(rgb.shape[-2], rgb.shape[-1], multiple)
    if not any(sides):
        return rgb
    if not official:
        return F.pad(rgb, sides, mode="replicate")
    left, _, top, _ = sides
    values = (torch.tensor(OFFICIAL_PAD, dtype=rgb.dtype, device=rgb.device) + 1) / 2
    height, width = rgb.shape[-2] + sides[2] + sides[3], rgb.shape[-1] + sides[0] + sides[1]
    padded = values[:, None, None].expand(len(rgb), 3, height, width).clone()
    padded[..., top : top + rgb.shape[-2], left : left + rgb.shape[-1]] = rgb
    return padded
