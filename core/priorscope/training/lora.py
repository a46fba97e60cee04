"""Low-rank updates instead of all weights (LoRA, Hu et al. 2021), through peft."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from priorscope.errors import InputError

#: Projections of attention, as diffusers and transformers name them.
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")


def add_lora(model: nn.Module, rank: int, *, seed: int = 0, targets: tuple[str, ...] = TARGETS) -> None:
    """Freeze ``model`` and give its attention projections trainable updates of rank ``rank``, in place.

    The updates start at zero, so that the model answers as before; their scale is 1.

    Raises
    ------
    InputError
        If peft is missing, or the model has no layer of these names.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise InputError(
            "--lora needs peft, which is not installed", remedy="pip install 'priorscope[lora]'."
        ) from None
    model.requires_grad_(False)
    found = tuple(name for name in targets if any(f".{key}".endswith("." + name) for key, _ in model.named_modules()))
    if not found:
        raise InputError(f"{type(model).__name__} has no attention projections for --lora", remedy="Train all weights.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(found)), model)


@contextmanager
def without_lora(model: nn.Module) -> Iterator[None]:
    """Within the block the model is a plain one, its updates added to its weights; does nothing without LoRA."""
    try:
        from peft.tuners.lora import LoraLayer
    except ImportError:
        yield
        return
    adapted = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    if not adapted:
        yield
        return
    for name, layer in adapted.items():
        merged = copy.deepcopy(layer)
        merged.merge()
        _replace(model, name, merged.get_base_layer())
    try:
        yield
    finally:
        for name, layer in adapted.items():
            _replace(model, name, layer)  # type: ignore[arg-type]


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)
