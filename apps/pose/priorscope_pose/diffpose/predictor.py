"""DiffPose as a user asks it: frames and boxes of people in, keypoints in the image's pixels out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from priorscope.backbones.table import find_published
from priorscope.data.images import check_rgb
from priorscope.device import Precision, resolve_dtype
from priorscope.diffusion.noise import item_seed
from priorscope.errors import InputError
from priorscope_pose.diffpose.clips import frame_window
from priorscope_pose.diffpose.codec import codec_of, policy_of
from priorscope_pose.diffpose.heatmap_diffusion import sample_heatmaps
from priorscope_pose.diffpose.model import DiffPoseModel, load_diffpose
from priorscope_pose.geometry.boxes import center_scale, check_boxes
from priorscope_pose.geometry.crop import Crops, crop_people
from priorscope_pose.geometry.flip import merge_flip
from priorscope_pose.poses import Poses
from priorscope_pose.published import MODELS
from priorscope_pose.skeletons import Skeleton, skeleton


class DiffPosePredictor:
    """Find the keypoints of people in a video whose boxes are known.

    ``predictor = DiffPosePredictor.from_pretrained("out/model")``, then ``predictor(frames, boxes)``.

    Parameters
    ----------
    model : DiffPoseModel
    name : str
        For results.
    dtype : torch.dtype
        That the networks compute in; the diffusion itself and decoding are in float32.
    """

    def __init__(self, model: DiffPoseModel, *, name: str = "", dtype: torch.dtype = torch.float32) -> None:
        self.model = model.eval()
        self.name, self.dtype = name, dtype
        self.codec = codec_of(model.spec)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, device: str = "auto", precision: Precision = "auto"
    ) -> DiffPosePredictor:
        """Load a model by its name in the model table, its folder or hub id.

        Raises
        ------
        InputError
            It is missing, no DiffPose model, or the weights do not fit.
        """
        model = load_diffpose(source, device=device)
        row = find_published(str(source), MODELS)
        name = str(source) if row is None else row.name
        return cls(model, name=name, dtype=resolve_dtype(precision, model.device))

    @property
    def skeleton(self) -> Skeleton:
        """Names, order and mirror pairs of the keypoints."""
        return skeleton(self.model.spec.skeleton)

    def __call__(
        self,
        frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
        boxes: Sequence[ArrayLike],
        *,
        box_scores: Sequence[ArrayLike] | None = None,
        numbers: Sequence[int | None] | None = None,
        steps: int | Sequence[float] = 4,
        ensemble: int = 1,
        flip_test: bool = False,
        seed: int = 0,
        item: int | str = 0,
        batch_size: int = 8,
    ) -> list[Poses]:
        """Keypoints of the people of each frame.

        Parameters
        ----------
        frames : uint8 array (T, H, W, 3), or a sequence of T arrays
            RGB, all of one size. A sequence may read frames when asked, such as
            :class:`~priorscope_pose.diffpose.clips.FrameFiles`.
        boxes : T arrays (N, 4)
            Left, top, right, bottom of each person on each frame, in pixels; N may be 0 and differ. A box also crops
            the neighbours of its frame, enlarged by the model's padding.
        box_scores : T arrays (N,), optional
            The detector's confidence, passed on. Default: 1.
        numbers : sequence of int or None, optional
            Frame numbers, where frames of the video are missing; see :func:`frame_window`.
        steps : int or sequence of float
            S; any number without retraining.
        ensemble : int
            Noise draws a person, whose heatmaps are averaged.
        flip_test : bool
            Mean with the heatmaps of the mirrored clip; twice the work. Off in the lineage's figures.
        seed : int
        item : int or str
            Identity of the video. A person's noise follows from (seed, item, frame, place among the boxes).
        batch_size : int
            People whose clips are looked at at once.

        Returns
        -------
        list of Poses, one a frame
            ``scores`` are the largest values of the heatmaps. PoseTrack's evaluation of this lineage multiplies them
            by ``box_scores``.

        Raises
        ------
        InputError
            Frames that are not uint8 RGB or of several sizes; lists that do not fit; boxes without area, not finite or
            outside of the frame.
        """
        total = len(frames)
        if len(boxes) != total or (box_scores is not None and len(box_scores) != total):
            raise InputError(f"boxes of {len(boxes)} frames for a clip of {total}", remedy="Give one array a frame.")
        if numbers is not None and len(numbers) != total:
            raise InputError(f"{len(numbers)} frame numbers for a clip of {total} frames")
        if batch_size < 1:
            raise InputError(f"a batch size of {batch_size}", remedy="Use --batch-size 1 or more.")
        results: list[Poses] = []
        people: list[NDArray[np.float32]] = []
        for place in range(total):
            given = np.asarray(boxes[place], np.float32).reshape(-1, 4) if np.size(boxes[place]) == 0 else boxes[place]
            frame = frames[place]
            check_rgb(frame)
            people.append(check_boxes(given, frame.shape[1], frame.shape[0]))
            results.append(self._empty(people[-1], None if box_scores is None else box_scores[place]))
        who = [(place, row) for place, found in enumerate(people) for row in range(len(found))]
        for start in range(0, len(who), batch_size):
            batch = who[start : start + batch_size]
            crops = np.stack(list(self._clips(frames, people, batch, numbers)))
            seeds = [item_seed(item_seed(item_seed(seed, item), place), row) for place, row in batch]
            heatmaps = self.heatmaps(
                torch.from_numpy(crops), seeds, steps=steps, ensemble=ensemble, flip_test=flip_test
            )
            points, scores = (value.cpu() for value in self.codec.decode(heatmaps))
            for (place, row), found, score in zip(batch, points, scores, strict=True):
                box = people[place][row : row + 1]
                results[place].keypoints[row] = self._crops_of(box).to_image(found[None])[0]
                results[place].scores[row] = score.numpy()
        return results

    def heatmaps(
        self,
        crops: torch.Tensor,
        seeds: Sequence[int],
        *,
        steps: int | Sequence[float] = 4,
        ensemble: int = 1,
        flip_test: bool = False,
        max_batch: int = 64,
    ) -> torch.Tensor:
        """Heatmaps (B, K, h, w), float32, of uint8 crops (B, T, 3, H, W); ``seeds`` one a clip."""
        model = self.model
        crops = crops.to(model.device)
        mixed = self.dtype != torch.float32
        settings = {"steps": steps, "ensemble": ensemble, "max_batch": max_batch}
        with torch.no_grad(), torch.autocast(model.device.type, self.dtype) if mixed else nullcontext():
            found = sample_heatmaps(model.diffusion, model.pyramid(crops), seeds, **settings)  # type: ignore[arg-type]
            if flip_test:
                mirrored = [item_seed(seed, "mirrored") for seed in seeds]
                other = sample_heatmaps(model.diffusion, model.pyramid(crops.flip(-1)), mirrored, **settings)  # type: ignore[arg-type]
                shift = model.spec.codec != "udp"
                found = merge_flip(found, other, self.skeleton.flip_indices, shift=shift)
        return found

    def _clips(
        self,
        frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
        people: list[NDArray[np.float32]],
        batch: list[tuple[int, int]],
        numbers: Sequence[int | None] | None,
    ) -> Iterator[NDArray[np.uint8]]:
        """Crops (T, 3, H, W) of each person's window."""
        spec = self.model.spec
        for place, row in batch:
            window = frame_window(place, len(frames), spec.distance, numbers)
            box = people[place][row : row + 1]
            shape = frames[place].shape
            crops: dict[int, NDArray[np.uint8]] = {}
            for neighbour in dict.fromkeys(window):
                frame = frames[neighbour]
                if frame.shape != shape:
                    raise InputError(f"frame {neighbour} is {frame.shape}, frame {place} {shape}")
                crops[neighbour] = crop_people(
                    frame, box, spec.input_size, policy_of(spec), padding=spec.padding
                ).images[0]
            yield np.stack([crops[neighbour] for neighbour in window]).transpose(0, 3, 1, 2)

    def _crops_of(self, boxes: NDArray[np.float32]) -> Crops:
        """The way back, without pictures."""
        spec = self.model.spec
        center, scale = center_scale(boxes, spec.input_size, spec.padding)
        nothing = np.empty((len(boxes), 0, 0, 3), np.uint8)
        return Crops(nothing, center, scale, policy_of(spec), spec.input_size)

    def _empty(self, boxes: NDArray[np.float32], scores: ArrayLike | None) -> Poses:
        """The result of a frame, keypoints to be filled in."""
        count = len(boxes)
        confidence = np.ones(count, np.float32) if scores is None else np.asarray(scores, np.float32).reshape(-1)
        spec = self.model.spec
        return Poses(
            np.zeros((count, spec.keypoints, 2)),
            np.zeros((count, spec.keypoints), np.float32),
            boxes,
            confidence,
            self.skeleton.name,
            policy_of(spec),
            regions=center_scale(boxes, spec.input_size, spec.padding)[1],
            model=self.name,
        )
