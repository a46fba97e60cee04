"""Frames to files: DICOM, video, pictures, arrays, by the suffix of the name."""

from __future__ import annotations

import shutil
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import atomic_path, writing
from priorscope.errors import InputError
from priorscope_medical.ultrasound.cine import Cine

#: Hz where a file does not say.
USUAL_RATE = 25.0
_SUFFIXES = (".dcm", ".mp4", ".npy", ".png", "")


def check_out(path: str | PathLike[str], frames: int) -> None:
    """Refuse names that say no format, and one picture for many frames."""
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            f"ends in {suffix}", path=path, remedy="Use .dcm, .mp4, .npy, .png (one frame) or a folder's name."
        )
    if suffix == ".png" and frames > 1:
        raise InputError(f"is one picture, there are {frames} frames", path=path, remedy="Give a folder's name.")


def write_cine(cine: Cine, path: str | PathLike[str], *, how: str, first: int = 0, overwrite: bool = False) -> Path:
    """Write frames; a folder gets frame-0000.png and so on.

    Parameters
    ----------
    cine : Cine
    path : path-like
        See :func:`check_out`.
    how, first : str, int
        For DICOM: what was done, and the number of the source's frame that is the first here.
    overwrite : bool
    """
    path = Path(path)
    check_out(path, len(cine.frames))
    suffix = path.suffix.lower()
    if suffix == ".dcm":
        from priorscope_medical.ultrasound.cine_dicom import write_dicom_cine

        return write_dicom_cine(cine, path, how=how, first=first, overwrite=overwrite)
    if suffix == ".mp4":
        from priorscope.data.video import write_video

        return write_video(path, map(as_rgb, cine.frames), cine.frame_rate or USUAL_RATE, overwrite=overwrite)
    if suffix == ".npy":
        from priorscope.data.arrays import write_npy

        return write_npy(path, cine.frames, overwrite=overwrite)
    if suffix == ".png":
        _write_png(path, cine.frames[0], overwrite)
        return path
    if path.exists():
        if not overwrite:
            raise InputError("exists already", path=path, remedy="Use --overwrite or another --out.")
        if not path.is_dir():
            raise InputError("is a file, a folder is written", path=path, remedy="Choose another --out.")
        strangers = [file.name for file in path.iterdir() if not file.name.startswith("frame-")]
        if strangers:
            raise InputError(f"holds other files ({strangers[0]})", path=path, remedy="Choose another --out.")
        shutil.rmtree(path)
    for index, frame in enumerate(cine.frames):
        _write_png(path / f"frame-{index:04d}.png", frame, overwrite)
    return path


def as_rgb(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W] or [H, W, 3] to [H, W, 3]."""
    return np.repeat(frame[..., None], 3, -1) if frame.ndim == 2 else frame


def _write_png(path: Path, frame: NDArray[np.uint8], overwrite: bool) -> None:
    from PIL import Image

    with atomic_path(path, overwrite=overwrite) as temporary, writing(path):
        Image.fromarray(frame).save(temporary)
