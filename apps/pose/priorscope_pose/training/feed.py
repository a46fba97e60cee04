"""Batches of augmented people, fixed by (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from priorscope.diffusion.noise import Noise
from priorscope.errors import InputError
from priorscope.training.order import Order
from priorscope_pose.codecs.udp import UdpHeatmap
from priorscope_pose.sdpose.settings import PoseSettings
from priorscope_pose.skeletons import Skeleton, skeleton
from priorscope_pose.training.colours import ColourAugmentation, distort
from priorscope_pose.training.damage import Damage, damaged
from priorscope_pose.training.people import Person, PersonSource
from priorscope_pose.training.region import NO_CHANGE, RegionAugmentation, cut_out


@dataclass(frozen=True)
class Augmentation:
    """All that happens to a crop, in this order; published defaults."""

    region: RegionAugmentation = field(default_factory=RegionAugmentation)
    """Mirror, half body, shift, scale, rotation."""
    colours: ColourAugmentation = field(default_factory=ColourAugmentation)
    """Photometric distortion. After it the target of the reconstruction is taken."""
    damage: Damage = field(default_factory=Damage)
    """Blur, median blur, a hole: in the network's input only."""

    def check(self) -> Augmentation:
        """Refuse numbers that make no sense (InputError)."""
        self.region.check()
        self.colours.check()
        self.damage.check()
        return self


#: The crop as evaluation shows it.
NO_AUGMENTATION = Augmentation(NO_CHANGE, ColourAugmentation(share=0.0), Damage(blur=0.0, median=0.0, hole=0.0))


@dataclass(frozen=True, eq=False)
class Example:
    """A person as the network sees it.

    Parameters
    ----------
    image : uint8 array (h, w, 3)
        The network's input.
    target : uint8 array (h, w, 3)
        The same without damage: what the auxiliary task reconstructs.
    keypoints : float64 array (K, 2)
        In pixels of the crop.
    visible : float32 array (K,)
    """

    image: NDArray[np.uint8]
    target: NDArray[np.uint8]
    keypoints: NDArray[np.float64]
    visible: NDArray[np.float32]


def example(
    person: Person,
    kind: Skeleton,
    size: tuple[int, int],
    augmentation: Augmentation,
    random: np.random.Generator,
) -> Example:
    """Augment one person in the published order: region, colours, *then* the target is taken, then damage.

    Source: SDPose-OOD, its training pipeline (CacheRGBTarget between PhotometricDistortion and Albumentation). So the
    auxiliary task is to in-paint and to sharpen, not to copy.
    """
    cut = cut_out(person, kind, size, augmentation.region, random)
    target = distort(cut.image, augmentation.colours, random)
    return Example(damaged(target, augmentation.damage, random), target, cut.keypoints, cut.visible)


@dataclass(frozen=True, eq=False)
class PoseFeed:
    """A :class:`priorscope.training.Feed`: people in random order.

    A batch holds ``image`` and ``target`` uint8 (B, 3, H, W), ``heatmaps`` (B, K, h, w), ``weights`` (B, K) and
    ``key``. Everything about an example follows from (seed, pass, example).

    Parameters
    ----------
    people : PersonSource
    settings : PoseSettings
    batch_size, seed : int
    augmentation : Augmentation
    """

    people: PersonSource
    settings: PoseSettings
    batch_size: int
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        places = Order(len(self.people), self.seed).batch(step, self.batch_size)
        kind = skeleton(self.settings.skeleton)
        examples, keys = [], []
        for row in rows:
            person, random = self.people[places[row].item], places[row].generator(self.seed)
            check_keypoints(person, kind)
            examples.append(example(person, kind, self.settings.input_size, self.augmentation, random))
            keys.append(person.key)
        return {**collated(examples, self.settings), "key": keys}


@dataclass(frozen=True, eq=False)
class PriorFeed:
    """Unlabelled crops with the level and the noise of each, for the training of a prior.

    A batch holds ``image`` uint8 (B, 3, H, W), ``t`` (B,) in 0 ... 999, ``eps`` of the latents' shape, ``key``.

    Parameters
    ----------
    people : PersonSource
        Whose keypoints are not looked at.
    size : tuple of int
        (width, height) of the crops.
    latent : tuple of int
        (channels, height, width) of their latents.
    batch_size, seed : int
    augmentation : Augmentation
        Its half bodies need keypoints, so there are none; its damage is not done: a prior learns undamaged pictures.
    """

    people: PersonSource
    size: tuple[int, int]
    latent: tuple[int, int, int]
    batch_size: int
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        chosen = [Order(len(self.people), self.seed).batch(step, self.batch_size)[row] for row in rows]
        kind = skeleton("coco")  # nothing of it is asked without keypoints
        images, levels, keys = [], [], []
        for place in chosen:
            person, random = self.people[place.item], place.generator(self.seed)
            bare = Person(person.image, person.box, np.zeros((0, 3)), person.key)
            images.append(example(bare, kind, self.size, self.augmentation, random).target)
            levels.append(int(random.integers(1000)))
            keys.append(person.key)
        noise = Noise.per_item(place.noise_seed(self.seed) for place in chosen)
        return {
            "image": as_tensor(images),
            "t": torch.tensor(levels),
            "eps": noise.like(torch.empty(len(chosen), *self.latent)),
            "key": keys,
        }


def check_keypoints(person: Person, kind: Skeleton) -> None:
    """Refuse a person with another number of keypoints than the skeleton has (InputError)."""
    if person.keypoints.shape != (len(kind), 3):
        raise InputError(
            f"{person.key}: {len(person.keypoints)} keypoints, {kind.name} has {len(kind)}",
            remedy="Name the layout of the data with --layout.",
        )


def as_tensor(images: list[NDArray[np.uint8]]) -> torch.Tensor:
    """uint8 (B, 3, H, W) of images (H, W, 3)."""
    return torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))


def codec_of(settings: PoseSettings) -> UdpHeatmap:
    """The codec that SDPose's targets and heatmaps have."""
    return UdpHeatmap(settings.input_size, settings.heatmap_size, settings.sigma)


def collated(examples: list[Example], settings: PoseSettings) -> dict[str, torch.Tensor]:
    """``image``, ``target``, ``heatmaps``, ``weights`` and ``keypoints`` (B, K, 2) of several examples."""
    keypoints = torch.from_numpy(np.stack([item.keypoints for item in examples]))
    heatmaps, weights = codec_of(settings).encode(
        keypoints.float(), torch.from_numpy(np.stack([item.visible for item in examples]))
    )
    return {
        "image": as_tensor([item.image for item in examples]),
        "target": as_tensor([item.target for item in examples]),
        "heatmaps": heatmaps,
        "weights": weights,
        "keypoints": keypoints,
    }
