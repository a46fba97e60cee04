"""A sequence of ultrasound pictures with what its file says about it, and the readers of all kinds of files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError

Kind = Literal["DICOM", "video", "pictures", "array"]
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".wmv")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_DICOM = (".dcm", ".dicom", ".ima", "")
CHANNEL_DATA = (".mat", ".h5", ".hdf5", ".uff")
_CHROMA = 40


@dataclass(frozen=True)
class Cine:
    """Frames of one view.

    Parameters
    ----------
    frames : ndarray of uint8, [T, H, W] or [T, H, W, 3]
        Grey, or RGB.
    frame_rate : float, optional
        In Hz; None where the file does not say.
    pixel : float, optional
        Side of a pixel in mm.
    path : Path
    kind : {"DICOM", "video", "pictures", "array"}
    notes : tuple of str
        What a user should know.
    dataset : pydicom Dataset, optional
        The DICOM source.
    """

    frames: NDArray[np.uint8]
    frame_rate: float | None
    pixel: float | None
    path: Path
    kind: Kind
    notes: tuple[str, ...] = ()
    dataset: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        shape = self.frames.shape
        coloured = self.frames.ndim == 4 and shape[-1] == 3
        if self.frames.dtype != np.uint8 or not (self.frames.ndim == 3 or coloured):
            raise InputError(
                f"holds {self.frames.dtype} of shape {list(shape)}",
                path=self.path,
                remedy="8-bit frames [T, H, W] or [T, H, W, 3] are expected.",
            )
        if not shape[0]:
            raise InputError("holds no frames", path=self.path)
        if min(shape[1:3]) < 32:
            order = " Is time the first axis?" if shape[0] > 4 * min(shape[1:3]) else ""
            raise InputError(f"holds frames of {shape[1]} x {shape[2]} pixels: too small.{order}", path=self.path)

    @property
    def grey(self) -> NDArray[np.float32]:
        """Brightness from 0 to 1 [T, H, W]."""
        if self.frames.ndim == 3:
            return self.frames.astype(np.float32) / np.float32(255)
        return (self.frames @ np.array([0.299, 0.587, 0.114], np.float32) / 255).astype(np.float32)

    @property
    def coloured(self) -> NDArray[np.bool_]:
        """Which pixels are not grey [T, H, W]."""
        if self.frames.ndim == 3:
            return np.zeros(self.frames.shape, bool)
        return self.frames.max(-1) - self.frames.min(-1) > _CHROMA

    def cut(self, frames: tuple[int, int]) -> Cine:
        """The frames from the first number to before the second."""
        first, end = frames
        if not 0 <= first < end <= len(self.frames):
            raise InputError(
                f"frames {first} to {end} of {len(self.frames)}", remedy="Give the first, and one after the last."
            )
        return replace(self, frames=self.frames[first:end])

    def with_frames(self, frames: NDArray[np.uint8]) -> Cine:
        """Other pixels of the same sequence."""
        return replace(self, frames=frames)


def read_cine(path: str | PathLike[str]) -> Cine:
    """Read DICOM (one or several frames), a video, a picture, a folder of pictures, or .npy.

    Raises
    ------
    InputError
        Nothing there, no frames, pictures of several sizes, a broken file, another kind of ultrasound than B-mode.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("no such file or folder", path=path, remedy="Check the path.")
    suffix = path.suffix.lower()
    if path.is_dir():
        return _read_folder(path)
    if not path.stat().st_size:
        raise InputError("is empty (0 bytes)", path=path, remedy="Copy or download it again.")
    if suffix in VIDEOS:
        return _read_video(path)
    if suffix in PICTURES:
        return _read_pictures([path], path)
    if suffix in (".npy", ".npz"):
        return _read_array(path)
    if suffix in _DICOM or suffix.lstrip(".").isdigit():
        from priorscope_medical.ultrasound.cine_dicom import read_dicom_cine

        return read_dicom_cine(path)
    if suffix in CHANNEL_DATA:
        raise InputError(
            "is a file of channel data or RF, not of B-mode pictures",
            path=path,
            remedy="Read it with priorscope_medical.ultrasound.read; `priorscope medical dehaze` takes it too.",
        )
    known = ", ".join((".dcm", ".npy", *VIDEOS[:3], *PICTURES[:3]))
    raise InputError(f"has a suffix that is not known here ({suffix})", path=path, remedy=f"Known are {known}.")


def _read_folder(path: Path) -> Cine:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
    if files:
        return _read_pictures(files, path)
    raise InputError("holds no pictures", path=path, remedy="Give the DICOM file or video itself, or a folder of PNG.")


def _read_pictures(files: list[Path], path: Path) -> Cine:
    from priorscope.data.images import read_image

    first = read_image(files[0])
    frames = [first]
    for file in files[1:]:
        frames.append(read_image(file))
        if frames[-1].shape != first.shape:
            sizes = [" x ".join(str(side) for side in frame.shape[:2]) for frame in (frames[-1], first)]
            raise InputError(f"is {sizes[0]} pixels, others are {sizes[1]}", path=file)
    notes = () if len(files) == 1 else ("pictures have no frame rate: 25 Hz is used",)
    return Cine(_without_colour(np.stack(frames)), None, None, path, "pictures", notes)


def _read_video(path: Path) -> Cine:
    from priorscope.data.video import read_video, read_video_info

    info = read_video_info(path)
    frames = np.stack([frame.image for frame in read_video(path)])
    return Cine(_without_colour(frames), info.fps, None, path, "video")


def _read_array(path: Path) -> Cine:
    from priorscope.data.arrays import read_array

    values = read_array(path)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise InputError("holds values that are not finite", path=path)
        if values.size and (values.min() < 0 or values.max() > 1):
            raise InputError(
                f"holds values from {values.min():.4g} to {values.max():.4g}",
                path=path,
                remedy="Pictures lie in 0 ... 1, or are uint8. RF and decibels are no pictures: log-compress first.",
            )
        values = np.rint(values * 255).astype(np.uint8)
    if values.ndim == 2:
        values = values[None]
    if values.ndim == 3 and values.shape[-1] == 3 and values.shape[0] > 3:
        values = values[None]
    smallest = int(np.argmin(values.shape[:3]))
    if values.ndim == 3 and smallest and values.shape[smallest] < 64 <= values.shape[0]:
        raise InputError(
            f"has the shape {list(values.shape)}: the first axis should be time",
            path=path,
            remedy="Save it as [frames, height, width].",
        )
    return Cine(values, None, None, path, "array", () if len(values) == 1 else ("no frame rate: 25 Hz is used",))


def _without_colour(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[T, H, W] where all three channels are alike."""
    grey = frames[..., 0]
    return grey.copy() if all(np.array_equal(grey, frames[..., channel]) for channel in (1, 2)) else frames
