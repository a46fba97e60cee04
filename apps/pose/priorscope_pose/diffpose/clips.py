"""People in videos: which frames show a person's key frame and its neighbours."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from priorscope.data.images import read_image
from priorscope.errors import InputError
from priorscope_pose.data.annotations import Annotations, PersonAnnotation


def frame_window(place: int, total: int, distance: int, numbers: Sequence[int | None] | None = None) -> list[int]:
    """Places of the 2 d + 1 frames about one; a neighbour that does not exist is replaced by the key frame.

    Parameters
    ----------
    place : int
        Of the key frame, from 0.
    total : int
        Frames of the video.
    distance : int
        d.
    numbers : sequence of int or None, optional
        Each frame's number, where some frames of the video are not there. Default: its place.

    Returns
    -------
    list of int
        From d before to d after.

    Source: the DCPose / FAMI-Pose data sets, which repeat the key frame at the ends of a clip.
    """
    if not 0 <= place < total:
        raise InputError(f"frame {place} of a video of {total} frames")
    offsets = range(-distance, distance + 1)
    key = None if numbers is None else numbers[place]
    if numbers is None or key is None:
        return [place + k if 0 <= place + k < total else place for k in offsets]
    places = {number: index for index, number in enumerate(numbers)}
    return [places.get(key + k, place) for k in offsets]


@dataclass(frozen=True, eq=False)
class ClipPerson:
    """A person of a key frame to learn from, in pixels of the whole image.

    Parameters
    ----------
    frames : sequence of uint8 arrays (H, W, 3)
        2 d + 1 RGB frames, the key frame in the middle; equal frames may be the same array.
    box : array (4,)
        Left, top, right, bottom on the key frame; it crops all frames.
    keypoints : array (K, 3)
        x, y, v on the key frame; labelled where v > 0.
    key : str
        Names it in messages.
    """

    frames: Sequence[NDArray[np.uint8]]
    box: NDArray[np.float64]
    keypoints: NDArray[np.float64]
    key: str = ""


class ClipSource(Protocol):
    """Anything that has people of key frames by their number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> ClipPerson: ...


@dataclass(frozen=True, eq=False)
class Video:
    """Frames, and who is annotated on each.

    Parameters
    ----------
    name : str
    frames : sequence of uint8 arrays (H, W, 3)
        RGB; may read when asked, as :class:`FrameFiles` does.
    people : sequence of sequences of PersonAnnotation
        One a frame; empty where nobody is annotated.
    numbers : sequence of int or None, optional
        Frame numbers, where the video has gaps.
    """

    name: str
    frames: Sequence[NDArray[np.uint8]]
    people: Sequence[Sequence[PersonAnnotation]]
    numbers: Sequence[int | None] | None = None

    def __post_init__(self) -> None:
        if len(self.frames) != len(self.people):
            raise InputError(f"video {self.name} has {len(self.frames)} frames and people on {len(self.people)}")


class FrameFiles(Sequence[NDArray[np.uint8]]):
    """Frames in files, read when asked; the last few are kept.

    Parameters
    ----------
    paths : iterable of Path
    kept : int
        Frames in memory.
    """

    def __init__(self, paths: Iterable[Path], kept: int = 8) -> None:
        self.paths = list(paths)
        self.kept = kept
        self._frames: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> FrameFiles: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | FrameFiles:
        if isinstance(index, slice):
            return FrameFiles(self.paths[index], self.kept)
        index = range(len(self))[index]
        if index not in self._frames:
            self._frames[index] = read_image(self.paths[index])
            while len(self._frames) > self.kept:
                self._frames.popitem(last=False)
        self._frames.move_to_end(index)
        return self._frames[index]


def videos_of(annotations: Annotations) -> list[Video]:
    """The videos of a data set, frames in files; unannotated frames serve as neighbours only.

    Raises
    ------
    InputError
        It holds no video.
    """
    videos = annotations.videos()
    if not videos:
        raise InputError("no frame names its video", path=annotations.path, remedy="DiffPose learns from videos.")
    return [
        Video(
            name,
            FrameFiles(frame.path for frame in frames),
            [frame.people for frame in frames],
            [frame.frame for frame in frames],
        )
        for name, frames in videos.items()
    ]


class VideoClips:
    """The annotated people of videos, each with its window of frames: a :class:`ClipSource`.

    Left out: groups, people without a labelled keypoint, and boxes without area.

    Parameters
    ----------
    videos : sequence of Video
    distance : int
        d.

    Raises
    ------
    InputError
        Nobody is annotated.
    """

    def __init__(self, videos: Sequence[Video], distance: int) -> None:
        self.videos, self.distance = videos, distance
        self.places = [
            (number, frame, who)
            for number, video in enumerate(videos)
            for frame, people in enumerate(video.people)
            for who, person in enumerate(people)
            if _usable(person)
        ]
        if not self.places:
            raise InputError("the videos show nobody with an annotated keypoint and a box")

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> ClipPerson:
        number, frame, who = self.places[index]
        video = self.videos[number]
        person = video.people[frame][who]
        window = frame_window(frame, len(video.frames), self.distance, video.numbers)
        read = {place: video.frames[place] for place in dict.fromkeys(window)}
        key = f"{video.name}, frame {frame}, person {person.id}"
        return ClipPerson([read[place] for place in window], person.box, person.keypoints, key)


def _usable(person: PersonAnnotation) -> bool:
    left, top, right, bottom = person.box
    return bool(not person.iscrowd and person.visible.any() and right > left and bottom > top)
