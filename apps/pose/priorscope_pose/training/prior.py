"""A diffusion prior of people, from crops without keypoints: what a small SDPose can start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from priorscope.backbones.latents import LatentSpace, PatchSpace
from priorscope.backbones.loading import save_component
from priorscope.backbones.stable_diffusion import SD2_V_SCHEDULER, UNetNetwork
from priorscope.data.weights_file import save_file
from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser
from priorscope.diffusion.losses import denoising_loss
from priorscope.diffusion.schedule import VPSchedule
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.task import Task


class PriorTask(Task):
    """The squared error of v at uniform levels, on batches of :class:`~priorscope_pose.training.feed.PriorFeed`.

    Prompt and task are zeros, as nothing is told.

    Parameters
    ----------
    unet : UNet2DConditionModel
    latents : LatentSpace
    held_out : dict, optional
        A batch of the same kind that no step sees.
    """

    def __init__(self, unet: Any, latents: LatentSpace, held_out: dict[str, Any] | None = None) -> None:
        super().__init__(unet)
        unet.requires_grad_(True)
        self.latents, self._held_out = latents, held_out
        self._prompt_width = int(unet.config.cross_attention_dim)
        self._denoiser = Denoiser(UNetNetwork(unet), VPSchedule.from_scheduler_config(SD2_V_SCHEDULER), "v")

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            x0 = self.latents.encode(batch["image"].float() / 127.5 - 1)
        condition = Condition(
            {
                "text": torch.zeros(len(x0), 2, self._prompt_width, device=x0.device),
                "task": torch.zeros(len(x0), 4, device=x0.device),
            }
        )
        return {"loss": denoising_loss(self._denoiser, x0, batch["eps"], batch["t"].float(), condition)}

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        """``held_out_loss``, of fixed levels and noise."""
        if self._held_out is None:
            return {}
        device = next(self.model.parameters()).device
        batch = {name: v.to(device) if isinstance(v, torch.Tensor) else v for name, v in self._held_out.items()}
        return {"held_out_loss": float(self.forward(batch)["loss"])}

    def save(self, folder: Path) -> None:
        """Write ``unet/``, ``vae/``, ``scheduler/`` and the prompt's state: a folder that ``--start`` takes."""
        save_component(self.model, folder / "unet")
        (folder / "vae").mkdir()
        if not isinstance(self.latents, PatchSpace):
            raise InputError("a prior is trained in a space of pixel blocks only")
        space = {"_class_name": "PatchSpace", "patch": self.latents.factor}
        (folder / "vae/config.json").write_text(json.dumps(space) + "\n")
        (folder / "scheduler").mkdir()
        (folder / "scheduler/scheduler_config.json").write_text(json.dumps(SD2_V_SCHEDULER, indent=2) + "\n")
        prompt = torch.zeros(1, 2, self._prompt_width)
        save_file({"state": prompt}, folder / "empty_prompt.safetensors")
