"""Where a model runs and in what precision, from what the user asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from priorscope.errors import InputError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def resolve_device(name: str = "auto") -> torch.device:
    """``"auto"`` is the first GPU where there is one; else a torch device name such as ``"cuda:1"``."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r}", remedy="Use 'auto', 'cpu', 'cuda' or 'cuda:N'.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name!r}: torch {torch.__version__} sees no GPU here", remedy="Use --device cpu.")
    return device


def resolve_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """``"auto"`` is bfloat16 on GPUs that have it (float16 on older ones) and float32 on the CPU."""
    import torch

    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    try:
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    except KeyError:
        raise InputError(f"precision {precision!r}", remedy="Use 'auto', 'float32', 'bfloat16' or 'float16'.") from None


def inference_layout(device: torch.device) -> torch.memory_format:
    """The memory layout that convolutional networks run best in: channels_last on a GPU only.

    On a CPU torch's GroupNorm loses four digits in channels_last (it subtracts squares), and convolutions lose twice
    as many as in the usual layout.
    """
    import torch

    return torch.channels_last if device.type == "cuda" else torch.contiguous_format
