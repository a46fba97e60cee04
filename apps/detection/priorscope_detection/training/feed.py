"""Batches of frames as they arrive: late, incomplete, with poses that are off; fixed by (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from priorscope.training.order import Order, Place
from priorscope_detection.checkpoints import AnchorSettings
from priorscope_detection.data.frame import Frame, Frames, delay_steps
from priorscope_detection.data.rigid import Array, count_in_boxes, inverse, move_boxes
from priorscope_detection.messages import in_range, messages, vehicles_only
from priorscope_detection.network.batch import AgentBatch, AgentSweep, make_batch
from priorscope_detection.network.spec import DetectorSpec
from priorscope_detection.noise import Disturbance, disturb
from priorscope_detection.targets import assign
from priorscope_detection.training.augmentation import Augmentation, transformed

#: These learn from what a single agent sees.
_SINGLE = ("none", "late")


@dataclass(frozen=True)
class Conditions:
    """What happens to frames on their way to the detector.

    Attributes
    ----------
    disturbance : Disturbance
        The strongest; its ``delay`` is the longest.
    vary : bool
        Each example has between nothing and all of the pose noise.
    augmentation : Augmentation or None
    reach : float
        Agents further from the ego are not heard, metres.
    published : bool
        See :func:`~priorscope_detection.messages.messages`.
    """

    disturbance: Disturbance = field(default_factory=Disturbance)
    vary: bool = False
    augmentation: Augmentation | None = None
    reach: float = 70.0
    published: bool = False


@dataclass(frozen=True)
class Example:
    """One frame: messages, the same with right poses and no delay where asked for, and true boxes a map of heads."""

    name: str
    sweeps: list[AgentSweep]
    clean: list[AgentSweep] | None
    truths: list[Array]
    late: bool


@dataclass(frozen=True)
class FrameFeed:
    """A :class:`priorscope.training.Feed` of frames.

    Parameters
    ----------
    frames : Frames
    indices : tuple of int
        Those to learn from.
    spec : DetectorSpec
    anchors : AnchorSettings
    conditions : Conditions
    batch_size, seed : int
    with_clean : bool
        Also give each frame with right poses and no delay: what the diffusion shall find.

    Notes
    -----
    A batch holds ``agents`` (an AgentBatch), ``targets`` (one a frame; with late fusion one an agent), ``seeds`` of the
    diffusion's noise, ``key``, and perhaps ``clean`` (an AgentBatch).
    """

    frames: Frames
    indices: tuple[int, ...]
    spec: DetectorSpec
    anchors: AnchorSettings
    conditions: Conditions
    batch_size: int
    seed: int
    with_clean: bool = False

    def batch(self, step: int, rows: range) -> dict[str, Any]:
        places = Order(len(self.indices), self.seed).batch(step, self.batch_size)[rows.start : rows.stop]
        return self.collate([self.example(place) for place in places], [p.noise_seed(self.seed) for p in places])

    def fixed(self, places: Sequence[int]) -> dict[str, Any]:
        """A batch of these frames (places in ``indices``), each time the same, for looking at."""
        chosen = [Place(0, place) for place in places]
        return self.collate([self.example(place) for place in chosen], [p.noise_seed(self.seed) for p in chosen])

    def example(self, place: Place) -> Example:
        """One example of one pass."""
        generator, seed = place.generator(self.seed), place.noise_seed(self.seed)
        index, how = self.indices[place.item], self.conditions.disturbance
        strength = generator.random() if self.conditions.vary else 1.0
        late = int(generator.integers(0, delay_steps(how.delay, self.frames.period) + 1))
        single = self.spec.fusion in _SINGLE
        if single:
            late = 0  # an agent's own sweep is neither late nor misplaced
        how = replace(how, position=how.position * strength, yaw=how.yaw * strength, delay=late * self.frames.period)
        read = vehicles_only(self.frames.read(index, delay=how.delay)).within(self.conditions.reach)
        arrived = disturb(read, how, seed=seed)
        names = {agent.name for agent in arrived.agents}
        now = read if not (late and self.with_clean) else self.frames.read(index)
        now = replace(now, agents=tuple(agent for agent in now.agents if agent.name in names))
        if self.conditions.augmentation is not None:
            similarity = self.conditions.augmentation.draw(generator)
            arrived, now = transformed(arrived, similarity), transformed(now, similarity)
        published = self.conditions.published
        clean = messages(now, clean=True, published=published) if self.with_clean else None
        sweeps = messages(arrived, clean=single, published=published)
        return Example(arrived.name, sweeps, clean, self._truths(arrived, sweeps), bool(late))

    def collate(self, examples: Sequence[Example], seeds: list[int]) -> dict[str, Any]:
        """Examples as a batch."""
        anchors = _anchor_boxes(self.spec, self.anchors)
        batch: dict[str, Any] = {
            "key": [example.name for example in examples],
            "agents": make_batch([example.sweeps for example in examples], self.spec),
            "targets": [assign(anchors, torch.from_numpy(boxes)) for each in examples for boxes in each.truths],
            "seeds": seeds,
        }
        if self.with_clean:
            batch["clean"] = self._clean(examples, batch["agents"])
        return batch

    def _clean(self, examples: Sequence[Example], arrived: AgentBatch) -> AgentBatch:
        clean = [each.clean for each in examples if each.clean is not None]
        if any(each.late for each in examples):
            return make_batch(clean, self.spec)
        # only the poses differ: the points go through the backbone once
        to_ego = torch.stack([sweep.to_ego for each in clean for sweep in each]).double()
        return replace(arrived, to_ego=to_ego)

    def _truths(self, frame: Frame, sweeps: Sequence[AgentSweep]) -> list[Array]:
        """True boxes in range: of the ego, or of each agent by itself, then only those it has a point on."""
        boxes = frame.truth.boxes
        if self.spec.fusion not in _SINGLE:
            return [boxes[in_range(boxes, self.spec.extent)]]
        count = 1 if self.spec.fusion == "none" else len(sweeps)
        found = []
        for sweep in sweeps[:count]:
            own = move_boxes(inverse(sweep.to_ego.numpy()), boxes)
            own = own[in_range(own, self.spec.extent)]
            found.append(own[count_in_boxes(np.asarray(sweep.points), own) > 0])
        return found


@lru_cache(maxsize=2)
def _anchor_boxes(spec: DetectorSpec, anchors: AnchorSettings) -> torch.Tensor:
    return anchors.grid(spec).boxes()
