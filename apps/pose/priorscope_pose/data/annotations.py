"""Annotated people in images, whatever layout they came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorscope.errors import InputError
from priorscope_pose.skeletons import Skeleton

ImageId = int | str
#: Where a data set states no area of the person, COCO's tools take this part of the box (CrowdPose, AIC).
AREA_OF_BOX = 0.53


@dataclass(frozen=True, eq=False)
class PersonAnnotation:
    """One person of an image, in pixels of the whole image.

    Parameters
    ----------
    image_id : int or str
    id : int or str
        Of the annotation; unique in its file.
    box : array (4,)
        float64; left, top, right, bottom. As the file states it: perhaps partly outside of the image, perhaps empty.
    keypoints : array (K, 3)
        float64; x, y, and v: 0 not labelled, 1 labelled but hidden, 2 visible. PoseTrack and JHMDB know 0 and above.
    area : float
        Of the person in square pixels; `AREA_OF_BOX` of the box where the data set states none.
    iscrowd : bool
        A group annotated as one: detections may match it any number of times, and count neither for nor against.
    labelled : int
        Key points that count as annotated: as the file says, else those with v > 0. 0 makes evaluation ignore the
        person.
    track_id : int, optional
        The same for one person all through a video.
    head_box : array (4,), optional
        float64; left, top, right, bottom: the scale of PCKh and of PoseTrack's AP.
    """

    image_id: ImageId
    id: ImageId
    box: NDArray[np.float64]
    keypoints: NDArray[np.float64]
    area: float
    iscrowd: bool = False
    labelled: int = 0
    track_id: int | None = None
    head_box: NDArray[np.float64] | None = None

    @property
    def visible(self) -> NDArray[np.bool_]:
        """Which key points are labelled, (K,)."""
        return self.keypoints[:, 2] > 0

    def clipped_box(self, width: int, height: int) -> NDArray[np.float64] | None:
        """The box cut at the first and last pixel, as mmpose crops annotated people; None where nothing is left."""
        return clip_box(self.box, width, height)


def clip_box(box: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64] | None:
    """A box (left, top, right, bottom) cut to 0 ... width - 1 and 0 ... height - 1; None without any area there."""
    low, high = np.zeros(4), np.array([width - 1, height - 1] * 2, np.float64)
    cut = np.clip(box, low, high)
    return cut if cut[2] > cut[0] and cut[3] > cut[1] else None


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image, or a frame of a video, and the people in it.

    Parameters
    ----------
    id : int or str
    path : Path
        Where the picture should be; loaders do not look (:meth:`Annotations.check_images` does).
    width, height : int
        In pixels; 0 where the file does not say.
    people : tuple of PersonAnnotation
    video : str, optional
    frame : int, optional
        Place in the video, from 0.
    ignore_regions : tuple of array (P, 2)
        Polygons in pixels where nothing counts (PoseTrack).
    crowd_index : float, optional
        CrowdPose: how much people overlap, 0 ... 1.
    annotated : bool
        Whether people were looked for in it at all; frames in between are not, in PoseTrack.
    """

    id: ImageId
    path: Path
    width: int
    height: int
    people: tuple[PersonAnnotation, ...] = ()
    video: str | None = None
    frame: int | None = None
    ignore_regions: tuple[NDArray[np.float64], ...] = ()
    crowd_index: float | None = None
    annotated: bool = True


@dataclass(frozen=True, eq=False)
class Annotations:
    """The annotated images of one data set.

    Parameters
    ----------
    skeleton : Skeleton
    images : tuple of AnnotatedImage
    path : Path, optional
        The file they were read from, for messages.
    """

    skeleton: Skeleton
    images: tuple[AnnotatedImage, ...]
    path: Path | None = None
    _places: dict[ImageId, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        places: dict[ImageId, int] = {}
        ids: set[ImageId] = set()
        for place, image in enumerate(self.images):
            if image.id in places:
                raise InputError(
                    f"two images have the id {image.id}", path=self.path, remedy="Give every image its own id."
                )
            places[image.id] = place
            for person in image.people:
                if person.id in ids:
                    raise InputError(
                        f"two annotations have the id {person.id}",
                        path=self.path,
                        remedy="Give every annotation its own id.",
                    )
                ids.add(person.id)
        object.__setattr__(self, "_places", places)

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        return iter(self.images)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._places

    def image(self, image_id: ImageId) -> AnnotatedImage:
        """The image of that id.

        Raises
        ------
        InputError
            There is none.
        """
        if image_id not in self._places:
            raise InputError(f"no image has the id {image_id}", path=self.path)
        return self.images[self._places[image_id]]

    def people(self) -> Iterator[PersonAnnotation]:
        """All people, image by image."""
        return (person for image in self.images for person in image.people)

    def usable_people(self) -> list[tuple[AnnotatedImage, PersonAnnotation]]:
        """People to crop for training or for evaluation with annotated boxes, with their images.

        Left out: groups, people without a labelled key point, boxes without area or wholly outside of the image. They
        still count in evaluation.
        """
        return [
            (image, person)
            for image in self.images
            for person in image.people
            if not person.iscrowd
            and person.visible.any()
            and person.clipped_box(image.width or 1 << 30, image.height or 1 << 30) is not None
        ]

    def videos(self) -> dict[str, list[AnnotatedImage]]:
        """Frames of each video, in order of time; images without a video are not among them."""
        found: dict[str, list[AnnotatedImage]] = {}
        for image in self.images:
            if image.video is not None:
                found.setdefault(image.video, []).append(image)
        for frames in found.values():
            frames.sort(key=lambda image: (image.frame if image.frame is not None else 0, str(image.path)))
        return found

    def select(self, image_ids: Iterable[ImageId]) -> Annotations:
        """Only some of the images, in the order of the data set."""
        wanted = set(image_ids)
        return replace(self, images=tuple(image for image in self.images if image.id in wanted))

    def check_images(self) -> None:
        """Look for the pictures.

        Raises
        ------
        InputError
            Some are missing: the first is named, and how many there are.
        """
        missing = [image.path for image in self.images if not image.path.is_file()]
        if missing:
            raise InputError(
                f"no such picture; {len(missing)} of {len(self.images)} are missing",
                path=missing[0],
                remedy=f"The annotations in {self.path} name it: give the folder that its file names start from.",
            )
