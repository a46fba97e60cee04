"""A U-Net asked about larger samples than it was trained on, whose deep layers see the size they know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Level, Model, Prediction, StepInfo
from priorscope.errors import InputError


class ResolutionAware:
    """A model whose U-Net works on a coarser grid in the first steps of a run, where the composition is found.

    A U-Net that is given more pixels than in training repeats objects. Here its first downsampling is stronger by a
    factor, and the last upsampling with it, until a share of the steps is done; then the U-Net is the plain one,
    which adds the fine structure.

    Parameters
    ----------
    model : Model
        A denoiser, guided or not, that asks ``unet``.
    unet : Module
        diffusers' ``UNet2DConditionModel`` or ``UNet2DModel``. Its weights stay as they are.
    stages : sequence of (float, int)
        ``(until, factor)``, in order: the factor holds while less than the share ``until`` of the steps is done.
        ``[(0.4, 2)]`` suits twice the trained side; ``[(0.3, 4), (0.7, 2)]`` four times.

    Raises
    ------
    InputError
        For shares that do not rise from 0 to 1, factors below 1, or a U-Net without such layers.

    Notes
    -----
    Nothing is random. After Zhang et al. 2024 (HiDiffusion), the part called RAU-Net; their windowed attention is not
    here, and a factor of 4 is one downsampling here, where they share it between two.
    """

    def __init__(self, model: Model, unet: nn.Module, stages: Sequence[tuple[float, int]] = ((0.4, 2),)) -> None:
        ends = [until for until, _ in stages]
        if not stages or ends != sorted(set(ends)) or not 0 < ends[0] <= ends[-1] <= 1:
            raise InputError(f"stages that end at {ends}", remedy="Use shares that rise, above 0 and up to 1.")
        for _, factor in stages:
            with coarser(unet, factor):
                pass  # refuses what cannot work before a run begins
        self.model = model
        self.schedule = model.schedule
        self.unet = unet
        self.stages = tuple(stages)

    def __call__(
        self,
        x: torch.Tensor,
        t: Level,
        condition: Condition | None = None,
        info: StepInfo | None = None,
    ) -> Prediction:
        info = info or StepInfo()
        share = info.index / info.total
        factor = next((factor for until, factor in self.stages if share < until), 1)
        with coarser(self.unet, factor):
            return self.model(x, t, condition, info)


@contextmanager
def coarser(unet: Any, factor: int, *, level: int = 0) -> Iterator[None]:
    """Within the block, one downsampling of a diffusers U-Net divides sides by ``2 * factor`` instead of 2.

    Parameters
    ----------
    unet : Module
        As for :class:`ResolutionAware`.
    factor : int
        At least 1, which changes nothing.
    level : int
        Which downsampling, 0 for the first.

    Notes
    -----
    The downsampling's 3 x 3 convolution is dilated by ``factor`` and takes larger strides. Every upsampling goes back
    to the size that its downsampling was given, so sides need not divide evenly.
    """
    if factor != int(factor) or factor < 1:
        raise InputError(f"a grid coarser by {factor}", remedy="Use a whole number from 1.")
    if factor == 1:
        yield
        return
    pairs = _resampling_pairs(unet)
    if not 0 <= level < len(pairs):
        raise InputError(f"no downsampling {level} in a U-Net of {len(pairs)}")
    conv = pairs[level][0].conv
    if not isinstance(conv, nn.Conv2d) or (conv.kernel_size, conv.padding) != ((3, 3), (1, 1)):
        raise InputError(
            "the U-Net's downsampling is no 3 x 3 convolution padded by 1",
            remedy="Choose another level, or use the U-Net at its own size.",
        )
    plain = conv.stride, conv.dilation, conv.padding
    with ExitStack() as stack:
        for down, up in pairs:
            given = _Size()
            for hook in (down.register_forward_pre_hook(given.note), up.register_forward_pre_hook(given.restore)):
                stack.callback(hook.remove)
        try:
            conv.stride, conv.dilation, conv.padding = ((2 * factor,) * 2, (factor,) * 2, (factor,) * 2)
            yield
        finally:
            conv.stride, conv.dilation, conv.padding = plain


class _Size:
    """The size that a downsampling was given, for the upsampling that undoes it."""

    def note(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        self.size = args[0].shape[-2:]

    def restore(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Size]:
        return args[0], self.size


def _resampling_pairs(unet: Any) -> list[tuple[Any, Any]]:
    """Each downsampling with the upsampling that undoes it, from the finest on."""
    blocks = [getattr(unet, name, ()) for name in ("down_blocks", "up_blocks")]
    down = [block.downsamplers[0] for block in blocks[0] if getattr(block, "downsamplers", None)]
    up = [block.upsamplers[0] for block in blocks[1] if getattr(block, "upsamplers", None)]
    if not down or len(down) != len(up):
        raise InputError(
            f"{len(down)} downsamplings and {len(up)} upsamplings of a {type(unet).__name__} do not pair",
            remedy="Use diffusers' UNet2DConditionModel or UNet2DModel.",
        )
    if not all(hasattr(part, "conv") for part in down):
        raise InputError("the U-Net resamples by residual blocks", remedy="Use one with resampling layers.")
    return list(zip(down, reversed(up), strict=True))
