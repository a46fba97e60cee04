"""What is minimised: the squared error of heatmaps that were noised."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.task import Task
from priorscope_pose.codecs.udp import UdpHeatmap
from priorscope_pose.diffpose.clips import ClipSource
from priorscope_pose.diffpose.codec import codec_of
from priorscope_pose.diffpose.feed import held_out
from priorscope_pose.diffpose.heatmap_diffusion import sample_heatmaps
from priorscope_pose.diffpose.model import DiffPoseModel


def heatmap_loss(estimate: torch.Tensor, heatmaps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean over all of ``(w (estimate - heatmap))^2``, in float32.

    Parameters
    ----------
    estimate, heatmaps : Tensor (B, K, h, w)
    weights : Tensor (B, K)
        A keypoint of weight 0 counts in the denominator, as in the lineage's JointMSELoss (which halves the result).
    """
    return (weights[..., None, None] * (estimate.float() - heatmaps)).square().mean()


class DiffPoseTask(Task):
    """A :class:`priorscope.training.Task` on batches of :class:`~priorscope_pose.diffpose.feed.DiffPoseFeed`.

    Levels are uniform over the schedule, or those of a call of the network's own run, as the feed says; the error is
    that of the estimate of x0, in heatmap units.

    Parameters
    ----------
    model : DiffPoseModel
    held_out : ClipSource, optional
        Clips that no step sees.
    most : int
        Held-out clips that are looked at.
    """

    def __init__(self, model: DiffPoseModel, held_out: ClipSource | None = None, *, most: int = 64) -> None:
        super().__init__(model)
        self._model = [model]  # hidden: it is self.model, with its own type
        self._clips, self._most = held_out, most

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        heatmaps = batch["heatmaps"]
        noisy = self._model[0].diffusion.noised(heatmaps, batch["t"], batch["eps"])
        runs = (batch["eps"], batch["steps"], batch["call"])
        estimate = self.model(batch["frames"], noisy, batch["t"], runs)
        return {"loss": heatmap_loss(estimate, heatmaps, batch["weights"])}

    @cached_property
    def _held_out(self) -> dict[str, torch.Tensor]:
        assert self._clips is not None
        return held_out(self._clips, self._model[0].spec, self._most)

    @torch.no_grad()
    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        """Of held-out clips: the loss at three levels, and how far drawn keypoints lie from the labelled ones.

        ``held_out_pixels`` is the mean distance in pixels of the crop over labelled keypoints, of two steps and one
        draw; ``held_out_near`` the share within a twentieth of the crop's height.
        """
        if self._clips is None or not len(self._clips):
            return {}
        model = self._model[0]
        batch = {name: value.to(model.device) for name, value in self._held_out.items()}
        eps = torch.randn(batch["heatmaps"].shape, generator=torch.Generator().manual_seed(0)).to(model.device)
        losses, distances = [], []
        for rows in torch.arange(len(eps)).split(16):
            part = {name: value[rows] for name, value in batch.items()}
            pyramid = model.pyramid(part["frames"])
            for share in (0.2, 0.5, 0.9):
                t = torch.full((len(rows),), int(share * model.spec.noise_steps), device=model.device)
                noisy = model.diffusion.noised(part["heatmaps"], t, eps[rows])
                estimate = model.diffusion.heatmaps(noisy, t, pyramid)
                losses.append(len(rows) / len(eps) / 3 * heatmap_loss(estimate, part["heatmaps"], part["weights"]))
            drawn = sample_heatmaps(model.diffusion, pyramid, rows.tolist(), steps=2)
            points = crop_points(model, drawn)
            distances.append((points - part["keypoints"]).norm(dim=-1)[part["weights"] > 0])
        distance = torch.cat(distances)
        near = distance <= model.spec.input_size[1] / 20
        return {
            "held_out_loss": float(torch.stack(losses).sum()),
            "held_out_pixels": float(distance.mean()),
            "held_out_near": float(near.double().mean()),
        }

    def save(self, folder: Path) -> None:
        """Write the model folder."""
        self._model[0].save_pretrained(folder)


def crop_points(model: DiffPoseModel, heatmaps: torch.Tensor) -> torch.Tensor:
    """Keypoints (B, K, 2) of heatmaps, in pixels of the crop, float64."""
    codec = codec_of(model.spec)
    points, _ = codec.decode(heatmaps)
    return (codec.crop_pixels(points) if isinstance(codec, UdpHeatmap) else points).double()
