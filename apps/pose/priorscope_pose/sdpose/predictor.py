"""SDPose as a user asks it: an image and boxes of people in, keypoints in the image's pixels out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from priorscope.backbones.latents import Posterior
from priorscope.backbones.table import find_published
from priorscope.data.images import check_rgb
from priorscope.device import Precision, inference_layout, resolve_device, resolve_dtype
from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError
from priorscope_pose.codecs.udp import UdpHeatmap
from priorscope_pose.geometry.boxes import check_boxes
from priorscope_pose.geometry.crop import POLICIES, Crops, Policy, crop_people
from priorscope_pose.poses import Poses
from priorscope_pose.published import MODELS
from priorscope_pose.sdpose.checkpoint import load_network
from priorscope_pose.sdpose.network import SDPoseNetwork
from priorscope_pose.skeletons import Skeleton, skeleton


@dataclass(frozen=True)
class _Person:
    """Whom a row of a batch shows: image, and place in that image's boxes."""

    image: int
    place: int


class SDPosePredictor:
    """Find the keypoints of people whose boxes are known.

    ``predictor = SDPosePredictor.from_pretrained("sdpose-body")``, then ``predictor(image, boxes)``.

    Parameters
    ----------
    network : SDPoseNetwork
    name : str
        For results.
    device : torch.device or str
        Where ``network`` is.
    """

    def __init__(self, network: SDPoseNetwork, *, name: str = "", device: torch.device | str = "cpu") -> None:
        self.network = network
        self.name = name
        self.device = torch.device(device)
        settings = network.settings
        self.codec = UdpHeatmap(settings.input_size, settings.heatmap_size, settings.sigma)

    @property
    def skeleton(self) -> Skeleton:
        """Names, order and mirror pairs of the keypoints."""
        return skeleton(self.network.settings.skeleton)

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the crops."""
        return self.network.settings.input_size

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        fold: bool = True,
        compile: bool = False,
        revision: str | None = None,
    ) -> SDPosePredictor:
        """Load a model by its name in the model table, from a hub id, a folder or a single file.

        Parameters
        ----------
        source : str or Path
            See :func:`~priorscope_pose.sdpose.checkpoint.load_network`.
        device, precision : str
            Of the U-Net, where nearly all the work is; autoencoder and head are in float32 always.
        fold : bool
            Compute once what never changes, and let go of what lies after the tap: the same answers to rounding, in
            less time and memory. Such a model cannot be trained or saved.
        compile : bool
            ``torch.compile`` U-Net and head: slow first calls, one for each batch size, then faster ones.
        revision : str, optional
            On the hub.

        Raises
        ------
        InputError
            Unknown names, incomplete folders, keys that lack or are left over.
        """
        where = resolve_device(device)
        network = load_network(source, dtype=resolve_dtype(precision, where), revision=revision)
        layout = inference_layout(where)
        network.to(device=where, memory_format=layout)  # type: ignore[call-overload]
        network.latents.to(where, memory_format=layout)
        if fold:
            network.fold()
        if compile:
            network.compile()
        row = find_published(str(source), MODELS)
        return cls(network, name=str(source) if row is None else row.name, device=where)

    def __call__(
        self,
        images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
        boxes: ArrayLike | Sequence[ArrayLike],
        *,
        box_scores: ArrayLike | Sequence[ArrayLike] | None = None,
        flip_test: bool = True,
        crop: Policy = "evaluated",
        batch_size: int = 1,
        posterior: Posterior = "mode",
        seed: int = 0,
        items: Sequence[int | str] | None = None,
    ) -> Any:
        """Keypoints of the people in one image or several.

        Parameters
        ----------
        images : uint8 array (H, W, 3), or a sequence of such arrays of any sizes
            RGB.
        boxes : array_like (N, 4), or one such array an image
            Left, top, right, bottom of each person in pixels; N may be 0.
        box_scores : array_like (N,), or one such array an image, optional
            The detector's confidence, passed on to the result. Default: 1.
        flip_test : bool
            Mean of the heatmaps of each crop and of its mirror image, as published figures are measured; twice the
            work, in one batch.
        crop : {"evaluated", "stretched", "classic"}
            How people are cut out (:mod:`priorscope_pose.geometry.crop`). "evaluated" for published figures,
            "stretched" as the web demos and ComfyUI do.
        batch_size : int
            People a batch, also of different images; twice as many rows with the flip test. Memory grows with it.
        posterior : {"mode", "sample"}
            The mode is deterministic. "sample" draws the latent, for the mirror image anew, as the official code.
        seed : int
            For "sample".
        items : sequence of int or str, optional
            Identity of each image (a file name): a person's noise derives from (seed, identity, place among the
            boxes), so that results do not depend on the batch. Default: the image's position.

        Returns
        -------
        Poses, or a list of them for a sequence of images

        Raises
        ------
        InputError
            Images that are not uint8 RGB; boxes without area, not finite, or outside of their image (dropping those
            of a detector is up to the caller: :func:`~priorscope_pose.geometry.boxes.usable_boxes`).
        """
        single = isinstance(images, np.ndarray) and images.ndim < 4  # of two: a grey image, which is refused as that
        pictures: list[Any] = [images] if single else list(images)
        given: list[Any] = [boxes] if single else list(boxes)  # type: ignore[arg-type]
        confidences = [box_scores] if single and box_scores is not None else box_scores
        names: list[int | str] = list(range(len(pictures))) if items is None else list(items)
        if len(given) != len(pictures):
            raise InputError(
                f"boxes of {len(given)} images for {len(pictures)} images", remedy="Give an array an image."
            )
        if len(names) != len(pictures):
            raise InputError(f"{len(names)} item names for {len(pictures)} images")
        if batch_size < 1:
            raise InputError(f"a batch size of {batch_size}", remedy="Use --batch-size 1 or more.")
        if crop not in POLICIES:
            raise InputError(f"unknown crop policy {crop!r}", remedy=f"Use one of {', '.join(POLICIES)}.")
        found = [self._prepare(number, *pair) for number, pair in enumerate(zip(pictures, given, strict=True))]
        results = [
            self._to_be_filled(people, scores, crop)
            for people, scores in zip(found, _confidences(found, confidences), strict=True)
        ]
        people = [_Person(number, place) for number, boxes_ in enumerate(found) for place in range(len(boxes_))]
        for begin in range(0, len(people), batch_size):
            batch = people[begin : begin + batch_size]
            cut = list(self._cut(batch, pictures, found, crop))
            noise = None
            if posterior == "sample":
                noise = Noise.for_items(seed, [f"{names[person.image]}/{person.place}" for person in batch])
            heatmaps = self.heatmaps(
                np.concatenate([crops.images for _, crops in cut]),
                flip_test=flip_test,
                posterior=posterior,
                noise=noise,
            )
            self._read(heatmaps, cut, results)
        return results[0] if single else results

    def _to_be_filled(self, boxes: NDArray[np.float32], scores: NDArray[np.float32], crop: Policy) -> Poses:
        """An image's result, whose keypoints :meth:`_read` writes."""
        people, count = len(boxes), self.network.head.keypoints
        return Poses(
            np.empty((people, count, 2)),
            np.empty((people, count), np.float32),
            boxes,
            scores,
            self.skeleton.name,
            crop,
            regions=np.empty((people, 2), np.float32),
            model=self.name,
        )

    def _prepare(self, number: int, image: NDArray[np.uint8], boxes: ArrayLike) -> NDArray[np.float32]:
        check_rgb(image)
        try:
            # a copy: it goes into the result
            return np.array(check_boxes(boxes, image.shape[1], image.shape[0]))
        except InputError as error:
            raise InputError(f"image {number}: {error.fact}", remedy=error.remedy) from None

    def _cut(
        self,
        batch: Sequence[_Person],
        images: Sequence[NDArray[np.uint8]],
        boxes: Sequence[NDArray[np.float32]],
        policy: Policy,
    ) -> Iterator[tuple[list[_Person], Crops]]:
        """Crops of a batch, for each of its images in turn, and whom they show."""
        for number in dict.fromkeys(person.image for person in batch):
            people = [person for person in batch if person.image == number]
            chosen = boxes[number][[person.place for person in people]]
            yield people, crop_people(images[number], chosen, self.input_size, policy)

    @torch.no_grad()
    def heatmaps(
        self,
        crops: NDArray[np.uint8],
        *,
        flip_test: bool = True,
        posterior: Posterior = "mode",
        noise: Noise | None = None,
    ) -> torch.Tensor:
        """Heatmaps (B, K, h, w), float32 on the model's device, of crops (B, H, W, 3), uint8 RGB."""
        rgb = torch.from_numpy(np.ascontiguousarray(crops)).to(self.device).permute(0, 3, 1, 2)
        heatmaps = self.network.heatmaps(
            rgb.float() / 255 * 2 - 1,
            flip_indices=self.skeleton.flip_indices if flip_test else None,
            posterior=posterior,
            noise=noise,
        )
        if not torch.isfinite(heatmaps).all():
            raise InputError(
                f"{self.name or 'the model'} gives NaN or infinite values",
                remedy="Use --precision float32, or download its weights again.",
            )
        return heatmaps

    def _read(
        self, heatmaps: torch.Tensor, cut: Sequence[tuple[list[_Person], Crops]], results: Sequence[Poses]
    ) -> None:
        """Decode a batch and write it into its people's places."""
        decoded, maxima = self.codec.decode(heatmaps)
        # A classic crop counts its region's pixels, where the codec's units count the intervals between them.
        if cut[0][1].policy == "classic":
            decoded = self.codec.crop_pixels(decoded)
        keypoints, scores = decoded.cpu().numpy(), maxima.cpu().numpy()
        row = 0
        for people, crops in cut:
            rows = slice(row, row + len(people))
            row += len(people)
            places = [person.place for person in people]
            result = results[people[0].image]
            result.keypoints[places] = crops.to_image(keypoints[rows])
            result.scores[places] = scores[rows]
            assert result.regions is not None
            result.regions[places] = crops.scale


def _confidences(boxes: Sequence[NDArray[np.float32]], given: Any) -> list[NDArray[np.float32]]:
    if given is None:
        return [np.ones(len(people), np.float32) for people in boxes]
    values = [np.asarray(value, np.float32) for value in given]
    if [value.shape for value in values] != [(len(people),) for people in boxes]:
        raise InputError("box scores do not match the boxes", remedy="Give one number a box.")
    return values
