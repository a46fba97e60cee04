"""What is minimised in each stage: the detector's loss, the codec's, the diffusion's, or diffusion and detector's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from priorscope.diffusion.noise import Noise
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.task import Task
from priorscope_detection.checkpoints import Detector, save_detector
from priorscope_detection.data.frame import Frames
from priorscope_detection.data.rigid import Array
from priorscope_detection.evaluation.ap import average_precision, measure_frame
from priorscope_detection.losses import detection_loss
from priorscope_detection.messages import in_range, vehicles_only
from priorscope_detection.network.batch import AgentBatch
from priorscope_detection.network.heads import HeadMaps
from priorscope_detection.network.spec import RUN_STAGES, Stage
from priorscope_detection.noise import Disturbance, read_disturbed
from priorscope_detection.predictor import Predictor
from priorscope_detection.targets import Targets
from priorscope_detection.training.feed import FrameFeed

#: Examples whose loss is looked at.
_LOOK = 8


class HeldOut:
    """Frames that no step sees.

    Parameters
    ----------
    frames : Frames
    indices : sequence of int
    disturbance : Disturbance
        The same at each look.
    feed : FrameFeed
        Of the same frames, for the loss.
    """

    def __init__(self, frames: Frames, indices: Sequence[int], disturbance: Disturbance, feed: FrameFeed) -> None:
        self.frames, self.indices, self.disturbance, self.feed = frames, list(indices), disturbance, feed

    def precision(self, predictor: Predictor, reach: float) -> float | None:
        """Average precision at 0.5 in bird's-eye view; None without true boxes."""
        rows = []
        for index in self.indices:
            frame = vehicles_only(read_disturbed(self.frames, index, self.disturbance, seed=0)).within(reach)
            found = predictor(frame).boxes
            truths = _within(frame.truth.boxes, predictor.detector)
            rows.append(measure_frame(found.boxes, found.scores, torch.from_numpy(truths), thresholds=(0.5,)))
        result = average_precision(rows, 0.5)
        return result.ap if result.truths else None


class DetectionTask(Task):
    """A :class:`priorscope.training.Task` on batches of :class:`~.feed.FrameFeed`.

    Parameters
    ----------
    detector : Detector
    stage : {"detector", "codec", "diffusion", "finetune", "joint"}
    box_weight : float
        Of the detector's loss on the diffusion's estimate.
    held_out : HeldOut, optional
    """

    def __init__(self, detector: Detector, stage: Stage, *, box_weight: float = 0.0, held_out: HeldOut | None = None):
        super().__init__(detector.network)
        detector.network.set_stage(stage)
        self.detector, self.stage, self.box_weight, self.held_out = detector, stage, box_weight, held_out
        self._anchors = detector.anchor_boxes()

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        network = self.detector.network
        device = next(network.parameters()).device
        agents: AgentBatch = batch["agents"].to(device)
        if self.stage == "codec":
            return {"loss": network.codec_loss(agents)}
        if self.stage == "detector":
            found = self._boxes(network(agents), batch["targets"], device)
            return {"loss": found["boxes_total"], **{n: v for n, v in found.items() if n != "boxes_total"}}
        clean: AgentBatch = batch["clean"]
        if clean.pillars is batch["agents"].pillars:
            # only the poses differ: the points are there already, and the network can tell by the object
            clean = replace(agents, to_ego=clean.to_ego.to(device))
        else:
            clean = clean.to(device)
        noise = Noise.per_item(batch["seeds"])
        result = network.codiff_training(agents, clean, noise, own_runs=self.stage in RUN_STAGES)
        losses = {"loss": result.loss, "diffusion": result.loss}
        if self.box_weight:
            found = self._boxes(result.maps, batch["targets"], device)
            losses |= {"loss": result.loss + self.box_weight * found["boxes_total"], **found}
            del losses["boxes_total"]
        return losses

    def _boxes(self, maps: HeadMaps, targets: Sequence[Targets], device: torch.device) -> dict[str, torch.Tensor]:
        anchors = self._anchors.to(device)
        found = detection_loss(*maps, [each.to(device) for each in targets], anchors)
        return {
            "boxes_total": found.total,
            "classes": found.classes,
            "boxes": found.boxes,
            "direction": found.direction,
        }

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        """Loss on fixed held-out examples, and average precision at 0.5 with the training's disturbance.

        For the diffusion also that of the coarse fused feature, ``held_out_ap_coarse``.
        """
        if self.held_out is None or not self.held_out.indices:
            return {}
        feed = self.held_out.feed
        places = range(min(_LOOK, len(feed.indices)))
        losses = [float(self(feed.fixed([place]))["loss"]) for place in places]
        figures = {"held_out_loss": sum(losses) / len(losses)}
        if self.stage == "codec":
            return figures
        device = next(self.detector.network.parameters()).device
        told: dict[str, Any] = {"device": device, "published": feed.conditions.published}
        asked = {"held_out_ap": Predictor(self.detector, self.detector.choice, **told)}
        if self.stage != "detector":
            asked["held_out_ap_coarse"] = Predictor(self.detector, self.detector.choice, coarse=True, **told)
        for name, predictor in asked.items():
            precision = self.held_out.precision(predictor, feed.conditions.reach)
            if precision is not None:
                figures[name] = precision
        return figures

    def save(self, folder: Path) -> None:
        """Write the model folder."""
        save_detector(self.detector, folder)


def _within(boxes: Array, detector: Detector) -> Array:
    return boxes[in_range(boxes, detector.spec.extent)]
