"""Reading and writing video frame by frame, so that memory stays bounded however long it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from priorscope.data.files import atomic_path
from priorscope.errors import InputError

_BT709 = 1  # the number that H.264 and FFmpeg give to this matrix, transfer function and set of primaries
_LIMITED_RANGE = 1


class VideoInfo(NamedTuple):
    """What a video says about itself, checked by decoding its first frame."""

    width: int
    """Pixels, after rotation."""
    height: int
    """Pixels, after rotation."""
    fps: float
    """Mean frames a second."""
    frames: int | None
    """Number of frames where the container tells it."""
    seconds: float | None
    """Duration where the container tells it."""
    rotation: int
    """Degrees counter-clockwise by which frames are turned to be upright: 0, 90, 180 or 270. Done already."""


class VideoFrame(NamedTuple):
    """One frame."""

    number: int
    """From 0, counted over all frames of the video."""
    seconds: float
    """Time stamp."""
    image: NDArray[np.uint8]
    """[H, W, 3] RGB, upright."""


def read_video_info(path: str | PathLike[str]) -> VideoInfo:
    """Size, frame rate, length and rotation of a video.

    Raises
    ------
    InputError
        If the file is missing, empty, broken, or holds no video; or PyAV is not installed.
    """
    with _opened(Path(path)) as (container, stream):
        frame = next(_decoded(container, stream, Path(path)), None)
        if frame is None:
            raise InputError("holds no video frame", path=path)
        turned = frame.rotation % 180 != 0
        width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
        seconds = None if stream.duration is None else float(stream.duration * stream.time_base)
        return VideoInfo(width, height, _fps(stream), stream.frames or None, seconds, frame.rotation % 360)


def read_video(
    path: str | PathLike[str], *, start: int = 0, stop: int | None = None, stride: int = 1
) -> Iterator[VideoFrame]:
    """Iterate over the frames of a video; one is held at a time.

    Parameters
    ----------
    path : path-like
        Any container and codec that FFmpeg decodes.
    start, stop, stride : int
        Frame numbers, as in a slice. Frames before `start` are decoded but not converted.

    Yields
    ------
    VideoFrame

    Raises
    ------
    InputError
        At once if the file is missing, empty or no video; after the good frames if it breaks off.
    """
    if start < 0 or stride < 1:
        raise InputError(f"start is {start} and stride {stride}; start >= 0 and stride >= 1 are needed")
    path = Path(path)
    _check_file(path)
    _av()

    def frames() -> Iterator[VideoFrame]:
        with _opened(path) as (container, stream):
            fps = _fps(stream)
            for index, frame in enumerate(_decoded(container, stream, path)):
                if stop is not None and index >= stop:
                    return
                if index >= start and (index - start) % stride == 0:
                    image = frame.to_ndarray(format="rgb24")
                    image = np.ascontiguousarray(np.rot90(image, frame.rotation // 90 % 4))
                    yield VideoFrame(index, index / fps if frame.time is None else frame.time, image)

    return frames()


class VideoWriter:
    """Write an H.264 video in an .mp4 file, frame by frame; a context manager.

    The file appears under its name when the block ends; if it ends in an error, nothing stays behind.
    Colours are stored as BT.709 in 4:2:0, which every player reads; odd sizes grow by one row or column, a
    repetition of the last, since 4:2:0 needs even ones.

    Parameters
    ----------
    path : path-like
        Ends in ``.mp4``.
    fps : float
        Frames a second.
    quality : int
        x264's constant rate factor: 0 (lossless in 4:2:0) to 51; smaller is better and larger.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    InputError
        If the file exists, a frame has another shape or dtype than the first, no frame came, or PyAV is not
        installed.
    """

    def __init__(self, path: str | PathLike[str], fps: float, *, quality: int = 18, overwrite: bool = False) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise InputError("a video is written as .mp4", path=path, remedy="End its name in .mp4.")
        if not 0 < fps <= 1000:
            raise InputError(f"fps is {fps}, between 0 and 1000 is needed")
        self.fps, self.quality, self.overwrite = fps, quality, overwrite
        self.count = 0
        self._shape: tuple[int, ...] | None = None
        self._stack = contextlib.ExitStack()
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> VideoWriter:
        av = _av()
        temporary = self._stack.enter_context(atomic_path(self.path, overwrite=self.overwrite))
        self._container = av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"})
        self._stack.callback(self._abandon)
        return self

    def write(self, image: NDArray[np.uint8]) -> None:
        """Append a frame, uint8 [H, W, 3] RGB."""
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            raise InputError(f"a video frame is a uint8 array [H, W, 3], not {found}")
        if self._shape is None:
            if not image.size:
                raise InputError("a video frame without pixels")
            self._shape = image.shape
            self._stream = self._make_stream(image.shape[1], image.shape[0])
        elif image.shape != self._shape:
            raise InputError(f"frame {self.count} has shape {image.shape}, the first had {self._shape}")
        padded = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
        frame = _av().VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.pts = self.count
        frame.time_base = 1 / self._stream.codec_context.framerate
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        self.count += 1

    def _make_stream(self, width: int, height: int) -> Any:
        stream = self._container.add_stream("libx264", rate=Fraction(self.fps).limit_denominator(100_000))
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.options = {"crf": str(self.quality)}
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        return stream

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            if self.count == 0:
                raise InputError("no frame was written", path=self.path)
            for packet in self._stream.encode():
                self._container.mux(packet)
            self._container.close()

    def _abandon(self) -> None:
        with contextlib.suppress(Exception):  # closing an unfinished container complains; it goes anyway
            self._container.close()


def write_video(
    path: str | PathLike[str], frames: Iterable[NDArray[np.uint8]], fps: float, *, overwrite: bool = False
) -> Path:
    """Write frames, uint8 [H, W, 3] each, as an H.264 video; see :class:`VideoWriter`."""
    with VideoWriter(path, fps, overwrite=overwrite) as writer:
        for frame in frames:
            writer.write(frame)
    return Path(path)


def _av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise InputError("reading and writing video needs PyAV", remedy="pip install 'priorscope[depth]'") from error
    return av


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InputError("no such file" if not path.exists() else "is not a file", path=path)
    if path.stat().st_size == 0:
        raise InputError("is empty (0 bytes)", path=path, remedy="Copy or download it again.")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    _check_file(path)
    av = _av()
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"is broken, or no video that FFmpeg knows ({' '.join(str(error).split())[:150]})", path=path
        ) from error
    with container:
        if not container.streams.video:
            raise InputError("holds no video", path=path)
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        yield container, stream


def _decoded(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    av = _av()
    count = 0
    try:
        for frame in container.decode(stream):
            yield frame
            count += 1
    except av.FFmpegError as error:
        raise InputError(
            f"breaks off after {count} frames ({' '.join(str(error).split())[:150]})",
            path=path,
            remedy="Copy or download it again.",
        ) from error
    # FFmpeg ends quietly where a file was cut. A few frames less are fair: edit lists hide some.
    if count < 0.95 * stream.frames - 2:
        raise InputError(
            f"breaks off after {count} of {stream.frames} frames",
            path=path,
            remedy="Copy or download it again.",
        )


def _fps(stream: Any) -> float:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return float(rate) if rate else 25.0  # a bare elementary stream tells none; 25 is FFmpeg's own default
