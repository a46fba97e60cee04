"""A detector asked frame by frame: messages in, boxes in the ego's LiDAR frame out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch

from priorscope.backbones.loading import model_folder
from priorscope.backbones.table import find_published
from priorscope.device import resolve_device, resolve_dtype
from priorscope.diffusion.noise import item_seed
from priorscope.errors import InputError
from priorscope_detection.checkpoints import Detector, load_detector
from priorscope_detection.configs import ModelConfig
from priorscope_detection.data.frame import Frame
from priorscope_detection.data.rigid import inverse, move_boxes
from priorscope_detection.messages import messages
from priorscope_detection.network.batch import make_batch
from priorscope_detection.network.spec import Start
from priorscope_detection.noise import bandwidth
from priorscope_detection.pose_graph import AgentBoxes, correct_frame
from priorscope_detection.post_processing import Detections, PostProcessing, candidates, finish
from priorscope_detection.published import MODELS


def find_detector(source: str) -> Detector:
    """A detector by its name in the model table, its folder, a training's run folder, or a CoAlign directory or file.

    Raises
    ------
    InputError
        Nothing of that kind, or what its reader refuses.
    """
    path = Path(source).expanduser()
    if find_published(source, MODELS) is None and path.exists():
        inner = path / "model"
        return load_detector(inner if (inner / "config.json").is_file() else path)
    if not MODELS:
        raise InputError(
            f"no model is called {source!r}, and none comes with this version yet",
            remedy="Name a training's run folder (see `priorscope detection train --help`) or CoAlign's with --model.",
        )
    return load_detector(model_folder(source, ["config.json", "*.safetensors"], MODELS))


@dataclass(frozen=True)
class Found:
    """Boxes of a frame.

    Attributes
    ----------
    boxes : Detections
        In the ego's LiDAR frame, on the CPU.
    sent : tuple of int
        How many boxes each other agent found by itself; empty where that was not asked.
    corrected : int
        Agents whose pose was corrected.
    """

    boxes: Detections
    sent: tuple[int, ...] = ()
    corrected: int = 0


@dataclass
class Predictor:
    """A detector and how it is asked.

    Parameters
    ----------
    detector : Detector
    choice : PostProcessing
    steps, start
        CoDiff's; None: the model's own.
    correct_poses : bool
        Pose graph before fusion.
    published : bool
        See :func:`~priorscope_detection.messages.messages`.
    coarse : bool
        CoDiff: boxes of the coarse fused feature, without diffusion.
    device, dtype
        Where and in what precision.
    seed : int
        Of CoDiff's noise, with the frame's name.
    """

    detector: Detector
    choice: PostProcessing = field(default_factory=PostProcessing)
    steps: int | None = None
    start: Start | None = None
    correct_poses: bool = False
    published: bool = False
    coarse: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.choice.limits is None:
            x0, y0, _, x1, y1, _ = self.detector.spec.extent
            self.choice = replace(self.choice, limits=(x0, y0, -inf, x1, y1, inf))
        self._anchors = self.detector.anchor_boxes().to(self.device)

    @classmethod
    def load(cls, settings: ModelConfig) -> Predictor:
        """The detector that the command line's options describe.

        Raises
        ------
        InputError
            An unknown model, options out of range, and those of CoDiff for a detector without it.
        """
        device = resolve_device(settings.device)
        detector = find_detector(settings.model)
        diffuses = detector.spec.fusion == "codiff"
        if not diffuses and (settings.steps is not None or settings.start is not None):
            raise InputError(
                f"{settings.model} has the fusion {detector.spec.fusion}, which takes no --steps and no --start",
                remedy="They are CoDiff's: leave them out.",
            )
        if settings.correct_poses and detector.spec.fusion == "none":
            raise InputError(
                f"{settings.model} sees what the ego sees: --correct-poses changes nothing",
                remedy="Leave it out; of an entry of --compare say :poses=told.",
            )
        choice = detector.choice
        if settings.score_threshold is not None:
            choice = replace(choice, score=settings.score_threshold)
        if settings.nms is not None:
            choice = replace(choice, nms=settings.nms)
        detector.network.to(device).eval().requires_grad_(False)
        if diffuses:
            codiff = detector.network.codiff
            steps = codiff.spec.steps if settings.steps is None else settings.steps
            if steps:
                codiff.times(steps, settings.start or codiff.spec.start)  # refused before any frame is read
        return cls(
            detector,
            choice,
            settings.steps or None,
            settings.start,
            settings.correct_poses,
            settings.published_frames,
            coarse=settings.steps == 0,
            device=device,
            dtype=resolve_dtype(settings.precision, device),
            seed=settings.seed,
        )

    def about(self) -> dict[str, Any]:
        """How the model is asked, for results."""
        spec = self.detector.spec
        found: dict[str, Any] = {"fusion": spec.fusion, "score_threshold": self.choice.score, "nms": self.choice.nms}
        if spec.fusion == "codiff":
            found["steps"] = 0 if self.coarse else spec.codiff.steps if self.steps is None else self.steps
            found["start"] = self.start or spec.codiff.start
        if self.correct_poses:
            found["correct_poses"] = True
        return found

    @torch.no_grad()
    def __call__(self, frame: Frame) -> Found:
        """Boxes of one frame, from the poses and sweeps that it tells."""
        fusion, corrected = self.detector.spec.fusion, 0
        sent: tuple[int, ...] = ()
        with self._precision():
            if self.correct_poses and len(frame.agents) > 1:
                alone = self._alone(frame)
                boxes = [AgentBoxes(each.boxes.numpy()) for each in alone]
                frame, correction = correct_frame(frame, boxes)
                corrected, sent = int(correction.moved.sum()), tuple(len(each) for each in alone[1:])
            sweeps = messages(frame, published=self.published)
            batch = make_batch([sweeps], self.detector.spec).to(self.device)
            network = self.detector.network
            if fusion == "codiff" and self.coarse:
                maps = network.heads(network.fuse(network.scales(batch), batch))
            else:
                seeds = [item_seed(self.seed, frame.name)]
                maps = network(batch, seeds=seeds, steps=self.steps, start=self.start)
        each = candidates(*maps, self._anchors, self.choice)
        moves = None
        if fusion == "late":
            moves = [sweep.to_ego.to(self.device) for sweep in sweeps]
            sent = tuple(len(finish([one], None, self._anywhere())) for one in each[1:])
        result = finish(each, moves, self.choice)
        return Found(Detections(result.boxes.double().cpu(), result.scores.double().cpu()), sent, corrected)

    @property
    def message_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Maps (C, H, W) that an agent sends; without diffusion no latent."""
        spec = self.detector.spec
        return (replace(spec, fusion="attention") if self.coarse else spec).message_shapes

    def sent_bytes(
        self, frame: Frame, found: Found, *, compression: float = 1.0, bytes_per_value: int = 4
    ) -> list[int]:
        """Bytes that each other agent sends for a frame: what the fusion needs, the pose, and a correction's boxes."""
        others = len(frame.agents) - 1
        fusion = self.detector.spec.fusion
        if fusion == "none" or not others:
            return [0] * others
        sent = bandwidth(frame, boxes=found.sent or None)
        total = np.full(others, sent.pose)
        if fusion == "late" or self.correct_poses:
            total = total + sent.boxes
        if fusion == "early":
            total = total + sent.points
        for shape in self.message_shapes:
            part = bandwidth(frame, feature_shape=shape, compression=compression, bytes_per_value=bytes_per_value)
            total = total + part.features
        return [int(value) for value in total]

    def _alone(self, frame: Frame) -> Sequence[Detections]:
        """What each agent finds by itself, in its own LiDAR frame."""
        # levelled and at the ego's height as for the fusion: a unit on a pole has its cars below the detector's range
        sweeps = messages(frame, published=self.published)
        spec = self.detector.spec
        # not the fusion's batch: early would merge the clouds, none would drop the others
        batch = make_batch([sweeps], replace(spec, fusion="late")).to(self.device)
        network = self.detector.network
        maps = network.heads(network.own(network.scales(batch)))
        found = [finish([one], None, self._anywhere()) for one in candidates(*maps, self._anchors, self.choice)]
        levelled = np.stack([sweep.to_ego.numpy() for sweep in sweeps])
        back = inverse(frame.to_ego()) @ levelled
        return [
            Detections(torch.from_numpy(move_boxes(move, each.boxes.double().cpu().numpy())), each.scores.cpu())
            for move, each in zip(back, found, strict=True)
        ]

    def _anywhere(self) -> PostProcessing:
        return replace(self.choice, limits=None, z=None)

    def _precision(self) -> Any:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)
