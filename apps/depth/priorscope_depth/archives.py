"""Readers of the depth evaluation archives that Marigold published and Lotus uses, packed or extracted."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from priorscope.data.members import Members
from priorscope.errors import InputError
from priorscope_depth.protocols import DepthProtocol, kitti_benchmark_crop


@dataclass(frozen=True)
class DepthSample:
    """One image with metric ground truth.

    Attributes
    ----------
    key : str
        Unique within the data set.
    rgb : uint8 array, [H, W, 3]
    depth : float32 array, [H, W]
        Metres.
    valid : bool array, [H, W]
        Pixels that count.
    """

    key: str
    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def __post_init__(self) -> None:
        shape = self.depth.shape
        if self.depth.ndim != 2 or self.rgb.shape != (*shape, 3) or self.valid.shape != shape:
            raise InputError(
                f"{self.key}: rgb {list(self.rgb.shape)}, depth {list(shape)} and valid {list(self.valid.shape)} "
                "must be [H, W, 3], [H, W] and [H, W]"
            )
        if self.rgb.dtype != np.uint8 or not np.issubdtype(self.depth.dtype, np.floating):
            raise InputError(f"{self.key}: rgb must be uint8 and depth float, not {self.rgb.dtype}, {self.depth.dtype}")

    def load(self) -> DepthSample:
        """Return itself, so that samples in memory and in archives are used alike."""
        return self


@dataclass(frozen=True)
class DepthItem:
    """A line of the list of samples: where image, depth and mask lie; nothing is read until :meth:`load`."""

    key: str
    rgb: str
    depth: str
    mask: str | None
    members: Members = field(repr=False)
    protocol: DepthProtocol = field(repr=False)

    def load(self) -> DepthSample:
        """Read, decode, crop and mask the sample as the protocol says.

        Raises
        ------
        InputError
            A file is missing, cut short, or of another format or size than the protocol's.
        """
        protocol = self.protocol
        rgb = decode_rgb(self.members.read(self.rgb), self._where(self.rgb))
        depth = decode_depth(self.members.read(self.depth), protocol, self._where(self.depth))
        mask = None
        if self.mask is not None:
            where = self._where(self.mask)
            mask = _squeezed(decode_npy(self.members.read(self.mask), where), where) != 0
        for name, array in (("depth", depth), ("mask", mask)):
            if array is not None and array.shape != rgb.shape[:2]:
                raise InputError(
                    f"the {name} is {list(array.shape)} but the image {list(rgb.shape[:2])}",
                    path=self._where(self.rgb),
                )
        if protocol.benchmark_crop:
            rgb, depth = kitti_benchmark_crop(rgb), kitti_benchmark_crop(depth)
            mask = None if mask is None else kitti_benchmark_crop(mask)
        return DepthSample(self.key, rgb, depth, protocol.valid(depth, mask))

    def _where(self, name: str) -> str:
        return f"{self.members.path}: {name}"


class DepthArchive(Sequence[DepthItem]):
    """The samples of a depth data set, in the order of its list.

    Parameters
    ----------
    root : path-like
        The folder that holds the evaluation archives (``nyuv2/nyu_labeled_extracted.tar`` below it), the
        archive itself, or the folder it was extracted to.
    protocol : DepthProtocol
    list_file : path-like, optional
        The list of samples. Marigold's repository holds it (``data_split/``), the archive does not. By default
        looked for, as ``data_split/LIST``, ``LIST`` or by its bare name, in `root`, beside the archive and
        above it.

    Raises
    ------
    InputError
        Archive or list missing, the list malformed, empty or naming a sample twice.

    Notes
    -----
    Members are looked up as "./" + path of the list. KITTI's lines whose depth is "None" are dropped: 652 of 697
    remain. A tar is indexed once, by reading its headers; a sample is read only when it is loaded.
    """

    def __init__(
        self, root: str | PathLike[str], protocol: DepthProtocol, *, list_file: str | PathLike[str] | None = None
    ) -> None:
        self.protocol = protocol
        self.members = Members(_find_archive(Path(root), protocol))
        self.list_file = _find_list(Path(root), self.members.path, protocol, list_file)
        self._items = list(_read_list(self.list_file, protocol, self.members))
        if not self._items:
            raise InputError("the list of samples names no sample with ground truth", path=self.list_file)
        seen: set[str] = set()
        for item in self._items:
            if item.key in seen:
                raise InputError(f"{item.key} is listed twice", path=self.list_file, remedy="Remove one line.")
            seen.add(item.key)

    @property
    def complete(self) -> bool:
        """Whether it holds as many images as the published set."""
        return len(self) == self.protocol.images

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> DepthItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[DepthItem]: ...
    def __getitem__(self, index: int | slice) -> DepthItem | list[DepthItem]:
        return self._items[index]


def _find_archive(root: Path, protocol: DepthProtocol) -> Path:
    if root.is_file():
        return root
    if not root.is_dir():
        raise InputError(
            "no such file or folder",
            path=root,
            remedy=f"Give the folder that holds {protocol.tar}, that archive, or the folder it was extracted to.",
        )
    tar = Path(protocol.tar)
    for candidate in (root / tar, root / tar.name, root / tar.with_suffix(""), root / tar.parent):
        if candidate.exists():
            return candidate
    return root  # extracted here; a missing member names itself


def _find_list(root: Path, archive: Path, protocol: DepthProtocol, given: str | PathLike[str] | None) -> Path:
    if given is not None:
        path = Path(given)
        if not path.is_file():
            raise InputError("no such list of samples", path=path)
        return path
    folders = [root, archive, archive.parent, archive.parent.parent]
    tails = [
        Path("data_split") / protocol.list_file,
        Path(protocol.list_file),
        Path(Path(protocol.list_file).name),
    ]
    for folder in folders:
        for tail in tails:
            if folder.is_dir() and (folder / tail).is_file():
                return folder / tail
    raise InputError(
        f"the list of samples of {protocol.title} is missing ({protocol.list_file})",
        path=root,
        remedy="It is part of Marigold's repository (github.com/prs-eth/Marigold, folder data_split): copy that "
        "folder here or name the file.",
    )


def _read_list(path: Path, protocol: DepthProtocol, members: Members) -> Iterator[DepthItem]:
    columns = 3 if protocol.mask_file else 2
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"is not a text file that can be read ({error})", path=path) from error
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) < columns:
            raise InputError(
                f"line {number} has {len(words)} columns, {protocol.title} needs at least {columns} "
                f"(image, depth{', mask' if columns == 3 else ''})",
                path=path,
            )
        if words[1] == "None":
            continue
        yield DepthItem(words[0], words[0], words[1], words[2] if protocol.mask_file else None, members, protocol)


def decode_rgb(data: bytes, where: str) -> NDArray[np.uint8]:
    """Decode an image to uint8 [H, W, 3]. EXIF orientation is ignored: ground truth lies on the stored grid."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"is not an image that can be read ({error})", path=where) from error


def decode_depth(data: bytes, protocol: DepthProtocol, where: str) -> NDArray[np.float32]:
    """Decode a depth file as the protocol says: float32 metres [H, W], 0 where nothing was measured."""
    if protocol.decoding == "png":
        return (decode_png16(data, where) / protocol.png_scale).astype(np.float32)
    if protocol.decoding == "npy":
        return _squeezed(decode_npy(data, where), where).astype(np.float32)
    if protocol.raw_shape is None:
        raise InputError(f"the protocol {protocol.name} states no shape for headerless depth files")
    height, width = protocol.raw_shape
    if len(data) != 4 * height * width:
        raise InputError(
            f"holds {len(data)} bytes; headerless float32 of {height} x {width} has {4 * height * width}",
            path=where,
        )
    depth = np.frombuffer(data, dtype="<f4").reshape(height, width)
    return np.where(np.isfinite(depth), depth, np.float32(0))


def decode_png16(data: bytes, where: str) -> NDArray[np.uint16]:
    """Decode a 16-bit grey PNG to uint16 [H, W]."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            mode, array = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"is not a PNG that can be read ({error})", path=where) from error
    if not mode.startswith("I") or array.ndim != 2:
        raise InputError(f"a 16-bit grey PNG is expected, this one has mode {mode}", path=where)
    return array.astype(np.uint16)


def decode_npy(data: bytes, where: str) -> NDArray:
    """Decode a .npy file of numbers; pickled objects are refused."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"is not a .npy file of numbers ({error})", path=where) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise InputError("is not a .npy file of real numbers", path=where)
    return array


def _squeezed(array: NDArray, where: str) -> NDArray:
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if array.ndim != 2:
        raise InputError(f"has shape {list(array.shape)}; [H, W] or [H, W, 1] is expected", path=where)
    return array
