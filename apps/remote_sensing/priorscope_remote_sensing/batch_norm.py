"""Batch norm whose batch is that of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed, nn


def process_count() -> int:
    """Processes of this training; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        # every process's loss depends on every process's share
        return _SumOverProcesses.forward(context, gradients[0])


def _sum(value: torch.Tensor) -> torch.Tensor:
    return _SumOverProcesses.apply(value)


class BatchNorm(nn.BatchNorm2d):
    """``BatchNorm2d`` that, while several processes train, takes mean and variance over all their images.

    torch's ``SyncBatchNorm`` does so on GPUs only, and is another class; this one has the same weights and, in
    one process or in evaluation, is the plain layer. Training then depends on the global batch alone.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or process_count() == 1:
            return super().forward(input)
        axes, x = (0, 2, 3), input.float()
        count = _sum(x.new_tensor(x.numel() / x.shape[1]))
        mean = _sum(x.sum(axes)) / count
        centred = x - mean[:, None, None]
        # a second sum rather than E[x^2] - E[x]^2, which float32 does not survive
        variance = _sum(centred.square().sum(axes)) / count
        with torch.no_grad():
            self._remember(mean, variance * count / (count - 1))
        scale = self.weight / (variance + self.eps).sqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
