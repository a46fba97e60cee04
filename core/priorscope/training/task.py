"""What a loop trains: an app's method, as a module whose forward pass is the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from priorscope.evaluation.run_folder import RunFolder
from priorscope.training.checkpoint import Stateful


class Task(nn.Module):
    """Derive from it: give ``forward``, ``save`` and, if there is held-out data, ``validate``.

    That the loss is the forward pass of one module lets accelerate wrap it: gradients are averaged over
    processes and precision is mixed without the method knowing.

    Parameters
    ----------
    model : Module
        The network whose weights change. Whatever else the loss needs (a frozen autoencoder, a prompt's state)
        should be hidden from ``parameters()``, or not require gradients.

    Attributes
    ----------
    step : int
        The optimiser step that is being done, from 0; the loop sets it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.step = 0

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Scalars by name; ``loss`` is what is minimised, the others are drawn beside it.

        All randomness must come from the batch (for example its ``seed`` column), or from torch's global
        generator, which the loop seeds at every step.
        """
        raise NotImplementedError

    def checkpoint_parts(self) -> dict[str, Stateful]:
        """What a resumed run needs besides the model, by name: a curriculum, weights that are trained and not saved."""
        return {}

    def told(self, means: dict[str, float]) -> None:
        """Take in the mean of each scalar since the last row of the log; called on all processes with equal numbers."""

    def validate(self, run: RunFolder, step: int) -> dict[str, float]:
        """Figures on held-out data, by name; may leave pictures in ``run.figures``.

        Called on the first process without gradients, in eval mode, with the averaged weights in place.
        """
        return {}

    def reason_to_end(self, run: RunFolder) -> str:
        """Why training may end before its last step, such as figures that have got no better; "" while it may not.

        Asked on the first process after each look, whose row is in ``run.history()`` by then, and when a run is
        resumed: the answer must follow from what is on disk.
        """
        return ""

    def save(self, folder: Path) -> None:
        """Write the model as users will load it; called as `validate` is, for a folder that does not exist yet."""
        raise NotImplementedError
