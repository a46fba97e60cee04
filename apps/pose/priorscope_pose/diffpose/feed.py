"""Batches of clips with their heatmaps, fixed by (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError
from priorscope.training.order import Order
from priorscope_pose.diffpose.augmentation import NONE, Augmentation, draw_region, region_matrix
from priorscope_pose.diffpose.clips import ClipPerson, ClipSource
from priorscope_pose.diffpose.codec import codec_of
from priorscope_pose.diffpose.spec import DiffPoseSpec
from priorscope_pose.geometry.affine import apply
from priorscope_pose.geometry.crop import warp
from priorscope_pose.skeletons import skeleton

#: Steps of the longest of the network's own runs.
_LONGEST = 8


@dataclass(frozen=True, eq=False)
class Example:
    """A clip as the network sees it.

    Parameters
    ----------
    frames : uint8 array (T, 3, H, W)
    keypoints : float64 array (K, 2)
        In pixels of the crop.
    visible : float32 array (K,)
        0 where a keypoint is not labelled or has left the crop.
    """

    frames: NDArray[np.uint8]
    keypoints: NDArray[np.float64]
    visible: NDArray[np.float32]


def example(person: ClipPerson, spec: DiffPoseSpec, augmentation: Augmentation, random: np.random.Generator) -> Example:
    """Crop a clip; the same region of all frames.

    Raises
    ------
    InputError
        Another number of frames or of keypoints than the model has, or frames of several sizes.
    """
    kind = skeleton(spec.skeleton)
    if len(person.frames) != spec.frames:
        raise InputError(f"{person.key}: {len(person.frames)} frames for a model of {spec.frames}")
    if person.keypoints.shape != (len(kind), 3):
        raise InputError(
            f"{person.key}: keypoints of shape {person.keypoints.shape}, {kind.name} has {len(kind)}",
            remedy="Name the skeleton of the data.",
        )
    shapes = {frame.shape for frame in person.frames}
    if len(shapes) > 1:
        raise InputError(f"{person.key}: frames of different sizes {sorted(shapes)}")
    region = draw_region(person.box, person.keypoints, spec, kind, augmentation, random)
    matrix = region_matrix(region, spec, person.frames[0].shape[1])
    crops: dict[int, NDArray[np.uint8]] = {}
    for frame in person.frames:  # a repeated key frame is cropped once
        if id(frame) not in crops:
            crops[id(frame)] = warp(frame, matrix[None], spec.input_size)[0]
    frames = np.stack([crops[id(frame)] for frame in person.frames]).transpose(0, 3, 1, 2)
    points, labelled = apply(matrix, person.keypoints[:, :2]), person.keypoints[:, 2] > 0
    if region.mirrored:
        order = list(kind.flip_indices)
        points, labelled = points[order], labelled[order]
    inside = ((points >= 0) & (points <= np.array(spec.input_size) - 1)).all(1)
    return Example(np.ascontiguousarray(frames), points, (labelled & inside).astype(np.float32))


@dataclass(frozen=True, eq=False)
class DiffPoseFeed:
    """A :class:`priorscope.training.Feed`: clips in random order, with the noise of each.

    A batch holds ``frames`` uint8 (B, T, 3, H, W), ``heatmaps`` (B, K, h, w), ``weights`` (B, K), ``eps`` like the
    heatmaps, levels ``t`` (B,), ``steps`` and ``call`` (B,) of the network's own runs, and ``key``. Everything about
    an example follows from (seed, pass, example), so several processes learn what one learns.

    Parameters
    ----------
    clips : ClipSource
    spec : DiffPoseSpec
    batch_size, seed : int
    augmentation : Augmentation
    own_runs : float
        Share of the examples that are learnt at a call, drawn uniformly, of a run of 1 to 8 steps, drawn uniformly, of
        the network's own (``steps`` above 0); the others at a level drawn uniformly.
    """

    clips: ClipSource
    spec: DiffPoseSpec
    batch_size: int
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    own_runs: float = 0.0

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        places = Order(len(self.clips), self.seed).batch(step, self.batch_size)
        chosen = [places[row] for row in rows]
        people = [self.clips[place.item] for place in chosen]
        draws = [place.generator(self.seed) for place in chosen]
        examples = [
            example(person, self.spec, self.augmentation, draw) for person, draw in zip(people, draws, strict=True)
        ]
        levels = [int(draw.integers(self.spec.noise_steps)) for draw in draws]
        steps = [int(draw.integers(1, _LONGEST + 1)) if draw.random() < self.own_runs else 0 for draw in draws]
        calls = [int(draw.integers(max(count, 1))) for draw, count in zip(draws, steps, strict=True)]
        found = collated(examples, self.spec)
        noise = Noise.per_item(place.noise_seed(self.seed) for place in chosen)
        return {
            **found,
            "eps": noise.like(found["heatmaps"]),
            "t": torch.tensor(levels),
            "steps": torch.tensor(steps),
            "call": torch.tensor(calls),
            "key": [person.key for person in people],
        }


def collated(examples: list[Example], spec: DiffPoseSpec) -> dict[str, torch.Tensor]:
    """``frames``, ``heatmaps``, ``weights`` of several examples, and ``keypoints`` (B, K, 2) in pixels of the crop."""
    keypoints = torch.from_numpy(np.stack([item.keypoints for item in examples]))
    visible = torch.from_numpy(np.stack([item.visible for item in examples]))
    heatmaps, weights = codec_of(spec).encode(keypoints, visible)
    return {
        "frames": torch.from_numpy(np.stack([item.frames for item in examples])),
        "heatmaps": heatmaps,
        "weights": weights,
        "keypoints": keypoints,
    }


def held_out(clips: ClipSource, spec: DiffPoseSpec, most: int) -> dict[str, torch.Tensor]:
    """At most ``most`` clips, evenly chosen, without augmentation, as one batch."""
    chosen = np.unique(np.linspace(0, len(clips) - 1, min(most, len(clips))).round().astype(int))
    random = np.random.default_rng(0)
    return collated([example(clips[int(place)], spec, NONE, random) for place in chosen], spec)
