"""Encoder propagation: the encoder half of a U-Net runs at key steps, the decoder at all."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from priorscope.caching.policies import Policy
from priorscope.caching.session import Arguments, CachedRun, Cut, Method
from priorscope.caching.unet import (
    KNOWN,
    Recall,
    check_arguments,
    check_unet,
    is_unet,
    run_sibling,
    sibling,
    skips_of,
    strides,
)
from priorscope.diffusion.denoiser import StepInfo
from priorscope.errors import InputError


class EncoderPropagation(Method):
    """Reuse the encoder half and the middle of a U-Net; the decoder is told the step's own level.

    A step that is not a key step does not look at its noisy sample: only the level and the condition are new.

    Parameters
    ----------
    policy : Policy, int, str or iterable of int
        The key steps; ``"50ls"`` is the published set for 50 steps.
    order : int
        Of a Taylor expansion of the encoder's features; 0, as published, repeats them.
    parallel : sequence of float, optional
        The levels of the run, as ``sample`` is given them. All steps up to the next key step are then decoded in one
        batch right after a key step: equal to rounding, faster where a GPU is not busy, with so many times the
        decoder's memory. Only with solvers that ask once a step, and U-Nets that are told the denoiser's own labels.

    Notes
    -----
    Knows diffusers' UNet2DConditionModel and UNet2DModel, folded or not. It keeps all skip features, which the network
    hands on anyway, without copying. Source: Faster Diffusion (Li et al. 2024); its injection of noise is
    :class:`~priorscope.caching.PriorNoise`.

    Examples
    --------
    ``with EncoderPropagation("50ls").on(denoiser): sample(denoiser, x, times)``
    """

    known = KNOWN

    def __init__(
        self,
        policy: Policy | int | str | Iterable[int] = "50ls",
        *,
        order: int = 0,
        parallel: Sequence[float] | None = None,
    ) -> None:
        super().__init__(policy, order)
        if self.policy.by_change:
            raise InputError(
                "a threshold looks at the encoder, which is what is to be saved", remedy="Use an interval or key steps."
            )
        self.parallel = None if parallel is None else [float(t) for t in parallel]

    def knows(self, network: nn.Module) -> bool:
        return is_unet(network)

    def cut(self, network: nn.Module) -> Cut:
        check_unet(network)
        return _Decoder(network) if self.parallel is None else _Ahead(network, self.policy, self.parallel)


class _Decoder(Cut):
    """A U-Net whose encoder and middle recall what they gave."""

    def __init__(self, unet: Any) -> None:
        self.unet = unet
        self.start, self.encoded, self.middle = Recall(), Recall(), Recall()
        self.decoder = sibling(unet, conv_in=self.start, down_blocks=[self.encoded], mid_block=self.middle)
        self.strides = strides(unet)
        self.names = ["start"]
        for level, block in enumerate(unet.down_blocks):
            count = len(block.resnets) + len(block.downsamplers or ())
            self.names += [f"skip {level}.{layer}" for layer in range(count)]

    def watch(self, run: CachedRun, stack: ExitStack) -> None:
        def leaves(name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                run.store(name, output)

            return hook

        def skips(level: int) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                for layer, value in enumerate(skips_of(output)):
                    run.store(f"skip {level}.{layer}", value)

            return hook

        for level, block in enumerate(self.unet.down_blocks):
            stack.callback(block.register_forward_hook(skips(level)).remove)
        stack.callback(self.unet.conv_in.register_forward_hook(leaves("start")).remove)
        stack.callback(self.unet.mid_block.register_forward_hook(leaves("middle")).remove)

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        check_arguments(kwargs)
        if strides(self.unet) != self.strides:
            raise InputError(
                "a decoder whose encoder does not run is not told a coarser grid", remedy="Use DeepCache with it."
            )

    def partial(self, run: CachedRun, info: StepInfo, arguments: Arguments) -> Any:
        return self.decode(run, [info], *arguments)

    def decode(self, run: CachedRun, steps: list[StepInfo], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The decoder's answer at ``steps``, whose rows follow each other."""

        def recalled(name: str) -> torch.Tensor:
            values = [run.forecast(name, info) for info in steps]
            return values[0] if len(values) == 1 else torch.cat(values)

        start, *skips = [recalled(name) for name in self.names]
        self.start.value, self.encoded.value = start, (skips[-1], tuple(skips))
        self.middle.value = recalled("middle")
        try:
            return run_sibling(self.unet, self.decoder, args, kwargs)
        finally:
            self.start.value = self.encoded.value = self.middle.value = None


class _Ahead(_Decoder):
    """The same where the steps up to the next key step are decoded together."""

    def __init__(self, unet: Any, policy: Policy, times: list[float]) -> None:
        super().__init__(unet)
        self.policy = policy
        self.times = times
        self.signature = inspect.signature(type(unet).forward)
        self.outputs: dict[tuple[tuple[int, int], int], torch.Tensor] = {}

    def watch(self, run: CachedRun, stack: ExitStack) -> None:
        super().watch(run, stack)
        stack.callback(self.outputs.clear)

    def after_full(self, run: CachedRun, info: StepInfo, arguments: Arguments, output: Any) -> None:
        if info.total != len(self.times) - 1:
            raise InputError(
                f"a run of {info.total} steps, but parallel= lists {len(self.times)} levels",
                remedy="Give it the levels that sample() is given.",
            )
        if info.call:
            raise InputError("a solver that asks twice a step cannot be decoded ahead", remedy="Leave parallel= out.")
        steps = []
        for index in range(info.index + 1, info.total):
            step = replace(info, index=index)
            if self.policy.should_compute(step):
                break
            steps.append(step)
        self.outputs = {key: value for key, value in self.outputs.items() if key[0] != run.stream}
        if not steps:
            return
        bound = self.signature.bind(self.unet, *arguments[0], **arguments[1])
        given = {**bound.arguments, "return_dict": False}
        del given["self"]
        sample = given["sample"]
        label = [run.denoiser.label(self.times[step.index], sample) for step in (info, *steps)]
        told = torch.as_tensor(given["timestep"], device=sample.device)
        if not bool((label[0].to(told) == told).all()):
            raise InputError(
                f"at step {info.index} the U-Net is told {told.flatten()[0]:g}, not the label {label[0][0]:g} of the "
                f"level {self.times[info.index]:g} in parallel=",
                remedy="Give it the levels that sample() is given; leave it out where labels are changed on the way.",
            )
        given = {name: _repeated(value, len(sample), len(steps)) for name, value in given.items()}
        given["timestep"] = torch.cat(label[1:]).to(told)
        joint = self.decode(run, steps, (), given)[0]
        for step, part in zip(steps, joint.split(len(sample)), strict=True):
            self.outputs[run.stream, step.index] = part

    def partial(self, run: CachedRun, info: StepInfo, arguments: Arguments) -> Any:
        output = self.outputs.pop((run.stream, info.index))
        if arguments[1].get("return_dict", True):
            from diffusers.models.unets.unet_2d import UNet2DOutput

            return UNet2DOutput(sample=output)
        return (output,)


def _repeated(value: Any, rows: int, times: int) -> Any:
    """Per-item tensors for ``times`` steps, in nested dicts too."""
    if isinstance(value, dict):
        return {name: _repeated(part, rows, times) for name, part in value.items()}
    if isinstance(value, torch.Tensor) and value.ndim and len(value) == rows:
        return value.repeat(times, *[1] * (value.ndim - 1))
    return value
