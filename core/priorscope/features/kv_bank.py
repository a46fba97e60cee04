"""Self-attention that also looks at another image: keys and values of one pass, kept for the next (KV fusion)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from priorscope.errors import InputError


class KeyValueBank:
    """Remember the keys and values of every self-attention in one pass, and attend to them in another.

    Use it as ``with bank.remembering(): unet(reference, ...)``, then ``with bank.recalling(): unet(target, ...)``.
    In the second pass each self-attention has its own tokens first and the remembered ones after them. Outside of
    the two the network is as it was. Gradients flow through the bank.

    Parameters
    ----------
    network : nn.Module
        With diffusers' ``Attention`` modules; cross-attention stays as it is.

    Notes
    -----
    Source: Zhu et al. 2024 (DiffewS). The official code takes several references in its xformers processor only; this
    one does with any backend of PyTorch's fused attention.
    """

    def __init__(self, network: nn.Module) -> None:
        from diffusers.models.attention_processor import Attention

        self.layers = {
            name: module
            for name, module in network.named_modules()
            if isinstance(module, Attention) and not module.is_cross_attention
        }
        if not self.layers:
            raise InputError(f"{type(network).__name__} has no self-attention")
        for name, layer in self.layers.items():
            if any(getattr(layer, part, None) is not None for part in ("group_norm", "spatial_norm", "norm_q")):
                raise InputError(f"self-attention {name!r} normalises its input, which KV fusion does not know")
        self.stored: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    @contextmanager
    def remembering(self) -> Iterator[KeyValueBank]:
        """Forget what was stored; the passes inside store theirs, of which the last stays."""
        self.stored.clear()
        with self._processors(writing=True, shots=1):
            yield self

    @contextmanager
    def recalling(self, shots: int = 1) -> Iterator[KeyValueBank]:
        """Attend to what is stored.

        Parameters
        ----------
        shots : int
            References an item. The remembered batch had ``shots`` rows for each item, an item's rows next to each
            other, or ``shots`` rows that all items share.
        """
        if shots < 1:
            raise InputError(f"{shots} shots", remedy="Use at least 1.")
        if set(self.stored) != set(self.layers):
            raise InputError("nothing is remembered yet", remedy="Run the reference inside `remembering()` first.")
        with self._processors(writing=False, shots=shots):
            yield self

    @contextmanager
    def _processors(self, *, writing: bool, shots: int) -> Iterator[None]:
        before = {name: layer.processor for name, layer in self.layers.items()}
        try:
            for name, layer in self.layers.items():
                layer.processor = _Fusing(self.stored, name, writing, shots)
            yield
        finally:
            for name, layer in self.layers.items():
                layer.processor = before[name]


class _Fusing:
    """The attention processor of one layer."""

    def __init__(
        self, stored: dict[str, tuple[torch.Tensor, torch.Tensor]], name: str, writing: bool, shots: int
    ) -> None:
        self.stored = stored
        self.name = name
        self.writing = writing
        self.shots = shots

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if attention_mask is not None or encoder_hidden_states is not None:
            raise InputError("KV fusion was given a mask or other tokens for a self-attention")
        query, key, value = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        if self.writing:
            self.stored[self.name] = (key, value)
        else:
            kept = [self._per_item(tokens, len(query)) for tokens in self.stored[self.name]]
            key, value = torch.cat([key, kept[0]], dim=1), torch.cat([value, kept[1]], dim=1)
        query, key, value = (tokens.unflatten(2, (attn.heads, -1)).transpose(1, 2) for tokens in (query, key, value))
        mixed = functional.scaled_dot_product_attention(query, key, value, scale=attn.scale)
        output = attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).flatten(2)))
        if attn.residual_connection:
            output = output + hidden_states
        return output / attn.rescale_output_factor

    def _per_item(self, tokens: torch.Tensor, batch: int) -> torch.Tensor:
        """Remembered tokens (rows, N, C) as (batch, shots N, C)."""
        if len(tokens) == self.shots:
            return tokens.flatten(0, 1).expand(batch, -1, -1)
        if len(tokens) == batch * self.shots:
            return tokens.unflatten(0, (batch, self.shots)).flatten(1, 2)
        raise InputError(f"{len(tokens)} remembered images for a batch of {batch} with {self.shots} shots")
