"""Stable-Diffusion-shaped U-Nets: how they are asked, and the surgery that turns one into a dense predictor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from priorscope.backbones.loading import load_component, read_config
from priorscope.diffusion.denoiser import PredictionType
from priorscope.diffusion.schedule import VPSchedule
from priorscope.errors import InputError

#: The U-Net of Stable Diffusion 2 as Lotus, Marigold and E2E-FT fine-tune it; ``in_channels`` is 8 where a noisy
#: target is concatenated to the image latent. Shapes checked against the published manifests.
SD2_UNET: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}

#: The autoencoder of Stable Diffusion 1 and 2.
SD_VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "scaling_factor": 0.18215,
    "sample_size": 768,
}

#: Stable Diffusion 2's schedule with v-prediction, as a scheduler's configuration.
SD2_V_SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}

#: What makes a U-Net take the task vector of Lotus and SDPose: its sines and cosines (:func:`sincos_embedding`).
TASK_SWITCHER: dict[str, Any] = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}

#: diffusers' word for what a network predicts -> ours.
_PREDICTION: dict[str, PredictionType] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}


class UNetNetwork:
    """Ask a ``UNet2DConditionModel`` in the library's way: ``network(x, label, text=..., image=..., task=...)``.

    Parameters
    ----------
    unet : UNet2DConditionModel
    inputs : sequence of {"image", "x"}
        What is concatenated along channels, in order: ``("image", "x")`` for Lotus-G, Marigold and E2E-FT,
        ``("image",)`` for regressions that see no noise (Lotus-D, GenPercept), ``("x",)`` for text-to-image.
    """

    def __init__(self, unet: Any, inputs: Sequence[str] = ("x",)) -> None:
        if not inputs or set(inputs) - {"image", "x"}:
            raise InputError(f"network inputs {tuple(inputs)}", remedy="Name 'image', 'x' or both.")
        self.unet = unet
        self.inputs = tuple(inputs)

    def __call__(
        self,
        x: torch.Tensor,
        label: torch.Tensor,
        *,
        text: torch.Tensor,
        image: torch.Tensor | None = None,
        task: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Output of the U-Net.

        Parameters
        ----------
        x, image : Tensor (B, C, h, w)
            Noisy latent and image latent.
        label : Tensor (B,)
            What the network is told about the noise level.
        text : Tensor (B, tokens, cross_attention_dim)
        task : Tensor (B, projection_class_embeddings_input_dim), optional
            Task switcher.
        """
        parts = {"x": x, "image": image}
        given = [parts[name] for name in self.inputs]
        if any(part is None for part in given):
            raise InputError("the network needs an image latent", remedy="Put 'image' into the condition.")
        sample = torch.cat([part for part in given if part is not None], dim=1)
        dtype = self.unet.dtype  # may be lower than that of the sampled state
        task = None if task is None else task.to(dtype)
        output = self.unet(
            sample.to(dtype), label, encoder_hidden_states=text.to(dtype), class_labels=task, return_dict=False
        )
        return output[0].to(x.dtype)


def load_unet(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    expect: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> Any:
    """Strictly load a ``UNet2DConditionModel`` from its sub-folder; see :func:`load_component`."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return load_component(UNet2DConditionModel, folder, dtype=dtype, expect=expect, settings=settings)


def load_schedule(folder: Path) -> tuple[VPSchedule, PredictionType]:
    """The schedule that a ``scheduler`` sub-folder describes, and what its network predicts.

    Raises
    ------
    InputError
        No configuration, or one of another kind of schedule or prediction.
    """
    config = read_config(folder, "scheduler_config.json")
    stated = config.get("prediction_type", "epsilon")
    if stated not in _PREDICTION:
        raise InputError(f"states prediction_type {stated!r}", path=folder)
    return VPSchedule.from_scheduler_config(config), _PREDICTION[stated]


def expand_conv_in(unet: Any, copies: int = 2, *, scale_bias: bool = False) -> None:
    """Widen ``unet.conv_in`` in place so that it takes ``copies`` latents side by side and starts unchanged.

    The weight is repeated along its input axis and divided by ``copies`` (:func:`repeat_inputs`).
    """
    unet.conv_in = repeat_inputs(unet.conv_in, copies, scale_bias=scale_bias)
    unet.register_to_config(in_channels=unet.conv_in.in_channels)


def repeat_inputs(conv: nn.Conv2d, copies: int = 2, *, scale_bias: bool = False) -> nn.Conv2d:
    """A convolution for ``copies`` inputs side by side that answers equal ones as ``conv`` answers one.

    Lotus and Marigold leave the bias as it is, which is right. E2E-FT's code divides the bias too
    (``scale_bias=True``, parity).
    """
    new = nn.Conv2d(conv.in_channels * copies, conv.out_channels, conv.kernel_size, conv.stride, conv.padding)  # type: ignore[arg-type]
    new.to(conv.weight)
    with torch.no_grad():
        new.weight.copy_(conv.weight.repeat(1, copies, 1, 1) / copies)
        assert new.bias is not None
        assert conv.bias is not None
        new.bias.copy_(conv.bias / copies if scale_bias else conv.bias)
    return new


def with_task_switcher(unet: Any, seed: int) -> Any:
    """The same U-Net with a task embedding (:data:`TASK_SWITCHER`) whose weights are new."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wider = type(unet).from_config({**unet.config, **TASK_SWITCHER})
    missing, unexpected = wider.load_state_dict(unet.state_dict(), strict=False)
    assert not unexpected
    assert all(key.startswith("class_embedding.") for key in missing)
    return wider


def sincos_embedding(values: Sequence[float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """``[sin(v), cos(v)]`` of a vector, shape (1, 2 len(v)): Lotus' task switcher, Wonder3D's camera labels."""
    angles = torch.tensor([list(values)], dtype=torch.float32)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(dtype)
