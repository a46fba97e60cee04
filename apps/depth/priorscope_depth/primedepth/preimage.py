"""The preimage: all that the frozen U-Net tells about a picture on one pass, read at its decoder and its attention."""

from __future__ import annotations

import torch

from priorscope.diffusion.condition import Condition
from priorscope.diffusion.denoiser import Denoiser
from priorscope.features.forward import Features, Tapped
from priorscope.features.tap import Tap, TapSet
from priorscope_depth.primedepth.architecture import Step

#: The step of the training schedule that pictures are noised to, counted from 0; the network is told the same number.
LEVEL = 1.0


def preimage_taps(steps: list[Step]) -> TapSet:
    """Where a model looks: the input of each decoder block, and the attention that the steps name.

    Maps are called by their paths; attention by its transformer's path with ``.self`` and ``.cross``.
    """
    taps = [Tap(step.feature, "input", name=step.feature) for step in steps]
    for path in sorted({path for step in steps for path in (step.previous, step.mirrored) if path is not None}):
        for layer, kind in (("attn1", "self"), ("attn2", "cross")):
            taps.append(Tap(f"{path}.transformer_blocks.0.{layer}", "attention", name=f"{path}.{kind}"))
    return TapSet("primedepth", tuple(taps), levels=(LEVEL,), posterior="sample", source="Zavadski et al. 2024")


class PreimageReader:
    """``reader(x, text)``: the preimage of noised latents.

    Parameters
    ----------
    denoiser : Denoiser
        Asks the frozen U-Net.
    steps : list of Step
    task : Tensor (1, n), optional
        Task switcher, for U-Nets that have one.

    Notes
    -----
    The U-Net is left at the input of its last block: what would come after it is in no preimage. Attention over N
    positions costs memory in proportion to N, not to N squared (:mod:`priorscope.features.attention`).
    """

    def __init__(self, denoiser: Denoiser, steps: list[Step], task: torch.Tensor | None = None) -> None:
        self.denoiser = denoiser
        self.task = Condition() if task is None else Condition({"task": task}, shared=["task"])
        unet = denoiser.network.unet  # type: ignore[attr-defined]
        self.tapped = Tapped(unet, preimage_taps(steps))

    def __call__(self, x: torch.Tensor, text: torch.Tensor) -> Features:
        """Maps by name, float32.

        Parameters
        ----------
        x : Tensor (B, 4, h, w)
            Latents at :data:`LEVEL`.
        text : Tensor (B, tokens, width)
        """
        condition = self.task.merged(Condition({"text": text})).to(x.device)
        return self.tapped.watch(lambda: self.denoiser.raw(x, LEVEL, condition))[1]
