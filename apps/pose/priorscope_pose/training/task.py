"""What a training of an image model minimises: heatmaps, and the latent of the undamaged crop."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from priorscope.errors import InputError
from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.task import Task
from priorscope_pose.conv.network import ConvPoseNetwork
from priorscope_pose.sdpose.checkpoint import save_network
from priorscope_pose.sdpose.losses import heatmap_loss
from priorscope_pose.sdpose.network import SDPoseNetwork

Freeze = Literal["none", "encoder", "unet"]


@runtime_checkable
class Look(Protocol):
    """What is done now and then with held-out people."""

    def look(self, network: nn.Module, run: RunFolder, step: int) -> dict[str, float]: ...


class PoseTask(Task):
    """A :class:`priorscope.training.Task` on batches of :class:`~priorscope_pose.training.feed.PoseFeed`.

    ``loss = heatmaps + weight * reconstruction``. The first is mmpose's KeypointMSELoss. The second is the squared
    error between the U-Net's output under the reconstruction task, for the latent of the damaged crop, and the latent
    of the undamaged one. How the two were weighed, and whether on the same rows, was not published; here both are asked
    of every row.

    Parameters
    ----------
    network : SDPoseNetwork or ConvPoseNetwork
    held_out : Look, optional
    reconstruction : float
        The weight; 0, or a plain conv network, leaves the auxiliary task out (and its half of the time).
    freeze : {"none", "encoder", "unet"}
        What of the U-Net is not trained: nothing; all before its up-blocks; all of it, so that only the head is.
    save_half : bool
        Save U-Net and autoencoder in float16.
    """

    def __init__(
        self,
        network: SDPoseNetwork | ConvPoseNetwork,
        held_out: Look | None = None,
        *,
        reconstruction: float = 0.0,
        freeze: Freeze = "none",
        save_half: bool = False,
    ) -> None:
        super().__init__(network)
        self._network, self._held_out = [network], held_out  # hidden: it is self.model, with its own type
        self.reconstruction, self.save_half = reconstruction, save_half
        network.requires_grad_(True)
        if isinstance(network, ConvPoseNetwork):
            if reconstruction or freeze != "none":
                raise InputError("a conv network has no reconstruction task and no U-Net to freeze")
        else:
            if reconstruction and freeze == "unet":
                raise InputError(
                    "a reconstruction loss of a frozen U-Net", remedy="Use --reconstruction 0 with --freeze unet."
                )
            _hold_still(network, freeze, unused=not reconstruction)

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        network = self._network[0]
        if isinstance(network, ConvPoseNetwork):
            loss = heatmap_loss(network(_unit(batch["image"])), batch["heatmaps"], batch["weights"])
            return {"loss": loss}
        with torch.no_grad():
            latents = network.encode(_unit(batch["image"]))
        heatmaps = heatmap_loss(network(latents), batch["heatmaps"], batch["weights"])
        if not self.reconstruction:
            return {"loss": heatmaps}
        with torch.no_grad():
            target = network.encode(_unit(batch["target"]))
        error = (network.reconstruct(latents).float() - target).square().mean()
        return {"loss": heatmaps + self.reconstruction * error, "heatmaps": heatmaps, "reconstruction": error}

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        return {} if self._held_out is None else self._held_out.look(self._network[0], run, step)

    def save(self, folder: Path) -> None:
        network = self._network[0]
        if isinstance(network, ConvPoseNetwork):
            network.save(folder)
        else:
            save_network(network, folder, half=self.save_half)


def _unit(image: torch.Tensor) -> torch.Tensor:
    """uint8 to [-1, 1]."""
    return image.float() / 127.5 - 1


def _hold_still(network: SDPoseNetwork, freeze: Freeze, *, unused: bool) -> None:
    """Switch gradients off where nothing is learnt: accelerate must not wait for them."""
    unet = network.unet
    if freeze == "unet":
        unet.requires_grad_(False)
        return
    if freeze == "encoder":
        for module in (unet.conv_in, unet.time_embedding, unet.class_embedding, unet.down_blocks, unet.mid_block):
            module.requires_grad_(False)
    elif freeze != "none":
        raise InputError(f"freeze {freeze!r}", remedy="Use none, encoder or unet.")
    if not unused:
        return
    kind, _, number = network.settings.tap.partition(".")
    after = int(number) + 1 if kind == "up_blocks" and number.isdigit() else 0
    for module in (*unet.up_blocks[after:], unet.conv_norm_out, unet.conv_out):
        if module is not None:
            module.requires_grad_(False)
