"""The taps that publications use, for networks of Stable Diffusion's shape (and DDAE's)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from priorscope.errors import InputError
from priorscope.features.tap import Tap, TapSet

_ATTENTION = "attentions.*.transformer_blocks.0.attn1"
#: Blocks of a Stable Diffusion U-Net that hold attention, in the order in which they run.
_ATTENDING = [
    *(f"down_blocks.{block}.attentions.{layer}" for block in range(3) for layer in range(2)),
    "mid_block.attentions.0",
    *(f"up_blocks.{block}.attentions.{layer}" for block in range(1, 4) for layer in range(3)),
]

#: ``PUBLISHED["dift"]`` and so on. Names and settings are those of the official code.
PUBLISHED: dict[str, TapSet] = {
    tapset.name: tapset
    for tapset in [
        TapSet(
            "dift",
            (Tap("up_blocks.1"),),
            levels=(261,),
            size=768,
            ensemble=8,
            posterior="sample",
            source="Tang et al. 2023; Tsingularity/dift, up_ft_index 1 of Stable Diffusion 2.1",
        ),
        TapSet(
            "satdifuser",
            (
                Tap(f"up_blocks.*.{_ATTENTION}", name="up_blocks_{0}_attn1_{1}"),
                Tap("up_blocks.*.resnets.*", "branch", name="up_blocks_{0}_conv2_{1}"),
            ),
            levels=(21, 61, 161),
            size=256,
            posterior="sample",
            source="Jia et al. 2025, yurujaja/SatDiFuser: the levels that its save steps 47, 45, 40 come to",
        ),
        TapSet(
            "hyperfeatures",
            (Tap("up_blocks.*.resnets.*", "branch", name="up_blocks_{0}_conv2_{1}"),),
            size=512,
            posterior="sample",
            source="Luo et al. 2023, diffusion_hyperfeatures: 12 layers, on DDIM inversion",
        ),
        TapSet(
            "sd-dino",
            (
                Tap("up_blocks.0.resnets.1", name="s5"),
                Tap("up_blocks.1.attentions.1", name="s4"),
                Tap("up_blocks.2.attentions.1", name="s3"),
            ),
            levels=(100,),
            size=960,
            source="Zhang et al. 2023, Junyi42/sd-dino, without ODISE's implicit captioner",
        ),
        TapSet(
            "odise",
            (
                Tap("up_blocks.0.resnets.1", name="s5"),
                Tap("up_blocks.1.attentions.1", name="s4"),
                Tap("up_blocks.2.attentions.1", name="s3"),
                Tap("up_blocks.3.attentions.1", name="s2"),
            ),
            levels=(100,),
            source="Xu et al. 2023 (ODISE), decoder taps, without the implicit captioner",
        ),
        TapSet(
            "ddae",
            (Tap("up.*.attn", name="out_{n}"),),
            levels=(10,),
            source="Xiang et al. 2023, FutureXiang/ddae: every up block of DDPM's U-Net on CIFAR-10, step 11 from 1",
        ),
        TapSet(
            "sdpose-body",
            (Tap("up_blocks.3"),),
            source="Liang et al. 2025 (SDPose-Body): 320 channels, before conv_norm_out",
        ),
        TapSet("sdpose-wholebody", (Tap("up_blocks.2"),), source="Liang et al. 2025 (SDPose-Wholebody): 640 channels"),
        TapSet(
            "primedepth-attention",
            tuple(
                Tap(f"{block}.transformer_blocks.0.{layer}", "attention", name=f"{block}.{kind}")
                for block in _ATTENDING
                for layer, kind in (("attn1", "self"), ("attn2", "cross"))
            ),
            levels=(1,),
            posterior="sample",
            source="Zavadski et al. 2024 (PrimeDepth), prepare_attn_map_features",
        ),
    ]
}


def find_taps(taps: str | Tap | TapSet | Sequence[Tap | str]) -> TapSet:
    """A tap set from the name of a published one, from a module path, or from taps and module paths.

    Raises
    ------
    InputError
        For an unknown name or an empty list.
    """
    if isinstance(taps, TapSet):
        return taps
    if isinstance(taps, Tap):
        return TapSet("custom", (taps,))
    if isinstance(taps, str):
        if taps in PUBLISHED:
            return PUBLISHED[taps]
        close = difflib.get_close_matches(taps, PUBLISHED, n=2)
        if "." in taps or ("_" in taps and not close):
            return TapSet("custom", (Tap(taps),))
        hint = f"Did you mean {' or '.join(close)}?" if close else f"Published sets: {', '.join(PUBLISHED)}."
        raise InputError(f"no tap set is called {taps!r}", remedy=f"{hint} A module path works too.")
    return TapSet("custom", tuple(tap if isinstance(tap, Tap) else Tap(tap) for tap in taps))
