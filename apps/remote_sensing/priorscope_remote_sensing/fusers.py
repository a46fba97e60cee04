"""SatDiFuser's three fusers: global weights, localised weights, mixture of experts.

Source: Jia et al. 2025 (SatDiFuser, arXiv 2503.07890) and its code, yurujaja/SatDiFuser.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from priorscope.errors import InputError
from priorscope.features.bottleneck import Bottleneck
from priorscope_remote_sensing.decoder import Decoder, DecoderConfig, Features, Fused


def _bottlenecks(in_channels: int, config: DecoderConfig) -> nn.Sequential:
    widths = [in_channels] + [config.projection_dim] * config.res_blocks
    return nn.Sequential(*(Bottleneck(*pair, config.norm_groups) for pair in pairwise(widths)))


class _PerTap(Decoder):
    """One bottleneck a tap, shared by all steps."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        widths = [width for scale in config.taps for width in scale]
        self.bottleneck_layers = nn.ModuleList(_bottlenecks(width, config) for width in widths)

    def projected(self, features: Features) -> list[list[torch.Tensor]]:
        """Per scale and tap, the projection of all steps: (T, B, projection_dim, h_s, w_s)."""
        layers = iter(self.bottleneck_layers)
        result = []
        for stack, widths in zip(self.stacked(features), self.config.taps, strict=True):
            taps = stack.split(widths, dim=1)
            if self.config.first_tap_only:
                taps = taps[:1] * len(taps)
            result.append([next(layers)(tap).unflatten(0, (len(self.steps), -1)) for tap in taps])
        return result


class GlobalFuser(_PerTap):
    """One learned weight for each step and tap, softmaxed over all of them and over all scales together."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        self.mixing_weights = nn.Parameter(torch.ones(len(self.steps) * len(self.bottleneck_layers)))

    def fuse(self, features: Features) -> Fused:
        gate = self.mixing_weights.softmax(0)
        shares = iter(gate.unflatten(0, (len(self.steps), -1)).unbind(1))
        maps = []
        for taps in self.projected(features):
            maps.append(sum(torch.tensordot(next(shares), tap, dims=1) for tap in taps))
        return Fused(maps, [gate])


class _Gate(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.gate_conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gate_conv(x)


class LocalFuser(_PerTap):
    """Weights that differ by position: a 1x1 convolution of the mean map, softmaxed over steps and taps.

    The official code forgets to move on to a scale's next tap: see ``DecoderConfig.first_tap_only``.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        self.gate_modules = nn.ModuleList(
            _Gate(config.projection_dim, len(self.steps) * len(scale)) for scale in config.taps
        )

    def fuse(self, features: Features) -> Fused:
        maps, gates = [], []
        for gate, taps in zip(self.gate_modules, self.projected(features), strict=True):
            mean = torch.stack([tap.mean(0) for tap in taps]).mean(0)
            weights = (gate(mean) / self.config.temperature).softmax(1)
            # (B, T, taps, h, w): the published order runs through the taps of one step before the next
            shares = weights.unflatten(1, (len(self.steps), len(taps)))
            fused = torch.zeros_like(mean)
            for index, tap in enumerate(taps):
                for step in range(len(self.steps)):
                    fused = fused + shares[:, step, index, None] * tap[step]
            maps.append(fused)
            gates.append(weights)
        return Fused(maps, gates)


class _Experts(nn.Module):
    """The experts of one scale and their gate."""

    def __init__(self, in_channels: int, config: DecoderConfig) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))
        self.experts = nn.ModuleList(_bottlenecks(in_channels, config) for _ in range(config.experts))
        self.gate_network = nn.Sequential(nn.Conv2d(in_channels, config.experts, 3, padding=1))

    def forward(self, x: torch.Tensor, dense: int, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The mixture of each image (N, C, h, w), by all experts for the first ``dense``, and the gates' logits."""
        logits = self.gate_network(x).mean((2, 3)) / self.temperature
        parts = []
        if dense:
            parts.append(self._dense(x[:dense], logits[:dense]))
        if dense < len(x):
            parts.append(self._sparse(x[dense:], logits[dense:], top_k))
        return torch.cat(parts), logits

    def _dense(self, x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        shares = logits.softmax(1)[:, :, None, None, None]
        return sum(shares[:, index] * expert(x) for index, expert in enumerate(self.experts))

    def _sparse(self, x: torch.Tensor, logits: torch.Tensor, top_k: int) -> torch.Tensor:
        best, chosen = logits.topk(top_k, dim=1)
        shares = best.softmax(1)
        result: torch.Tensor | None = None
        unused: list[nn.Module] = []
        chosen = chosen.cpu()  # a GPU is waited for once, not once an expert
        for index, expert in enumerate(self.experts):
            image, place = (rows.to(x.device) for rows in torch.nonzero(chosen == index, as_tuple=True))
            if len(image) == 0:
                unused.append(expert)
                continue
            part = shares[image, place, None, None, None] * expert(x[image])
            if result is None:
                result = part.new_zeros(len(x), *part.shape[1:])
            result = result.index_add(0, image, part)
        if result is None:
            raise InputError("no images: the batch is empty")
        if self.training:
            # zero gradients rather than none: what a dense computation gives, and what several processes can average
            for expert in unused:
                for parameter in expert.parameters():
                    result = result + 0 * parameter.flatten()[0]
        return result


class ExpertFuser(Decoder):
    """A mixture of experts for each scale, on all its taps at once; the mean over the steps is the fused map.

    During the warm-up every image goes through all experts, afterwards through the ``top_k`` that its gate
    prefers. Whoever trains reports each update (:meth:`update_done`); evaluation changes nothing.

    Attributes
    ----------
    updates_done : Tensor (), int64
        Updates so far, a buffer. No part of ``state_dict`` unless :meth:`keep_counter` was called, since
        published files have no such key.
    official_counter : bool
        Parity: count every forward pass of every step, also in evaluation, and leave the warm-up in the middle
        of a forward pass, as the official code does.
    """

    updates_done: torch.Tensor

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        self.scale_moes = nn.ModuleList(_Experts(sum(scale), config) for scale in config.taps)
        self.register_buffer("updates_done", torch.zeros((), dtype=torch.int64), persistent=False)
        self.official_counter = False

    def keep_counter(self) -> None:
        """Make the counter a part of ``state_dict``, so that a resumed training goes on where it was."""
        self.register_buffer("updates_done", self.updates_done, persistent=True)

    def update_done(self) -> None:
        """Tell that the optimiser made a step."""
        self.updates_done += 1

    def end_warmup(self) -> None:
        """Go on sparsely, as a trained decoder does."""
        self.updates_done.clamp_(min=self.config.warmup_steps)

    def _dense_steps(self) -> int:
        """How many steps, from the first, are to be dense in this forward pass."""
        done = int(self.updates_done)
        if not self.official_counter:
            return len(self.steps) if done < self.config.warmup_steps else 0
        self.updates_done += len(self.steps)
        return min(max(self.config.warmup_steps - 1 - done, 0), len(self.steps))

    def fuse(self, features: Features) -> Fused:
        dense_steps = self._dense_steps()
        maps, gates = [], []
        for moe, stack in zip(self.scale_moes, self.stacked(features), strict=True):
            dense = dense_steps * (len(stack) // len(self.steps))
            mixed, logits = moe(stack, dense, self.config.top_k)
            maps.append(mixed.unflatten(0, (len(self.steps), -1)).mean(0))
            gates.append(logits.softmax(1).unflatten(0, (len(self.steps), -1)))
        return Fused(maps, gates)


def load_balance(gates: Sequence[torch.Tensor]) -> torch.Tensor:
    """How unevenly the experts are used: to be added, with a small weight, to the loss.

    Parameters
    ----------
    gates : sequence of Tensor (T, B, experts)
        Of a mixture of experts (``Fused.gates``).

    Returns
    -------
    Tensor ()
        Mean over scales and steps of ``sum_e u_e log(u_e E)``, in nats, u the batch's mean gate: 0 where all
        experts are used alike, log E where only one is.
    """
    return torch.stack([-_negative_divergence(gate).mean() for gate in gates]).mean()


def official_load_balance(gates: Sequence[torch.Tensor]) -> torch.Tensor:
    """The term as SatDiFuser's code computes and never uses it: sign reversed, the last scale only; for parity."""
    return _negative_divergence(gates[-1]).sum() / (len(gates) * len(gates[-1]))


def _negative_divergence(gate: torch.Tensor) -> torch.Tensor:
    usage = gate.mean(1)
    return -torch.special.xlogy(usage, usage * usage.shape[-1]).sum(-1)
